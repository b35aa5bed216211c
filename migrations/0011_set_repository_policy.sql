-- An administrator sets the policy of a repository by one call, checked as a whole.

-- Sets what is named in `policy` of the repository with this address or repo_key, also before its first
-- order, and leaves the rest: default_branch (null: the remote's own), trusted, agent_environment.
CREATE FUNCTION public.awo_set_repository_policy(repo text, policy jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key   text;
    field text;
    value jsonb;
    names text[];
BEGIN
    IF jsonb_typeof(awo_set_repository_policy.policy) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'policy is of type %: expected an object',
            coalesce(jsonb_typeof(awo_set_repository_policy.policy), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR field, value IN SELECT p.key, p.value FROM jsonb_each(awo_set_repository_policy.policy) p LOOP
        IF field = 'default_branch' THEN
            -- A worker checks the name again, by git's own rules.
            IF jsonb_typeof(value) NOT IN ('string', 'null') OR value #>> '{}' !~ '^[^[:space:][:cntrl:]]{1,200}$'
               OR value #>> '{}' ~ '^[-/.]|[~^:?*\[\\]|\.\.|//|@\{|[/.]$|\.lock$' THEN
                RAISE EXCEPTION 'policy field default_branch is %: expected the name of a branch, or null for the remote''s own',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'trusted' THEN
            IF jsonb_typeof(value) <> 'boolean' THEN
                RAISE EXCEPTION 'policy field trusted is %: expected true or false', value
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'agent_environment' THEN
            IF jsonb_typeof(value) <> 'array' OR jsonb_array_length(value) > 100 OR EXISTS (
                SELECT 1 FROM jsonb_array_elements(value) e (item)
                WHERE jsonb_typeof(e.item) <> 'string' OR e.item #>> '{}' !~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$') THEN
                RAISE EXCEPTION 'policy field agent_environment is %: expected an array of at most 100 names of variables',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSE
            RAISE EXCEPTION 'policy field "%" is unknown: expected default_branch, trusted or agent_environment', field
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    names := ARRAY(SELECT jsonb_array_elements_text(awo_set_repository_policy.policy -> 'agent_environment'));
    key := awo.known_repository(awo_set_repository_policy.repo);
    UPDATE awo.repositories r SET
        default_branch = CASE WHEN awo_set_repository_policy.policy ? 'default_branch'
            THEN awo_set_repository_policy.policy ->> 'default_branch' ELSE r.default_branch END,
        trusted = coalesce((awo_set_repository_policy.policy ->> 'trusted')::boolean, r.trusted),
        agent_environment = CASE WHEN awo_set_repository_policy.policy ? 'agent_environment'
            THEN names ELSE r.agent_environment END,
        updated_at = now()
    WHERE r.repo_key = key;
END $$;

REVOKE ALL ON FUNCTION public.awo_set_repository_policy(text, jsonb) FROM PUBLIC;

DO $$
DECLARE
    role text;
BEGIN
    -- Supabase grants everything new in public to its API roles by default.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION public.awo_set_repository_policy(text, jsonb) FROM %I', role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT EXECUTE ON FUNCTION public.awo_set_repository_policy(text, jsonb) TO service_role;
    END IF;
END $$;

NOTIFY pgrst, 'reload schema';
