-- The schema version for which the oldest program was made that still works.
SELECT awo.oldest_program()
