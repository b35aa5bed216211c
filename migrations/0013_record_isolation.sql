-- How far the agent of a step was shut in, as its last process found it: a level (full, partial, none)
-- and the means, in words. Empty for steps without an agent.
ALTER TABLE public.agent_work_order_steps ADD COLUMN isolation text;
