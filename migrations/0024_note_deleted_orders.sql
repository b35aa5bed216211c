-- Which orders were deleted. A sandbox whose order is not here may belong to another database, and is kept;
-- that of a deleted order goes after its time. An id that is used again begins a new generation.

CREATE TABLE awo.deleted_orders (
    agent_work_order_id  text NOT NULL,
    generation           bigint NOT NULL,                   -- created_at of its row, in microseconds since 1970
    deleted_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_work_order_id, generation)
);
CREATE INDEX deleted_orders_oldest ON awo.deleted_orders (deleted_at);

CREATE FUNCTION awo.note_deleted_orders() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO awo.deleted_orders AS d (agent_work_order_id, generation)
    SELECT gone.agent_work_order_id, (extract(epoch FROM gone.created_at) * 1000000)::bigint FROM gone
    ON CONFLICT (agent_work_order_id, generation) DO UPDATE SET deleted_at = now();
    -- After a year no volume holds anything of them; a few at a time, for there are never many more.
    DELETE FROM awo.deleted_orders d WHERE d.ctid = ANY (ARRAY(
        SELECT o.ctid FROM awo.deleted_orders o WHERE o.deleted_at < now() - interval '1 year'
        ORDER BY o.deleted_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
    RETURN NULL;
END $$;

CREATE TRIGGER agent_work_orders_note_deleted AFTER DELETE ON public.agent_work_orders
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION awo.note_deleted_orders();

REVOKE ALL ON FUNCTION awo.note_deleted_orders() FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON awo.deleted_orders TO service_role;
    END IF;
END $$;
