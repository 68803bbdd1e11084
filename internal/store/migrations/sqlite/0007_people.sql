-- What an organisation may do: kinds, as words with spaces between.
ALTER TABLE organisation ADD COLUMN kinds TEXT NOT NULL
    DEFAULT 'element-maker device-maker distributor owner network-operator';
UPDATE organisation SET kinds = 'server-operator' WHERE id IN (SELECT operator_org FROM store);

-- People. One who belongs to no organisation any more keeps a row without name
-- and address, to which API keys refer.
CREATE TABLE person (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    email      TEXT    NOT NULL, -- lower case; '': not known
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE membership (
    org    INTEGER NOT NULL REFERENCES organisation,
    person INTEGER NOT NULL REFERENCES person,
    role   TEXT    NOT NULL CHECK (role IN ('viewer', 'member', 'admin')),
    since  INTEGER NOT NULL,
    PRIMARY KEY (org, person)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_person ON membership (person);

-- Who a person is at an OpenID provider.
CREATE TABLE identity (
    issuer  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    person  INTEGER NOT NULL REFERENCES person,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_person ON identity (person);

-- WebAuthn credentials: public keys, nothing secret.
CREATE TABLE passkey (
    id           INTEGER PRIMARY KEY,
    person       INTEGER NOT NULL REFERENCES person,
    name         TEXT    NOT NULL,
    credential   BLOB    NOT NULL UNIQUE CHECK (length(credential) BETWEEN 1 AND 1023),
    record       BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT;
CREATE INDEX passkey_person ON passkey (person);

-- Invitations that nobody has taken yet. hash is of what their holder has.
CREATE TABLE invitation (
    id         INTEGER PRIMARY KEY,
    org        INTEGER NOT NULL REFERENCES organisation,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'member', 'admin')),
    email      TEXT    NOT NULL, -- lower case; '': the operator's bootstrap token
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    invited_by TEXT    NOT NULL,
    by_person  INTEGER REFERENCES person, -- who made it, by a key too; NULL: no person
    by_key     INTEGER                    -- the key that made it; NULL: none
) STRICT;
CREATE INDEX invitation_org ON invitation (org);
CREATE INDEX invitation_email ON invitation (email);

CREATE TABLE session (
    id           INTEGER PRIMARY KEY,
    person       INTEGER NOT NULL REFERENCES person,
    kind         TEXT    NOT NULL CHECK (kind IN ('browser', 'program')),
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT;
CREATE INDEX session_person ON session (person);

-- Steps of signing in that wait for the next one. hash is of what its holder has.
CREATE TABLE sign_in (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    kind       TEXT    NOT NULL CHECK (kind IN ('passkey', 'new-passkey', 'program')),
    person     INTEGER,                   -- or who will be one; NULL: nobody yet
    code       TEXT    UNIQUE,            -- of a program
    name       TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_expires ON sign_in (expires_at);

-- What a key may do, as words, and who made it. Keys of before may do what they
-- could do then.
ALTER TABLE api_key ADD COLUMN rights TEXT NOT NULL DEFAULT 'devices:read devices:write devices:import devices:own devices:bind tokens:read peers:read peers:write org:read people:read keys:read keys:write events:read events:write audit:read server:write';
ALTER TABLE api_key ADD COLUMN person INTEGER REFERENCES person; -- NULL: no person
ALTER TABLE api_key ADD COLUMN made_by INTEGER;                  -- the key that made it; NULL: none
ALTER TABLE api_key ADD COLUMN last_used_at INTEGER;             -- behind by some minutes
CREATE INDEX api_key_person ON api_key (person);
CREATE INDEX api_key_made_by ON api_key (made_by);
