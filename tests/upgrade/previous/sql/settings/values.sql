-- Plain values of the settings $1 in Archon's table.
SELECT key, value FROM public.archon_settings
WHERE key = ANY ($1) AND value IS NOT NULL AND NOT coalesce(is_encrypted, false)
