-- What Archon sees: work orders, their steps and artifacts, in the schema public.

CREATE TABLE public.agent_work_orders (
    agent_work_order_id      text PRIMARY KEY
        DEFAULT 'wo-' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 12),
    repository_url           text NOT NULL,
    user_request             text NOT NULL,
    status                   text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    current_phase            text,
    selected_commands        text[] NOT NULL,
    workflow_type            text,
    sandbox_type             text NOT NULL DEFAULT 'git_worktree'
        CHECK (sandbox_type IN ('git_worktree', 'git_branch')),
    github_issue_number      text CHECK (github_issue_number ~ '^[0-9]{1,18}$'),
    sandbox_identifier       text,
    git_branch_name          text,
    agent_session_id         text,
    github_pull_request_url  text,
    git_commit_count         integer NOT NULL DEFAULT 0,
    git_files_changed        integer NOT NULL DEFAULT 0,
    error_message            text,
    error_class              text,
    total_input_tokens       bigint NOT NULL DEFAULT 0,
    total_output_tokens      bigint NOT NULL DEFAULT 0,
    total_cost_usd           numeric(14, 6) NOT NULL DEFAULT 0,
    awo_job_id               bigint NOT NULL UNIQUE,        -- the job that runs this order
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    started_at               timestamptz,
    finished_at              timestamptz,
    CONSTRAINT agent_work_order_id_safe CHECK (
        agent_work_order_id ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'
        AND agent_work_order_id !~ '\.\.|\.$|\.[lL][oO][cC][kK]$'
    ),
    -- Deferred: either row may be written first, by whichever insert the caller chose.
    FOREIGN KEY (awo_job_id) REFERENCES awo.jobs (id) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX agent_work_orders_newest ON public.agent_work_orders (created_at DESC);
CREATE INDEX agent_work_orders_by_status ON public.agent_work_orders (status, created_at DESC);
ALTER TABLE awo.jobs ADD CONSTRAINT jobs_work_order_id_fkey
    FOREIGN KEY (work_order_id) REFERENCES public.agent_work_orders (agent_work_order_id)
    ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE awo.log_chunks ADD FOREIGN KEY (agent_work_order_id)
    REFERENCES public.agent_work_orders (agent_work_order_id) ON DELETE CASCADE;

-- One row per attempt of a step that ended.
CREATE TABLE public.agent_work_order_steps (
    id                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_work_order_id   text NOT NULL
        REFERENCES public.agent_work_orders (agent_work_order_id) ON DELETE CASCADE,
    step_order            integer NOT NULL,                 -- 1 for the first chosen step
    step_name             text NOT NULL,
    agent_name            text NOT NULL,                    -- claude, command, or runner
    attempt               integer NOT NULL,                 -- 1 for the first run of this step
    success               boolean NOT NULL,
    output                text,
    error_message         text,
    error_class           text,
    duration_seconds      double precision NOT NULL DEFAULT 0,
    session_id            text,
    input_tokens          bigint NOT NULL DEFAULT 0,
    output_tokens         bigint NOT NULL DEFAULT 0,
    cache_read_tokens     bigint NOT NULL DEFAULT 0,
    cache_creation_tokens bigint NOT NULL DEFAULT 0,
    cost_usd              numeric(14, 6) NOT NULL DEFAULT 0,
    epoch                 bigint NOT NULL,                  -- the lease under which it ran
    worker_id             uuid,
    superseded_at         timestamptz,                      -- set by a requeue from an earlier step
    created_at            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (agent_work_order_id, step_name, attempt)
);

CREATE TABLE public.agent_work_order_artifacts (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_work_order_id  text NOT NULL
        REFERENCES public.agent_work_orders (agent_work_order_id) ON DELETE CASCADE,
    artifact_type        text NOT NULL
        CHECK (artifact_type IN ('prompt', 'output', 'log', 'diff', 'plan', 'review')),
    step_name            text,
    content              text,                              -- NULL: see path
    path                 text,                              -- below AWO_WORK_ORDER_DIR, when large
    sha256               text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes           bigint NOT NULL CHECK (size_bytes >= 0),
    created_at           timestamptz NOT NULL DEFAULT now(),
    CHECK (content IS NOT NULL OR path IS NOT NULL)
);
CREATE INDEX agent_work_order_artifacts_by_order
    ON public.agent_work_order_artifacts (agent_work_order_id, id);

-- Archon's own settings table: created only where Archon has not done so already, and then closed to
-- everybody but its owner and service_role, for it holds credentials.
DO $$
DECLARE
    role text;
BEGIN
    IF to_regclass('public.archon_settings') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE TABLE public.archon_settings (
        id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        key              varchar(255) UNIQUE NOT NULL,
        value            text,
        encrypted_value  text,
        is_encrypted     boolean DEFAULT false,
        category         varchar(100),
        description      text,
        created_at       timestamptz DEFAULT now(),
        updated_at       timestamptz DEFAULT now()
    );
    ALTER TABLE public.archon_settings ENABLE ROW LEVEL SECURITY;
    REVOKE ALL ON public.archon_settings FROM PUBLIC;
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON public.archon_settings FROM %I', role);
    END LOOP;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON public.archon_settings TO service_role;
        CREATE POLICY archon_settings_service_role ON public.archon_settings
            TO service_role USING (true) WITH CHECK (true);
    END IF;
END $$;
