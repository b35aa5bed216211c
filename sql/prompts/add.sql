-- Says $2 to order $1 and queues it again, with $3 also when its pull request is merged or closed; answers its id.
SELECT public.awo_prompt(id => $1, prompt => $2, reopen => $3)
