-- Of which picture a job was made and how, so that parents and children can be walked.

ALTER TABLE jobs ADD COLUMN kinship TEXT
    CHECK (kinship IN ('again', 'vary', 'upscale', 'edit', 'remix'));
ALTER TABLE jobs ADD COLUMN parent_number INTEGER; -- which of the parent's pictures; NULL: all
ALTER TABLE jobs ADD COLUMN note TEXT;             -- a sentence on how it was done

UPDATE jobs SET kinship = iif(json_extract(request, '$.variation_seed') IS NULL, 'again', 'vary')
    WHERE parent_id IS NOT NULL;

CREATE INDEX jobs_of_parent ON jobs (parent_id) WHERE parent_id IS NOT NULL;

-- However many press its button, a picture is varied once and enlarged once, until that fails, is
-- taken back or deleted.
CREATE UNIQUE INDEX only_children ON jobs (parent_id, parent_number, kinship)
    WHERE kinship IN ('vary', 'upscale') AND status NOT IN ('failed', 'cancelled');
