-- What the repositories of this installation are allowed to bring along, and how they are cloned:
-- one row each, changed by an administrator, read when an order's sandbox is made.

ALTER TABLE awo.repositories
    -- Its own agent configuration (settings, hooks, MCP servers) is obeyed; otherwise only read as files.
    ADD COLUMN trusted           boolean NOT NULL DEFAULT false,
    -- Names of variables of the worker that its agents get too.
    ADD COLUMN agent_environment text[]  NOT NULL DEFAULT '{}',
    -- Submodules are fetched, from hosts that orders may name.
    ADD COLUMN submodules        boolean NOT NULL DEFAULT false,
    -- Files of Git LFS are fetched; otherwise their pointers are what the agent sees.
    ADD COLUMN lfs               boolean NOT NULL DEFAULT false,
    -- Folders that are checked out; empty: all.
    ADD COLUMN sparse_paths      text[]  NOT NULL DEFAULT '{}',
    -- How much of the history the cache holds.
    ADD COLUMN clone_depth       text    NOT NULL DEFAULT 'full'
        CHECK (clone_depth IN ('full', 'blobless', 'shallow'));
