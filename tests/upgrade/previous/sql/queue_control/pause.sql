SELECT public.awo_pause_queue(name => $1)
