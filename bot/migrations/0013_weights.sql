-- What a job's turns count by its asker's roles, which are known only while they ask.

ALTER TABLE jobs ADD COLUMN weight REAL NOT NULL DEFAULT 1;
