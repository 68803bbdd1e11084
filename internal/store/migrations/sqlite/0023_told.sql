-- What the Join Server from which a device came told of its root keys: how it told,
-- who it is and by which key it signed, and whether they came to it from elsewhere.
-- A device's row and this one outlive its deletion.
CREATE TABLE told (
    device  INTEGER PRIMARY KEY REFERENCES device,
    way     TEXT    NOT NULL CHECK (way IN ('export', 'handover')),
    server  TEXT    NOT NULL,
    signer  TEXT    NOT NULL, -- thumbprint
    as_of   INTEGER NOT NULL,
    outside INTEGER NOT NULL CHECK (outside IN (0, 1)),
    at      INTEGER NOT NULL
) STRICT;

-- The disclosures that it told of, for ever. by_server is who did it; former: of root
-- keys that the device had no more when it came.
CREATE TABLE told_disclosure (
    device    INTEGER NOT NULL REFERENCES told,
    idx       INTEGER NOT NULL CHECK (idx >= 0),
    at        INTEGER NOT NULL,
    recipient TEXT    NOT NULL CHECK (length(recipient) = 43),
    kind      TEXT    NOT NULL CHECK (kind IN ('file', 'join-server')),
    by_server TEXT    NOT NULL,
    reference TEXT    NOT NULL,
    org       TEXT    NOT NULL,
    former    INTEGER NOT NULL CHECK (former IN (0, 1)),
    PRIMARY KEY (device, idx)
) STRICT;
