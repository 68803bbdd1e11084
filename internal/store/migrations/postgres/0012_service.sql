-- Until when joins of a device are answered: in its own row, which every join
-- reads. service_plan names the terms; the times are NULL before the first
-- activation. service_prepaid is months bought before it, service_remind_at
-- when somebody is to be told next.
ALTER TABLE device ADD COLUMN service_plan text COLLATE "C";
ALTER TABLE device ADD COLUMN service_ends_at bigint;
ALTER TABLE device ADD COLUMN service_refuse_at bigint;
ALTER TABLE device ADD COLUMN service_remind_at bigint;
ALTER TABLE device ADD COLUMN service_prepaid bigint NOT NULL DEFAULT 0 CHECK (service_prepaid >= 0);
CREATE INDEX device_service ON device (service_ends_at, id) WHERE service_ends_at > 0;
CREATE INDEX device_service_org ON device (org, service_ends_at, id) WHERE service_ends_at > 0;
CREATE INDEX device_remind ON device (service_remind_at) WHERE service_remind_at > 0;

-- The operator's plans. Prices and share are in ten-thousandths.
CREATE TABLE service_plan (
    name             text COLLATE "C" PRIMARY KEY,
    included_months  bigint NOT NULL CHECK (included_months BETWEEN 1 AND 1200),
    grace_days       bigint NOT NULL CHECK (grace_days BETWEEN 0 AND 3650),
    currency         text COLLATE "C" NOT NULL,
    activation_price bigint NOT NULL CHECK (activation_price >= 0),
    month_price      bigint NOT NULL CHECK (month_price >= 0),
    share            bigint NOT NULL CHECK (share BETWEEN 0 AND 1000000),
    is_default       bigint NOT NULL CHECK (is_default IN (0, 1)),
    created_at       bigint NOT NULL
);
CREATE UNIQUE INDEX service_plan_default ON service_plan (is_default) WHERE is_default = 1;

-- To whose devices a plan is assigned: a maker's, or those in a range of JoinEUIs.
CREATE TABLE service_plan_maker (
    maker bigint PRIMARY KEY REFERENCES organisation,
    plan  text COLLATE "C" NOT NULL REFERENCES service_plan
);
CREATE TABLE service_plan_range (
    first bytea PRIMARY KEY CHECK (length(first) = 8),
    last  bytea NOT NULL CHECK (length(last) = 8),
    plan  text COLLATE "C" NOT NULL REFERENCES service_plan,
    CHECK (first <= last)
);

-- What happened, as it was when it happened: reports are made of these rows and
-- of nothing else. reference is the order of an extension, '' of the included
-- term, and when it lapsed. credit: taken from the credit of org.
DROP TABLE service_term;
CREATE TABLE service_fact (
    device    bigint NOT NULL REFERENCES device,
    kind      text COLLATE "C" NOT NULL CHECK (kind IN ('included', 'extension', 'lapsed')),
    org       bigint NOT NULL REFERENCES organisation, -- whose order, else the owner then
    reference text COLLATE "C" NOT NULL,
    maker     bigint NOT NULL REFERENCES organisation,
    at        bigint NOT NULL,
    ends_at   bigint NOT NULL, -- the end after it; 0 before the first activation
    months    bigint NOT NULL CHECK (months >= 0),
    plan      text COLLATE "C" NOT NULL,
    currency  text COLLATE "C" NOT NULL,
    amount    bigint NOT NULL CHECK (amount >= 0),
    share     bigint NOT NULL CHECK (share >= 0),
    credit    bigint NOT NULL CHECK (credit IN (0, 1)),
    PRIMARY KEY (device, kind, org, reference)
);
CREATE INDEX service_fact_at ON service_fact (at);

-- Devices that joined in a month (202610, UTC). It follows the joins, as last_join
-- does.
CREATE TABLE service_active (
    month  bigint NOT NULL,
    device bigint NOT NULL REFERENCES device,
    maker  bigint NOT NULL REFERENCES organisation,
    plan   text COLLATE "C" NOT NULL,
    PRIMARY KEY (month, device)
);

-- Months by which an organisation may extend its devices: what was granted, less
-- what it spent.
CREATE TABLE service_credit (
    org    bigint PRIMARY KEY REFERENCES organisation,
    months bigint NOT NULL CHECK (months >= 0)
);
CREATE TABLE service_grant (
    org       bigint NOT NULL REFERENCES organisation,
    reference text COLLATE "C" NOT NULL,
    months    bigint NOT NULL CHECK (months > 0),
    at        bigint NOT NULL,
    PRIMARY KEY (org, reference)
);

-- At most one row: what servers wrote down of the clock.
CREATE TABLE service_clock (
    id         bigint PRIMARY KEY CHECK (id = 1),
    seen_at    bigint NOT NULL,
    doubted_at bigint, -- NULL: not in doubt
    why        text COLLATE "C" NOT NULL,
    confirmed  bigint NOT NULL
);
