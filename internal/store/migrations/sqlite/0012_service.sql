-- Until when joins of a device are answered: in its own row, which every join
-- reads. service_plan names the terms; the times are NULL before the first
-- activation. service_prepaid is months bought before it, service_remind_at
-- when somebody is to be told next.
ALTER TABLE device ADD COLUMN service_plan TEXT;
ALTER TABLE device ADD COLUMN service_ends_at INTEGER;
ALTER TABLE device ADD COLUMN service_refuse_at INTEGER;
ALTER TABLE device ADD COLUMN service_remind_at INTEGER;
ALTER TABLE device ADD COLUMN service_prepaid INTEGER NOT NULL DEFAULT 0 CHECK (service_prepaid >= 0);
CREATE INDEX device_service ON device (service_ends_at, id) WHERE service_ends_at > 0;
CREATE INDEX device_service_org ON device (org, service_ends_at, id) WHERE service_ends_at > 0;
CREATE INDEX device_remind ON device (service_remind_at) WHERE service_remind_at > 0;

-- The operator's plans. Prices and share are in ten-thousandths.
CREATE TABLE service_plan (
    name             TEXT    PRIMARY KEY,
    included_months  INTEGER NOT NULL CHECK (included_months BETWEEN 1 AND 1200),
    grace_days       INTEGER NOT NULL CHECK (grace_days BETWEEN 0 AND 3650),
    currency         TEXT    NOT NULL,
    activation_price INTEGER NOT NULL CHECK (activation_price >= 0),
    month_price      INTEGER NOT NULL CHECK (month_price >= 0),
    share            INTEGER NOT NULL CHECK (share BETWEEN 0 AND 1000000),
    is_default       INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    created_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX service_plan_default ON service_plan (is_default) WHERE is_default = 1;

-- To whose devices a plan is assigned: a maker's, or those in a range of JoinEUIs.
CREATE TABLE service_plan_maker (
    maker INTEGER PRIMARY KEY REFERENCES organisation,
    plan  TEXT    NOT NULL REFERENCES service_plan
) STRICT;
CREATE TABLE service_plan_range (
    first BLOB PRIMARY KEY CHECK (length(first) = 8),
    last  BLOB NOT NULL CHECK (length(last) = 8),
    plan  TEXT NOT NULL REFERENCES service_plan,
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- What happened, as it was when it happened: reports are made of these rows and
-- of nothing else. reference is the order of an extension, '' of the included
-- term, and when it lapsed. credit: taken from the credit of org.
DROP TABLE service_term;
CREATE TABLE service_fact (
    device    INTEGER NOT NULL REFERENCES device,
    kind      TEXT    NOT NULL CHECK (kind IN ('included', 'extension', 'lapsed')),
    org       INTEGER NOT NULL REFERENCES organisation, -- whose order, else the owner then
    reference TEXT    NOT NULL,
    maker     INTEGER NOT NULL REFERENCES organisation,
    at        INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL, -- the end after it; 0 before the first activation
    months    INTEGER NOT NULL CHECK (months >= 0),
    plan      TEXT    NOT NULL,
    currency  TEXT    NOT NULL,
    amount    INTEGER NOT NULL CHECK (amount >= 0),
    share     INTEGER NOT NULL CHECK (share >= 0),
    credit    INTEGER NOT NULL CHECK (credit IN (0, 1)),
    PRIMARY KEY (device, kind, org, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX service_fact_at ON service_fact (at);

-- Devices that joined in a month (202610, UTC). It follows the joins, as last_join
-- does.
CREATE TABLE service_active (
    month  INTEGER NOT NULL,
    device INTEGER NOT NULL REFERENCES device,
    maker  INTEGER NOT NULL REFERENCES organisation,
    plan   TEXT    NOT NULL,
    PRIMARY KEY (month, device)
) STRICT, WITHOUT ROWID;

-- Months by which an organisation may extend its devices: what was granted, less
-- what it spent.
CREATE TABLE service_credit (
    org    INTEGER PRIMARY KEY REFERENCES organisation,
    months INTEGER NOT NULL CHECK (months >= 0)
) STRICT;
CREATE TABLE service_grant (
    org       INTEGER NOT NULL REFERENCES organisation,
    reference TEXT    NOT NULL,
    months    INTEGER NOT NULL CHECK (months > 0),
    at        INTEGER NOT NULL,
    PRIMARY KEY (org, reference)
) STRICT, WITHOUT ROWID;

-- At most one row: what servers wrote down of the clock.
CREATE TABLE service_clock (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    seen_at    INTEGER NOT NULL,
    doubted_at INTEGER, -- NULL: not in doubt
    why        TEXT    NOT NULL,
    confirmed  INTEGER NOT NULL
) STRICT;
