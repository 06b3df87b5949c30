-- Which picture shows everybody on the page what a mode draws; it goes with the picture.

CREATE TABLE samples (
    mode     TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT;

CREATE INDEX samples_of_image ON samples (image_id);
