-- Around a migration through a pooler: what was prepared on this server connection goes, because the
-- next client of the connection would use the same names. Nobody else's is there in transaction mode,
-- and a pooler that keeps statements apart for its clients answers this itself.
DEALLOCATE ALL
