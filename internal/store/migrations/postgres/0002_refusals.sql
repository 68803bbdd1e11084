-- Refused requests, explained. The table of the first schema was never written.
DROP TABLE refusal;

-- Refused requests about a device, counted by what they have in common. owner is
-- who held the device then: nobody else reads the row. received and decided are
-- JSON: what the last request said, and the state that decided; no keys.
CREATE TABLE refusal_device (
    device   bigint           NOT NULL REFERENCES device,
    owner    bigint           NOT NULL REFERENCES organisation,
    peer     bigint           NOT NULL REFERENCES peer,
    reason   text COLLATE "C" NOT NULL,
    count    bigint           NOT NULL CHECK (count > 0),
    first_at bigint           NOT NULL,
    last_at  bigint           NOT NULL,
    received text COLLATE "C" NOT NULL,
    decided  text COLLATE "C" NOT NULL,
    PRIMARY KEY (device, owner, peer, reason),
    CHECK (first_at <= last_at)
);
CREATE INDEX refusal_device_peer ON refusal_device (peer, last_at);

-- The newest devices that a peer asked about and that are not here.
CREATE TABLE refusal_unknown (
    peer     bigint           NOT NULL REFERENCES peer,
    join_eui bytea            NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  bytea            NOT NULL CHECK (length(dev_eui) = 8),
    reason   text COLLATE "C" NOT NULL, -- the last one
    count    bigint           NOT NULL CHECK (count > 0),
    first_at bigint           NOT NULL,
    last_at  bigint           NOT NULL,
    received text COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, join_eui, dev_eui),
    CHECK (first_at <= last_at)
);

-- All that a peer was refused, by reason.
CREATE TABLE refusal_peer (
    peer     bigint           NOT NULL REFERENCES peer,
    reason   text COLLATE "C" NOT NULL,
    count    bigint           NOT NULL CHECK (count > 0),
    first_at bigint           NOT NULL,
    last_at  bigint           NOT NULL,
    received text COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, reason),
    CHECK (first_at <= last_at)
);
