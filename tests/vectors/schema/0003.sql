BEGIN TRANSACTION;
CREATE TABLE audit_rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    remote_id INTEGER NOT NULL,       -- the row's number on that server
    realm INTEGER NOT NULL,           -- the realm's number on its server
    realm_id INTEGER,                 -- the realm's row, if it was known
    event_type INTEGER NOT NULL,      -- what happened, in Zulip's numbers
    event_time REAL NOT NULL,         -- when
    backfilled INTEGER NOT NULL CHECK (backfilled IN (0, 1)),  -- 1: reconstructed by the server
    extra_data TEXT NOT NULL,         -- JSON: numbers of users by role
    humans INTEGER                    -- the sum of these, bots left out; NULL: it has none
) STRICT;
INSERT INTO "audit_rows" VALUES(1,1,1,2,1,101,3600.0,0,'{"10": {"11": {"100": 1, "200": 0, "300": 0, "400": 5, "600": 1}}}',7);
CREATE TABLE count_writers (
    writer TEXT PRIMARY KEY,          -- the random name of one start of one process
    number INTEGER NOT NULL,          -- of its latest addition
    added_at REAL NOT NULL            -- when that was
) STRICT;
INSERT INTO "count_writers" VALUES('w',1,1.0);
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
CREATE TABLE installation_counts (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    property TEXT NOT NULL,           -- what was counted
    subgroup TEXT,                    -- of which part, if it has parts
    end_time REAL NOT NULL,           -- until when
    value INTEGER NOT NULL            -- how many
) STRICT;
INSERT INTO "installation_counts" VALUES(1,'messages_sent:is_bot:hour',NULL,3600.0,7);
CREATE TABLE leases (
    key TEXT PRIMARY KEY,             -- whose: a server's uuid
    log TEXT NOT NULL,                -- when, how many, and how many of them may be unused (JSON)
    touched_at REAL NOT NULL          -- when it changed last
) STRICT;
INSERT INTO "leases" VALUES('11111111-1111-4111-8111-111111111111','[[1000000000,1,0]]',1000.0);
CREATE TABLE local_realms (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    realm INTEGER NOT NULL,           -- the realm's number on its server
    users INTEGER NOT NULL,           -- human ones, by its newest audit row
    PRIMARY KEY (server_id, realm)
) STRICT;
INSERT INTO "local_realms" VALUES(1,2,7);
CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose pushes
    day INTEGER NOT NULL,             -- on which day in UTC: days since 1970-01-01
    provider TEXT NOT NULL,           -- the section of the configuration; none: no section serves it
    app TEXT NOT NULL,                -- ios_app_id, empty for FCM; other: one too many to be told
    kind TEXT NOT NULL,               -- how they ended: delivered, gone and so on; or retry
    reason TEXT NOT NULL,             -- why, in a word of ours or a documented one of the provider's
    count INTEGER NOT NULL,           -- how many
    first_at REAL NOT NULL,           -- when the first of them
    last_at REAL NOT NULL             -- when the last
) STRICT;
INSERT INTO "outcomes" VALUES(1,1,1,'apns','org.example.app','delivered','',1,1.0,1.0);
CREATE TABLE push_counts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose pushes
    realm_id INTEGER NOT NULL,        -- the realm's row; 0: the server as a whole
    day INTEGER NOT NULL,             -- on which day in UTC: days since 1970-01-01
    received INTEGER NOT NULL,        -- for how many phones a push was asked for
    forwarded INTEGER NOT NULL        -- how many of them their provider took
) STRICT;
INSERT INTO "push_counts" VALUES(1,1,0,1,1,1);
CREATE TABLE realm_counts (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    realm INTEGER NOT NULL,           -- the realm's number on its server
    realm_id INTEGER,                 -- the realm's row, if it was known
    property TEXT NOT NULL,           -- what was counted
    subgroup TEXT,                    -- of which part, if it has parts
    end_time REAL NOT NULL,           -- until when
    value INTEGER NOT NULL            -- how many
) STRICT;
INSERT INTO "realm_counts" VALUES(1,2,1,'messages_sent:is_bot:hour','true',3600.0,7);
CREATE TABLE realm_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of events
    realm_id INTEGER NOT NULL REFERENCES realms (id) ON DELETE CASCADE,  -- whose
    event TEXT NOT NULL,              -- created, changed, deleted, restored, plan_changed
    attribute TEXT,                   -- the column that changed; NULL unless event is changed
    old_value TEXT,                   -- what it held before, as text
    new_value TEXT,                   -- and what since, as text
    happened_at REAL NOT NULL         -- when
) STRICT;
INSERT INTO "realm_events" VALUES(1,1,'created',NULL,NULL,NULL,1.0);
CREATE TABLE realms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- ours alone, never on the wire
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- on which server
    uuid TEXT NOT NULL UNIQUE,        -- realm_uuid, canonical lower case, of one server only
    local_id INTEGER NOT NULL,        -- its number on its server, by the latest upload
    host TEXT NOT NULL,               -- its host name
    name TEXT NOT NULL,               -- as its users see it
    org_type INTEGER NOT NULL,        -- what kind of organization it is, in Zulip's numbers
    date_created REAL NOT NULL,       -- when it was created, by its first upload
    deactivated INTEGER NOT NULL CHECK (deactivated IN (0, 1)),  -- 1: by its administrators
    is_system_bot_realm INTEGER NOT NULL CHECK (is_system_bot_realm IN (0, 1)),  -- 1: Zulip's own
    authentication_methods TEXT NOT NULL,  -- how its users log in: JSON, name to true or false
    owner_secret_digest BLOB NOT NULL,  -- SHA-256 of its uuid_owner_secret, by its first upload
    locally_deleted INTEGER NOT NULL DEFAULT 0 CHECK (locally_deleted IN (0, 1)),  -- 1: not listed
    users INTEGER NOT NULL DEFAULT 0,  -- human ones, by the newest audit row linked to it
    plan_type INTEGER NOT NULL DEFAULT 100,  -- set by the operator
    plan_ends_at REAL,                -- when the plan is to end; NULL: it is not
    created_at REAL NOT NULL          -- when we first heard of it
) STRICT;
INSERT INTO "realms" VALUES(1,1,'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa',2,'chat.example.org','Example',10,500.0,0,0,'{"Email": true}',X'7589FA5717432A591AE536DC113E5BB30F61765C9AED767E329F14D1BFEF187E',0,7,100,NULL,1.0);
CREATE TABLE schema_steps (
    step INTEGER PRIMARY KEY,         -- the number in the step's file name
    applied_at REAL NOT NULL          -- when
) STRICT;
INSERT INTO "schema_steps" VALUES(1,1000.0);
INSERT INTO "schema_steps" VALUES(2,1000.0);
INSERT INTO "schema_steps" VALUES(3,1000.0);
CREATE TABLE sealed_devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- device_id on the wire to 11.x servers
    realm_id INTEGER NOT NULL REFERENCES realms (id) ON DELETE CASCADE,  -- whose
    token_id BLOB NOT NULL CHECK (length(token_id) = 8),  -- the start of the token's SHA-256
    kind INTEGER NOT NULL CHECK (kind IN (1, 2)),  -- 1 APNs, 2 FCM
    token TEXT NOT NULL,              -- the device token
    app_id TEXT,                      -- ios_app_id; NULL for FCM
    push_account_id INTEGER,          -- the number that an 11.x server registered it by
    registered_at REAL NOT NULL,      -- when it registered last
    expired_at REAL                   -- when the token was found dead; NULL: it lives
) STRICT;
INSERT INTO "sealed_devices" VALUES(1,1,X'3132333435363738',2,'decade',NULL,NULL,1.0,NULL);
CREATE TABLE secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),                -- there is one row
    secret BLOB NOT NULL CHECK (length(secret) = 32)  -- 32 random bytes, never changed
) STRICT;
INSERT INTO "secret" VALUES(1,X'1C6B1B86460F7476D776DB95E196C7AB4416F3F14442FFAD5715A94E12B9A62A');
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
, old_key_digest BLOB, old_key_until REAL NOT NULL DEFAULT 0, version TEXT, merge_base TEXT, feature_level INTEGER, data_at REAL, users INTEGER NOT NULL DEFAULT 0, plan_type INTEGER NOT NULL DEFAULT 100, plan_ends_at REAL, requests_per_minute INTEGER, realm_count_mark INTEGER NOT NULL DEFAULT 0, installation_count_mark INTEGER NOT NULL DEFAULT 0, audit_log_mark INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "servers" VALUES(1,'11111111-1111-4111-8111-111111111111','one.example.org','e@x.org',X'6B',0,1.0,NULL,0.0,'11.0','abcdef',421,1.0,7,100,NULL,NULL,1,1,1);
CREATE UNIQUE INDEX servers_active_hostname ON servers (hostname) WHERE deactivated = 0;
CREATE INDEX server_events_of_server ON server_events (server_id, id);
CREATE UNIQUE INDEX devices_by_user_uuid ON devices (server_id, user_uuid, kind, token_key)
    WHERE user_uuid IS NOT NULL;
