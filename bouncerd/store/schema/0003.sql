-- What became of pushes, added up; and how a limit is shared by processes. How long the sums are
-- kept says pruning.py.

-- What the pushes of a server met on a day.
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

CREATE UNIQUE INDEX outcomes_once ON outcomes (server_id, day, provider, app, kind, reason);

CREATE INDEX outcomes_by_day ON outcomes (day);

-- mobile_pushes_received::day and mobile_pushes_forwarded::day. Apart from what servers upload: a
-- server must not be able to say this of itself.
CREATE TABLE push_counts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    server_id INTEGER NOT NULL REFERENCES servers (id) ON DELETE CASCADE,  -- whose pushes
    realm_id INTEGER NOT NULL,        -- the realm's row; 0: the server as a whole
    day INTEGER NOT NULL,             -- on which day in UTC: days since 1970-01-01
    received INTEGER NOT NULL,        -- for how many phones a push was asked for
    forwarded INTEGER NOT NULL        -- how many of them their provider took
) STRICT;

CREATE UNIQUE INDEX push_counts_once ON push_counts (server_id, realm_id, day);

CREATE INDEX push_counts_by_day ON push_counts (day);

-- Up to where the sums of each process are in the two tables above: none is added twice.
CREATE TABLE count_writers (
    writer TEXT PRIMARY KEY,          -- the random name of one start of one process
    number INTEGER NOT NULL,          -- of its latest addition
    added_at REAL NOT NULL            -- when that was
) STRICT;

CREATE INDEX count_writers_by_time ON count_writers (added_at);

-- What processes that share a database let through of each server within the last minute. It need
-- not survive the database: PostgreSQL keeps it UNLOGGED.
CREATE TABLE leases (
    key TEXT PRIMARY KEY,             -- whose: a server's uuid
    log TEXT NOT NULL,                -- when, how many, and how many of them may be unused (JSON)
    touched_at REAL NOT NULL          -- when it changed last
) STRICT;

CREATE INDEX leases_by_time ON leases (touched_at);
