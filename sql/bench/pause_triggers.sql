-- A million rows are put there at once, and they need no worker's attention.
ALTER TABLE awo.jobs DISABLE TRIGGER USER
