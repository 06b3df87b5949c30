-- What a place allows, whom it has blocked, and who changed what.

CREATE TABLE rules (
    place TEXT PRIMARY KEY,
    rules TEXT NOT NULL                         -- JSON: Rules; what is missing is as by default
) STRICT;

CREATE TABLE blocks (
    place      TEXT NOT NULL,
    member_id  TEXT NOT NULL,
    reason     TEXT NOT NULL,                   -- empty where none was given
    by_name    TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (place, member_id)
) STRICT;

CREATE TABLE audit (
    sequence   INTEGER PRIMARY KEY,
    place      TEXT NOT NULL,
    by_id      TEXT NOT NULL,
    by_name    TEXT NOT NULL,
    what       TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX audit_of_place ON audit (place, sequence);

-- What a member has used up is counted from the jobs themselves.
CREATE INDEX jobs_of_owner_at ON jobs (owner_id, place, created_at);
