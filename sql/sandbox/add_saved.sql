-- Notes $3 (SHA-256 $4, $5 bytes) as saved work of order $1, once: of type $2, a bundle or what no commit
-- holds below AWO_WORK_ORDER_DIR, or an archive below AWO_ARCHIVE_URL. $6 is the generation of the order whose
-- work it is, where that is known: another order under the same id does not get it.
INSERT INTO public.agent_work_order_artifacts (agent_work_order_id, artifact_type, path, sha256, size_bytes)
SELECT o.agent_work_order_id, $2, $3, $4, $5
FROM public.agent_work_orders o
WHERE o.agent_work_order_id = $1
  AND ($6::bigint IS NULL OR (extract(epoch FROM o.created_at) * 1000000)::bigint = $6)
  AND NOT EXISTS (
      SELECT FROM public.agent_work_order_artifacts a
      WHERE a.agent_work_order_id = $1 AND a.artifact_type = $2 AND a.path = $3
  )
