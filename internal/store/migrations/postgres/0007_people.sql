-- What an organisation may do: kinds, as words with spaces between.
ALTER TABLE organisation ADD COLUMN kinds text COLLATE "C" NOT NULL
    DEFAULT 'element-maker device-maker distributor owner network-operator';
UPDATE organisation SET kinds = 'server-operator' WHERE id IN (SELECT operator_org FROM store);

-- People. One who belongs to no organisation any more keeps a row without name
-- and address, to which API keys refer.
CREATE TABLE person (
    id         bigint           PRIMARY KEY,
    name       text COLLATE "C" NOT NULL,
    email      text COLLATE "C" NOT NULL, -- lower case; '': not known
    created_at bigint           NOT NULL
);

CREATE TABLE membership (
    org    bigint           NOT NULL REFERENCES organisation,
    person bigint           NOT NULL REFERENCES person,
    role   text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'member', 'admin')),
    since  bigint           NOT NULL,
    PRIMARY KEY (org, person)
);
CREATE INDEX membership_person ON membership (person);

-- Who a person is at an OpenID provider.
CREATE TABLE identity (
    issuer  text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    person  bigint           NOT NULL REFERENCES person,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identity_person ON identity (person);

-- WebAuthn credentials: public keys, nothing secret.
CREATE TABLE passkey (
    id           bigint           PRIMARY KEY,
    person       bigint           NOT NULL REFERENCES person,
    name         text COLLATE "C" NOT NULL,
    credential   bytea            NOT NULL UNIQUE CHECK (length(credential) BETWEEN 1 AND 1023),
    record       bytea            NOT NULL,
    created_at   bigint           NOT NULL,
    last_used_at bigint
);
CREATE INDEX passkey_person ON passkey (person);

-- Invitations that nobody has taken yet. hash is of what their holder has.
CREATE TABLE invitation (
    id         bigint           PRIMARY KEY,
    org        bigint           NOT NULL REFERENCES organisation,
    role       text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'member', 'admin')),
    email      text COLLATE "C" NOT NULL, -- lower case; '': the operator's bootstrap token
    hash       bytea            NOT NULL CHECK (length(hash) = 32),
    created_at bigint           NOT NULL,
    expires_at bigint           NOT NULL,
    invited_by text COLLATE "C" NOT NULL,
    by_person  bigint           REFERENCES person, -- who made it, by a key too; NULL: no person
    by_key     bigint                              -- the key that made it; NULL: none
);
CREATE INDEX invitation_org ON invitation (org);
CREATE INDEX invitation_email ON invitation (email);

CREATE TABLE session (
    id           bigint           PRIMARY KEY,
    person       bigint           NOT NULL REFERENCES person,
    kind         text COLLATE "C" NOT NULL CHECK (kind IN ('browser', 'program')),
    name         text COLLATE "C" NOT NULL,
    hash         bytea            NOT NULL CHECK (length(hash) = 32),
    created_at   bigint           NOT NULL,
    expires_at   bigint           NOT NULL,
    last_used_at bigint
);
CREATE INDEX session_person ON session (person);

-- Steps of signing in that wait for the next one. hash is of what its holder has.
CREATE TABLE sign_in (
    hash       bytea            PRIMARY KEY CHECK (length(hash) = 32),
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('passkey', 'new-passkey', 'program')),
    person     bigint,                    -- or who will be one; NULL: nobody yet
    code       text COLLATE "C" UNIQUE,            -- of a program
    name       text COLLATE "C" NOT NULL,
    expires_at bigint           NOT NULL
);
CREATE INDEX sign_in_expires ON sign_in (expires_at);

-- What a key may do, as words, and who made it. Keys of before may do what they
-- could do then.
ALTER TABLE api_key ADD COLUMN rights text COLLATE "C" NOT NULL DEFAULT 'devices:read devices:write devices:import devices:own devices:bind tokens:read peers:read peers:write org:read people:read keys:read keys:write events:read events:write audit:read server:write';
ALTER TABLE api_key ADD COLUMN person bigint REFERENCES person; -- NULL: no person
ALTER TABLE api_key ADD COLUMN made_by bigint;                  -- the key that made it; NULL: none
ALTER TABLE api_key ADD COLUMN last_used_at bigint;             -- behind by some minutes
CREATE INDEX api_key_person ON api_key (person);
CREATE INDEX api_key_made_by ON api_key (made_by);
