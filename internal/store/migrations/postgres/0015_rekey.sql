-- Rekeying: a device derives new root keys inside its element, and joins at
-- another Join Server with them.

-- Other Join Servers to which new root keys may go: pinned by the operator. A row
-- outlives its removal, since orders refer to it.
CREATE TABLE join_server (
    id            bigint  PRIMARY KEY,
    name          text    COLLATE "C" NOT NULL,
    transport_key bytea    NOT NULL, -- SubjectPublicKeyInfo
    receipt_key   bytea,             -- the same, of what signs its receipts; NULL: it gives none
    created_at    bigint  NOT NULL,
    removed_at    bigint 
);
CREATE UNIQUE INDEX join_server_name ON join_server (name) WHERE removed_at IS NULL;

-- Orders to rekey. One of a device is open at most; that it expired is seen by
-- its time.
CREATE TABLE rekey (
    id            bigint  PRIMARY KEY,
    device        bigint  NOT NULL REFERENCES device,
    state         text    COLLATE "C" NOT NULL CHECK (state IN ('armed', 'sent', 'confirmed', 'cancelled', 'expired')),
    join_eui      bytea    NOT NULL CHECK (length(join_eui) = 8),
    cookie        bytea    NOT NULL CHECK (length(cookie) = 7),
    join_server   bigint  NOT NULL REFERENCES join_server,
    org           bigint  NOT NULL REFERENCES organisation,
    actor         text    COLLATE "C" NOT NULL,
    at            bigint  NOT NULL,
    expires_at    bigint  NOT NULL,
    sent          bigint  NOT NULL CHECK (sent >= 0),
    first_sent_at bigint ,
    last_sent_at  bigint ,
    ended_at      bigint ,
    UNIQUE (device, cookie),
    CHECK ((sent = 0) = (first_sent_at IS NULL)),
    CHECK ((sent = 0) = (last_sent_at IS NULL)),
    CHECK ((state IN ('armed', 'sent')) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX rekey_open ON rekey (device) WHERE ended_at IS NULL;

-- Key sets that a device may have by now instead of the one that it is known to
-- have: of each instruction that was sent.
CREATE TABLE rekey_candidate (
    device  bigint  NOT NULL REFERENCES device,
    key_set bigint  NOT NULL REFERENCES key_set,
    PRIMARY KEY (device, key_set)
);

-- The JoinEUI that a rekeyed key set derives with, beside its cookie.
ALTER TABLE key_set ADD COLUMN rekey_join_eui bytea CHECK (length(rekey_join_eui) = 8);

-- How a device rekeys (none, S, M), and whether its joins have to look here.
ALTER TABLE device ADD COLUMN rekey_profile smallint NOT NULL DEFAULT 0 CHECK (rekey_profile IN (0, 1, 2));
ALTER TABLE device ADD COLUMN rekeying smallint NOT NULL DEFAULT 0 CHECK (rekeying IN (0, 1));
