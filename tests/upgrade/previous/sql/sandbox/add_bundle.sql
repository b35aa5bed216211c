-- Notes the file $2 (below AWO_WORK_ORDER_DIR, SHA-256 $3, $4 bytes) as the saved work of order $1, once.
INSERT INTO public.agent_work_order_artifacts (agent_work_order_id, artifact_type, path, sha256, size_bytes)
SELECT o.agent_work_order_id, 'bundle', $2, $3, $4
FROM public.agent_work_orders o
WHERE o.agent_work_order_id = $1
  AND NOT EXISTS (
      SELECT FROM public.agent_work_order_artifacts a
      WHERE a.agent_work_order_id = $1 AND a.artifact_type = 'bundle' AND a.path = $2
  )
