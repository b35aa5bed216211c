-- Makes the tables for the log of the next days; answers how many were missing.
SELECT awo.ensure_log_partitions()
