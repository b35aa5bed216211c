SELECT coalesce(max(version), 0) FROM awo._sqlx_migrations
