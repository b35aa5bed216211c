-- Schedules: rows that become jobs at the times of a cron expression, without a leader. Any replica may
-- fire; the row's last_fire_at, looked at under its lock, and the primary key of awo.cron_fires decide.

CREATE TABLE awo.schedules (
    name              text PRIMARY KEY,
    expression        text NOT NULL,                  -- crontab's five fields, or six with seconds first
    time_zone         text NOT NULL DEFAULT 'UTC',    -- a name of the IANA database
    kind              text NOT NULL DEFAULT 'work_order',
    payload           jsonb NOT NULL DEFAULT '{}',
    queue             text NOT NULL DEFAULT 'default',
    priority          smallint NOT NULL DEFAULT 0,
    missed_fires      text NOT NULL DEFAULT 'coalesce',  -- what to do about times nobody was there for
    catch_up_limit    smallint NOT NULL DEFAULT 10,      -- at most so many of them, for catch_up
    skip_while_open   boolean NOT NULL DEFAULT false,    -- no job while that of the last fire is open
    paused_at         timestamptz,                       -- set: does not fire
    last_fire_at      timestamptz,                       -- written by the replica that fires
    last_error        text,                              -- why it cannot fire, in words
    active_since      timestamptz NOT NULL DEFAULT now(),  -- times before this are nobody's
    created_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

ALTER TABLE awo.cron_fires ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX cron_fires_retention ON awo.cron_fires (fire_at);

-- Before a schedule is stored: what can be checked without reading the calendar. The rest of an
-- expression is judged by the worker, which writes its sentence into last_error.
CREATE FUNCTION awo.prepare_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    zone text;
BEGIN
    IF TG_OP = 'UPDATE' AND new.name <> old.name THEN
        RAISE EXCEPTION 'name of schedule "%" cannot change: insert another and delete this one', old.name
            USING ERRCODE = 'check_violation';
    ELSIF new.name IS NULL OR new.name !~ '^[a-z0-9][a-z0-9_-]{0,62}$' THEN
        RAISE EXCEPTION 'name is "%": expected lower-case letters, digits, "-" or "_"', coalesce(new.name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.expression IS NULL OR new.expression !~
        '^\s*(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|([0-9A-Za-z*?,/-]+\s+){4,6}[0-9A-Za-z*?,/-]+)\s*$' THEN
        RAISE EXCEPTION 'expression is "%": expected five fields (minute hour day month weekday), six with seconds first, or @daily and the like',
            coalesce(new.expression, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.missed_fires IS NULL OR new.missed_fires NOT IN ('skip', 'coalesce', 'catch_up') THEN
        RAISE EXCEPTION 'missed_fires is "%": expected skip, coalesce or catch_up', coalesce(new.missed_fires, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF new.catch_up_limit IS NULL OR new.catch_up_limit NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'catch_up_limit is %: expected 1 to 100', coalesce(new.catch_up_limit::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF TG_OP = 'INSERT' OR new.time_zone IS DISTINCT FROM old.time_zone THEN
        SELECT z.name INTO zone FROM pg_timezone_names z WHERE lower(z.name) = lower(new.time_zone);
        IF zone IS NULL THEN
            RAISE EXCEPTION 'time_zone is "%": expected a name such as Europe/Berlin or UTC', coalesce(new.time_zone, 'NULL')
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        new.time_zone := zone;
    END IF;
    IF TG_OP = 'INSERT' OR (new.kind, new.payload, new.queue, new.priority)
        IS DISTINCT FROM (old.kind, old.payload, old.queue, old.priority) THEN
        IF new.kind = 'work_order' AND awo.payload_text(new.payload, 'agent_work_order_id') IS NOT NULL THEN
            RAISE EXCEPTION 'payload field agent_work_order_id is set: leave it out, every fire makes an order of its own'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        -- The rules for jobs are asked the sure way: a job is stored and taken back.
        BEGIN
            INSERT INTO awo.jobs (kind, payload, queue, priority)
            VALUES (new.kind, new.payload, new.queue, new.priority);
            RAISE EXCEPTION USING ERRCODE = 'AWOOK';
        EXCEPTION WHEN SQLSTATE 'AWOOK' THEN
            NULL;
        END;
    END IF;
    -- What it did before it was paused or changed is not made up for.
    IF TG_OP = 'INSERT' THEN
        new.created_at := now();
        new.active_since := now();
        new.last_fire_at := NULL;
        new.last_error := NULL;
    ELSE
        new.created_at := old.created_at;
        new.last_fire_at := old.last_fire_at;
        new.last_error := NULL;
        IF old.paused_at IS NOT NULL AND new.paused_at IS NULL
           OR (new.expression, new.time_zone) IS DISTINCT FROM (old.expression, old.time_zone) THEN
            new.active_since := now();
        ELSE
            new.active_since := old.active_since;
        END IF;
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER prepare_schedule BEFORE INSERT OR UPDATE OF name, expression, time_zone, kind, payload,
    queue, priority, missed_fires, catch_up_limit, paused_at, active_since, created_at ON awo.schedules
    FOR EACH ROW EXECUTE FUNCTION awo.prepare_schedule();

-- Sleeping replicas look again. A fire sets other columns and wakes nobody.
CREATE FUNCTION awo.notify_schedules() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('awo_schedules', '');
    RETURN NULL;
END $$;
CREATE TRIGGER notify_schedules AFTER INSERT OR DELETE OR UPDATE OF expression, time_zone, kind, payload,
    queue, missed_fires, paused_at ON awo.schedules
    FOR EACH STATEMENT EXECUTE FUNCTION awo.notify_schedules();

-- The product keeps itself in order with the same means. Change or pause these like any other.
INSERT INTO awo.schedules (name, expression, kind, queue, skip_while_open) VALUES
    ('rescue_check',                 '*/10 * * * *', 'rescue_check',                 'maintenance', true),
    ('heartbeat_report',             '2-59/15 * * * *', 'heartbeat_report',          'maintenance', true),
    ('retention',                    '11 * * * *',   'retention',                    'maintenance', true),
    ('repository_cache_maintenance', '41 3 * * *',   'repository_cache_maintenance', 'maintenance', true);
INSERT INTO awo.queues (name) VALUES ('maintenance') ON CONFLICT DO NOTHING;
-- Their jobs are kept for a day, orders for months: an index of their own, so that the many do not hide
-- the few.
CREATE INDEX jobs_maintenance_retention ON awo.jobs (finished_at)
    WHERE finished_at IS NOT NULL AND queue = 'maintenance';

-- Workers as their heartbeats show them; dead: silent for a minute, which is longer than any lease.
CREATE VIEW awo.worker_health AS
SELECT w.worker_id, w.hostname, w.pid, w.version, w.queues, w.max_concurrent, w.started_at, w.heartbeat_at,
    now() - w.heartbeat_at AS heartbeat_age,
    CASE WHEN w.stopped_at >= w.heartbeat_at THEN 'stopped'
         WHEN w.heartbeat_at < now() - interval '1 minute' THEN 'dead'
         WHEN w.draining_at IS NOT NULL THEN 'draining'
         ELSE 'alive' END AS state,
    (SELECT count(*) FROM awo.leases l WHERE l.worker_id = w.worker_id) AS running
FROM awo.workers w;
ALTER TABLE awo.workers SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50);

REVOKE ALL ON FUNCTION awo.prepare_schedule(), awo.notify_schedules() FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON awo.schedules TO service_role;
        GRANT SELECT ON awo.worker_health TO service_role;
    END IF;
END $$;
