-- What this role lacks to make the schema or bring it up to date: each as the statement that gives it, and the owner
-- of a schema that is there when this role is not one of its members, who alone may change it.
SELECT statement, owner FROM (
    SELECT 1 AS place, format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user) AS statement,
        NULL::text AS owner
    WHERE to_regnamespace('awo') IS NULL AND NOT has_database_privilege(current_database(), 'CREATE')
    UNION ALL
    SELECT 2, format('GRANT CREATE, USAGE ON SCHEMA public TO %I', current_user), NULL
    FROM pg_namespace WHERE nspname = 'public' AND NOT has_schema_privilege(oid, 'CREATE')
    UNION ALL
    SELECT 3, NULL, pg_get_userbyid(nspowner)::text
    FROM pg_namespace WHERE nspname = 'awo' AND NOT pg_has_role(nspowner, 'USAGE')) AS missing
ORDER BY place
