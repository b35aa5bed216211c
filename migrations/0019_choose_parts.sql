-- The policy of a repository says what is fetched for its orders beside the files that git stores, and what
-- is not fetched at all.

-- Whether a text can be the name of a folder to check out; domain::SparsePath says the same.
CREATE FUNCTION awo.is_sparse_path(path text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT octet_length(path) BETWEEN 1 AND 1000
       AND path !~ '[][*?!#"''\\[:cntrl:]]'
       AND path !~ '(^|/)(\.{0,2}|\.[gG][iI][tT])(/|$)'
       AND path !~ '(^|/)\s|\s(/|$)'
$$;

REVOKE ALL ON FUNCTION awo.is_sparse_path(text) FROM PUBLIC;

-- Sets what is named in `policy` of the repository with this address or repo_key, also before its first
-- order, and leaves the rest: default_branch (null: the remote's own), default_sandbox_type, trusted,
-- agent_environment, submodules, lfs, sparse_paths, clone_depth.
CREATE OR REPLACE FUNCTION public.awo_set_repository_policy(repo text, policy jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key   text;
    field text;
    value jsonb;
    given jsonb := awo_set_repository_policy.policy;
BEGIN
    IF jsonb_typeof(given) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'policy is of type %: expected an object', coalesce(jsonb_typeof(given), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR field, value IN SELECT p.key, p.value FROM jsonb_each(given) p LOOP
        IF field = 'default_branch' THEN
            IF jsonb_typeof(value) NOT IN ('string', 'null') OR NOT awo.is_branch(value #>> '{}') THEN
                RAISE EXCEPTION 'policy field default_branch is %: expected the name of a branch, or null for the remote''s own',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'default_sandbox_type' THEN
            IF value NOT IN ('"git_worktree"', '"git_branch"') THEN
                RAISE EXCEPTION 'policy field default_sandbox_type is %: expected "git_worktree" or "git_branch"',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field IN ('trusted', 'submodules', 'lfs') THEN
            IF jsonb_typeof(value) <> 'boolean' THEN
                RAISE EXCEPTION 'policy field % is %: expected true or false', field, value
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'agent_environment' THEN
            IF jsonb_typeof(value) <> 'array' OR jsonb_array_length(value) > 100 OR EXISTS (
                SELECT 1 FROM jsonb_array_elements(value) e (item)
                WHERE jsonb_typeof(e.item) <> 'string' OR e.item #>> '{}' !~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$') THEN
                RAISE EXCEPTION 'policy field agent_environment is %: expected an array of at most 100 names of variables',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'sparse_paths' THEN
            IF jsonb_typeof(value) <> 'array' OR jsonb_array_length(value) > 200 OR EXISTS (
                SELECT 1 FROM jsonb_array_elements(value) e (item)
                WHERE jsonb_typeof(e.item) <> 'string' OR NOT awo.is_sparse_path(e.item #>> '{}')) THEN
                RAISE EXCEPTION 'policy field sparse_paths is %: expected an array of at most 200 folders like "services/api", without patterns and quotes',
                    value USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSIF field = 'clone_depth' THEN
            -- Without the contents of files, sandboxes could not borrow from the cache.
            IF value NOT IN ('"full"', '"shallow"') THEN
                RAISE EXCEPTION 'policy field clone_depth is %: expected "full" or "shallow"', value
                    USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSE
            RAISE EXCEPTION 'policy field "%" is unknown: expected default_branch, default_sandbox_type, trusted, agent_environment, submodules, lfs, sparse_paths or clone_depth', field
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    key := awo.known_repository(awo_set_repository_policy.repo);
    UPDATE awo.repositories r SET
        default_branch = CASE WHEN given ? 'default_branch'
            THEN given ->> 'default_branch' ELSE r.default_branch END,
        default_sandbox_type = coalesce(given ->> 'default_sandbox_type', r.default_sandbox_type),
        trusted = coalesce((given ->> 'trusted')::boolean, r.trusted),
        agent_environment = CASE WHEN given ? 'agent_environment'
            THEN ARRAY(SELECT jsonb_array_elements_text(given -> 'agent_environment')) ELSE r.agent_environment END,
        submodules = coalesce((given ->> 'submodules')::boolean, r.submodules),
        lfs = coalesce((given ->> 'lfs')::boolean, r.lfs),
        sparse_paths = CASE WHEN given ? 'sparse_paths'
            THEN ARRAY(SELECT jsonb_array_elements_text(given -> 'sparse_paths')) ELSE r.sparse_paths END,
        clone_depth = coalesce(given ->> 'clone_depth', r.clone_depth),
        updated_at = now()
    WHERE r.repo_key = key;
END $$;

NOTIFY pgrst, 'reload schema';
