-- Orders to rekey many devices at once.

-- Requests, for ever; each device gets an order of its own in rekey. The digest
-- covers the devices in their order, as that of an export does.
CREATE TABLE rekey_batch (
    id               INTEGER PRIMARY KEY,
    org              INTEGER NOT NULL REFERENCES organisation,
    state            TEXT    NOT NULL CHECK (state IN ('collecting', 'requested', 'approved', 'done', 'rejected', 'withdrawn')),
    join_eui         BLOB    NOT NULL CHECK (length(join_eui) = 8),
    join_server      INTEGER REFERENCES join_server,
    recipient        INTEGER REFERENCES export_recipient,
    thumbprint       TEXT    NOT NULL, -- of the key to which the new root keys go
    rekey_key        INTEGER NOT NULL CHECK (rekey_key IN (0, 1)),
    life             INTEGER NOT NULL CHECK (life > 0), -- of each order, milliseconds
    devices          INTEGER NOT NULL CHECK (devices >= 0),
    armed            INTEGER NOT NULL CHECK (armed >= 0),
    failed           INTEGER NOT NULL CHECK (failed >= 0),
    digest           BLOB    CHECK (length(digest) = 32),
    needs_approval   INTEGER NOT NULL CHECK (needs_approval IN (0, 1)),
    requested_by     TEXT    NOT NULL,
    requested_person INTEGER,
    requested_at     INTEGER NOT NULL,
    decided_by       TEXT,
    decided_at       INTEGER,
    note             TEXT    NOT NULL,
    ended_at         INTEGER,
    expires_at       INTEGER NOT NULL, -- unless it was approved by then
    CHECK ((join_server IS NULL) <> (recipient IS NULL)),
    CHECK ((state IN ('done', 'rejected', 'withdrawn')) = (ended_at IS NOT NULL)),
    CHECK (state = 'collecting' OR digest IS NOT NULL OR ended_at IS NOT NULL),
    CHECK (armed + failed <= devices)
) STRICT;
CREATE INDEX rekey_batch_org ON rekey_batch (org);
CREATE INDEX rekey_batch_approved ON rekey_batch (id) WHERE state = 'approved';

-- The devices of a batch: 0 waiting, 1 armed, 2 failed. rekey is the order that one
-- got, or had to the same effect.
CREATE TABLE rekey_batch_item (
    batch    INTEGER NOT NULL REFERENCES rekey_batch,
    idx      INTEGER NOT NULL CHECK (idx >= 0),
    device   INTEGER NOT NULL REFERENCES device,
    join_eui BLOB    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    epoch    INTEGER NOT NULL CHECK (epoch BETWEEN 0 AND 4294967295),
    state    INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    rekey    INTEGER REFERENCES rekey,
    code     TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    PRIMARY KEY (batch, idx),
    CHECK ((state = 1) = (rekey IS NOT NULL)),
    CHECK ((state = 2) = (reason <> ''))
) STRICT;
CREATE UNIQUE INDEX rekey_batch_item_device ON rekey_batch_item (batch, device);
CREATE INDEX rekey_batch_item_waiting ON rekey_batch_item (batch, idx) WHERE state = 0;
