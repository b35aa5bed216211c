-- What the database itself sees of broken promises. Installed by the harness in its own database,
-- beside the product's rules and not instead of them.
CREATE SCHEMA audit;
CREATE TABLE audit.violations (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    what text NOT NULL,
    job_id bigint,
    epoch bigint,
    detail text
);
-- Which transaction ended which lease: it may still write under it.
CREATE TABLE audit.released (
    job_id bigint NOT NULL, epoch bigint NOT NULL, tx xid8 NOT NULL, PRIMARY KEY (job_id, epoch)
);
CREATE FUNCTION audit.release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.released VALUES (old.job_id, old.epoch, pg_current_xact_id());
    RETURN NULL;
END $$;
CREATE TRIGGER audit_release AFTER DELETE ON awo.leases FOR EACH ROW EXECUTE FUNCTION audit.release();

-- Runs as the transaction commits, so that it sees every claim that was committed before.
CREATE FUNCTION audit.fenced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line jsonb := to_jsonb(new) - 'data';
    job bigint := coalesce((line ->> 'job_id')::bigint, (
        SELECT o.awo_job_id FROM public.agent_work_orders o
        WHERE o.agent_work_order_id = line ->> 'agent_work_order_id'));
    written bigint := greatest((line ->> 'epoch')::bigint, (line ->> 'intent_epoch')::bigint,
        (line ->> 'result_epoch')::bigint);
    current_epoch bigint := (SELECT j.lease_epoch FROM awo.jobs j WHERE j.id = job);
BEGIN
    IF written < current_epoch THEN
        INSERT INTO audit.violations (what, job_id, epoch, detail)
        VALUES ('stale write', job, written, tg_op || ' ' || tg_relid::regclass || ' ' || line::text);
    ELSIF NOT EXISTS (SELECT 1 FROM awo.leases l WHERE l.job_id = job AND l.epoch = written)
      AND NOT EXISTS (SELECT 1 FROM audit.released r
          WHERE r.job_id = job AND r.epoch = written AND r.tx = pg_current_xact_id())
      -- The transaction that ends an order nobody runs tells its log so.
      AND NOT (tg_relid::regclass::text LIKE 'awo.log_chunks%' AND EXISTS (
          SELECT 1 FROM awo.jobs j WHERE j.id = job AND j.finished_at = now())) THEN
        INSERT INTO audit.violations (what, job_id, epoch, detail)
        VALUES ('write without a lease', job, written, tg_op || ' ' || tg_relid::regclass || ' ' || line::text);
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['steps', 'side_effects', 'log_chunks', 'attempts'] LOOP
        EXECUTE format('CREATE CONSTRAINT TRIGGER audit_fenced AFTER INSERT OR UPDATE ON awo.%I
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.fenced()', relation);
    END LOOP;
END $$;
-- A checkpoint is final.
CREATE FUNCTION audit.checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.violations (what, job_id, epoch, detail)
    VALUES ('finished step touched', old.job_id, old.epoch, tg_op || ' ' || old.step_name);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_checkpoint_update AFTER UPDATE ON awo.steps FOR EACH ROW
    WHEN (old.finished_at IS NOT NULL) EXECUTE FUNCTION audit.checkpoint();
CREATE TRIGGER audit_checkpoint_delete AFTER DELETE ON awo.steps FOR EACH ROW
    WHEN (old.finished_at IS NOT NULL) EXECUTE FUNCTION audit.checkpoint();

-- An epoch only grows, and nobody here runs an order again that has ended.
CREATE FUNCTION audit.job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.violations (what, job_id, epoch, detail)
    VALUES ('job went backwards', old.id, old.lease_epoch,
        format('%s at epoch %s became %s at epoch %s', old.state, old.lease_epoch, new.state, new.lease_epoch));
    RETURN NULL;
END $$;
CREATE TRIGGER audit_job AFTER UPDATE ON awo.jobs FOR EACH ROW
    WHEN (new.lease_epoch < old.lease_epoch OR old.state IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION audit.job();
