-- What a database needs that was restored from a backup, before any worker sees it.

-- Leases and epochs of a backup are those of its time. The owners of the leases have gone on, ended or died
-- since; and epochs that were handed out after the backup would be handed out again, to another worker beside
-- the first. So every lease ends here, and every epoch jumps to the seconds since 1970: higher than any claim
-- could have counted, and higher again after the next restore of the same backup. ops/restore.sh calls this in
-- the transaction of the restore. Answers the orders that go on.
CREATE FUNCTION public.awo_after_restore()
RETURNS TABLE (agent_work_order_id text, was awo.job_state, current_phase text, git_branch_name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fence bigint := extract(epoch FROM clock_timestamp())::bigint;
BEGIN
    -- No claim, heartbeat or settlement while this runs; the lock order is job, then lease.
    LOCK TABLE awo.jobs IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE awo.leases IN SHARE ROW EXCLUSIVE MODE;
    SELECT greatest(fence, max(j.lease_epoch) + 1) INTO fence FROM awo.jobs j;

    RETURN QUERY
        SELECT j.work_order_id, j.state, o.current_phase, o.git_branch_name
        FROM awo.jobs j JOIN public.agent_work_orders o ON o.awo_job_id = j.id
        WHERE j.state IN ('queued', 'running', 'waiting') AND j.cancel_requested_at IS NULL
        ORDER BY o.created_at, j.id;

    DELETE FROM awo.leases;
    UPDATE awo.attempts a SET ended_at = now(), outcome = 'interrupted',
        error_message = 'the database was restored from a backup'
    WHERE a.ended_at IS NULL;
    UPDATE awo.workers w SET stopped_at = now() WHERE w.stopped_at IS NULL;
    -- No attempt and no crash is spent: it was nobody's fault.
    UPDATE awo.jobs j SET
        state = (CASE WHEN j.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END)::awo.job_state,
        attempt = greatest(j.attempt - 1, 0), interrupted_count = j.interrupted_count + 1, run_at = now(),
        last_error = CASE WHEN j.cancel_requested_at IS NULL THEN j.last_error ELSE j.cancel_reason END
    WHERE j.state = 'running';
    -- Those that have ended too: they may be requeued.
    UPDATE awo.jobs j SET lease_epoch = fence;
END $$;

REVOKE ALL ON FUNCTION public.awo_after_restore() FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    -- Supabase grants everything new in public to its API roles by default. This is for the owner alone.
    FOREACH role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION public.awo_after_restore() FROM %I', role);
        END IF;
    END LOOP;
END $$;
