SELECT to_regclass('awo._sqlx_migrations') IS NOT NULL
