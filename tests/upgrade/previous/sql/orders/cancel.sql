SELECT public.awo_cancel(id => $1, reason => $2)
