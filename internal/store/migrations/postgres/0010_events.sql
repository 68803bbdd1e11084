-- Events. A join and a custody event are rows already: the feed names them, in
-- the order in which they were committed, and repeats nothing of them.

-- Pages of the feed, numbered without gaps in the order of their commits. tag is
-- drawn, so that a page is told from another of its number in a restored copy.
CREATE TABLE event_page (
    id    bigint PRIMARY KEY,
    tag   bigint NOT NULL CHECK (tag BETWEEN 1 AND 4294967295),
    at    bigint NOT NULL,
    kind  text COLLATE "C" NOT NULL CHECK (kind IN ('audit', 'joins', 'devices', 'import', 'refusal')),
    org   bigint, -- devices, import, refusal: whose
    first bigint, -- audit: the first row; devices, import: the import
    last  bigint, -- audit: the last row
    refs  bytea, -- joins: activation 8, owner 8; devices: device 8; each big-endian
    note  text COLLATE "C", -- refusal: JSON
    CHECK ((kind IN ('joins', 'devices')) = (refs IS NOT NULL)),
    CHECK ((kind = 'audit') = (last IS NOT NULL)),
    CHECK ((kind = 'refusal') = (note IS NOT NULL))
);

-- One row: up to where audit rows stand in pages, and the last page ever made.
CREATE TABLE event_feed (
    id        bigint PRIMARY KEY CHECK (id = 1),
    last_page bigint NOT NULL CHECK (last_page >= 0),
    audited   bigint NOT NULL CHECK (audited >= 0)
);

-- The servers that have, or had, the database open. Joins of one that stand in
-- no page have ids above its mark: those that a crash left out are found there.
CREATE TABLE event_source (
    server    bigint PRIMARY KEY, -- its epoch
    mark      bigint NOT NULL,
    marked_at bigint NOT NULL,
    beat      bigint NOT NULL
);

-- Where events are sent. The secret is derived in the keyring, from id and
-- generation. page and idx: everything up to there was delivered.
CREATE TABLE webhook (
    id            bigint PRIMARY KEY,
    org           bigint NOT NULL REFERENCES organisation,
    url           text COLLATE "C" NOT NULL,
    description   text COLLATE "C" NOT NULL,
    types         text COLLATE "C" NOT NULL, -- separated by spaces; '': the usual ones
    all_orgs      smallint NOT NULL CHECK (all_orgs IN (0, 1)),
    generation    bigint NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    rotated_at    bigint,
    overlap_until bigint,
    created_at    bigint NOT NULL,
    disabled      text COLLATE "C" NOT NULL, -- why nothing is sent; '': it is on
    page          bigint NOT NULL CHECK (page >= 0),
    idx           bigint NOT NULL CHECK (idx BETWEEN 0 AND 65535),
    failing_since bigint,
    attempts      bigint NOT NULL CHECK (attempts >= 0),
    next_at       bigint
);
CREATE INDEX webhook_org ON webhook (org);

-- The newest attempts to deliver, of each webhook.
CREATE TABLE webhook_delivery (
    webhook bigint NOT NULL REFERENCES webhook,
    n       bigint NOT NULL CHECK (n > 0),
    event   text COLLATE "C" NOT NULL,
    type    text COLLATE "C" NOT NULL,
    at      bigint NOT NULL,
    took    bigint NOT NULL, -- milliseconds
    attempt bigint NOT NULL,
    status  bigint NOT NULL,
    error   text COLLATE "C" NOT NULL,
    PRIMARY KEY (webhook, n)
);

-- When an event told the owner of these refusals.
ALTER TABLE refusal_device ADD COLUMN told_at bigint;
