-- Says $2 to order $1 and queues it again; answers its id.
SELECT public.awo_prompt(id => $1, prompt => $2)
