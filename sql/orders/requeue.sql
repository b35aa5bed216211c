SELECT public.awo_requeue(id => $1, from_step => $2, reopen => $3)
