-- Jobs, their pictures, what is still to be delivered, and each place's chosen mode.
-- Times are seconds since 1970 in UTC. Applied migrations are never edited: add a file.

CREATE TABLE jobs (
    sequence    INTEGER PRIMARY KEY,            -- the order in which they were acknowledged
    id          TEXT NOT NULL UNIQUE,
    owner_id    TEXT NOT NULL,
    owner_name  TEXT NOT NULL,
    front_end   TEXT NOT NULL,
    place       TEXT,
    address     TEXT NOT NULL,                  -- JSON: where the answer goes
    request     TEXT NOT NULL,                  -- JSON: GenerationRequest
    status      TEXT NOT NULL
                CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    created_at  REAL NOT NULL,
    finished_at REAL,
    seconds     REAL,
    error       TEXT,
    attempts    INTEGER NOT NULL DEFAULT 0,
    parent_id   TEXT,                           -- may outlive its parent, so no reference
    CHECK ((finished_at IS NULL) = (status IN ('queued', 'running')))
) STRICT;

CREATE INDEX jobs_open ON jobs (sequence) WHERE finished_at IS NULL;
CREATE INDEX jobs_of_owner ON jobs (owner_id, sequence);

CREATE TABLE images (
    id       TEXT PRIMARY KEY,
    job_id   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number   INTEGER NOT NULL,                  -- 0 is the first of its job
    path     TEXT NOT NULL UNIQUE,              -- relative to the images folder
    seed     INTEGER NOT NULL,
    width    INTEGER NOT NULL,
    height   INTEGER NOT NULL,
    UNIQUE (job_id, number)
) STRICT;

CREATE TABLE outbox (
    job_id       TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due_at       REAL,                          -- NULL: delivered, or given up
    delivered_at REAL,
    last_error   TEXT
) STRICT;

CREATE INDEX outbox_due ON outbox (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE places (
    place TEXT PRIMARY KEY,
    mode  TEXT NOT NULL
) STRICT;
