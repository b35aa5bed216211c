SELECT public.awo_resume_queue(name => $1)
