-- Stores, before it happens, what effect of kind $3 with key $4 is meant ($5), under job $1 and
-- epoch $2. Changes nothing when the epoch is stale.
INSERT INTO awo.side_effects (job_id, kind, key, intent, intent_epoch)
SELECT owner.job_id, $3, $4, $5::jsonb, $2
FROM (SELECT job_id FROM awo.leases WHERE job_id = $1 AND epoch = $2 FOR KEY SHARE) AS owner
ON CONFLICT (job_id, kind, key) DO UPDATE SET
    intent = excluded.intent, intent_epoch = excluded.intent_epoch, intended_at = now(),
    result = NULL, result_epoch = NULL, completed_at = NULL
