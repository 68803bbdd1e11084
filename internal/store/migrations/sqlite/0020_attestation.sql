-- Attestation: what devices showed of their element and firmware, and what their
-- owners want of them.

-- In the device's own row, which every join reads: when the newest result was
-- taken, the end of the result of each level, and what the owner wants of this
-- device (action × 10 + level; NULL: the same as of all). attest_falls_at is when
-- somebody is to be told that a level ended.
ALTER TABLE device ADD COLUMN attested_at INTEGER;
ALTER TABLE device ADD COLUMN attest_l1 INTEGER;
ALTER TABLE device ADD COLUMN attest_l2 INTEGER;
ALTER TABLE device ADD COLUMN attest_l3 INTEGER;
ALTER TABLE device ADD COLUMN attest_rule INTEGER CHECK (attest_rule BETWEEN 0 AND 23);
ALTER TABLE device ADD COLUMN attest_falls_at INTEGER;
CREATE INDEX device_attest_falls ON device (attest_falls_at) WHERE attest_falls_at > 0;

-- What an organisation wants of its devices, and of those that it claims: 0 nothing,
-- 1 warn, 2 refuse, below a level.
CREATE TABLE attest_policy (
    org        INTEGER PRIMARY KEY REFERENCES organisation,
    level      INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    activate   INTEGER NOT NULL CHECK (activate BETWEEN 0 AND 2),
    claim      INTEGER NOT NULL CHECK (claim BETWEEN 0 AND 2),
    valid_days INTEGER NOT NULL CHECK (valid_days BETWEEN 1 AND 3650)
) STRICT;

-- Makes of devices, as their makers register them. Rows outlive their removal,
-- since results refer to them. The element's parts are NULL where it verifies no
-- firmware.
CREATE TABLE product (
    id           INTEGER PRIMARY KEY,
    org          INTEGER NOT NULL REFERENCES organisation,
    name         TEXT    NOT NULL,
    hardware     TEXT    NOT NULL,
    boot_key     INTEGER CHECK (boot_key BETWEEN 0 AND 15),
    boot_digest  INTEGER CHECK (boot_digest BETWEEN 0 AND 15),
    boot_counter INTEGER CHECK (boot_counter BETWEEN 0 AND 1),
    created_at   INTEGER NOT NULL,
    removed_at   INTEGER,
    CHECK ((boot_key IS NULL) = (boot_digest IS NULL) AND (boot_key IS NULL) = (boot_counter IS NULL))
) STRICT;
CREATE UNIQUE INDEX product_name ON product (org, name) WHERE removed_at IS NULL;

-- The DevEUIs of a product, of devices that its organisation made.
CREATE TABLE product_range (
    product INTEGER NOT NULL REFERENCES product,
    first   BLOB    NOT NULL CHECK (length(first) = 8),
    last    BLOB    NOT NULL CHECK (length(last) = 8),
    PRIMARY KEY (product, first),
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- What verifies releases of a product and evidence of its devices; device is 0 for
-- all of them.
CREATE TABLE product_key (
    id         INTEGER PRIMARY KEY,
    product    INTEGER NOT NULL REFERENCES product,
    device     INTEGER NOT NULL,
    use        TEXT    NOT NULL CHECK (use IN ('release', 'token', 'boot')),
    public     BLOB    NOT NULL, -- SubjectPublicKeyInfo
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    CHECK (use <> 'release' OR device = 0),
    CHECK (use <> 'boot' OR device <> 0)
) STRICT;
CREATE UNIQUE INDEX product_key_once ON product_key (product, device, use, public) WHERE removed_at IS NULL;

-- Signed releases of firmware.
CREATE TABLE firmware_release (
    id           INTEGER PRIMARY KEY,
    product      INTEGER NOT NULL REFERENCES product,
    version      TEXT    NOT NULL,
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),
    counter      INTEGER NOT NULL CHECK (counter >= 0),
    statement    BLOB    NOT NULL, -- as it was signed
    key          INTEGER NOT NULL REFERENCES product_key,
    at           INTEGER NOT NULL,
    withdrawn_at INTEGER,
    UNIQUE (product, version)
) STRICT;
CREATE UNIQUE INDEX firmware_release_digest ON firmware_release (digest, product);

-- Challenges that wait for evidence, a few of each device.
CREATE TABLE attest_challenge (
    random     BLOB    PRIMARY KEY CHECK (length(random) = 32),
    device     INTEGER NOT NULL REFERENCES device,
    org        INTEGER NOT NULL REFERENCES organisation,
    made_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attest_challenge_device ON attest_challenge (device);
CREATE INDEX attest_challenge_end ON attest_challenge (expires_at);

-- The newest result of each level of a device. ended_at: it stopped counting before
-- its time, since the device showed other firmware.
CREATE TABLE attest_result (
    device   INTEGER NOT NULL REFERENCES device,
    level    INTEGER NOT NULL CHECK (level BETWEEN 1 AND 3),
    kind     TEXT    NOT NULL,
    verifier TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    ended_at INTEGER,
    digest   BLOB    NOT NULL CHECK (length(digest) = 32),
    version  TEXT    NOT NULL,
    counter  INTEGER NOT NULL CHECK (counter >= 0),
    firmware INTEGER REFERENCES firmware_release,
    evidence BLOB    NOT NULL CHECK (length(evidence) = 32), -- SHA-256
    PRIMARY KEY (device, level),
    CHECK (at <= until)
) STRICT, WITHOUT ROWID;

-- Parts of evidence that came over the radio, until they are whole.
CREATE TABLE attest_fragment (
    device  INTEGER NOT NULL REFERENCES device,
    message INTEGER NOT NULL,
    idx     INTEGER NOT NULL CHECK (idx BETWEEN 0 AND 63),
    total   INTEGER NOT NULL CHECK (total BETWEEN 1 AND 64),
    payload BLOB    NOT NULL CHECK (length(payload) BETWEEN 1 AND 512),
    at      INTEGER NOT NULL,
    PRIMARY KEY (device, message, idx)
) STRICT, WITHOUT ROWID;

-- It was never written to.
DROP TABLE attestation;
