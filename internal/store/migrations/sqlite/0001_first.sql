-- The first schema. Times are milliseconds since 1970, UTC. EUIs, NetIDs and
-- DevAddrs are big-endian bytes, so that their byte order is their numeric
-- order. Identifiers are positive 63-bit numbers that are never used again.
-- Nothing in here is a key: sealed columns are ciphertext of the keyring.

CREATE TABLE organisation (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- One row. The epoch rises each time that a server opens the database; whoever
-- finds another epoch than its own has been succeeded and must not write.
CREATE TABLE store (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    epoch        INTEGER NOT NULL CHECK (epoch >= 0),
    operator_org INTEGER NOT NULL REFERENCES organisation,
    created_at   INTEGER NOT NULL
) STRICT;

-- Ranges of JoinEUIs that this server answers for; they do not overlap.
CREATE TABLE join_eui_range (
    first    BLOB    PRIMARY KEY CHECK (length(first) = 8),
    last     BLOB    NOT NULL CHECK (length(last) = 8),
    org      INTEGER NOT NULL REFERENCES organisation,
    elements INTEGER NOT NULL CHECK (elements IN (0, 1)),
    CHECK (first <= last)
) STRICT, WITHOUT ROWID;

-- Provisioning profiles: pinned signers of manifests and what they may provision.
CREATE TABLE signer (
    id             INTEGER PRIMARY KEY,
    org            INTEGER NOT NULL REFERENCES organisation,
    name           TEXT    NOT NULL,
    kid            TEXT    NOT NULL,
    x5t_s256       TEXT    NOT NULL,
    certificate    BLOB    NOT NULL,
    join_eui_first BLOB    NOT NULL CHECK (length(join_eui_first) = 8),
    join_eui_last  BLOB    NOT NULL CHECK (length(join_eui_last) = 8),
    dev_eui_first  BLOB    NOT NULL CHECK (length(dev_eui_first) = 8),
    dev_eui_last   BLOB    NOT NULL CHECK (length(dev_eui_last) = 8),
    master         TEXT    NOT NULL,
    generation     INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    created_at     INTEGER NOT NULL,
    CHECK (join_eui_first <= join_eui_last AND dev_eui_first <= dev_eui_last),
    UNIQUE (org, name)
) STRICT;

-- A peer's row outlives its removal: activations and KEKs refer to it.
CREATE TABLE peer (
    id                  INTEGER PRIMARY KEY,
    org                 INTEGER NOT NULL REFERENCES organisation,
    name                TEXT    NOT NULL,
    clear_keys          INTEGER NOT NULL CHECK (clear_keys IN (0, 1)),
    omit_session_key_id INTEGER NOT NULL CHECK (omit_session_key_id IN (0, 1)),
    app_s_key_at_least  INTEGER NOT NULL CHECK (app_s_key_at_least BETWEEN 0 AND 2),
    disclose_devices    INTEGER NOT NULL CHECK (disclose_devices IN (0, 1)),
    ignore_nsid         INTEGER NOT NULL CHECK (ignore_nsid IN (0, 1)),
    suspended           INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    created_at          INTEGER NOT NULL,
    removed_at          INTEGER
) STRICT;
CREATE UNIQUE INDEX peer_name ON peer (name) WHERE removed_at IS NULL;

-- The names under which a peer may speak, in their one text form.
CREATE TABLE peer_identity (
    peer INTEGER NOT NULL REFERENCES peer,
    kind TEXT    NOT NULL CHECK (kind IN ('net-id', 'ns-id', 'as-id')),
    name TEXT    NOT NULL,
    PRIMARY KEY (peer, kind, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX peer_identity_as_id ON peer_identity (name) WHERE kind = 'as-id';

-- How a peer's certificate is recognised. No certificate may lead to two peers:
-- a pinned key is pinned once, a CA is one peer's alone or shared by names.
CREATE TABLE peer_credential (
    peer INTEGER NOT NULL REFERENCES peer,
    idx  INTEGER NOT NULL,
    kind TEXT    NOT NULL CHECK (kind IN ('spki', 'ca', 'ca+san')),
    spki BLOB    CHECK (length(spki) = 32),
    ca   BLOB,
    san  TEXT,
    PRIMARY KEY (peer, idx),
    CHECK ((kind = 'spki') = (spki IS NOT NULL)),
    CHECK ((kind = 'spki') = (ca IS NULL)),
    CHECK ((kind = 'ca+san') = (san IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX peer_credential_spki ON peer_credential (spki) WHERE kind = 'spki';
CREATE UNIQUE INDEX peer_credential_ca ON peer_credential (ca) WHERE kind = 'ca';
CREATE UNIQUE INDEX peer_credential_san ON peer_credential (ca, san) WHERE kind = 'ca+san';

CREATE TABLE kek (
    id         INTEGER PRIMARY KEY,
    org        INTEGER NOT NULL REFERENCES organisation,
    peer       INTEGER NOT NULL REFERENCES peer,
    role       TEXT    NOT NULL CHECK (role IN ('ns', 'as')),
    label      TEXT    NOT NULL UNIQUE,
    version    INTEGER NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    UNIQUE (peer, role, version)
) STRICT;

-- The root keys of one device in one generation. All nonces are in this one
-- row, which moves by compare-and-swap on version. A key set outlives its
-- device: what was accepted once must never be accepted again.
--
-- device has no foreign key: both rows are written in one transaction, and a
-- deferred check would search this table for every device inserted.
CREATE TABLE key_set (
    id           INTEGER PRIMARY KEY,
    device       INTEGER NOT NULL,
    dev_eui      BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    origin       INTEGER NOT NULL CHECK (origin IN (1, 2, 3)), -- derived, sealed, rekeyed
    master       TEXT,                                         -- of derived ones
    generation   INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    parent       INTEGER REFERENCES key_set,                   -- of rekeyed ones
    cookie       BLOB,                                         -- of rekeyed ones
    root10       INTEGER NOT NULL CHECK (root10 IN (1, 2)),    -- NwkKey, AppKey
    version      INTEGER NOT NULL CHECK (version >= 0),
    join_nonce   INTEGER NOT NULL CHECK (join_nonce BETWEEN 0 AND 16777215),
    nonces       BLOB,    -- DevNonces and RJcount1 by JoinEUI, newest activations; NULL before the first
    last_join_at INTEGER,
    reset_after  INTEGER, -- newest activation when the operator last opened a reset of DevNonces
    disclosed    INTEGER NOT NULL CHECK (disclosed IN (0, 1)),
    CHECK ((origin = 1) = (master IS NOT NULL)),
    CHECK ((origin = 3) = (parent IS NOT NULL)),
    CHECK ((origin = 3) = (cookie IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX key_set_derived ON key_set (dev_eui, generation, master) WHERE origin = 1;

-- Ciphertext of imported roots, apart from the row that every join rewrites.
CREATE TABLE sealed_root (
    key_set     INTEGER PRIMARY KEY REFERENCES key_set,
    nwk_use     BLOB,
    nwk_custody BLOB,
    app_use     BLOB,
    app_custody BLOB
) STRICT;

-- Each time that a root key left the keyring readable to somebody.
CREATE TABLE disclosure (
    id        INTEGER PRIMARY KEY,
    key_set   INTEGER NOT NULL REFERENCES key_set,
    org       INTEGER NOT NULL REFERENCES organisation,
    at        INTEGER NOT NULL,
    recipient TEXT    NOT NULL
) STRICT;
CREATE INDEX disclosure_key_set ON disclosure (key_set);

-- A device's row outlives its deletion; see key_set. org is the owner now.
CREATE TABLE device (
    id               INTEGER PRIMARY KEY,
    org              INTEGER NOT NULL REFERENCES organisation,
    maker            INTEGER NOT NULL REFERENCES organisation,
    key_set          INTEGER NOT NULL REFERENCES key_set,
    join_eui         BLOB    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui          BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    mac_version      INTEGER NOT NULL CHECK (mac_version IN (100, 101, 102, 103, 104, 110)),
    owner_epoch      INTEGER NOT NULL CHECK (owner_epoch BETWEEN 0 AND 4294967295),
    owned_since      INTEGER,          -- NULL: since created_at
    token_generation INTEGER NOT NULL CHECK (token_generation BETWEEN 0 AND 4294967295),
    binding_epoch    INTEGER NOT NULL CHECK (binding_epoch BETWEEN 0 AND 4294967295), -- highest ever given
    suspended        INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    disclosed        INTEGER NOT NULL CHECK (disclosed IN (0, 1)),
    created_at       INTEGER NOT NULL,
    deleted_at       INTEGER,
    CHECK ((owner_epoch = 0) = (owned_since IS NULL))
) STRICT;
CREATE UNIQUE INDEX device_euis ON device (dev_eui, join_eui) WHERE deleted_at IS NULL;
CREATE INDEX device_join_eui ON device (join_eui) WHERE deleted_at IS NULL;
CREATE INDEX device_org ON device (org) WHERE deleted_at IS NULL;
-- Not "IS NOT NULL": SQLite would compare bound values with such a condition,
-- and so plan statements on this table anew each time that they run.
CREATE INDEX device_deleted ON device (dev_eui, join_eui) WHERE deleted_at > 0;

-- The chain of owners. Epoch 0 is the maker and has no row; each later row
-- holds the hash of the link before it.
CREATE TABLE ownership (
    device           INTEGER NOT NULL REFERENCES device,
    epoch            INTEGER NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
    org              INTEGER NOT NULL REFERENCES organisation,
    token_generation INTEGER NOT NULL,
    since            INTEGER NOT NULL,
    previous         BLOB    NOT NULL CHECK (length(previous) = 32),
    PRIMARY KEY (device, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE binding (
    device         INTEGER PRIMARY KEY REFERENCES device,
    epoch          INTEGER NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
    net_id         BLOB    NOT NULL CHECK (length(net_id) = 3),
    ns_id          BLOB    CHECK (length(ns_id) = 8), -- NULL: any
    as_id          TEXT    NOT NULL,                  -- '': none
    app_s_key      INTEGER NOT NULL CHECK (app_s_key BETWEEN 0 AND 2),
    clear_nwk_keys INTEGER NOT NULL CHECK (clear_nwk_keys IN (0, 1)),
    source         TEXT    NOT NULL CHECK (source IN ('owner', 'network')),
    locked         INTEGER NOT NULL CHECK (locked IN (0, 1)),
    since          INTEGER NOT NULL
) STRICT;

-- The signed manifest entry of an element, and the serial number, as they came.
CREATE TABLE manifest_entry (
    device INTEGER PRIMARY KEY REFERENCES device,
    org    INTEGER NOT NULL REFERENCES organisation,
    serial TEXT    NOT NULL,
    entry  BLOB
) STRICT;

-- Networks that may learn the home network of a device. device 0: all of org.
CREATE TABLE roaming_rule (
    org     INTEGER NOT NULL REFERENCES organisation,
    device  INTEGER NOT NULL,
    net_ids BLOB    NOT NULL CHECK (length(net_ids) % 3 = 0),
    PRIMARY KEY (org, device)
) STRICT, WITHOUT ROWID;

-- Accepted joins and rejoins, for ever: session, idempotency record, audit leaf
-- and log entry in one. leaf covers salt and payload; an erased activation has
-- neither. previous is the activation of the same key set before this one: the
-- newest one is named in the key set's nonces, so no index has to be written.
CREATE TABLE activation (
    id       INTEGER PRIMARY KEY,
    key_set  INTEGER NOT NULL,
    previous INTEGER,
    payload  BLOB,
    salt     BLOB CHECK (length(salt) = 32),
    leaf     BLOB NOT NULL CHECK (length(leaf) = 33),
    CHECK ((payload IS NULL) = (salt IS NULL))
) STRICT;

-- Refused requests, counted by what they have in common. device 0: unknown.
CREATE TABLE refusal (
    device   INTEGER NOT NULL,
    peer     INTEGER NOT NULL,
    reason   TEXT    NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0),
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    received TEXT    NOT NULL, -- the last values received, no keys
    PRIMARY KEY (device, peer, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE service_term (
    id        INTEGER PRIMARY KEY,
    device    INTEGER NOT NULL REFERENCES device,
    org       INTEGER NOT NULL REFERENCES organisation, -- who pays
    starts_at INTEGER NOT NULL,
    ends_at   INTEGER,
    CHECK (ends_at IS NULL OR starts_at <= ends_at)
) STRICT;
CREATE INDEX service_term_device ON service_term (device);

CREATE TABLE attestation (
    device   INTEGER PRIMARY KEY REFERENCES device,
    level    INTEGER NOT NULL CHECK (level >= 0),
    evidence BLOB    NOT NULL CHECK (length(evidence) = 32), -- SHA-256
    at       INTEGER NOT NULL
) STRICT;

-- Custody events other than activations. The columns before payload repeat
-- what the payload says, for searching.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT, -- remembers the last one, so that none goes unnoticed
    at      INTEGER NOT NULL,
    event   TEXT    NOT NULL,
    org     INTEGER,
    device  INTEGER,
    payload BLOB,
    salt    BLOB CHECK (length(salt) = 32),
    leaf    BLOB NOT NULL CHECK (length(leaf) = 33),
    CHECK ((payload IS NULL) = (salt IS NULL))
) STRICT;
CREATE INDEX audit_device ON audit (device) WHERE device > 0;

-- An import is found again by its file's hash as long as it is current: a
-- finished one stops being so when a device is deleted that it could bring back.
CREATE TABLE import (
    id             INTEGER PRIMARY KEY,
    org            INTEGER NOT NULL REFERENCES organisation,
    kind           TEXT    NOT NULL CHECK (kind IN ('manifest', 'key-list')),
    sha256         BLOB    NOT NULL CHECK (length(sha256) = 32),
    mac_version    INTEGER,
    bind_net_id    BLOB    CHECK (length(bind_net_id) = 3), -- NULL: no binding
    bind_ns_id     BLOB    CHECK (length(bind_ns_id) = 8),
    bind_as_id     TEXT,
    bind_app_s_key INTEGER,
    bind_clear_nwk INTEGER,
    bind_source    TEXT,
    bind_locked    INTEGER,
    next           INTEGER NOT NULL CHECK (next >= 0),
    created        INTEGER NOT NULL CHECK (created >= 0),
    unchanged      INTEGER NOT NULL CHECK (unchanged >= 0),
    failed         INTEGER NOT NULL CHECK (failed >= 0),
    done           INTEGER NOT NULL CHECK (done IN (0, 1)),
    current        INTEGER NOT NULL CHECK (current IN (0, 1)),
    created_at     INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX import_file ON import (org, kind, sha256) WHERE current = 1;

CREATE TABLE import_error (
    import   INTEGER NOT NULL REFERENCES import,
    idx      INTEGER NOT NULL,
    line     INTEGER NOT NULL,
    join_eui BLOB    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  BLOB    NOT NULL CHECK (length(dev_eui) = 8),
    reason   TEXT    NOT NULL,
    PRIMARY KEY (import, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id         INTEGER PRIMARY KEY,
    org        INTEGER NOT NULL REFERENCES organisation,
    operator   INTEGER NOT NULL CHECK (operator IN (0, 1)),
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX api_key_org ON api_key (org);
