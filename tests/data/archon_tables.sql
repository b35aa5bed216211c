-- A database as Archon and Supabase leave it before archon-awo comes: the API roles, what they are
-- granted by default, and Archon's own tables with rows. Written for tests; the names are Archon's.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        BEGIN
            -- Supabase lets service_role pass row security; here it must get by with its policies.
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;   -- Roles belong to the server: another test's database made it.
        END;
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;

CREATE SCHEMA auth;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('request.jwt.claim.role', true), '') $$;

CREATE FUNCTION public.update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.updated_at = now();
    RETURN new;
END $$;

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
CREATE INDEX idx_archon_settings_key ON public.archon_settings (key);
CREATE TRIGGER update_archon_settings_updated_at BEFORE UPDATE ON public.archon_settings
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
ALTER TABLE public.archon_settings ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Allow service role full access" ON public.archon_settings
    FOR ALL USING (auth.role() = 'service_role');

INSERT INTO public.archon_settings (key, value, encrypted_value, is_encrypted, category, description) VALUES
    ('LLM_PROVIDER', 'openai', NULL, false, 'rag_strategy', 'Which provider answers'),
    ('MATCH_COUNT', '5', NULL, false, 'rag_strategy', NULL),
    ('ANTHROPIC_API_KEY', NULL, 'Z0FBQUFBQm5vdC1hLXJlYWwtdG9rZW4=', true, 'api_keys', 'Encrypted by Archon');

CREATE TABLE public.archon_projects (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    title        text NOT NULL,
    docs         jsonb DEFAULT '[]',
    github_repo  text,
    created_at   timestamptz DEFAULT now(),
    updated_at   timestamptz DEFAULT now()
);
CREATE TRIGGER update_archon_projects_updated_at BEFORE UPDATE ON public.archon_projects
    FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
INSERT INTO public.archon_projects (title, github_repo) VALUES ('Demo', 'https://github.com/acme/app');

CREATE TABLE public.archon_migrations (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    version         varchar(20) NOT NULL,
    migration_name  varchar(255) NOT NULL,
    applied_at      timestamptz DEFAULT now(),
    UNIQUE (version, migration_name)
);
INSERT INTO public.archon_migrations (version, migration_name) VALUES ('0.1.0', '001_add_source_url_display_name');
