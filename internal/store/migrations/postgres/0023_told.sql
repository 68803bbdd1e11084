-- What the Join Server from which a device came told of its root keys: how it told,
-- who it is and by which key it signed, and whether they came to it from elsewhere.
-- A device's row and this one outlive its deletion.
CREATE TABLE told (
    device  bigint  PRIMARY KEY REFERENCES device,
    way     text    COLLATE "C" NOT NULL CHECK (way IN ('export', 'handover')),
    server  text    COLLATE "C" NOT NULL,
    signer  text    COLLATE "C" NOT NULL, -- thumbprint
    as_of   bigint  NOT NULL,
    outside bigint  NOT NULL CHECK (outside IN (0, 1)),
    at      bigint  NOT NULL
);

-- The disclosures that it told of, for ever. by_server is who did it; former: of root
-- keys that the device had no more when it came.
CREATE TABLE told_disclosure (
    device    bigint  NOT NULL REFERENCES told,
    idx       bigint  NOT NULL CHECK (idx >= 0),
    at        bigint  NOT NULL,
    recipient text    COLLATE "C" NOT NULL CHECK (length(recipient) = 43),
    kind      text    COLLATE "C" NOT NULL CHECK (kind IN ('file', 'join-server')),
    by_server text    COLLATE "C" NOT NULL,
    reference text    COLLATE "C" NOT NULL,
    org       text    COLLATE "C" NOT NULL,
    former    bigint  NOT NULL CHECK (former IN (0, 1)),
    PRIMARY KEY (device, idx)
);
