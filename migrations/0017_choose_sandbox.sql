-- An order may name the branch it starts from and its pull request goes to, and a repository the form
-- that the sandboxes of its orders have.

-- Whether a text can be the name of a branch here; domain::BranchName says the same.
CREATE FUNCTION awo.is_branch(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT name ~ '^[A-Za-z0-9/_.+-]{1,200}$' AND name <> 'HEAD'
       AND name !~ '(^|/)[.-]|^/|/$|//|\.\.|\.(/|$)|\.[lL][oO][cC][kK](/|$)'
$$;

ALTER TABLE public.agent_work_orders
    -- NULL: the branch that the repository's policy names, else the remote's default one.
    ADD COLUMN base_branch text,
    ADD CONSTRAINT agent_work_orders_base_branch CHECK (
        base_branch ~ '^[A-Za-z0-9/_.+-]{1,200}$' AND base_branch <> 'HEAD') NOT VALID,
    -- What the caller leaves out is filled in from the repository.
    ALTER COLUMN sandbox_type DROP DEFAULT;
ALTER TABLE public.agent_work_orders VALIDATE CONSTRAINT agent_work_orders_base_branch;

-- Before an order is stored: check it, fill in what the caller left out, and give it a job id.
CREATE OR REPLACE FUNCTION awo.prepare_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    repository awo.repositories;
BEGIN
    -- Clients send NULL for what they do not know.
    new.agent_work_order_id := coalesce(new.agent_work_order_id, awo.new_order_id());
    new.status := coalesce(new.status, 'pending');
    PERFORM awo.check_repository_url(new.repository_url);
    PERFORM awo.check_user_request(new.user_request);
    SELECT * INTO repository FROM awo.repositories r WHERE r.repo_key = awo.repo_key(new.repository_url);
    new.sandbox_type := coalesce(new.sandbox_type, repository.default_sandbox_type, 'git_worktree');
    IF new.agent_work_order_id !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'
       OR new.agent_work_order_id ~ '\.\.|\.$|\.[lL][oO][cC][kK]$' THEN
        RAISE EXCEPTION 'agent_work_order_id "%" cannot be used as a folder name: expected 1 to 64 letters, digits, "-", "_" or single ".", starting with a letter or digit and not ending in "." or ".lock"',
            new.agent_work_order_id USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.github_issue_number !~ '^[0-9]{1,18}$' THEN
        RAISE EXCEPTION 'github_issue_number is "%": expected a number', new.github_issue_number
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.sandbox_type NOT IN ('git_worktree', 'git_branch') THEN
        RAISE EXCEPTION 'sandbox_type is "%": expected git_worktree or git_branch', new.sandbox_type
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT awo.is_branch(new.base_branch) THEN
        RAISE EXCEPTION 'base_branch is "%": expected the name of a branch, of letters, digits, "/", "-", "_", "+" and single "."',
            new.base_branch USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.status <> 'pending' THEN
        RAISE EXCEPTION 'status of a new order is "%": expected "pending"', new.status
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new.selected_commands := coalesce(new.selected_commands, repository.default_commands, ARRAY[
        'create-branch', 'planning', 'execute', 'prp-review', 'commit', 'create-pr']);
    PERFORM awo.check_steps(new.selected_commands);
    IF new.awo_job_id IS NULL THEN
        new.awo_job_id := nextval(pg_get_serial_sequence('awo.jobs', 'id'));
    ELSIF NOT EXISTS (SELECT 1 FROM awo.jobs j
        WHERE j.id = new.awo_job_id AND j.work_order_id = new.agent_work_order_id) THEN
        RAISE EXCEPTION 'awo_job_id is %: expected it to be left out, the queue fills it in', new.awo_job_id
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN new;
END $$;

-- After a work order by payload is stored: its domain row.
CREATE OR REPLACE FUNCTION awo.store_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM public.agent_work_orders o WHERE o.awo_job_id = new.id) THEN
        RETURN NULL;    -- The order was there first: enqueue_order made this job.
    END IF;
    INSERT INTO public.agent_work_orders (
        agent_work_order_id, repository_url, user_request, selected_commands,
        github_issue_number, sandbox_type, workflow_type, base_branch, awo_job_id)
    VALUES (
        new.work_order_id,
        awo.payload_text(new.payload, 'repository_url'),
        awo.payload_text(new.payload, 'user_request'),
        awo.payload_steps(new.payload),
        awo.payload_text(new.payload, 'github_issue_number'),
        awo.payload_text(new.payload, 'sandbox_type'),
        awo.payload_text(new.payload, 'workflow_type'),
        awo.payload_text(new.payload, 'base_branch'),
        new.id);
    RETURN NULL;
