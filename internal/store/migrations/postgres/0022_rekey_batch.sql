-- Orders to rekey many devices at once.

-- Requests, for ever; each device gets an order of its own in rekey. The digest
-- covers the devices in their order, as that of an export does.
CREATE TABLE rekey_batch (
    id               bigint PRIMARY KEY,
    org              bigint NOT NULL REFERENCES organisation,
    state            text COLLATE "C"    NOT NULL CHECK (state IN ('collecting', 'requested', 'approved', 'done', 'rejected', 'withdrawn')),
    join_eui         bytea    NOT NULL CHECK (length(join_eui) = 8),
    join_server      bigint REFERENCES join_server,
    recipient        bigint REFERENCES export_recipient,
    thumbprint       text COLLATE "C"    NOT NULL, -- of the key to which the new root keys go
    rekey_key        smallint NOT NULL CHECK (rekey_key IN (0, 1)),
    life             bigint NOT NULL CHECK (life > 0), -- of each order, milliseconds
    devices          bigint NOT NULL CHECK (devices >= 0),
    armed            bigint NOT NULL CHECK (armed >= 0),
    failed           bigint NOT NULL CHECK (failed >= 0),
    digest           bytea    CHECK (length(digest) = 32),
    needs_approval   smallint NOT NULL CHECK (needs_approval IN (0, 1)),
    requested_by     text COLLATE "C"    NOT NULL,
    requested_person bigint,
    requested_at     bigint NOT NULL,
    decided_by       text COLLATE "C",
    decided_at       bigint,
    note             text COLLATE "C"    NOT NULL,
    ended_at         bigint,
    expires_at       bigint NOT NULL, -- unless it was approved by then
    CHECK ((join_server IS NULL) <> (recipient IS NULL)),
    CHECK ((state IN ('done', 'rejected', 'withdrawn')) = (ended_at IS NOT NULL)),
    CHECK (state = 'collecting' OR digest IS NOT NULL OR ended_at IS NOT NULL),
    CHECK (armed + failed <= devices)
);
CREATE INDEX rekey_batch_org ON rekey_batch (org);
CREATE INDEX rekey_batch_approved ON rekey_batch (id) WHERE state = 'approved';

-- The devices of a batch: 0 waiting, 1 armed, 2 failed. rekey is the order that one
-- got, or had to the same effect.
CREATE TABLE rekey_batch_item (
    batch    bigint NOT NULL REFERENCES rekey_batch,
    idx      bigint NOT NULL CHECK (idx >= 0),
    device   bigint NOT NULL REFERENCES device,
    join_eui bytea    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  bytea    NOT NULL CHECK (length(dev_eui) = 8),
    epoch    bigint NOT NULL CHECK (epoch BETWEEN 0 AND 4294967295),
    state    smallint NOT NULL CHECK (state IN (0, 1, 2)),
    rekey    bigint REFERENCES rekey,
    code     text COLLATE "C"    NOT NULL,
    reason   text COLLATE "C"    NOT NULL,
    PRIMARY KEY (batch, idx),
    CHECK ((state = 1) = (rekey IS NOT NULL)),
    CHECK ((state = 2) = (reason <> ''))
);
CREATE UNIQUE INDEX rekey_batch_item_device ON rekey_batch_item (batch, device);
CREATE INDEX rekey_batch_item_waiting ON rekey_batch_item (batch, idx) WHERE state = 0;
