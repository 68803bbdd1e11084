-- Export of root keys to their owner.

-- Public keys to which an organisation has root keys exported. A row outlives its
-- removal: exports and disclosures name it.
CREATE TABLE export_recipient (
    id         bigint PRIMARY KEY,
    org        bigint NOT NULL REFERENCES organisation,
    name       text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('file', 'join-server')),
    thumbprint text COLLATE "C" NOT NULL CHECK (length(thumbprint) = 43),
    public_key text COLLATE "C" NOT NULL,
    sha1       smallint NOT NULL CHECK (sha1 IN (0, 1)),
    added_by   text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    removed_at bigint
);
CREATE UNIQUE INDEX export_recipient_name ON export_recipient (org, name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX export_recipient_key ON export_recipient (org, thumbprint) WHERE removed_at IS NULL;

-- When exports need a second person. Without a row: auto, and no admin ever left.
-- next is the weaker rule that takes over at next_from, or waits for approval.
CREATE TABLE export_policy (
    org             bigint PRIMARY KEY REFERENCES organisation,
    approval        text COLLATE "C" NOT NULL CHECK (approval IN ('never', 'auto', 'always')),
    next            text COLLATE "C" CHECK (next IN ('never', 'auto')),
    next_from       bigint,
    proposed_by     text COLLATE "C",
    proposed_person bigint,
    admin_left_at   bigint,
    CHECK ((next IS NULL) = (proposed_by IS NULL)),
    CHECK (next_from IS NULL OR next IS NOT NULL)
);

-- Requests, for ever. The digest covers the devices in their order.
CREATE TABLE export (
    id               bigint PRIMARY KEY,
    org              bigint NOT NULL REFERENCES organisation,
    recipient        bigint NOT NULL REFERENCES export_recipient,
    state            text COLLATE "C" NOT NULL CHECK (state IN ('collecting', 'requested', 'approved', 'working', 'ready', 'delivered', 'rejected', 'withdrawn', 'expired')),
    devices          bigint NOT NULL CHECK (devices >= 0),
    wrapped          bigint NOT NULL CHECK (wrapped >= 0),
    dropped          bigint NOT NULL CHECK (dropped >= 0),
    digest           bytea CHECK (length(digest) = 32),
    form             text COLLATE "C" NOT NULL CHECK (form IN ('', 'raw', 'jwe', 'seal')), -- of the wrapped keys; '': the best that there is
    header           bytea, -- first line of the file; NULL before the first device is wrapped
    needs_approval   smallint NOT NULL CHECK (needs_approval IN (0, 1)),
    requested_by     text COLLATE "C" NOT NULL,
    requested_person bigint,
    requested_at     bigint NOT NULL,
    decided_by       text COLLATE "C",
    decided_at       bigint,
    note             text COLLATE "C" NOT NULL,
    ready_at         bigint,
    ended_at         bigint,
    expires_at       bigint NOT NULL,
    CHECK ((state IN ('delivered', 'rejected', 'withdrawn', 'expired')) = (ended_at IS NOT NULL)),
    CHECK (state = 'collecting' OR digest IS NOT NULL OR ended_at IS NOT NULL),
    CHECK (wrapped = 0 OR header IS NOT NULL),
    CHECK (wrapped + dropped <= devices)
);
CREATE INDEX export_org ON export (org);
CREATE INDEX export_recipient_of ON export (recipient);
CREATE INDEX export_open ON export (expires_at) WHERE ended_at IS NULL;

-- The devices of an export: 0 waiting, 1 wrapped, 2 dropped. blob is what its
-- recipient alone opens; it is there from the disclosure until the export ends.
CREATE TABLE export_item (
    export  bigint NOT NULL REFERENCES export,
    idx     bigint NOT NULL CHECK (idx >= 0),
    device  bigint NOT NULL REFERENCES device,
    key_set bigint NOT NULL REFERENCES key_set,
    join_eui bytea NOT NULL CHECK (length(join_eui) = 8),
    dev_eui bytea NOT NULL CHECK (length(dev_eui) = 8),
    epoch   bigint NOT NULL CHECK (epoch BETWEEN 0 AND 4294967295),
    state   smallint NOT NULL CHECK (state IN (0, 1, 2)),
    reason  text COLLATE "C" NOT NULL,
    blob    bytea,
    PRIMARY KEY (export, idx),
    CHECK ((state = 2) = (reason <> '')),
    CHECK (blob IS NULL OR state = 1)
);
CREATE UNIQUE INDEX export_item_device ON export_item (export, device);
CREATE INDEX export_item_waiting ON export_item (export, idx) WHERE state = 0;
CREATE INDEX export_item_blob ON export_item (export, idx) WHERE blob IS NOT NULL;

-- Whom a disclosure was to, and by what.
ALTER TABLE disclosure ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'file' CHECK (kind IN ('file', 'join-server'));
ALTER TABLE disclosure ADD COLUMN export bigint REFERENCES export;
