-- What members have chosen for themselves, and what they are still to confirm.

CREATE TABLE preferences (
    member_id   TEXT PRIMARY KEY,
    preferences TEXT NOT NULL                   -- JSON: Preferences; what is missing is as by default
) STRICT;

CREATE TABLE wishes (
    id         TEXT PRIMARY KEY,
    member_id  TEXT NOT NULL,
    wish       TEXT NOT NULL,                   -- JSON: Wish
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX wishes_by_age ON wishes (created_at);
