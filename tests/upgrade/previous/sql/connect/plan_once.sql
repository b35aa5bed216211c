-- Each statement is planned once for a connection. Planned anew for the values of every call, a claim
-- takes three times as long to plan as to run; no statement here has a better plan for some values.
SET plan_cache_mode = force_generic_plan
