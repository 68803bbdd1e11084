-- Export of root keys to their owner.

-- Public keys to which an organisation has root keys exported. A row outlives its
-- removal: exports and disclosures name it.
CREATE TABLE export_recipient (
    id         INTEGER PRIMARY KEY,
    org        INTEGER NOT NULL REFERENCES organisation,
    name       TEXT    NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('file', 'join-server')),
    thumbprint TEXT    NOT NULL CHECK (length(thumbprint) = 43),
    public_key TEXT    NOT NULL,
    sha1       INTEGER NOT NULL CHECK (sha1 IN (0, 1)),
    added_by   TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER
) STRICT;
CREATE UNIQUE INDEX export_recipient_name ON export_recipient (org, name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX export_recipient_key ON export_recipient (org, thumbprint) WHERE removed_at IS NULL;

-- When exports need a second person. Without a row: auto, and no admin ever left.
-- next is the weaker rule that takes over at next_from, or waits for approval.
CREATE TABLE export_policy (
    org             INTEGER PRIMARY KEY REFERENCES organisation,
    approval        TEXT    NOT NULL CHECK (approval IN ('never', 'auto', 'always')),
    next            TEXT    CHECK (next IN ('never', 'auto')),
    next_from       INTEGER,
    proposed_by     TEXT,
    proposed_person INTEGER,
    admin_left_at   INTEGER,
    CHECK ((next IS NULL) = (proposed_by IS NULL)),
    CHECK (next_from IS NULL OR next IS NOT NULL)
) STRICT;

-- Requests, for ever. The digest covers the devices in their order.
CREATE TABLE export (
    id               INTEGER PRIMARY KEY,
    org              INTEGER NOT NULL REFERENCES organisation,
    recipient        INTEGER NOT NULL REFERENCES export_recipient,
    state            TEXT    NOT NULL CHECK (state IN ('collecting', 'requested', 'approved', 'working', 'ready', 'delivered', 'rejected', 'withdrawn', 'expired')),
    devices          INTEGER NOT NULL CHECK (devices >= 0),
    wrapped          INTEGER NOT NULL CHECK (wrapped >= 0),
    dropped          INTEGER NOT NULL CHECK (dropped >= 0),
    digest           BLOB    CHECK (length(digest) = 32),
    form             TEXT    NOT NULL CHECK (form IN ('', 'raw', 'jwe', 'seal')), -- of the wrapped keys; '': the best that there is
    header           BLOB, -- first line of the file; NULL before the first device is wrapped
    needs_approval   INTEGER NOT NULL CHECK (needs_approval IN (0, 1)),
    requested_by     TEXT    NOT NULL,
    requested_person INTEGER,
    requested_at     INTEGER NOT NULL,
    decided_by       TEXT,
    decided_at       INTEGER,
    note             TEXT    NOT NULL,
    ready_at         INTEGER,
    ended_at         INTEGER,
    expires_at       INTEGER NOT NULL,
    CHECK ((state IN ('delivered', 'rejected', 'withdrawn', 'expired')) = (ended_at IS NOT NULL)),
    CHECK (state = 'collecting' OR digest IS NOT NULL OR ended_at IS NOT NULL),
    CHECK (wrapped = 0 OR header IS NOT NULL),
    CHECK (wrapped + dropped <= devices)
) STRICT;
CREATE INDEX export_org ON export (org);
CREATE INDEX export_recipient_of ON export (recipient);
CREATE INDEX export_open ON export (expires_at) WHERE ended_at IS NULL;

-- The devices of an export: 0 waiting, 1 wrapped, 2 dropped. blob is what its
-- recipient alone opens; it is there from the disclosure until the export ends.
CREATE TABLE export_item (
    export  INTEGER NOT NULL REFERENCES export,
    idx     INTEGER NOT NULL CHECK (idx >= 0),
    device  INTEGER NOT NULL REFERENCES device,
    key_set INTEGER NOT NULL REFERENCES key_set,
    join_eui BLOB   NOT NULL CHECK (length(join_eui) = 8),
    dev_eui BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    epoch   INTEGER NOT NULL CHECK (epoch BETWEEN 0 AND 4294967295),
    state   INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    reason  TEXT    NOT NULL,
    blob    BLOB,
    PRIMARY KEY (export, idx),
    CHECK ((state = 2) = (reason <> '')),
    CHECK (blob IS NULL OR state = 1)
) STRICT;
CREATE UNIQUE INDEX export_item_device ON export_item (export, device);
CREATE INDEX export_item_waiting ON export_item (export, idx) WHERE state = 0;
CREATE INDEX export_item_blob ON export_item (export, idx) WHERE blob IS NOT NULL;

-- Whom a disclosure was to, and by what.
ALTER TABLE disclosure ADD COLUMN kind TEXT NOT NULL DEFAULT 'file' CHECK (kind IN ('file', 'join-server'));
ALTER TABLE disclosure ADD COLUMN export INTEGER REFERENCES export;
