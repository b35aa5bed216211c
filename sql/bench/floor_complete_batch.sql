UPDATE awo_bench.floor_jobs f SET state = 2
FROM unnest($1::bigint[]) AS done (id) WHERE f.id = done.id AND f.state = 1
