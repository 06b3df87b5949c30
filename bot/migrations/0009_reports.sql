-- Which pictures moderators were told of, so that they are told once; by whom is not kept.

CREATE TABLE reports (
    job_id     TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    created_at REAL NOT NULL
) STRICT;
