-- What an agent left in its sandbox may be kept in object storage: one more type of artifact.

ALTER TABLE public.agent_work_order_artifacts
    DROP CONSTRAINT agent_work_order_artifacts_artifact_type_check,
    ADD CONSTRAINT agent_work_order_artifacts_artifact_type_check
        CHECK (artifact_type IN ('prompt', 'output', 'log', 'diff', 'plan', 'review', 'bundle', 'archive')) NOT VALID;
ALTER TABLE public.agent_work_order_artifacts
    VALIDATE CONSTRAINT agent_work_order_artifacts_artifact_type_check;
