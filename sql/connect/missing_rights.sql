-- What this role lacks to do the work of a worker on the schema that is there, each as the statement that gives it.
WITH parts AS (
    SELECT c.oid, n.nspname = 'awo' AS engine, c.relkind, format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity,
        c.relname = 'archon_settings' AS settings,
        -- The rules run as the owner, so they see no rows either.
        c.relrowsecurity AND c.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls AS forced,
        CASE
            WHEN c.relkind IN ('r', 'p') AND c.relname <> 'archon_settings'
                THEN has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                    AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
            WHEN c.relkind IN ('r', 'p', 'v') THEN has_table_privilege(c.oid, 'SELECT')
            -- The sequence of an identity column needs no right of its own.
            WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE') OR NOT EXISTS (
                SELECT FROM pg_depend p WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid AND p.deptype = 'a')
        END AS allowed
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_roles o ON o.oid = c.relowner
    WHERE c.relkind IN ('r', 'p', 'v', 'S') AND NOT c.relispartition
        AND (n.nspname = 'awo' OR n.nspname = 'public' AND (c.relname LIKE 'agent\_work\_order%' OR c.relname = 'archon_settings'))),
functions AS (
    SELECT n.nspname = 'awo' AS engine,
        format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prorettype <> 'trigger'::regtype AND NOT has_function_privilege(p.oid, 'EXECUTE')
        AND (n.nspname = 'awo' OR n.nspname = 'public' AND p.proname LIKE 'awo\_%' AND p.proname <> 'awo_after_restore'))
SELECT statement FROM (
    SELECT 1 AS place, format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user) AS statement
    FROM pg_namespace WHERE nspname IN ('awo', 'public') AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT DISTINCT 2, format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA awo TO %I', current_user)
    FROM parts WHERE engine AND relkind <> 'S' AND NOT allowed
    UNION ALL
    SELECT 3, format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', string_agg(name, ', ' ORDER BY name), current_user)
    FROM parts WHERE NOT engine AND NOT settings AND relkind <> 'S' AND NOT allowed HAVING count(*) > 0
    UNION ALL
    SELECT 4, format('GRANT SELECT ON %s TO %I', name, current_user) FROM parts WHERE settings AND NOT allowed
    UNION ALL
    SELECT DISTINCT 5, format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA awo TO %I', current_user)
    FROM parts WHERE engine AND relkind = 'S' AND NOT allowed
    UNION ALL
    SELECT 6, format('GRANT USAGE ON SEQUENCE %s TO %I', string_agg(name, ', ' ORDER BY name), current_user)
    FROM parts WHERE NOT engine AND relkind = 'S' AND NOT allowed HAVING count(*) > 0
    UNION ALL
    SELECT DISTINCT 7, format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA awo TO %I', current_user) FROM functions WHERE engine
    UNION ALL
    SELECT 8, format('GRANT EXECUTE ON FUNCTION %s TO %I', string_agg(name, ', ' ORDER BY name), current_user)
    FROM functions WHERE NOT engine HAVING count(*) > 0
    UNION ALL
    SELECT 9, format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', name) FROM parts WHERE forced
    UNION ALL
    SELECT 10, format('CREATE POLICY %I ON %s TO %1$I USING (true) WITH CHECK (true)', current_user, name)
    FROM parts t WHERE NOT forced AND relkind IN ('r', 'p') AND row_security_active(oid) AND NOT EXISTS (
        SELECT FROM pg_policy p WHERE p.polrelid = t.oid AND p.polpermissive AND p.polcmd = '*'
            AND EXISTS (SELECT FROM unnest(p.polroles) q WHERE CASE WHEN q = 0 THEN true ELSE pg_has_role(q, 'USAGE') END)
            AND pg_get_expr(p.polqual, p.polrelid) = 'true'
            AND coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'true') = 'true')) AS missing
ORDER BY place, statement
