-- What there is to say the version of the schema: its record of migrations, and the function that names
-- the oldest program that works on it.
SELECT to_regclass('awo._sqlx_migrations') IS NOT NULL AS migrations,
    to_regprocedure('awo.oldest_program()') IS NOT NULL AS oldest_program
