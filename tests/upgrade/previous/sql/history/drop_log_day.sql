-- Drops the oldest day of the log when it ended more than $1 days ago; answers its name.
SELECT awo.drop_log_partition($1)
