SELECT public.awo_pause_repository(repo => $1)
