-- What the server is and what it allows: its version, the encoding of the database, whether it is a standby, whether
-- writes are off for this role, and the statement that turns them on.
SELECT current_setting('server_version_num')::integer AS version_number,
    current_setting('server_version') AS version,
    current_database()::text AS database,
    current_user::text AS role,
    current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby,
    current_setting('default_transaction_read_only')::boolean AS read_only,
    coalesce(
        -- Whoever runs it may be under the setting as well.
        (SELECT format('BEGIN READ WRITE; ALTER %s RESET default_transaction_read_only; COMMIT', CASE
                WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ROLE ALL'
                WHEN s.setrole = 0 THEN format('DATABASE %I', d.datname)
                WHEN s.setdatabase = 0 THEN format('ROLE %I', r.rolname)
                ELSE format('ROLE %I IN DATABASE %I', r.rolname, d.datname)
            END)
        FROM pg_db_role_setting s
        WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
            AND EXISTS (SELECT FROM unnest(s.setconfig) c WHERE c LIKE 'default_transaction_read_only=%')
        ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC
        LIMIT 1),
        'ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()') AS remedy
FROM pg_database d, pg_roles r
WHERE d.datname = current_database() AND r.rolname = session_user
