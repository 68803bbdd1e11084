-- What networks ask for with claims of their own. A KEK that came with a claim
-- has its label in its peer's namespace, and wraps for the bindings that name it:
-- the table is made anew, because labels were unique over all peers.
CREATE TABLE kek_new (
    id         INTEGER PRIMARY KEY,
    org        INTEGER NOT NULL REFERENCES organisation,
    peer       INTEGER NOT NULL REFERENCES peer,
    role       TEXT    NOT NULL CHECK (role IN ('ns', 'as')),
    label      TEXT    NOT NULL,
    version    INTEGER NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    claimed    INTEGER NOT NULL DEFAULT 0 CHECK (claimed IN (0, 1)),
    UNIQUE (peer, role, version)
) STRICT;
INSERT INTO kek_new (id, org, peer, role, label, version, sealed, created_at, retired_at)
    SELECT id, org, peer, role, label, version, sealed, created_at, retired_at FROM kek;
DROP TABLE kek;
ALTER TABLE kek_new RENAME TO kek;
CREATE UNIQUE INDEX kek_label ON kek (label) WHERE claimed = 0;
CREATE UNIQUE INDEX kek_claimed_label ON kek (peer, label) WHERE claimed = 1;

ALTER TABLE peer ADD COLUMN hide_existence INTEGER NOT NULL DEFAULT 0 CHECK (hide_existence IN (0, 1));
ALTER TABLE peer ADD COLUMN claim_keks INTEGER NOT NULL DEFAULT 0 CHECK (claim_keks IN (0, 1));

-- NULL: the current KEK of the Application Server's peer.
ALTER TABLE binding ADD COLUMN kek INTEGER REFERENCES kek;
