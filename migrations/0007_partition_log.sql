-- The log of orders becomes one table per day (UTC), so that old days are dropped and not deleted row by
-- row. Events are chunks of the stream 'event' and go the same way. Rows that are there are moved, which
-- takes an exclusive lock for as long; programs of the release before go on writing afterwards.

ALTER TABLE awo.log_chunks RENAME TO log_chunks_before_days;
ALTER INDEX awo.log_chunks_pkey RENAME TO log_chunks_before_days_pkey;
DROP INDEX awo.log_chunks_once, awo.log_chunks_retention;

-- No foreign key: dropping a day would have to prove every row of it. A trigger on orders does its work.
CREATE TABLE awo.log_chunks (
    agent_work_order_id text NOT NULL,
    seq          bigint NOT NULL,
    epoch        bigint NOT NULL,
    step_name    text,
    run_id       uuid,                            -- the run of an agent this came from
    stream       text NOT NULL CHECK (stream IN ('stdout', 'stderr', 'event')),
    file_offset  bigint,                          -- where it begins in the run's spool file
    line_count   integer NOT NULL DEFAULT 0,
    data         bytea NOT NULL,                  -- bytes as the agent wrote them, secrets removed
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_work_order_id, seq, created_at)
) PARTITION BY RANGE (created_at);
-- By which a chunk that was sent twice is found.
CREATE INDEX log_chunks_once ON awo.log_chunks (run_id, stream, file_offset) WHERE run_id IS NOT NULL;

-- The safety net: rows of a day that nobody made. Empty as long as workers run.
CREATE TABLE awo.log_chunks_default PARTITION OF awo.log_chunks DEFAULT;

