-- The first schema. Times are milliseconds since 1970, UTC. EUIs, NetIDs and
-- DevAddrs are big-endian bytes, so that their byte order is their numeric
-- order. Identifiers are positive 63-bit numbers that are never used again.
-- Nothing in here is a key: sealed columns are ciphertext of the keyring.
--
-- What SQLite has otherwise: bigint is INTEGER, bytea is BLOB, truth values are
-- smallint, and text is compared by its bytes, whatever the locale. The table
-- joinery_schema stands for what SQLite keeps in the head of its file.

-- One row. version is the last migration that was applied; a server whose last
-- migration is serves_from or later may serve this schema. audit_id is the
-- highest id of an audit row, which no sequence could tell: those have gaps.
-- fleet counts the changes of what servers hold in memory.
CREATE TABLE joinery_schema (
    id          smallint PRIMARY KEY CHECK (id = 1),
    version     bigint   NOT NULL,
    serves_from bigint   NOT NULL,
    audit_id    bigint   NOT NULL,
    fleet       bigint   NOT NULL
);
INSERT INTO joinery_schema (id, version, serves_from, audit_id, fleet) VALUES (1, 0, 0, 0, 0);

CREATE TABLE organisation (
    id         bigint           PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    created_at bigint           NOT NULL
);

-- One row. The epoch rises each time that a server opens the database; several
-- servers may have it open.
CREATE TABLE store (
    id           bigint PRIMARY KEY CHECK (id = 1),
    epoch        bigint NOT NULL CHECK (epoch >= 0),
    operator_org bigint NOT NULL REFERENCES organisation,
    created_at   bigint NOT NULL
);

-- Ranges of JoinEUIs that this server answers for; they do not overlap.
CREATE TABLE join_eui_range (
    first    bytea    PRIMARY KEY CHECK (length(first) = 8),
    last     bytea    NOT NULL CHECK (length(last) = 8),
    org      bigint   NOT NULL REFERENCES organisation,
    elements smallint NOT NULL CHECK (elements IN (0, 1)),
    CHECK (first <= last)
);

-- Provisioning profiles: pinned signers of manifests and what they may provision.
CREATE TABLE signer (
    id             bigint           PRIMARY KEY,
    org            bigint           NOT NULL REFERENCES organisation,
    name           text COLLATE "C" NOT NULL,
    kid            text COLLATE "C" NOT NULL,
    x5t_s256       text COLLATE "C" NOT NULL,
    certificate    bytea            NOT NULL,
    join_eui_first bytea            NOT NULL CHECK (length(join_eui_first) = 8),
    join_eui_last  bytea            NOT NULL CHECK (length(join_eui_last) = 8),
    dev_eui_first  bytea            NOT NULL CHECK (length(dev_eui_first) = 8),
    dev_eui_last   bytea            NOT NULL CHECK (length(dev_eui_last) = 8),
    master         text COLLATE "C" NOT NULL,
    generation     bigint           NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    created_at     bigint           NOT NULL,
    CHECK (join_eui_first <= join_eui_last AND dev_eui_first <= dev_eui_last),
    UNIQUE (org, name)
);

-- A peer's row outlives its removal: activations and KEKs refer to it.
CREATE TABLE peer (
    id                  bigint           PRIMARY KEY,
    org                 bigint           NOT NULL REFERENCES organisation,
    name                text COLLATE "C" NOT NULL,
    clear_keys          smallint         NOT NULL CHECK (clear_keys IN (0, 1)),
    omit_session_key_id smallint         NOT NULL CHECK (omit_session_key_id IN (0, 1)),
    app_s_key_at_least  smallint         NOT NULL CHECK (app_s_key_at_least BETWEEN 0 AND 2),
    disclose_devices    smallint         NOT NULL CHECK (disclose_devices IN (0, 1)),
    ignore_nsid         smallint         NOT NULL CHECK (ignore_nsid IN (0, 1)),
    suspended           smallint         NOT NULL CHECK (suspended IN (0, 1)),
    created_at          bigint           NOT NULL,
    removed_at          bigint
);
CREATE UNIQUE INDEX peer_name ON peer (name) WHERE removed_at IS NULL;

-- The names under which a peer may speak, in their one text form.
CREATE TABLE peer_identity (
    peer bigint           NOT NULL REFERENCES peer,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('net-id', 'ns-id', 'as-id')),
    name text COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, kind, name)
);
CREATE UNIQUE INDEX peer_identity_as_id ON peer_identity (name) WHERE kind = 'as-id';

