-- Rekeying: a device derives new root keys inside its element, and joins at
-- another Join Server with them.

-- Other Join Servers to which new root keys may go: pinned by the operator. A row
-- outlives its removal, since orders refer to it.
CREATE TABLE join_server (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL,
    transport_key BLOB    NOT NULL, -- SubjectPublicKeyInfo
    receipt_key   BLOB,             -- the same, of what signs its receipts; NULL: it gives none
    created_at    INTEGER NOT NULL,
    removed_at    INTEGER
) STRICT;
CREATE UNIQUE INDEX join_server_name ON join_server (name) WHERE removed_at IS NULL;

-- Orders to rekey. One of a device is open at most; that it expired is seen by
-- its time.
CREATE TABLE rekey (
    id            INTEGER PRIMARY KEY,
    device        INTEGER NOT NULL REFERENCES device,
    state         TEXT    NOT NULL CHECK (state IN ('armed', 'sent', 'confirmed', 'cancelled', 'expired')),
    join_eui      BLOB    NOT NULL CHECK (length(join_eui) = 8),
    cookie        BLOB    NOT NULL CHECK (length(cookie) = 7),
    join_server   INTEGER NOT NULL REFERENCES join_server,
    org           INTEGER NOT NULL REFERENCES organisation,
    actor         TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    sent          INTEGER NOT NULL CHECK (sent >= 0),
    first_sent_at INTEGER,
    last_sent_at  INTEGER,
    ended_at      INTEGER,
    UNIQUE (device, cookie),
    CHECK ((sent = 0) = (first_sent_at IS NULL)),
    CHECK ((sent = 0) = (last_sent_at IS NULL)),
    CHECK ((state IN ('armed', 'sent')) = (ended_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX rekey_open ON rekey (device) WHERE ended_at IS NULL;

-- Key sets that a device may have by now instead of the one that it is known to
-- have: of each instruction that was sent.
CREATE TABLE rekey_candidate (
    device  INTEGER NOT NULL REFERENCES device,
    key_set INTEGER NOT NULL REFERENCES key_set,
    PRIMARY KEY (device, key_set)
) STRICT, WITHOUT ROWID;

-- The JoinEUI that a rekeyed key set derives with, beside its cookie.
ALTER TABLE key_set ADD COLUMN rekey_join_eui BLOB CHECK (length(rekey_join_eui) = 8);

-- How a device rekeys (none, S, M), and whether its joins have to look here.
ALTER TABLE device ADD COLUMN rekey_profile INTEGER NOT NULL DEFAULT 0 CHECK (rekey_profile IN (0, 1, 2));
ALTER TABLE device ADD COLUMN rekeying INTEGER NOT NULL DEFAULT 0 CHECK (rekeying IN (0, 1));
