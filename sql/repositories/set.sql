-- Sets what $2 names of the policy of a repository and, unless it is NULL, its limit: both or neither.
SELECT public.awo_set_repository_policy($1, $2),
    CASE WHEN $3::integer IS NOT NULL THEN public.awo_set_repository_limit($1, $3) END
