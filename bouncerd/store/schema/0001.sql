-- Servers, their devices, and the store's own secret.
--
-- Written once for SQLite and PostgreSQL, which reads INTEGER as bigint, REAL as double
-- precision, BLOB as bytea, AUTOINCREMENT as an identity column, and drops STRICT. All times are
-- unix seconds. A step that was released is never edited: the next one is added.

-- Which steps this database has been through; the highest is its version.
CREATE TABLE schema_steps (
    step INTEGER PRIMARY KEY,         -- the number in the step's file name
    applied_at REAL NOT NULL          -- when
) STRICT;

-- One random value, from which a key is derived for each purpose (links, cookies, log hashes).
CREATE TABLE secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),                -- there is one row
    secret BLOB NOT NULL CHECK (length(secret) = 32)  -- 32 random bytes, never changed
) STRICT;

-- The Zulip servers that may use us.
CREATE TABLE servers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- ours alone, never on the wire
    uuid TEXT NOT NULL UNIQUE,        -- zulip_org_id, canonical lower case
    hostname TEXT NOT NULL,           -- as its administrator spelled it
    contact_email TEXT NOT NULL,      -- its administrator's address
    key_digest BLOB NOT NULL,         -- of zulip_org_key, which is not stored itself
    deactivated INTEGER NOT NULL DEFAULT 0 CHECK (deactivated IN (0, 1)),  -- 1: refused everywhere
    created_at REAL NOT NULL          -- when it registered first
) STRICT;

-- A host name belongs to one active server; a deactivated one does not hold on to it.
CREATE UNIQUE INDEX servers_active_hostname ON servers (hostname) WHERE deactivated = 0;

-- What happened to a server's registration.
CREATE TABLE server_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of events
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    event TEXT NOT NULL,              -- created, updated (host name or contact), key_rotated
    happened_at REAL NOT NULL         -- when
) STRICT;

CREATE INDEX server_events_of_server ON server_events (server_id, id);

-- Phones: one row for each user and token. Ids are never used again, because a late answer of
-- Apple's or Google's may name a row that is gone.
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

-- Tokens may have 4096 characters, more than an index entry holds: hence token_key.
CREATE UNIQUE INDEX devices_by_user_uuid ON devices (server_id, user_uuid, kind, token_key)
    WHERE user_uuid IS NOT NULL;

CREATE UNIQUE INDEX devices_by_user_id ON devices (server_id, user_id, kind, token_key)
    WHERE user_id IS NOT NULL;

-- A dead token is looked for across all servers. It is all but unique, so it is index enough.
CREATE INDEX devices_by_token ON devices (token_key);
