-- What is old is found without reading all that was ever asked for.

CREATE INDEX jobs_finished ON jobs (finished_at, sequence) WHERE finished_at IS NOT NULL;
