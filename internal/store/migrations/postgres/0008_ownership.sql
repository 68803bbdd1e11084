-- How each owner came to a device: 1 claim, 2 release, 3 transfer, 4 award.
ALTER TABLE ownership ADD COLUMN how smallint NOT NULL DEFAULT 1 CHECK (how BETWEEN 1 AND 4);

-- Set from a release to the next claim: org is the operator's then.
ALTER TABLE device ADD COLUMN released smallint NOT NULL DEFAULT 0 CHECK (released IN (0, 1));

-- A device that its owner offers to another organisation. The recipient has no
-- foreign key: whether there is such an organisation nobody is told.
CREATE TABLE transfer (
    device     bigint PRIMARY KEY REFERENCES device,
    org        bigint NOT NULL REFERENCES organisation,
    recipient  bigint NOT NULL,
    offered_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    CHECK (offered_at < expires_at)
);
CREATE INDEX transfer_org ON transfer (org);
CREATE INDEX transfer_recipient ON transfer (recipient);
CREATE INDEX transfer_expires ON transfer (expires_at);

-- Disputes, decided ones too. about_lock: of the claimant's own device, whose
-- binding its network locked.
CREATE TABLE dispute (
    id         bigint           PRIMARY KEY,
    device     bigint           NOT NULL REFERENCES device,
    org        bigint           NOT NULL REFERENCES organisation,
    about_lock smallint         NOT NULL CHECK (about_lock IN (0, 1)),
    evidence   text COLLATE "C" NOT NULL CHECK (evidence IN ('none', 'owner-token', 'device-key')),
    statement  text COLLATE "C" NOT NULL,
    state      text COLLATE "C" NOT NULL CHECK (state IN ('open', 'granted', 'rejected', 'withdrawn')),
    opened_at  bigint           NOT NULL,
    decided_at bigint,
    note       text COLLATE "C" NOT NULL,
    CHECK ((state = 'open') = (decided_at IS NULL))
);
CREATE UNIQUE INDEX dispute_open ON dispute (device, org) WHERE decided_at IS NULL;
CREATE INDEX dispute_org ON dispute (org);

-- What elements are asked to sign; a row ends with the first try.
CREATE TABLE challenge (
    random     bytea  PRIMARY KEY CHECK (length(random) = 32),
    org        bigint NOT NULL REFERENCES organisation,
    join_eui   bytea  NOT NULL CHECK (length(join_eui) = 8),
    dev_eui    bytea  NOT NULL CHECK (length(dev_eui) = 8),
    expires_at bigint NOT NULL
);
CREATE INDEX challenge_org ON challenge (org);
CREATE INDEX challenge_expires ON challenge (expires_at);

-- Wrong owner tokens of late, so that a restart forgets no guess.
CREATE TABLE claim_failure (
    dev_eui bytea            NOT NULL CHECK (length(dev_eui) = 8),
    caller  text COLLATE "C" NOT NULL,
    at      bigint           NOT NULL,
    count   bigint           NOT NULL CHECK (count > 0),
    PRIMARY KEY (dev_eui, caller, at)
);
CREATE INDEX claim_failure_at ON claim_failure (at);