END $$;

-- The function takes two more arguments. A second one of its name would make calls without them
-- ambiguous, so it replaces the first; every call that the first understood means the same to this one.
DROP FUNCTION public.awo_enqueue(text, text, text[], text, integer, timestamptz, text, text, text);

-- Orders work. With an idempotency key, a second call while the first order is open answers its id.
CREATE FUNCTION public.awo_enqueue(
    repository_url text,
    user_request text,
    selected_commands text[] DEFAULT NULL,
    github_issue_number text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    agent_work_order_id text DEFAULT NULL,
    traceparent text DEFAULT NULL,
    base_branch text DEFAULT NULL,
    sandbox_type text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    order_id text;
    broken   text;
BEGIN
    IF awo_enqueue.priority NOT BETWEEN -32768 AND 32767 THEN
        RAISE EXCEPTION 'priority is %: expected -32768 to 32767', awo_enqueue.priority
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR attempt IN 1..5 LOOP
        IF awo_enqueue.idempotency_key IS NOT NULL THEN
            SELECT j.work_order_id INTO order_id FROM awo.jobs j
            WHERE j.idempotency_key = awo_enqueue.idempotency_key
              AND j.state IN ('queued', 'running', 'waiting');
            IF order_id IS NOT NULL THEN
                RETURN order_id;
            END IF;
        END IF;
        BEGIN
            INSERT INTO awo.jobs AS j (kind, priority, run_at, idempotency_key, traceparent, payload)
            VALUES ('work_order', coalesce(awo_enqueue.priority, 0)::smallint,
                coalesce(awo_enqueue.run_at, now()), awo_enqueue.idempotency_key, awo_enqueue.traceparent,
                jsonb_strip_nulls(jsonb_build_object(
                    'agent_work_order_id', awo_enqueue.agent_work_order_id,
                    'repository_url', awo_enqueue.repository_url,
                    'user_request', awo_enqueue.user_request,
                    'selected_commands', to_jsonb(awo_enqueue.selected_commands),
                    'github_issue_number', awo_enqueue.github_issue_number,
                    'base_branch', awo_enqueue.base_branch,
                    'sandbox_type', awo_enqueue.sandbox_type)))
            RETURNING j.work_order_id INTO order_id;
            RETURN order_id;
        EXCEPTION WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
            IF broken IN ('jobs_work_order', 'agent_work_orders_pkey') THEN
                RAISE EXCEPTION 'agent_work_order_id "%" is taken: leave it out, or name another',
                    awo_enqueue.agent_work_order_id USING ERRCODE = 'unique_violation';
            ELSIF broken <> 'jobs_idempotency_key' OR attempt = 5 THEN
                RAISE;
            END IF;
            -- Somebody else stored the same key just now: answer with theirs, or try again should
            -- it have ended meanwhile. A transaction that may not see theirs gives up.
        END;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION awo.is_branch(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION
    public.awo_enqueue(text, text, text[], text, integer, timestamptz, text, text, text, text, text) FROM PUBLIC;

DO $$
DECLARE
    role text;
    fn   CONSTANT text :=
        'public.awo_enqueue(text, text, text[], text, integer, timestamptz, text, text, text, text, text)';
BEGIN
    -- Supabase grants everything new in public to its API roles by default.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', fn, role);
        END IF;
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', fn);
    END IF;
END $$;

NOTIFY pgrst, 'reload schema';
