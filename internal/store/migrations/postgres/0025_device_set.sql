-- What is ordered for many devices at once stands in the custody log of each.

-- The devices of an export, or of an order to rekey many, whose id it has: a tree over
-- them. Its root stands in the entries about the order; salt hides each device from who
-- is shown another one; nodes is the hash of each 256 leaves, 32 bytes each.
CREATE TABLE device_set (
    id    bigint PRIMARY KEY,
    salt  bytea  NOT NULL CHECK (length(salt) = 32),
    root  bytea  NOT NULL CHECK (length(root) = 32),
    nodes bytea  NOT NULL CHECK (length(nodes) % 32 = 0)
);
CREATE INDEX export_item_of ON export_item (device);
CREATE INDEX rekey_batch_item_of ON rekey_batch_item (device);

-- Of an entry about no device: the export, the batch or the arrival that it is about.
ALTER TABLE audit ADD COLUMN subject bigint;
CREATE INDEX audit_subject ON audit (subject) WHERE subject > 0;