CREATE UNIQUE INDEX devices_by_user_id ON devices (server_id, user_id, kind, token_key)
    WHERE user_id IS NOT NULL;
CREATE INDEX devices_by_token ON devices (token_key);
CREATE INDEX realms_of_server ON realms (server_id);
CREATE INDEX realm_events_of_realm ON realm_events (realm_id, id);
CREATE UNIQUE INDEX realm_counts_once ON realm_counts
    (server_id, realm, property, end_time, (COALESCE(subgroup, '')), (subgroup IS NULL));
CREATE INDEX realm_counts_unlinked ON realm_counts (server_id, realm) WHERE realm_id IS NULL;
CREATE UNIQUE INDEX installation_counts_once ON installation_counts
    (server_id, property, end_time, (COALESCE(subgroup, '')), (subgroup IS NULL));
CREATE INDEX audit_rows_of_server ON audit_rows (server_id, id);
CREATE INDEX audit_rows_unlinked ON audit_rows (server_id, realm) WHERE realm_id IS NULL;
CREATE INDEX audit_rows_with_users ON audit_rows (realm_id, id) WHERE humans IS NOT NULL;
CREATE UNIQUE INDEX sealed_devices_once ON sealed_devices (realm_id, token_id);
CREATE INDEX sealed_devices_live ON sealed_devices (realm_id) WHERE expired_at IS NULL;
CREATE INDEX sealed_devices_by_token ON sealed_devices (token_id);
CREATE UNIQUE INDEX outcomes_once ON outcomes (server_id, day, provider, app, kind, reason);
CREATE INDEX outcomes_by_day ON outcomes (day);
CREATE UNIQUE INDEX push_counts_once ON push_counts (server_id, realm_id, day);
CREATE INDEX push_counts_by_day ON push_counts (day);
CREATE INDEX count_writers_by_time ON count_writers (added_at);
CREATE INDEX leases_by_time ON leases (touched_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('servers',1);
INSERT INTO "sqlite_sequence" VALUES('server_events',1);
INSERT INTO "sqlite_sequence" VALUES('devices',1);
INSERT INTO "sqlite_sequence" VALUES('realms',1);
INSERT INTO "sqlite_sequence" VALUES('realm_events',1);
INSERT INTO "sqlite_sequence" VALUES('audit_rows',1);
INSERT INTO "sqlite_sequence" VALUES('sealed_devices',1);
INSERT INTO "sqlite_sequence" VALUES('outcomes',1);
INSERT INTO "sqlite_sequence" VALUES('push_counts',1);
COMMIT;
