-- What members had drawn of a day's pixel-steps when they had their data deleted.

ALTER TABLE spent ADD COLUMN pixel_steps INTEGER NOT NULL DEFAULT 0;
