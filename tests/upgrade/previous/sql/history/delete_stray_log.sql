-- Deletes up to $2 chunks from more than $1 days ago that lie in no day's table. Answers how many.
WITH
old AS MATERIALIZED (
    SELECT c.ctid FROM awo.log_chunks_default c
    WHERE c.created_at < now() - $1::integer * interval '1 day'
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM awo.log_chunks_default c WHERE c.ctid = ANY (ARRAY(SELECT old.ctid FROM old))
)
SELECT count(*) FROM old
