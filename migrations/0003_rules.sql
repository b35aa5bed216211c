-- The rules: what may be ordered, which state may follow which, and how the rows of one order stay
-- in step. They run with the rights of the schema's owner (SECURITY DEFINER), so that a client that
-- may insert an order needs no right on the schema awo. Their search_path is fixed and names pg_temp
-- last: left out, it would come first, and a caller's temporary type could stand in for a built-in.

-- Refuses a repository address that no worker could or should use.
CREATE FUNCTION awo.check_repository_url(url text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner CONSTANT text := '([A-Za-z0-9_][A-Za-z0-9_.-]*/)';
    name  CONSTANT text := '[A-Za-z0-9_][A-Za-z0-9_.-]*';
BEGIN
    IF url IS NULL OR btrim(url) = '' THEN
        RAISE EXCEPTION 'repository_url is empty: expected https://host/owner/repository'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url ~ '[[:cntrl:][:space:]\u0080-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]' THEN
        RAISE EXCEPTION 'repository_url contains a control character or a space: remove it'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url LIKE '-%' THEN
        RAISE EXCEPTION 'repository_url "%" starts with "-": expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF position('::' IN url) > 0 THEN
        RAISE EXCEPTION 'repository_url "%" names a git transport helper ("::"): expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url ~ '@' AND url !~ '^(git@[^@]+$|file:///)' THEN
        -- Not repeated: it may hold a password, wherever somebody put it.
        RAISE EXCEPTION 'repository_url contains a user name or password: expected https://host/owner/repository, with the credential in GITHUB_TOKEN'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url !~ '^(https://[^/]+/.|file://|git@[^:/]+:|[^/:]+/[^/:]*$)' THEN
        RAISE EXCEPTION 'repository_url "%" is not supported: expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url !~ ('^((https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/|git@[A-Za-z0-9][A-Za-z0-9.-]*:)' || owner || '+' || name
            || '|' || owner || name || '|file:///.*[^/])/*$')
        OR url ~ '(^|/)\.\.?(/|$)' OR url ~ '/[-.][^/]*/*$' THEN
        RAISE EXCEPTION 'repository_url "%" has no usable path: expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- One name for all spellings of a repository: host/owner/name in lower case, or the file URL.
CREATE FUNCTION awo.repo_key(url text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_replace(regexp_replace(CASE
        WHEN url LIKE 'file://%' THEN url
        WHEN url LIKE 'https://%' THEN
            regexp_replace(lower(substr(url, 9)), '^([^/]+):443/', '\1/')
        WHEN url LIKE 'git@%' THEN lower(regexp_replace(substr(url, 5), ':', '/'))
        ELSE 'github.com/' || lower(url)
    END, '/+$', ''), '\.git$', '')
$$;

-- What people read instead of the key: owner/name.
CREATE FUNCTION awo.display_name(repo_key text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_replace(repo_key, '^.*/([^/]+/[^/]+)$', '\1')
$$;

-- Refuses steps that are unknown, repeated, out of order or without what they need. The Rust type
-- domain::Steps says the same words; a test compares the two.
CREATE FUNCTION awo.check_steps(steps text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known   CONSTANT text[] := ARRAY['create-branch', 'planning', 'execute', 'prp-review', 'commit', 'create-pr'];
    needs   CONSTANT text[] := ARRAY[NULL, 'create-branch', 'planning', 'execute', 'create-branch', 'commit'];
    step    text;
    place   integer;
    earlier text[] := '{}';
    later   text;
BEGIN
    IF coalesce(cardinality(steps), 0) = 0 THEN
        RAISE EXCEPTION 'selected_commands is empty: expected at least create-branch'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF array_ndims(steps) > 1 THEN
        RAISE EXCEPTION 'selected_commands is a nested array: expected a list of step names'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH step IN ARRAY steps LOOP
        IF array_position(known, step) IS NULL THEN
            RAISE EXCEPTION 'selected_commands contains "%": expected create-branch, planning, execute, prp-review, commit or create-pr', coalesce(step, 'NULL')
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    FOREACH step IN ARRAY steps LOOP
        place := array_position(known, step);
        SELECT e INTO later FROM unnest(earlier) WITH ORDINALITY AS t (e, n)
        WHERE array_position(known, e) > place ORDER BY n LIMIT 1;
        IF step = ANY (earlier) THEN
            RAISE EXCEPTION 'selected_commands contains % more than once', step
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF later IS NOT NULL THEN
            RAISE EXCEPTION 'selected_commands has % before %: expected the order %',
                later, step, array_to_string(known, ', ') USING ERRCODE = 'invalid_parameter_value';
        ELSIF needs[place] IS NOT NULL AND NOT needs[place] = ANY (steps) THEN
            RAISE EXCEPTION 'selected_commands has % without %, which it needs', step, needs[place]
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        earlier := earlier || step;
    END LOOP;
END $$;

-- Refuses a request without words.
CREATE FUNCTION awo.check_user_request(request text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF request IS NULL OR request !~ '\S' THEN
        RAISE EXCEPTION 'user_request is empty: expected what the agent should do, in words'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- The text of one payload field, or an error that names it.
CREATE FUNCTION awo.payload_text(payload jsonb, field text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind text := jsonb_typeof(payload -> field);
BEGIN
    IF kind IS NULL OR kind = 'null' THEN
        RETURN NULL;
    ELSIF kind <> 'string' AND NOT (field = 'github_issue_number' AND kind = 'number') THEN
        RAISE EXCEPTION 'payload field % is of type %: expected a string', field, kind
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN payload ->> field;
END $$;

-- The steps named by a payload, NULL when it names none.
CREATE FUNCTION awo.payload_steps(payload jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    field jsonb := payload -> 'selected_commands';
BEGIN
    IF field IS NULL OR jsonb_typeof(field) = 'null' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(field) <> 'array' THEN
        RAISE EXCEPTION 'payload field selected_commands is of type %: expected an array of step names',
            jsonb_typeof(field) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN ARRAY (SELECT e #>> '{}' FROM jsonb_array_elements(field) WITH ORDINALITY AS t (e, n) ORDER BY n);
END $$;

-- The id of an order that its caller did not name.
CREATE FUNCTION awo.new_order_id() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'wo-' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)
$$;

-- Before an order is stored: check it, fill in what the caller left out, and give it a job id.
CREATE FUNCTION awo.prepare_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Clients send NULL for what they do not know.
    new.agent_work_order_id := coalesce(new.agent_work_order_id, awo.new_order_id());
    new.status := coalesce(new.status, 'pending');
    new.sandbox_type := coalesce(new.sandbox_type, 'git_worktree');
    PERFORM awo.check_repository_url(new.repository_url);
    PERFORM awo.check_user_request(new.user_request);
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
    ELSIF new.status <> 'pending' THEN
        RAISE EXCEPTION 'status of a new order is "%": expected "pending"', new.status
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF new.selected_commands IS NULL THEN
        SELECT r.default_commands INTO new.selected_commands
        FROM awo.repositories r WHERE r.repo_key = awo.repo_key(new.repository_url);
    END IF;
    new.selected_commands := coalesce(new.selected_commands, ARRAY[
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
CREATE TRIGGER prepare_order BEFORE INSERT ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.prepare_order();

-- After an order is stored by its own insert: enqueue it, in the same transaction. An order that
-- store_order made has its job already.
CREATE FUNCTION awo.enqueue_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO awo.jobs (id, kind, work_order_id, payload)
    SELECT new.awo_job_id, 'work_order', new.agent_work_order_id,
           jsonb_build_object('agent_work_order_id', new.agent_work_order_id)
    WHERE NOT EXISTS (SELECT 1 FROM awo.jobs j WHERE j.id = new.awo_job_id);
    RETURN NULL;
END $$;
CREATE TRIGGER enqueue_order AFTER INSERT ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.enqueue_order();

-- Before a job is stored: fresh counters, its queue and its repository. A work order by payload is
-- given its id here and its domain row in store_order, after the insert: a job that ON CONFLICT
-- drops leaves no order behind.
CREATE FUNCTION awo.prepare_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    url text;
BEGIN
    IF new.state <> 'queued' THEN
        RAISE EXCEPTION 'state of a new job is "%": expected "queued"', new.state
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(new.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'payload is of type %: expected an object', coalesce(jsonb_typeof(new.payload), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.queue !~ '^[a-z0-9][a-z0-9_-]{0,62}$' THEN
        RAISE EXCEPTION 'queue is "%": expected lower-case letters, digits, "-" or "_"', new.queue
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.kind !~ '^[a-z][a-z0-9_]{0,62}$' THEN
        RAISE EXCEPTION 'kind is "%": expected lower-case letters, digits or "_"', new.kind
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new.attempt := 0;
    new.crash_count := 0;
    new.interrupted_count := 0;
    new.lease_epoch := 0;
    new.finished_at := NULL;
    new.cancel_requested_at := NULL;
    new.cancel_reason := NULL;
    new.last_error := NULL;
    new.error_class := NULL;
    INSERT INTO awo.queues (name) VALUES (new.queue) ON CONFLICT DO NOTHING;

    IF new.kind <> 'work_order' THEN
        new.repo_key := coalesce(new.repo_key, '@' || new.kind);
        INSERT INTO awo.repositories (repo_key) VALUES (new.repo_key) ON CONFLICT DO NOTHING;
        RETURN new;
    END IF;

    IF new.work_order_id IS NULL THEN
        url := awo.payload_text(new.payload, 'repository_url');
        PERFORM awo.check_repository_url(url);
        new.work_order_id := coalesce(
            awo.payload_text(new.payload, 'agent_work_order_id'), awo.new_order_id());
        new.payload := new.payload || jsonb_build_object('agent_work_order_id', new.work_order_id);
    ELSE
        SELECT o.repository_url INTO url FROM public.agent_work_orders o
        WHERE o.agent_work_order_id = new.work_order_id AND o.awo_job_id = new.id;
        IF url IS NULL THEN
            RAISE EXCEPTION 'work_order_id is "%": expected it to be left out, with repository_url and user_request in payload',
                new.work_order_id USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    new.repo_key := awo.repo_key(url);
    INSERT INTO awo.repositories (repo_key, repository_url, display_name)
    VALUES (new.repo_key, url, awo.display_name(new.repo_key)) ON CONFLICT DO NOTHING;
    RETURN new;
END $$;
CREATE TRIGGER prepare_job BEFORE INSERT ON awo.jobs
    FOR EACH ROW EXECUTE FUNCTION awo.prepare_job();

-- After a work order by payload is stored: its domain row.
CREATE FUNCTION awo.store_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM public.agent_work_orders o WHERE o.awo_job_id = new.id) THEN
        RETURN NULL;    -- The order was there first: enqueue_order made this job.
    END IF;
    INSERT INTO public.agent_work_orders (
        agent_work_order_id, repository_url, user_request, selected_commands,
        github_issue_number, sandbox_type, workflow_type, awo_job_id)
    VALUES (
        new.work_order_id,
        awo.payload_text(new.payload, 'repository_url'),
        awo.payload_text(new.payload, 'user_request'),
        awo.payload_steps(new.payload),
        awo.payload_text(new.payload, 'github_issue_number'),
        awo.payload_text(new.payload, 'sandbox_type'),
        awo.payload_text(new.payload, 'workflow_type'),
        new.id);
    RETURN NULL;
END $$;
CREATE TRIGGER store_order AFTER INSERT ON awo.jobs
    FOR EACH ROW WHEN (new.kind = 'work_order') EXECUTE FUNCTION awo.store_order();

-- Which state may follow which; domain::JobState::predecessors says the same.
CREATE FUNCTION awo.guard_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := coalesce(old.work_order_id, old.id::text);
    rival text;
BEGIN
    IF new.lease_epoch < old.lease_epoch THEN
        RAISE EXCEPTION 'lease_epoch of job % may not go back: it fences off stale owners', old.id
            USING ERRCODE = 'check_violation';
    ELSIF new.id <> old.id OR new.kind <> old.kind OR new.work_order_id IS DISTINCT FROM old.work_order_id THEN
        RAISE EXCEPTION 'id, kind and work_order_id of job % cannot change', old.id
            USING ERRCODE = 'check_violation';
    END IF;
    IF old.state = new.state THEN
        RETURN new;
    END IF;
    -- The engine drops the lease in the statement that ends a run; nobody else may do so.
    IF old.state = 'running' AND EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = old.id) THEN
        RAISE EXCEPTION 'job % is running: call awo_cancel(''%'') to stop it, then awo_requeue(''%'') to run it again',
            old.id, name, name USING ERRCODE = 'object_in_use';
    END IF;
    IF NOT (CASE new.state
        WHEN 'queued'    THEN old.state IN ('running', 'waiting', 'failed', 'cancelled')
        WHEN 'running'   THEN old.state = 'queued' AND EXISTS (
            SELECT 1 FROM awo.leases l WHERE l.job_id = new.id AND l.epoch = new.lease_epoch)
        WHEN 'waiting'   THEN old.state = 'running'
        WHEN 'succeeded' THEN old.state = 'running'
        ELSE old.state IN ('queued', 'running', 'waiting')
    END) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', old.id, old.state, new.state
            USING ERRCODE = 'check_violation',
                  HINT = CASE WHEN new.state = 'running' THEN 'Only a worker''s claim starts a job.'
                              ELSE 'awo_requeue runs an order again, awo_cancel ends it.' END;
    END IF;
    IF new.state IN ('succeeded', 'failed', 'cancelled') THEN
        new.finished_at := now();
    ELSE
        new.finished_at := NULL;
    END IF;
    -- An end by hand carries a class and a sentence too.
    IF new.state = 'failed' THEN
        new.last_error := coalesce(new.last_error, 'Set to failed by hand');
        new.error_class := coalesce(new.error_class, 'invalid');
    ELSIF new.state = 'cancelled' THEN
        new.error_class := 'cancelled';
        IF new.last_error IS NOT DISTINCT FROM old.last_error THEN
            new.last_error := coalesce(new.cancel_reason, 'Cancelled by request');
        END IF;
    END IF;
    IF new.state = 'queued' AND old.state IN ('failed', 'cancelled') THEN
        SELECT coalesce(j.work_order_id, j.id::text) INTO rival FROM awo.jobs j
        WHERE j.idempotency_key = old.idempotency_key AND j.state IN ('queued', 'running', 'waiting');
        IF rival IS NOT NULL THEN
            RAISE EXCEPTION 'job % cannot be requeued: "%" is open with the same idempotency_key "%"',
                old.id, rival, old.idempotency_key USING ERRCODE = 'unique_violation';
        END IF;
    END IF;
    -- A requeue of something that had ended starts with fresh budgets.
    IF new.state = 'queued' AND old.state IN ('failed', 'cancelled') THEN
        new.attempt := 0;
        new.crash_count := 0;
        new.interrupted_count := 0;
        new.cancel_requested_at := NULL;
        new.cancel_reason := NULL;
        new.last_error := NULL;
        new.error_class := NULL;
        IF new.run_at = old.run_at THEN
            new.run_at := now();
        END IF;
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER guard_job_state BEFORE UPDATE ON awo.jobs
    FOR EACH ROW EXECUTE FUNCTION awo.guard_job_state();

-- What an order's owner sees while its job is in a state; domain::JobState::order_status agrees.
CREATE FUNCTION awo.order_status(state awo.job_state) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE state
        WHEN 'queued' THEN 'pending' WHEN 'waiting' THEN 'pending' WHEN 'running' THEN 'running'
        WHEN 'succeeded' THEN 'completed' WHEN 'failed' THEN 'failed' ELSE 'cancelled' END
$$;

-- After a job changed state: its order follows, and sleeping workers wake.
CREATE FUNCTION awo.follow_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.agent_work_orders o SET
        status = awo.order_status(new.state),
        started_at = CASE WHEN new.state = 'running' THEN coalesce(o.started_at, now()) ELSE o.started_at END,
        finished_at = new.finished_at,
        error_message = CASE WHEN new.state IN ('running', 'succeeded') THEN NULL ELSE new.last_error END,
        -- A completed order keeps one class: no_changes, when there was nothing to deliver.
        error_class = CASE WHEN new.state = 'running' THEN NULL ELSE new.error_class END
    WHERE o.agent_work_order_id = new.work_order_id;
    RETURN NULL;
END $$;
CREATE TRIGGER follow_job_state AFTER UPDATE OF state ON awo.jobs
    FOR EACH ROW WHEN (old.state IS DISTINCT FROM new.state AND new.work_order_id IS NOT NULL)
    EXECUTE FUNCTION awo.follow_job_state();

CREATE FUNCTION awo.notify_queued() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('awo_jobs', new.queue);
    RETURN NULL;
END $$;
-- Only rows that become queued notify: a trigger on every update would wake the workers that made it.
CREATE TRIGGER notify_inserted AFTER INSERT ON awo.jobs
    FOR EACH ROW EXECUTE FUNCTION awo.notify_queued();
CREATE TRIGGER notify_requeued AFTER UPDATE OF state ON awo.jobs
    FOR EACH ROW WHEN (new.state = 'queued' AND old.state IS DISTINCT FROM 'queued')
    EXECUTE FUNCTION awo.notify_queued();

-- The status of an order is the state of its job: it cannot be set by hand to anything else.
CREATE FUNCTION awo.guard_order_status() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due text;
BEGIN
    IF new.agent_work_order_id <> old.agent_work_order_id OR new.awo_job_id <> old.awo_job_id
       OR new.repository_url <> old.repository_url THEN
        RAISE EXCEPTION 'agent_work_order_id, awo_job_id and repository_url of order % cannot change', old.agent_work_order_id
            USING ERRCODE = 'check_violation';
    END IF;
    IF new.selected_commands IS DISTINCT FROM old.selected_commands THEN
        PERFORM awo.check_steps(new.selected_commands);
    END IF;
    IF new.user_request IS DISTINCT FROM old.user_request THEN
        PERFORM awo.check_user_request(new.user_request);
    END IF;
    IF new.status <> old.status THEN
        SELECT awo.order_status(j.state) INTO due FROM awo.jobs j WHERE j.id = new.awo_job_id;
        IF due IS DISTINCT FROM new.status THEN
            RAISE EXCEPTION 'status of order % cannot be set to "%": it follows the queue, call awo_cancel(''%'') or awo_requeue(''%'')',
                old.agent_work_order_id, new.status, old.agent_work_order_id, old.agent_work_order_id
                USING ERRCODE = 'check_violation';
        END IF;
        IF NOT (CASE new.status
            WHEN 'pending'   THEN old.status IN ('running', 'failed', 'cancelled')
            WHEN 'running'   THEN old.status = 'pending'
            WHEN 'completed' THEN old.status = 'running'
            ELSE old.status IN ('pending', 'running')
        END) THEN
            RAISE EXCEPTION 'order % cannot go from % to %', old.agent_work_order_id, old.status, new.status
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    new.updated_at := now();
    RETURN new;
END $$;
CREATE TRIGGER guard_order_status BEFORE UPDATE ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.guard_order_status();

-- An order that is being worked on cannot be deleted from under its worker.
CREATE FUNCTION awo.guard_order_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = old.awo_job_id) THEN
        RAISE EXCEPTION 'order % is running: call awo_cancel(''%'') first',
            old.agent_work_order_id, old.agent_work_order_id USING ERRCODE = 'object_in_use';
    END IF;
    RETURN old;
END $$;
CREATE TRIGGER guard_order_delete BEFORE DELETE ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.guard_order_delete();
