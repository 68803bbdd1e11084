-- Hand-overs from server to server: what goes to other Join Servers, and what
-- comes from them.

-- A pinned Join Server may be reached, and may call: where, and how it proves who
-- it is in both directions (a pin of its public key, or a CA and, where that is
-- shared, a name). cursor is how far its receipts were read.
ALTER TABLE join_server ADD COLUMN url TEXT;
ALTER TABLE join_server ADD COLUMN spki BLOB CHECK (length(spki) = 32);
ALTER TABLE join_server ADD COLUMN ca BLOB;
ALTER TABLE join_server ADD COLUMN san TEXT;
ALTER TABLE join_server ADD COLUMN cursor INTEGER NOT NULL DEFAULT 0 CHECK (cursor >= 0);

-- JoinEUIs: outward, those that are its own; inward, those of this server's into
-- which it may hand over.
CREATE TABLE join_server_range (
    join_server INTEGER NOT NULL REFERENCES join_server,
    inward      INTEGER NOT NULL CHECK (inward IN (0, 1)),
    first       BLOB    NOT NULL CHECK (length(first) = 8),
    last        BLOB    NOT NULL CHECK (length(last) = 8 AND last >= first),
    PRIMARY KEY (join_server, inward, first)
) STRICT, WITHOUT ROWID;

-- Whether the rekeying key goes with the root keys, as the owner ordered.
ALTER TABLE rekey ADD COLUMN rekey_key INTEGER NOT NULL DEFAULT 0 CHECK (rekey_key IN (0, 1));

-- How far the hand-over of an order has come that goes to a Join Server which is
-- reached. offered is the hash of the key sets that were offered last; next_at
-- when there is something to do again, NULL for nothing.
CREATE TABLE passage (
    rekey      INTEGER PRIMARY KEY REFERENCES rekey,
    state      TEXT    NOT NULL CHECK (state IN ('waiting', 'parked', 'taken', 'refused', 'joined', 'file')),
    said       TEXT    NOT NULL,
    offered    BLOB,
    tries      INTEGER NOT NULL CHECK (tries >= 0),
    next_at    INTEGER,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX passage_due ON passage (next_at) WHERE next_at IS NOT NULL;

-- What an organisation expects of other Join Servers, and how it is bound when it
-- comes.
CREATE TABLE expectation (
    id             INTEGER PRIMARY KEY,
    org            INTEGER NOT NULL REFERENCES organisation,
    join_server    INTEGER NOT NULL REFERENCES join_server,
    first          BLOB    NOT NULL CHECK (length(first) = 8),
    last           BLOB    NOT NULL CHECK (length(last) = 8 AND last >= first),
    net_id         BLOB    CHECK (length(net_id) = 3),
    ns_id          BLOB    CHECK (length(ns_id) = 8),
    as_id          TEXT    NOT NULL,
    app_s_key      INTEGER NOT NULL,
    clear_nwk_keys INTEGER NOT NULL CHECK (clear_nwk_keys IN (0, 1)),
    locked         INTEGER NOT NULL CHECK (locked IN (0, 1)),
    actor          TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX expectation_org ON expectation (org, id);

-- What other Join Servers handed over, by their orders. content is the sealed keys
-- as they came; NULL once they were taken in, or were refused.
CREATE TABLE arrival (
    id          INTEGER PRIMARY KEY,
    join_server INTEGER NOT NULL REFERENCES join_server,
    ref         TEXT    NOT NULL,
    org         INTEGER NOT NULL REFERENCES organisation,
    join_eui    BLOB    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui     BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    cookie      BLOB    NOT NULL CHECK (length(cookie) = 7),
    state       TEXT    NOT NULL CHECK (state IN ('parked', 'taken', 'refused', 'joined')),
    reason      TEXT    NOT NULL,
    device      INTEGER REFERENCES device,
    join_nonce  INTEGER NOT NULL, -- of the device when it was taken in: a higher one is a join
    content     BLOB,
    offered_at  INTEGER NOT NULL, -- as its sender says
    at          INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL,
    UNIQUE (join_server, ref),
    CHECK ((state IN ('taken', 'joined')) = (device IS NOT NULL))
) STRICT;
CREATE INDEX arrival_org ON arrival (org, id);
CREATE INDEX arrival_device ON arrival (device) WHERE device IS NOT NULL;
CREATE INDEX arrival_waits ON arrival (join_server, id) WHERE state = 'taken';

-- The key sets that came with an arrival, by what its sender calls them.
CREATE TABLE arrival_key (
    arrival INTEGER NOT NULL REFERENCES arrival,
    label   TEXT    NOT NULL,
    key_set INTEGER NOT NULL,
    PRIMARY KEY (arrival, label)
) STRICT, WITHOUT ROWID;

-- What became of arrivals, numbered for each Join Server as it is told: its
-- receipts. line is one entry of a receipt, as it is signed each time.
CREATE TABLE arrival_news (
    join_server INTEGER NOT NULL REFERENCES join_server,
    n           INTEGER NOT NULL CHECK (n > 0),
    line        BLOB    NOT NULL,
    PRIMARY KEY (join_server, n)
) STRICT, WITHOUT ROWID;

-- Rekeying keys that were handed over: held is a sealed key set that belongs to no
-- device by itself, and has the rekeying key (profile S) or the halves of the slot
-- key (profile M) in the places of root keys, under MACs of their own kind.
-- key_set is the one whose device rekeys with it.
CREATE TABLE rekeying_key (
    key_set INTEGER PRIMARY KEY REFERENCES key_set,
    held    INTEGER NOT NULL UNIQUE REFERENCES key_set
) STRICT;
