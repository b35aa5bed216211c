-- The rules: what may be ordered, which state may follow which, and how the rows of one order stay
-- in step. They run with the rights of the schema's owner (SECURITY DEFINER with a fixed
-- search_path), so that a client that may insert an order needs no right on the schema awo.

-- Refuses a repository address that no worker could or should use.
CREATE FUNCTION awo.check_repository_url(url text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    IF url IS NULL OR btrim(url) = '' THEN
        RAISE EXCEPTION 'repository_url is empty: expected https://host/owner/repository'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url ~ '[[:cntrl:][:space:]]' THEN
        RAISE EXCEPTION 'repository_url contains a control character or a space: remove it'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url LIKE '-%' THEN
        RAISE EXCEPTION 'repository_url "%" starts with "-": expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF position('::' IN url) > 0 THEN
        RAISE EXCEPTION 'repository_url "%" names a git transport helper ("::"): expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url ~ '^[A-Za-z][A-Za-z0-9+.-]*://[^/]*@' THEN
        RAISE EXCEPTION 'repository_url contains a user name or password: expected https://host/owner/repository, with the credential in GITHUB_TOKEN'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url !~ '^(https://[^/]+/.+/.+|file:///.+|git@[^/:@]+:[^/].*/.+|[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+)$' THEN
        RAISE EXCEPTION 'repository_url "%" is not supported: expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF url ~ '(^|/)\.\.?(/|$)' THEN
        RAISE EXCEPTION 'repository_url "%" has no usable path: expected https://host/owner/repository', url
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- One name for all spellings of a repository: host/owner/name in lower case, or the file URL.
CREATE FUNCTION awo.repo_key(url text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT regexp_replace(regexp_replace(CASE
        WHEN url LIKE 'file://%' THEN url
        WHEN url LIKE 'https://%' THEN
            regexp_replace(lower(substr(url, 9)), '^([^/]+):443/', '\1/')
        WHEN url LIKE 'git@%' THEN lower(regexp_replace(substr(url, 5), ':', '/'))
        ELSE 'github.com/' || lower(url)
    END, '/+$', ''), '\.git$', '')
$$;

-- Refuses steps that are unknown, repeated, out of order or without what they need. The Rust type
-- domain::Steps says the same words.
CREATE FUNCTION awo.check_steps(steps text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    known  CONSTANT text[] := ARRAY['create-branch', 'planning', 'execute', 'prp-review', 'commit', 'create-pr'];
    needs  CONSTANT text[] := ARRAY[NULL, 'create-branch', 'planning', 'execute', 'create-branch', 'commit'];
    step   text;
    place  integer;
    before integer := 0;
BEGIN
    IF coalesce(cardinality(steps), 0) = 0 THEN
        RAISE EXCEPTION 'selected_commands is empty: expected at least create-branch'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH step IN ARRAY steps LOOP
        place := array_position(known, step);
        IF place IS NULL THEN
            RAISE EXCEPTION 'selected_commands contains "%": expected create-branch, planning, execute, prp-review, commit or create-pr', coalesce(step, 'NULL')
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF cardinality(array_positions(steps, step)) > 1 THEN
            RAISE EXCEPTION 'selected_commands contains % more than once', step
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF place < before THEN
            RAISE EXCEPTION 'selected_commands has % before %: expected the order %',
                known[before], step, array_to_string(known, ', ')
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF needs[place] IS NOT NULL AND NOT needs[place] = ANY (steps) THEN
            RAISE EXCEPTION 'selected_commands has % without %, which it needs', step, needs[place]
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        before := place;
    END LOOP;
END $$;

-- The text of one payload field, or an error that names it.
CREATE FUNCTION awo.payload_text(payload jsonb, field text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
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
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
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

-- Before an order is stored: check it, fill in what the caller left out, and give it a job id.
CREATE FUNCTION awo.prepare_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM awo.check_repository_url(new.repository_url);
    IF new.user_request IS NULL OR new.user_request !~ '\S' THEN
        RAISE EXCEPTION 'user_request is empty: expected what the agent should do, in words'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF new.agent_work_order_id !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'
       OR new.agent_work_order_id ~ '\.\.|\.$|\.[lL][oO][cC][kK]$' THEN
        RAISE EXCEPTION 'agent_work_order_id "%" cannot be used as a folder name: expected 1 to 64 letters, digits, "-", "_" or single ".", starting with a letter or digit and not ending in "." or ".lock"',
            new.agent_work_order_id USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF new.selected_commands IS NULL THEN
        SELECT r.default_commands INTO new.selected_commands
        FROM awo.repositories r WHERE r.repo_key = awo.repo_key(new.repository_url);
    END IF;
    new.selected_commands := coalesce(new.selected_commands, ARRAY[
        'create-branch', 'planning', 'execute', 'prp-review', 'commit', 'create-pr']);
    PERFORM awo.check_steps(new.selected_commands);
    IF new.awo_job_id IS NULL THEN
        IF new.status <> 'pending' THEN
            RAISE EXCEPTION 'status of a new order is "%": expected "pending"', new.status
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        new.awo_job_id := nextval(pg_get_serial_sequence('awo.jobs', 'id'));
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER prepare_order BEFORE INSERT ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.prepare_order();

-- After an order is stored by its own insert: enqueue it, in the same transaction.
CREATE FUNCTION awo.enqueue_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO awo.jobs (id, kind, work_order_id, payload)
    SELECT new.awo_job_id, 'work_order', new.agent_work_order_id,
           jsonb_build_object('agent_work_order_id', new.agent_work_order_id)
    WHERE NOT EXISTS (SELECT 1 FROM awo.jobs j WHERE j.id = new.awo_job_id)
      -- The insert came from prepare_job, which is about to store the job itself.
      AND coalesce(current_setting('awo.job_being_stored', true), '') <> new.awo_job_id::text;
    RETURN NULL;
END $$;
CREATE TRIGGER enqueue_order AFTER INSERT ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.enqueue_order();

-- Before a job is stored: a work order by payload gets its domain row; every job its repository.
CREATE FUNCTION awo.prepare_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    url text;
BEGIN
    IF new.state <> 'queued' THEN
        RAISE EXCEPTION 'state of a new job is "%": expected "queued"', new.state
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(new.payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'payload is of type %: expected an object', coalesce(jsonb_typeof(new.payload), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new.attempt := 0;
    new.crash_count := 0;
    new.interrupted_count := 0;
    new.lease_epoch := 0;
    new.finished_at := NULL;
    INSERT INTO awo.queues (name) VALUES (new.queue) ON CONFLICT DO NOTHING;

    IF new.kind <> 'work_order' THEN
        new.repo_key := coalesce(new.repo_key, '@' || new.kind);
        INSERT INTO awo.repositories (repo_key) VALUES (new.repo_key) ON CONFLICT DO NOTHING;
        RETURN new;
    END IF;

    IF new.work_order_id IS NULL THEN
        url := awo.payload_text(new.payload, 'repository_url');
        PERFORM awo.check_repository_url(url);
        PERFORM set_config('awo.job_being_stored', new.id::text, true);
        INSERT INTO public.agent_work_orders (
            agent_work_order_id, repository_url, user_request, selected_commands,
            github_issue_number, sandbox_type, workflow_type, awo_job_id)
        VALUES (
            coalesce(awo.payload_text(new.payload, 'agent_work_order_id'),
                     'wo-' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 12)),
            url,
            coalesce(awo.payload_text(new.payload, 'user_request'), ''),
            awo.payload_steps(new.payload),
            awo.payload_text(new.payload, 'github_issue_number'),
            coalesce(awo.payload_text(new.payload, 'sandbox_type'), 'git_worktree'),
            awo.payload_text(new.payload, 'workflow_type'),
            new.id)
        RETURNING agent_work_order_id INTO new.work_order_id;
        PERFORM set_config('awo.job_being_stored', '', true);
        new.payload := jsonb_build_object('agent_work_order_id', new.work_order_id);
    ELSE
        SELECT o.repository_url INTO url
        FROM public.agent_work_orders o WHERE o.agent_work_order_id = new.work_order_id;
        IF url IS NULL THEN
            RAISE EXCEPTION 'work_order_id "%" does not exist: leave it out and put repository_url and user_request into payload',
                new.work_order_id USING ERRCODE = 'foreign_key_violation';
        END IF;
    END IF;
    new.repo_key := awo.repo_key(url);
    INSERT INTO awo.repositories (repo_key, repository_url, display_name)
    VALUES (new.repo_key, url, regexp_replace(new.repo_key, '^.*/([^/]+/[^/]+)$', '\1'))
    ON CONFLICT DO NOTHING;
    RETURN new;
END $$;
CREATE TRIGGER prepare_job BEFORE INSERT ON awo.jobs
    FOR EACH ROW EXECUTE FUNCTION awo.prepare_job();

-- Which state may follow which; domain::JobState::predecessors says the same.
CREATE FUNCTION awo.guard_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    name text := coalesce(old.work_order_id, old.id::text);
BEGIN
    IF new.lease_epoch < old.lease_epoch THEN
        RAISE EXCEPTION 'lease_epoch of job % may not go back: it fences off stale owners', old.id
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
                  HINT = CASE WHEN new.state = 'running' THEN 'Only a worker''s claim starts a job.' END;
    END IF;
    IF new.state IN ('succeeded', 'failed', 'cancelled') THEN
        new.finished_at := now();
    ELSE
        new.finished_at := NULL;
    END IF;
    -- A requeue of something that had ended starts with fresh budgets.
    IF new.state = 'queued' AND old.state IN ('failed', 'cancelled') THEN
        new.attempt := 0;
        new.crash_count := 0;
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
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT CASE state
        WHEN 'queued' THEN 'pending' WHEN 'waiting' THEN 'pending' WHEN 'running' THEN 'running'
        WHEN 'succeeded' THEN 'completed' WHEN 'failed' THEN 'failed' ELSE 'cancelled' END
$$;

-- After a job changed state: its order follows, and sleeping workers wake.
CREATE FUNCTION awo.follow_job_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
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
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    due text;
BEGIN
    IF new.agent_work_order_id <> old.agent_work_order_id OR new.awo_job_id <> old.awo_job_id THEN
        RAISE EXCEPTION 'agent_work_order_id and awo_job_id of an order cannot change'
            USING ERRCODE = 'check_violation';
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = old.awo_job_id) THEN
        RAISE EXCEPTION 'order % is running: call awo_cancel(''%'') first',
            old.agent_work_order_id, old.agent_work_order_id USING ERRCODE = 'object_in_use';
    END IF;
    RETURN old;
END $$;
CREATE TRIGGER guard_order_delete BEFORE DELETE ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.guard_order_delete();