-- How a peer's certificate is recognised. No certificate may lead to two peers:
-- a pinned key is pinned once, a CA is one peer's alone or shared by names.
CREATE TABLE peer_credential (
    peer bigint           NOT NULL REFERENCES peer,
    idx  bigint           NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('spki', 'ca', 'ca+san')),
    spki bytea            CHECK (length(spki) = 32),
    ca   bytea,
    san  text COLLATE "C",
    PRIMARY KEY (peer, idx),
    CHECK ((kind = 'spki') = (spki IS NOT NULL)),
    CHECK ((kind = 'spki') = (ca IS NULL)),
    CHECK ((kind = 'ca+san') = (san IS NOT NULL))
);
CREATE UNIQUE INDEX peer_credential_spki ON peer_credential (spki) WHERE kind = 'spki';
-- By its hash: an index holds no value as long as some certificates.
CREATE UNIQUE INDEX peer_credential_ca ON peer_credential (sha256(ca)) WHERE kind = 'ca';
CREATE UNIQUE INDEX peer_credential_san ON peer_credential (sha256(ca), san) WHERE kind = 'ca+san';

CREATE TABLE kek (
    id         bigint           PRIMARY KEY,
    org        bigint           NOT NULL REFERENCES organisation,
    peer       bigint           NOT NULL REFERENCES peer,
    role       text COLLATE "C" NOT NULL CHECK (role IN ('ns', 'as')),
    label      text COLLATE "C" NOT NULL UNIQUE,
    version    bigint           NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
    sealed     bytea            NOT NULL,
    created_at bigint           NOT NULL,
    retired_at bigint,
    UNIQUE (peer, role, version)
);

-- The root keys of one device in one generation. All nonces are in this one
-- row, which moves by compare-and-swap on version. A key set outlives its
-- device: what was accepted once must never be accepted again.
--
-- device has no foreign key: both rows are written in one transaction, and a
-- deferred check would search this table for every device inserted.
CREATE TABLE key_set (
    id           bigint           PRIMARY KEY,
    device       bigint           NOT NULL,
    dev_eui      bytea            NOT NULL CHECK (length(dev_eui) = 8),
    origin       smallint         NOT NULL CHECK (origin IN (1, 2, 3)), -- derived, sealed, rekeyed
    master       text COLLATE "C", -- of derived ones
    generation   bigint           NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    parent       bigint           REFERENCES key_set, -- of rekeyed ones
    cookie       bytea, -- of rekeyed ones
    root10       smallint         NOT NULL CHECK (root10 IN (1, 2)), -- NwkKey, AppKey
    version      bigint           NOT NULL CHECK (version >= 0),
    join_nonce   bigint           NOT NULL CHECK (join_nonce BETWEEN 0 AND 16777215),
    nonces       bytea, -- DevNonces and RJcount1 by JoinEUI, newest activations; NULL before the first
    last_join_at bigint,
    reset_after  bigint, -- newest activation when the operator last opened a reset of DevNonces
    disclosed    smallint         NOT NULL CHECK (disclosed IN (0, 1)),
    CHECK ((origin = 1) = (master IS NOT NULL)),
    CHECK ((origin = 3) = (parent IS NOT NULL)),
    CHECK ((origin = 3) = (cookie IS NOT NULL))
) WITH (fillfactor = 70); -- room for the next version of a row on its own page
CREATE UNIQUE INDEX key_set_derived ON key_set (dev_eui, generation, master) WHERE origin = 1;

-- Ciphertext of imported roots, apart from the row that every join rewrites.
CREATE TABLE sealed_root (
    key_set     bigint PRIMARY KEY REFERENCES key_set,
    nwk_use     bytea,
    nwk_custody bytea,
    app_use     bytea,
    app_custody bytea
);

-- Each time that a root key left the keyring readable to somebody.
CREATE TABLE disclosure (
    id        bigint           PRIMARY KEY,
    key_set   bigint           NOT NULL REFERENCES key_set,
    org       bigint           NOT NULL REFERENCES organisation,
    at        bigint           NOT NULL,
    recipient text COLLATE "C" NOT NULL
);
CREATE INDEX disclosure_key_set ON disclosure (key_set);

