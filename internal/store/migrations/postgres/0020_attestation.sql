-- Attestation: what devices showed of their element and firmware, and what their
-- owners want of them.

-- In the device's own row, which every join reads: when the newest result was
-- taken, the end of the result of each level, and what the owner wants of this
-- device (action × 10 + level; NULL: the same as of all). attest_falls_at is when
-- somebody is to be told that a level ended.
ALTER TABLE device ADD COLUMN attested_at bigint ;
ALTER TABLE device ADD COLUMN attest_l1 bigint ;
ALTER TABLE device ADD COLUMN attest_l2 bigint ;
ALTER TABLE device ADD COLUMN attest_l3 bigint ;
ALTER TABLE device ADD COLUMN attest_rule bigint  CHECK (attest_rule BETWEEN 0 AND 23);
ALTER TABLE device ADD COLUMN attest_falls_at bigint ;
CREATE INDEX device_attest_falls ON device (attest_falls_at) WHERE attest_falls_at > 0;

-- What an organisation wants of its devices, and of those that it claims: 0 nothing,
-- 1 warn, 2 refuse, below a level.
CREATE TABLE attest_policy (
    org        bigint  PRIMARY KEY REFERENCES organisation,
    level      bigint  NOT NULL CHECK (level BETWEEN 0 AND 3),
    activate   bigint  NOT NULL CHECK (activate BETWEEN 0 AND 2),
    claim      bigint  NOT NULL CHECK (claim BETWEEN 0 AND 2),
    valid_days bigint  NOT NULL CHECK (valid_days BETWEEN 1 AND 3650)
);

-- Makes of devices, as their makers register them. Rows outlive their removal,
-- since results refer to them. The element's parts are NULL where it verifies no
-- firmware.
CREATE TABLE product (
    id           bigint  PRIMARY KEY,
    org          bigint  NOT NULL REFERENCES organisation,
    name         text    COLLATE "C" NOT NULL,
    hardware     text    COLLATE "C" NOT NULL,
    boot_key     bigint  CHECK (boot_key BETWEEN 0 AND 15),
    boot_digest  bigint  CHECK (boot_digest BETWEEN 0 AND 15),
    boot_counter bigint  CHECK (boot_counter BETWEEN 0 AND 1),
    created_at   bigint  NOT NULL,
    removed_at   bigint ,
    CHECK ((boot_key IS NULL) = (boot_digest IS NULL) AND (boot_key IS NULL) = (boot_counter IS NULL))
);
CREATE UNIQUE INDEX product_name ON product (org, name) WHERE removed_at IS NULL;

-- The DevEUIs of a product, of devices that its organisation made.
CREATE TABLE product_range (
    product bigint  NOT NULL REFERENCES product,
    first   bytea   NOT NULL CHECK (length(first) = 8),
    last    bytea   NOT NULL CHECK (length(last) = 8),
    PRIMARY KEY (product, first),
    CHECK (first <= last)
);

-- What verifies releases of a product and evidence of its devices; device is 0 for
-- all of them.
CREATE TABLE product_key (
    id         bigint  PRIMARY KEY,
    product    bigint  NOT NULL REFERENCES product,
    device     bigint  NOT NULL,
    use        text    COLLATE "C" NOT NULL CHECK (use IN ('release', 'token', 'boot')),
    public     bytea   NOT NULL, -- SubjectPublicKeyInfo
    created_at bigint  NOT NULL,
    removed_at bigint ,
    CHECK (use <> 'release' OR device = 0),
    CHECK (use <> 'boot' OR device <> 0)
);
CREATE UNIQUE INDEX product_key_once ON product_key (product, device, use, public) WHERE removed_at IS NULL;

-- Signed releases of firmware.
CREATE TABLE firmware_release (
    id           bigint  PRIMARY KEY,
    product      bigint  NOT NULL REFERENCES product,
    version      text    COLLATE "C" NOT NULL,
    digest       bytea   NOT NULL CHECK (length(digest) = 32),
    counter      bigint  NOT NULL CHECK (counter >= 0),
    statement    bytea   NOT NULL, -- as it was signed
    key          bigint  NOT NULL REFERENCES product_key,
    at           bigint  NOT NULL,
    withdrawn_at bigint ,
    UNIQUE (product, version)
);
CREATE UNIQUE INDEX firmware_release_digest ON firmware_release (digest, product);

-- Challenges that wait for evidence, a few of each device.
CREATE TABLE attest_challenge (
    random     bytea   PRIMARY KEY CHECK (length(random) = 32),
    device     bigint  NOT NULL REFERENCES device,
    org        bigint  NOT NULL REFERENCES organisation,
    made_at    bigint  NOT NULL,
    expires_at bigint  NOT NULL
);
CREATE INDEX attest_challenge_device ON attest_challenge (device);
CREATE INDEX attest_challenge_end ON attest_challenge (expires_at);

-- The newest result of each level of a device. ended_at: it stopped counting before
-- its time, since the device showed other firmware.
CREATE TABLE attest_result (
    device   bigint  NOT NULL REFERENCES device,
    level    bigint  NOT NULL CHECK (level BETWEEN 1 AND 3),
    kind     text    COLLATE "C" NOT NULL,
    verifier text    COLLATE "C" NOT NULL,
    at       bigint  NOT NULL,
    until    bigint  NOT NULL,
    ended_at bigint ,
    digest   bytea   NOT NULL CHECK (length(digest) = 32),
    version  text    COLLATE "C" NOT NULL,
    counter  bigint  NOT NULL CHECK (counter >= 0),
    firmware bigint  REFERENCES firmware_release,
    evidence bytea   NOT NULL CHECK (length(evidence) = 32), -- SHA-256
    PRIMARY KEY (device, level),
    CHECK (at <= until)
);

-- Parts of evidence that came over the radio, until they are whole.
CREATE TABLE attest_fragment (
    device  bigint  NOT NULL REFERENCES device,
    message bigint  NOT NULL,
    idx     bigint  NOT NULL CHECK (idx BETWEEN 0 AND 63),
    total   bigint  NOT NULL CHECK (total BETWEEN 1 AND 64),
    payload bytea   NOT NULL CHECK (length(payload) BETWEEN 1 AND 512),
    at      bigint  NOT NULL,
    PRIMARY KEY (device, message, idx)
);

-- It was never written to.
DROP TABLE attestation;
