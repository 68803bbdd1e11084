-- Refused requests, explained. The table of the first schema was never written.
DROP TABLE refusal;

-- Refused requests about a device, counted by what they have in common. owner is
-- who held the device then: nobody else reads the row. received and decided are
-- JSON: what the last request said, and the state that decided; no keys.
CREATE TABLE refusal_device (
    device   INTEGER NOT NULL REFERENCES device,
    owner    INTEGER NOT NULL REFERENCES organisation,
    peer     INTEGER NOT NULL REFERENCES peer,
    reason   TEXT    NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    received TEXT    NOT NULL,
    decided  TEXT    NOT NULL,
    PRIMARY KEY (device, owner, peer, reason),
    CHECK (first_at <= last_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX refusal_device_peer ON refusal_device (peer, last_at);

-- The newest devices that a peer asked about and that are not here.
CREATE TABLE refusal_unknown (
    peer     INTEGER NOT NULL REFERENCES peer,
    join_eui BLOB    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    reason   TEXT    NOT NULL, -- the last one
    count    INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    received TEXT    NOT NULL,
    PRIMARY KEY (peer, join_eui, dev_eui),
    CHECK (first_at <= last_at)
) STRICT, WITHOUT ROWID;

-- All that a peer was refused, by reason.
CREATE TABLE refusal_peer (
    peer     INTEGER NOT NULL REFERENCES peer,
    reason   TEXT    NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    received TEXT    NOT NULL,
    PRIMARY KEY (peer, reason),
    CHECK (first_at <= last_at)
) STRICT, WITHOUT ROWID;
