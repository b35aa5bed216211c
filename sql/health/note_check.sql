-- Notes that the check $1 found $2 things, just now.
INSERT INTO awo.checks (name, found) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET found = excluded.found, checked_at = now()
