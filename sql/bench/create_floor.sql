-- The barest queue: one table, one partial index, no rules. What a claim and a completion cost on it
-- is the floor of every number of `archon-awo bench queue`.
CREATE SCHEMA awo_bench
    CREATE TABLE floor_jobs (
        id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        state     smallint NOT NULL DEFAULT 0,          -- 0 queued, 1 running, 2 done
        priority  smallint NOT NULL DEFAULT 0,
        run_at    timestamptz NOT NULL DEFAULT now()
    )
    CREATE INDEX floor_jobs_claim ON floor_jobs (priority DESC, run_at, id) WHERE state = 0
