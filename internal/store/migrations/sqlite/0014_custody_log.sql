-- The custody log: a Merkle tree over the leaves of audit rows and activations,
-- as C2SP tlog-tiles has it.

-- One row: how far the tree got, and where what follows is found. scanned is the
-- last activation that a scan of all rows took, while one goes on.
CREATE TABLE log_state (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    origin          TEXT    NOT NULL,
    line            INTEGER NOT NULL CHECK (line >= 1),
    size            INTEGER NOT NULL CHECK (size >= 0),
    root            BLOB    NOT NULL CHECK (length(root) = 32),
    page            INTEGER NOT NULL CHECK (page >= 0), -- of the feed, done with
    audited         INTEGER NOT NULL CHECK (audited >= 0), -- last audit row in the tree
    scanning        INTEGER NOT NULL CHECK (scanning IN (0, 1)),
    scanned         INTEGER NOT NULL CHECK (scanned >= 0),
    scan_size       INTEGER NOT NULL CHECK (scan_size >= 0), -- of the tree when the scan began
    settled_at      INTEGER NOT NULL, -- pages from before may name what the scan took
    checkpoint      TEXT    NOT NULL, -- newest signed; '': none
    checkpoint_size INTEGER NOT NULL CHECK (checkpoint_size BETWEEN 0 AND size)
) STRICT;

-- Lines of the log that a restore ended, as they were last known here.
CREATE TABLE log_line (
    line       INTEGER PRIMARY KEY,
    origin     TEXT    NOT NULL,
    size       INTEGER NOT NULL CHECK (size >= 0),
    root       BLOB    NOT NULL CHECK (length(root) = 32),
    checkpoint TEXT    NOT NULL,
    ended_at   INTEGER NOT NULL,
    audit      INTEGER NOT NULL REFERENCES audit -- which tells of it
) STRICT;

-- 256 leaves each, the last one fewer: which row each is (8 bytes, big-endian: an
-- activation, or minus an audit row), and its record of 33 bytes.
CREATE TABLE log_bundle (
    idx     INTEGER PRIMARY KEY CHECK (idx >= 0),
    refs    BLOB    NOT NULL CHECK (length(refs) BETWEEN 8 AND 2048),
    records BLOB    NOT NULL CHECK (length(records) * 8 = length(refs) * 33)
) STRICT;

-- Tiles of level 1 and above; those of level 0 are made from the records.
CREATE TABLE log_tile (
    level  INTEGER NOT NULL CHECK (level BETWEEN 1 AND 7),
    idx    INTEGER NOT NULL CHECK (idx >= 0),
    hashes BLOB    NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- In which leaves a row is found: kind 1, audit rows from number key on, one leaf
-- each; kind 2, activations of the minute key, among others.
CREATE TABLE log_place (
    kind  INTEGER NOT NULL CHECK (kind IN (1, 2)),
    key   INTEGER NOT NULL,
    first INTEGER NOT NULL CHECK (first >= 0),
    last  INTEGER NOT NULL,
    PRIMARY KEY (kind, key, first),
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- Activations that were named for another server, which may name them, too.
CREATE TABLE log_found (
    id INTEGER PRIMARY KEY
) STRICT;

-- How far each witness has followed the log.
CREATE TABLE log_witness (
    name TEXT    NOT NULL,
    line INTEGER NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    PRIMARY KEY (name, line)
) STRICT, WITHOUT ROWID;

-- What was erased, by which audit row. ref is as in log_bundle.
CREATE TABLE log_erasure (
    ref   INTEGER PRIMARY KEY,
    audit INTEGER NOT NULL REFERENCES audit
) STRICT;

-- The number of an audit row among those about its device, from 1.
ALTER TABLE audit ADD COLUMN n INTEGER;

-- What hides the name of an owner in the log until somebody tells it.
ALTER TABLE ownership ADD COLUMN nonce BLOB CHECK (nonce IS NULL OR length(nonce) = 16);