-- Where the log of an order ends. Its lock makes seq contiguous and each chunk stored once, which no
-- unique constraint over days can do.
CREATE TABLE awo.log_heads (
    agent_work_order_id text PRIMARY KEY
        REFERENCES public.agent_work_orders (agent_work_order_id) ON DELETE CASCADE,
    epoch     bigint NOT NULL,                    -- of the owner that appended last
    next_seq  bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- Makes the tables of the days from first to last, by default from today to a week from now. Any number
-- of callers may do so at once. Answers how many it made. Waits 2 s at most for those who read or write
-- the log, and fails then: there is a week to try again.
CREATE FUNCTION awo.ensure_log_partitions(first_day date DEFAULT NULL, last_day date DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    day   date := coalesce(first_day, today);
    last  CONSTANT date := coalesce(last_day, today + 7);
    name  text;
    made  integer := 0;
BEGIN
    WHILE day <= last LOOP
        name := 'log_chunks_' || to_char(day, 'YYYYMMDD');
        IF to_regclass('awo.' || name) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('awo.ensure_log_partitions', 0));
            -- Asked by a query: what to_regclass knows may be from before the lock.
            PERFORM 1 FROM pg_class c WHERE c.relname = name AND c.relnamespace = 'awo'::regnamespace;
            IF NOT FOUND THEN
                -- Made aside and attached, which locks the safety net alone against readers. Writers wait
                -- at the door: one that had chosen the safety net for its row would be refused there.
                EXECUTE format('CREATE TABLE awo.%I (LIKE awo.log_chunks INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
                LOCK TABLE ONLY awo.log_chunks IN SHARE ROW EXCLUSIVE MODE;
                LOCK TABLE awo.log_chunks_default IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('WITH moved AS (
                        DELETE FROM awo.log_chunks_default WHERE created_at >= %1$L AND created_at < %2$L RETURNING *)
                    INSERT INTO awo.%3$I SELECT * FROM moved',
                    day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC', name);
                EXECUTE format('ALTER TABLE awo.log_chunks ATTACH PARTITION awo.%I FOR VALUES FROM (%L) TO (%L)',
                    name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            END IF;
        END IF;
        day := day + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the oldest table whose day ended more than that many days ago; answers its name, NULL when there
-- is none. One at a time: each lock is short. Waits 2 s at most for readers, and fails then.
CREATE FUNCTION awo.drop_log_partition(days integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    name text;
BEGIN
    IF days IS NULL OR days < 1 THEN
        RAISE EXCEPTION 'days is %: expected 1 or more', coalesce(days::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('awo.ensure_log_partitions', 0));
    SELECT c.relname INTO name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'awo.log_chunks'::regclass AND c.relname ~ '^log_chunks_[0-9]{8}$'
      AND to_date(substr(c.relname, 12), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - days
    ORDER BY c.relname LIMIT 1;
    IF name IS NOT NULL THEN
        EXECUTE format('DROP TABLE awo.%I', name);
    END IF;
    RETURN name;
END $$;

-- Appends chunks to the log of an order under a job and epoch. One that is stored already (a reply was
-- lost) is skipped. Answers false, and stores nothing, when the epoch is not the current one. It is a
-- function because each of its statements sees what others committed before it got the lock.
CREATE FUNCTION awo.append_log(
    job_id bigint, epoch bigint, agent_work_order_id text, step_names text[], run_ids uuid[],
    streams text[], file_offsets bigint[], line_counts integer[], chunks bytea[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    claimed  timestamptz;
    head     awo.log_heads;
    stored   bigint;
BEGIN
    SELECT l.claimed_at INTO claimed FROM awo.leases l
    WHERE l.job_id = append_log.job_id AND l.epoch = append_log.epoch FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO awo.log_heads (agent_work_order_id, epoch, next_seq)
    VALUES (append_log.agent_work_order_id, 0, 1) ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM awo.log_heads h
    WHERE h.agent_work_order_id = append_log.agent_work_order_id FOR UPDATE;
    -- A new owner counts from what is there: the one before may have been of an older release.
    IF head.epoch <> append_log.epoch THEN
        SELECT greatest(head.next_seq, coalesce(max(c.seq), 0) + 1) INTO head.next_seq
        FROM awo.log_chunks c WHERE c.agent_work_order_id = append_log.agent_work_order_id;
    END IF;
    -- A run belongs to one lease, so its chunks are no older; a day more for clocks that were set back.
    INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, step_name, run_id, stream,
        file_offset, line_count, data)
    SELECT append_log.agent_work_order_id, head.next_seq - 1 + row_number() OVER (ORDER BY c.nth),
        append_log.epoch, c.step_name, c.run_id, c.stream, c.file_offset, c.line_count, c.data
    FROM unnest(step_names, run_ids, streams, file_offsets, line_counts, chunks)
        WITH ORDINALITY AS c (step_name, run_id, stream, file_offset, line_count, data, nth)
    WHERE NOT EXISTS (
        SELECT 1 FROM awo.log_chunks l
        WHERE l.run_id = c.run_id AND l.stream = c.stream AND l.file_offset = c.file_offset
          AND l.created_at > claimed - interval '1 day');
    GET DIAGNOSTICS stored = ROW_COUNT;
    UPDATE awo.log_heads h SET epoch = append_log.epoch, next_seq = head.next_seq + stored
    WHERE h.agent_work_order_id = append_log.agent_work_order_id;
    RETURN true;
END $$;

-- The log goes with its order.
CREATE FUNCTION awo.delete_order_log() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM awo.log_chunks c WHERE c.agent_work_order_id = old.agent_work_order_id;
    RETURN NULL;
END $$;
CREATE TRIGGER delete_order_log AFTER DELETE ON public.agent_work_orders
    FOR EACH ROW EXECUTE FUNCTION awo.delete_order_log();

-- As before, but a gap is looked for in the log of two days only: this is read every few minutes.
CREATE OR REPLACE VIEW awo.invariants AS
SELECT 'running without lease' AS broken, j.id::text AS subject FROM awo.jobs j
WHERE j.state = 'running' AND NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = j.id)
UNION ALL
SELECT 'lease without running job', l.job_id::text FROM awo.leases l JOIN awo.jobs j ON j.id = l.job_id
WHERE j.state <> 'running' OR j.lease_epoch <> l.epoch
UNION ALL
SELECT 'order status differs from job state', o.agent_work_order_id
FROM public.agent_work_orders o JOIN awo.jobs j ON j.id = o.awo_job_id
WHERE o.status <> awo.order_status(j.state)
UNION ALL
-- Also true for a while after a limit was lowered: the surplus drains.
SELECT 'repository over its limit', r.repo_key FROM awo.repositories r
WHERE (SELECT count(*) FROM awo.leases l WHERE l.repo_key = r.repo_key) > r.max_concurrent
UNION ALL
SELECT 'gap in the log', c.agent_work_order_id FROM awo.log_chunks c
WHERE c.created_at > now() - interval '2 days'
GROUP BY c.agent_work_order_id HAVING max(c.seq) - min(c.seq) + 1 <> count(*)
UNION ALL
SELECT 'side effect without result', e.job_id::text FROM awo.side_effects e JOIN awo.jobs j ON j.id = e.job_id
WHERE j.state = 'succeeded' AND e.completed_at IS NULL
UNION ALL
SELECT 'attempt left open', a.job_id::text FROM awo.attempts a JOIN awo.jobs j ON j.id = a.job_id
WHERE a.ended_at IS NULL AND NOT (j.state = 'running' AND j.lease_epoch = a.epoch);

-- Move what is there, each row to its day.
DO $$
DECLARE
    day date;
BEGIN
    FOR day IN SELECT DISTINCT (c.created_at AT TIME ZONE 'UTC')::date FROM awo.log_chunks_before_days c LOOP
        PERFORM awo.ensure_log_partitions(day, day);
    END LOOP;
    PERFORM awo.ensure_log_partitions();
END $$;
INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, step_name, run_id, stream, file_offset,
    line_count, data, created_at)
SELECT agent_work_order_id, seq, epoch, step_name, run_id, stream, file_offset, line_count, data, created_at
FROM awo.log_chunks_before_days;
DROP TABLE awo.log_chunks_before_days;

REVOKE ALL ON FUNCTION awo.ensure_log_partitions(date, date), awo.drop_log_partition(integer),
    awo.append_log(bigint, bigint, text, text[], uuid[], text[], bigint[], integer[], bytea[]),
    awo.delete_order_log() FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON awo.log_chunks, awo.log_heads TO service_role;
    END IF;
END $$;
