SELECT broken, subject FROM awo.invariants
