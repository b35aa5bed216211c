-- Appends chunks to the log of order $3 under job $1 and epoch $2; the rules are in awo.append_log.
-- Answers whether the epoch was current.
SELECT awo.append_log($1, $2, $3, $4, $5, $6, $7, $8, $9)
