-- The pictures that jobs start from. Several jobs may share one: it goes with the last of them.

CREATE TABLE sources (
    job_id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    path   TEXT NOT NULL                        -- relative to the images folder
) STRICT;

CREATE INDEX sources_of_path ON sources (path);
