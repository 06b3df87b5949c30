-- Browsers that are signed in to the page. Neither column tells what opens it.

CREATE TABLE sessions (
    key        TEXT PRIMARY KEY,                -- hash of the secret that the browser has
    token      TEXT NOT NULL,                   -- slow hash of the token that it came with
    expires_at REAL NOT NULL
) STRICT;
