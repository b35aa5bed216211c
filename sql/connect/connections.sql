-- How many connections this role may have: by its own limit, by that of the database (-1 for none; neither holds for a
-- superuser), and by what the server keeps for others.
SELECT quote_ident(r.rolname) AS role, quote_ident(d.datname) AS database,
    CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END AS role_limit,
    CASE WHEN r.rolsuper THEN -1 ELSE d.datconnlimit END AS database_limit,
    current_setting('max_connections')::integer - CASE WHEN r.rolsuper THEN 0 ELSE
        current_setting('superuser_reserved_connections')::integer
        + coalesce(current_setting('reserved_connections', true)::integer, 0) END AS server_limit,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS open
FROM pg_database d, pg_roles r
WHERE d.datname = current_database() AND r.rolname = session_user
