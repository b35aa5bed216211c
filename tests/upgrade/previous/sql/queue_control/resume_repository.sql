SELECT public.awo_resume_repository(repo => $1)
