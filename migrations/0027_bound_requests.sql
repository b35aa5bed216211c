-- A request has an end: it goes into every prompt of its order, and into the memory of each worker that claims it.

-- Refuses a request without words, and one that is longer than 1 MiB.
CREATE OR REPLACE FUNCTION awo.check_user_request(request text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF request IS NULL OR request !~ '\S' THEN
        RAISE EXCEPTION 'user_request is empty: expected what the agent should do, in words'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(request) > 1048576 THEN
        RAISE EXCEPTION 'user_request has % bytes: expected at most 1048576, with details in files of the repository',
            octet_length(request) USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

-- The same for whoever writes the table with triggers off. Longer ones that are there already stay, and their
-- orders can still be settled.
DO $$
DECLARE
    newest_long timestamptz;
BEGIN
    SELECT max(created_at) INTO newest_long
    FROM public.agent_work_orders WHERE octet_length(user_request) > 1048576;
    EXECUTE format(
        'ALTER TABLE public.agent_work_orders ADD CONSTRAINT agent_work_orders_user_request
             CHECK (octet_length(user_request) <= 1048576%s) NOT VALID',
        CASE WHEN newest_long IS NOT NULL THEN format(' OR created_at <= %L', newest_long) END);
END $$;
ALTER TABLE public.agent_work_orders VALIDATE CONSTRAINT agent_work_orders_user_request;