-- A device's row outlives its deletion; see key_set. org is the owner now.
CREATE TABLE device (
    id               bigint   PRIMARY KEY,
    org              bigint   NOT NULL REFERENCES organisation,
    maker            bigint   NOT NULL REFERENCES organisation,
    key_set          bigint   NOT NULL REFERENCES key_set,
    join_eui         bytea    NOT NULL CHECK (length(join_eui) = 8),
    dev_eui          bytea    NOT NULL CHECK (length(dev_eui) = 8),
    mac_version      smallint NOT NULL CHECK (mac_version IN (100, 101, 102, 103, 104, 110)),
    owner_epoch      bigint   NOT NULL CHECK (owner_epoch BETWEEN 0 AND 4294967295),
    owned_since      bigint, -- NULL: since created_at
    token_generation bigint   NOT NULL CHECK (token_generation BETWEEN 0 AND 4294967295),
    binding_epoch    bigint   NOT NULL CHECK (binding_epoch BETWEEN 0 AND 4294967295), -- highest ever given
    suspended        smallint NOT NULL CHECK (suspended IN (0, 1)),
    disclosed        smallint NOT NULL CHECK (disclosed IN (0, 1)),
    created_at       bigint   NOT NULL,
    deleted_at       bigint,
    CHECK ((owner_epoch = 0) = (owned_since IS NULL))
);
CREATE UNIQUE INDEX device_euis ON device (dev_eui, join_eui) WHERE deleted_at IS NULL;
CREATE INDEX device_join_eui ON device (join_eui) WHERE deleted_at IS NULL;
CREATE INDEX device_org ON device (org) WHERE deleted_at IS NULL;
CREATE INDEX device_deleted ON device (dev_eui, join_eui) WHERE deleted_at > 0;

-- The chain of owners. Epoch 0 is the maker and has no row; each later row
-- holds the hash of the link before it.
CREATE TABLE ownership (
    device           bigint NOT NULL REFERENCES device,
    epoch            bigint NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
    org              bigint NOT NULL REFERENCES organisation,
    token_generation bigint NOT NULL,
    since            bigint NOT NULL,
    previous         bytea  NOT NULL CHECK (length(previous) = 32),
    PRIMARY KEY (device, epoch)
);

CREATE TABLE binding (
    device         bigint           PRIMARY KEY REFERENCES device,
    epoch          bigint           NOT NULL CHECK (epoch BETWEEN 1 AND 4294967295),
    net_id         bytea            NOT NULL CHECK (length(net_id) = 3),
    ns_id          bytea            CHECK (length(ns_id) = 8), -- NULL: any
    as_id          text COLLATE "C" NOT NULL, -- '': none
    app_s_key      smallint         NOT NULL CHECK (app_s_key BETWEEN 0 AND 2),
    clear_nwk_keys smallint         NOT NULL CHECK (clear_nwk_keys IN (0, 1)),
    source         text COLLATE "C" NOT NULL CHECK (source IN ('owner', 'network')),
    locked         smallint         NOT NULL CHECK (locked IN (0, 1)),
    since          bigint           NOT NULL
);

-- The signed manifest entry of an element, and the serial number, as they came.
CREATE TABLE manifest_entry (
    device bigint           PRIMARY KEY REFERENCES device,
    org    bigint           NOT NULL REFERENCES organisation,
    serial text COLLATE "C" NOT NULL,
    entry  bytea
);

-- Networks that may learn the home network of a device. device 0: all of org.
CREATE TABLE roaming_rule (
    org     bigint NOT NULL REFERENCES organisation,
    device  bigint NOT NULL,
    net_ids bytea  NOT NULL CHECK (length(net_ids) % 3 = 0),
    PRIMARY KEY (org, device)
);

-- Accepted joins and rejoins, for ever: session, idempotency record, audit leaf
-- and log entry in one. leaf covers salt and payload; an erased activation has
-- neither. previous is the activation of the same key set before this one: the
-- newest one is named in the key set's nonces, so no index has to be written.
CREATE TABLE activation (
    id       bigint PRIMARY KEY,
    key_set  bigint NOT NULL,
    previous bigint,
    payload  bytea,
    salt     bytea  CHECK (length(salt) = 32),
    leaf     bytea  NOT NULL CHECK (length(leaf) = 33),
    CHECK ((payload IS NULL) = (salt IS NULL))
);

-- Refused requests, counted by what they have in common. device 0: unknown.
CREATE TABLE refusal (
    device   bigint           NOT NULL,
    peer     bigint           NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    count    bigint           NOT NULL CHECK (count > 0),
    first_at bigint           NOT NULL,
    last_at  bigint           NOT NULL,
    received text COLLATE "C" NOT NULL, -- the last values received, no keys
    PRIMARY KEY (device, peer, reason)
);

