-- Appends chunks to the log of order $3 under job $1 and epoch $2. Sequence numbers are contiguous:
-- the lease makes this owner the only writer. A chunk that is there already (a reply was lost) is
-- skipped. Answers whether the epoch was current.
WITH
owner AS (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE),
fresh AS (
    SELECT c.*, row_number() OVER (ORDER BY c.nth) AS place
    FROM unnest($4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::integer[], $9::bytea[])
        WITH ORDINALITY AS c (step_name, run_id, stream, file_offset, line_count, data, nth)
    WHERE NOT EXISTS (
        SELECT 1 FROM awo.log_chunks l
        WHERE l.run_id = c.run_id AND l.stream = c.stream AND l.file_offset = c.file_offset)
),
stored AS (
    INSERT INTO awo.log_chunks (agent_work_order_id, seq, epoch, step_name, run_id, stream,
        file_offset, line_count, data)
    SELECT $3, f.place + (SELECT coalesce(max(l.seq), 0) FROM awo.log_chunks l WHERE l.agent_work_order_id = $3),
        $2, f.step_name, f.run_id, f.stream, f.file_offset, f.line_count, f.data
    FROM fresh f CROSS JOIN owner
)
SELECT EXISTS (SELECT 1 FROM owner)
