-- What an agent leaves and no commit holds is kept as a tar: one more type of artifact.

ALTER TABLE public.agent_work_order_artifacts
    DROP CONSTRAINT agent_work_order_artifacts_artifact_type_check,
    ADD CONSTRAINT agent_work_order_artifacts_artifact_type_check
        CHECK (artifact_type IN ('prompt', 'output', 'log', 'diff', 'plan', 'review', 'bundle', 'archive', 'left_out'))
        NOT VALID;
ALTER TABLE public.agent_work_order_artifacts
    VALIDATE CONSTRAINT agent_work_order_artifacts_artifact_type_check;
