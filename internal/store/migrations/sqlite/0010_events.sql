-- Events. A join and a custody event are rows already: the feed names them, in
-- the order in which they were committed, and repeats nothing of them.

-- Pages of the feed, numbered without gaps in the order of their commits. tag is
-- drawn, so that a page is told from another of its number in a restored copy.
CREATE TABLE event_page (
    id    INTEGER PRIMARY KEY,
    tag   INTEGER NOT NULL CHECK (tag BETWEEN 1 AND 4294967295),
    at    INTEGER NOT NULL,
    kind  TEXT    NOT NULL CHECK (kind IN ('audit', 'joins', 'devices', 'import', 'refusal')),
    org   INTEGER, -- devices, import, refusal: whose
    first INTEGER, -- audit: the first row; devices, import: the import
    last  INTEGER, -- audit: the last row
    refs  BLOB,    -- joins: activation 8, owner 8; devices: device 8; each big-endian
    note  TEXT,    -- refusal: JSON
    CHECK ((kind IN ('joins', 'devices')) = (refs IS NOT NULL)),
    CHECK ((kind = 'audit') = (last IS NOT NULL)),
    CHECK ((kind = 'refusal') = (note IS NOT NULL))
) STRICT;

-- One row: up to where audit rows stand in pages, and the last page ever made.
CREATE TABLE event_feed (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    last_page INTEGER NOT NULL CHECK (last_page >= 0),
    audited   INTEGER NOT NULL CHECK (audited >= 0)
) STRICT;

-- The servers that have, or had, the database open. Joins of one that stand in
-- no page have ids above its mark: those that a crash left out are found there.
CREATE TABLE event_source (
    server    INTEGER PRIMARY KEY, -- its epoch
    mark      INTEGER NOT NULL,
    marked_at INTEGER NOT NULL,
    beat      INTEGER NOT NULL
) STRICT;

-- Where events are sent. The secret is derived in the keyring, from id and
-- generation. page and idx: everything up to there was delivered.
CREATE TABLE webhook (
    id            INTEGER PRIMARY KEY,
    org           INTEGER NOT NULL REFERENCES organisation,
    url           TEXT    NOT NULL,
    description   TEXT    NOT NULL,
    types         TEXT    NOT NULL, -- separated by spaces; '': the usual ones
    all_orgs      INTEGER NOT NULL CHECK (all_orgs IN (0, 1)),
    generation    INTEGER NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    rotated_at    INTEGER,
    overlap_until INTEGER,
    created_at    INTEGER NOT NULL,
    disabled      TEXT    NOT NULL, -- why nothing is sent; '': it is on
    page          INTEGER NOT NULL CHECK (page >= 0),
    idx           INTEGER NOT NULL CHECK (idx BETWEEN 0 AND 65535),
    failing_since INTEGER,
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    next_at       INTEGER
) STRICT;
CREATE INDEX webhook_org ON webhook (org);

-- The newest attempts to deliver, of each webhook.
CREATE TABLE webhook_delivery (
    webhook INTEGER NOT NULL REFERENCES webhook,
    n       INTEGER NOT NULL CHECK (n > 0),
    event   TEXT    NOT NULL,
    type    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    took    INTEGER NOT NULL, -- milliseconds
    attempt INTEGER NOT NULL,
    status  INTEGER NOT NULL,
    error   TEXT    NOT NULL,
    PRIMARY KEY (webhook, n)
) STRICT, WITHOUT ROWID;

-- When an event told the owner of these refusals.
ALTER TABLE refusal_device ADD COLUMN told_at INTEGER;
