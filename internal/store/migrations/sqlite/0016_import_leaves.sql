-- What the custody log commits to of each import: the devices of a run of rows, by
-- the root of a tree of which these are the leaves.

-- The audit row that commits to this run, what hides its leaves, and 32 bytes for
-- each row: zeros where the row made no device. NULL in runs that made none, and in
-- those from before.
ALTER TABLE import_run ADD COLUMN audit INTEGER REFERENCES audit;
ALTER TABLE import_run ADD COLUMN salt BLOB CHECK (length(salt) = 32);
ALTER TABLE import_run ADD COLUMN leaves BLOB CHECK (length(leaves) = length(devices) * 4);

-- The audit row that commits to the device; NULL: it was imported before there were
-- such.
ALTER TABLE device ADD COLUMN imported INTEGER;

-- How many of the refusals the log has told of.
ALTER TABLE refusal_device ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
CREATE INDEX refusal_device_untold ON refusal_device (told_at) WHERE count > told;

-- Under which generations of its keys a server served last, and what it found.
CREATE TABLE served_keys (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    keys TEXT    NOT NULL -- JSON
) STRICT;
