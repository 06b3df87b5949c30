-- What members had used up of a day's limits when they had their data deleted; nothing else of them.

CREATE TABLE spent (
    place     TEXT NOT NULL,
    member_id TEXT NOT NULL,
    day       REAL NOT NULL,                    -- when it began; rows of older days go
    pictures  INTEGER NOT NULL,
    last_at   REAL,
    PRIMARY KEY (place, member_id)
) STRICT;
