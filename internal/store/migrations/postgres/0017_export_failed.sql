-- An export that could not be done. It is a rejected one to versions before this,
-- and its note says why.
ALTER TABLE export ADD COLUMN failed smallint NOT NULL DEFAULT 0 CHECK (failed = 0 OR failed = 1 AND state = 'rejected' AND wrapped = 0 AND note <> '');
