-- What awo.invariants shows, the first hundred.
SELECT broken AS problem, subject, NULL::double precision AS seconds
FROM awo.invariants
LIMIT 100