CREATE TABLE service_term (
    id        bigint PRIMARY KEY,
    device    bigint NOT NULL REFERENCES device,
    org       bigint NOT NULL REFERENCES organisation, -- who pays
    starts_at bigint NOT NULL,
    ends_at   bigint,
    CHECK (ends_at IS NULL OR starts_at <= ends_at)
);
CREATE INDEX service_term_device ON service_term (device);

CREATE TABLE attestation (
    device   bigint PRIMARY KEY REFERENCES device,
    level    bigint NOT NULL CHECK (level >= 0),
    evidence bytea  NOT NULL CHECK (length(evidence) = 32), -- SHA-256
    at       bigint NOT NULL
);

CREATE FUNCTION next_audit_id() RETURNS bigint LANGUAGE sql
    AS 'UPDATE joinery_schema SET audit_id = audit_id + 1 RETURNING audit_id';

-- Custody events other than activations. The columns before payload repeat
-- what the payload says, for searching.
CREATE TABLE audit (
    id      bigint           PRIMARY KEY DEFAULT next_audit_id(),
    at      bigint           NOT NULL,
    event   text COLLATE "C" NOT NULL,
    org     bigint,
    device  bigint,
    payload bytea,
    salt    bytea            CHECK (length(salt) = 32),
    leaf    bytea            NOT NULL CHECK (length(leaf) = 33),
    CHECK ((payload IS NULL) = (salt IS NULL))
);
CREATE INDEX audit_device ON audit (device) WHERE device > 0;

-- An import is found again by its file's hash as long as it is current: a
-- finished one stops being so when a device is deleted that it could bring back.
CREATE TABLE import (
    id             bigint           PRIMARY KEY,
    org            bigint           NOT NULL REFERENCES organisation,
    kind           text COLLATE "C" NOT NULL CHECK (kind IN ('manifest', 'key-list')),
    sha256         bytea            NOT NULL CHECK (length(sha256) = 32),
    mac_version    bigint,
    bind_net_id    bytea            CHECK (length(bind_net_id) = 3), -- NULL: no binding
    bind_ns_id     bytea            CHECK (length(bind_ns_id) = 8),
    bind_as_id     text COLLATE "C",
    bind_app_s_key bigint,
    bind_clear_nwk bigint,
    bind_source    text COLLATE "C",
    bind_locked    bigint,
    next           bigint           NOT NULL CHECK (next >= 0),
    created        bigint           NOT NULL CHECK (created >= 0),
    unchanged      bigint           NOT NULL CHECK (unchanged >= 0),
    failed         bigint           NOT NULL CHECK (failed >= 0),
    done           smallint         NOT NULL CHECK (done IN (0, 1)),
    current        smallint         NOT NULL CHECK (current IN (0, 1)),
    created_at     bigint           NOT NULL
);
CREATE UNIQUE INDEX import_file ON import (org, kind, sha256) WHERE current = 1;

CREATE TABLE import_error (
    import   bigint           NOT NULL REFERENCES import,
    idx      bigint           NOT NULL,
    line     bigint           NOT NULL,
    join_eui bytea            NOT NULL CHECK (length(join_eui) = 8),
    dev_eui  bytea            NOT NULL CHECK (length(dev_eui) = 8),
    reason   text COLLATE "C" NOT NULL,
    PRIMARY KEY (import, idx)
);

CREATE TABLE api_key (
    id         bigint           PRIMARY KEY,
    org        bigint           NOT NULL REFERENCES organisation,
    operator   smallint         NOT NULL CHECK (operator IN (0, 1)),
    name       text COLLATE "C" NOT NULL,
    hash       bytea            NOT NULL CHECK (length(hash) = 32),
    created_at bigint           NOT NULL,
    expires_at bigint,
    revoked_at bigint
);
CREATE INDEX api_key_org ON api_key (org);

-- Servers hold peers, KEKs and ranges in memory. Each change of them, by
-- whomever, is told to all servers when it commits, and counted for those that
-- did not hear it.
CREATE FUNCTION fleet_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE joinery_schema SET fleet = fleet + 1;
    PERFORM pg_notify('joinery', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER fleet_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON peer EXECUTE FUNCTION fleet_changed();
CREATE TRIGGER fleet_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON peer_identity EXECUTE FUNCTION fleet_changed();
CREATE TRIGGER fleet_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON peer_credential EXECUTE FUNCTION fleet_changed();
CREATE TRIGGER fleet_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON kek EXECUTE FUNCTION fleet_changed();
CREATE TRIGGER fleet_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON join_eui_range EXECUTE FUNCTION fleet_changed();
