-- A database that may be older than the joins that were answered from it, or
-- that may have a twin, answers none: it is fenced until the operator confirms,
-- and then every JoinNonce jumps. moving and moved: its state goes, or went, to
-- another database.
ALTER TABLE store ADD COLUMN fence TEXT NOT NULL DEFAULT 'none'
    CHECK (fence IN ('none', 'restored', 'forked', 'moving', 'moved'));
ALTER TABLE store ADD COLUMN fence_at INTEGER;                 -- since when; NULL: none
ALTER TABLE store ADD COLUMN fence_note TEXT NOT NULL DEFAULT ''; -- why, for people; moving, moved: whither
-- A confirmation goes through the key sets in batches and can be taken up again:
-- jump is by how much their JoinNonces rise, jumped the last one that did.
ALTER TABLE store ADD COLUMN jump INTEGER CHECK (jump > 0);    -- NULL: none under way
ALTER TABLE store ADD COLUMN jumped INTEGER NOT NULL DEFAULT 0;
-- The sum of all jumps: key sets begin here, because a device that is imported
-- again may have joined before the copy was taken back.
ALTER TABLE store ADD COLUMN join_nonce_floor INTEGER NOT NULL DEFAULT 0
    CHECK (join_nonce_floor BETWEEN 0 AND 16777215);
-- How a server knows that this is the database which it had open last, at the
-- same place. instance stands in the mark file, too. NULL: not opened since it
-- was made.
ALTER TABLE store ADD COLUMN instance BLOB CHECK (length(instance) = 16);
ALTER TABLE store ADD COLUMN home TEXT NOT NULL DEFAULT '';

-- The master keys that this database was served with: their key check values
-- tell another key of the same name.
CREATE TABLE master_key (
    name    TEXT PRIMARY KEY,
    profile TEXT NOT NULL,
    kcv     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
