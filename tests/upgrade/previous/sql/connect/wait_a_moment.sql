-- Between two attempts of a migration: whoever waited behind it goes first.
SELECT pg_sleep(1)
