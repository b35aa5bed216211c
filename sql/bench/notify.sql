SELECT pg_notify('awo_bench', $1::text)
