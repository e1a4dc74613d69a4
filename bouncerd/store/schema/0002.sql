-- Realms, what servers upload of themselves, plans, and phones registered end to end.
--
-- More server_events: deactivated, reactivated, transferred, plan_changed, limit_changed.

ALTER TABLE servers ADD COLUMN old_key_digest BLOB;  -- of the key before the latest rotation
ALTER TABLE servers ADD COLUMN old_key_until REAL NOT NULL DEFAULT 0;  -- it is good until then
ALTER TABLE servers ADD COLUMN version TEXT;  -- Zulip's, by its latest upload
ALTER TABLE servers ADD COLUMN merge_base TEXT;  -- the commit of Zulip's that it is based on
ALTER TABLE servers ADD COLUMN feature_level INTEGER;  -- of its API; NULL: it has never said
ALTER TABLE servers ADD COLUMN data_at REAL;  -- when it last sent audit data, were it none
ALTER TABLE servers ADD COLUMN users INTEGER NOT NULL DEFAULT 0;  -- sum of its local_realms
ALTER TABLE servers ADD COLUMN plan_type INTEGER NOT NULL DEFAULT 100;  -- set by the operator
ALTER TABLE servers ADD COLUMN plan_ends_at REAL;  -- when the plan is to end; NULL: it is not
ALTER TABLE servers ADD COLUMN requests_per_minute INTEGER;  -- its own rate limit, if any
ALTER TABLE servers ADD COLUMN realm_count_mark INTEGER NOT NULL DEFAULT 0;  -- highest row id seen
ALTER TABLE servers ADD COLUMN installation_count_mark INTEGER NOT NULL DEFAULT 0;  -- likewise
ALTER TABLE servers ADD COLUMN audit_log_mark INTEGER NOT NULL DEFAULT 0;  -- likewise

-- The organizations on the servers, as these describe them.
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

CREATE INDEX realms_of_server ON realms (server_id);

-- What happened to a realm.
CREATE TABLE realm_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of events
    realm_id INTEGER NOT NULL REFERENCES realms (id) ON DELETE CASCADE,  -- whose
    event TEXT NOT NULL,              -- created, changed, deleted, restored, plan_changed
    attribute TEXT,                   -- the column that changed; NULL unless event is changed
    old_value TEXT,                   -- what it held before, as text
    new_value TEXT,                   -- and what since, as text
    happened_at REAL NOT NULL         -- when
) STRICT;

CREATE INDEX realm_events_of_realm ON realm_events (realm_id, id);

-- Statistics of a server by realm. Rows of servers before 8.0 have no link to a realm; it is not
-- a foreign key, since rows go when their server goes, and it is checked 10,000 times an upload.
CREATE TABLE realm_counts (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    realm INTEGER NOT NULL,           -- the realm's number on its server
    realm_id INTEGER,                 -- the realm's row, if it was known
    property TEXT NOT NULL,           -- what was counted
    subgroup TEXT,                    -- of which part, if it has parts
    end_time REAL NOT NULL,           -- until when
    value INTEGER NOT NULL            -- how many
) STRICT;

-- Two rows without a subgroup are the same one.
CREATE UNIQUE INDEX realm_counts_once ON realm_counts
    (server_id, realm, property, end_time, (COALESCE(subgroup, '')), (subgroup IS NULL));

CREATE INDEX realm_counts_unlinked ON realm_counts (server_id, realm) WHERE realm_id IS NULL;

-- Statistics of a server as a whole.
CREATE TABLE installation_counts (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    property TEXT NOT NULL,           -- what was counted
    subgroup TEXT,                    -- of which part, if it has parts
    end_time REAL NOT NULL,           -- until when
    value INTEGER NOT NULL            -- how many
) STRICT;

CREATE UNIQUE INDEX installation_counts_once ON installation_counts
    (server_id, property, end_time, (COALESCE(subgroup, '')), (subgroup IS NULL));

-- When users and realms of a server came and went, and how many users a realm had then.
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

CREATE INDEX audit_rows_of_server ON audit_rows (server_id, id);

CREATE INDEX audit_rows_unlinked ON audit_rows (server_id, realm) WHERE realm_id IS NULL;

CREATE INDEX audit_rows_with_users ON audit_rows (realm_id, id) WHERE humans IS NOT NULL;

-- How many users each realm of a server has, known to us by uuid or not.
CREATE TABLE local_realms (
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose
    realm INTEGER NOT NULL,           -- the realm's number on its server
    users INTEGER NOT NULL,           -- human ones, by its newest audit row
    PRIMARY KEY (server_id, realm)
) STRICT;

-- Phones registered end to end: one row for each token and realm, whoever shares the phone.
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

CREATE UNIQUE INDEX sealed_devices_once ON sealed_devices (realm_id, token_id);

CREATE INDEX sealed_devices_live ON sealed_devices (realm_id) WHERE expired_at IS NULL;

-- A dead token is looked for in all realms.
CREATE INDEX sealed_devices_by_token ON sealed_devices (token_id);
