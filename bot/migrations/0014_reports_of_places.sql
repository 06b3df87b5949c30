-- Each place has moderators of its own, who are told of a picture once. Where earlier reports were
-- made is not known: what was reported then may be reported once more.

DROP TABLE reports;

CREATE TABLE reports (
    job_id     TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place      TEXT NOT NULL,                   -- where it was reported, wherever it was drawn
    created_at REAL NOT NULL,
    PRIMARY KEY (job_id, place)
) STRICT;
