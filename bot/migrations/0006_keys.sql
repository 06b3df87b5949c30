-- A client's key, so that what it asks for twice is found to be one job (see bot/web/keys.py).

CREATE INDEX jobs_of_key ON jobs (owner_id, json_extract(address, '$.key'))
    WHERE json_extract(address, '$.key') IS NOT NULL;
