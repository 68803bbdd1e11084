-- A database that may be older than the joins that were answered from it, or
-- that may have a twin, answers none: it is fenced until the operator confirms,
-- and then every JoinNonce jumps. moving and moved: its state goes, or went, to
-- another database.
ALTER TABLE store
    ADD COLUMN fence text COLLATE "C" NOT NULL DEFAULT 'none'
        CHECK (fence IN ('none', 'restored', 'forked', 'moving', 'moved')),
    ADD COLUMN fence_at   bigint,                               -- since when; NULL: none
    ADD COLUMN fence_note text COLLATE "C" NOT NULL DEFAULT '', -- why, for people; moving, moved: whither
-- A confirmation goes through the key sets in batches and can be taken up again:
-- jump is by how much their JoinNonces rise, jumped the last one that did.
    ADD COLUMN jump   bigint CHECK (jump > 0),                  -- NULL: none under way
    ADD COLUMN jumped bigint NOT NULL DEFAULT 0,
-- The sum of all jumps: key sets begin here, because a device that is imported
-- again may have joined before the copy was taken back.
    ADD COLUMN join_nonce_floor bigint NOT NULL DEFAULT 0
        CHECK (join_nonce_floor BETWEEN 0 AND 16777215),
-- How a server knows that this is the database which it had open last, at the
-- same place. NULL: not opened since it was made.
    ADD COLUMN instance bytea CHECK (length(instance) = 16),
    ADD COLUMN home     text COLLATE "C" NOT NULL DEFAULT '';

-- The master keys that this database was served with: their key check values
-- tell another key of the same name.
CREATE TABLE master_key (
    name    text COLLATE "C" PRIMARY KEY,
    profile text COLLATE "C" NOT NULL,
    kcv     text COLLATE "C" NOT NULL
);
