BEGIN TRANSACTION;
CREATE TABLE devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of first registration
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    user_id INTEGER,                  -- the user's number on that server, or
    user_uuid TEXT,                   -- the user's UUID; exactly one of the two
    kind INTEGER NOT NULL CHECK (kind IN (1, 2)),  -- 1 APNs, 2 FCM
    token TEXT NOT NULL,              -- the device token, spelled as seen first
    token_key BLOB NOT NULL,          -- 16 bytes of its SHA-256, an APNs token lower-cased before
    app_id TEXT,                      -- ios_app_id; NULL for FCM
    registered_at REAL NOT NULL,      -- when it registered last
    CHECK ((user_id IS NULL) <> (user_uuid IS NULL))
) STRICT;
INSERT INTO "devices" VALUES(1,1,NULL,'3b5a8c6e-0d8f-4c7e-9a51-2f1f3e6d7c80',1,'c0ffee',X'FB0288872031FC4818C03A7253BD3A78','org.x',1.0);
CREATE TABLE schema_steps (
    step INTEGER PRIMARY KEY,         -- the number in the step's file name
    applied_at REAL NOT NULL          -- when
) STRICT;
INSERT INTO "schema_steps" VALUES(1,1000.0);
CREATE TABLE secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),                -- there is one row
    secret BLOB NOT NULL CHECK (length(secret) = 32)  -- 32 random bytes, never changed
) STRICT;
CREATE TABLE server_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of events
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    event TEXT NOT NULL,              -- created, updated (host name or contact), key_rotated
    happened_at REAL NOT NULL         -- when
) STRICT;
INSERT INTO "server_events" VALUES(1,1,'created',1.0);
CREATE TABLE servers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- ours alone, never on the wire
    uuid TEXT NOT NULL UNIQUE,        -- zulip_org_id, canonical lower case
    hostname TEXT NOT NULL,           -- as its administrator spelled it
    contact_email TEXT NOT NULL,      -- its administrator's address
    key_digest BLOB NOT NULL,         -- of zulip_org_key, which is not stored itself
    deactivated INTEGER NOT NULL DEFAULT 0 CHECK (deactivated IN (0, 1)),  -- 1: refused everywhere
    created_at REAL NOT NULL          -- when it registered first
) STRICT;
INSERT INTO "servers" VALUES(1,'11111111-1111-4111-8111-111111111111','one.example.org','e@x.org',X'6B',0,1.0);
CREATE UNIQUE INDEX servers_active_hostname ON servers (hostname) WHERE deactivated = 0;
CREATE INDEX server_events_of_server ON server_events (server_id, id);
CREATE UNIQUE INDEX devices_by_user_uuid ON devices (server_id, user_uuid, kind, token_key)
    WHERE user_uuid IS NOT NULL;
CREATE UNIQUE INDEX devices_by_user_id ON devices (server_id, user_id, kind, token_key)
    WHERE user_id IS NOT NULL;
CREATE INDEX devices_by_token ON devices (token_key);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('servers',1);
INSERT INTO "sqlite_sequence" VALUES('server_events',1);
INSERT INTO "sqlite_sequence" VALUES('devices',1);
COMMIT;
