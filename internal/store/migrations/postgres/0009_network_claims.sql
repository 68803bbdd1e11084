-- What networks ask for with claims of their own. A KEK that came with a claim
-- has its label in its peer's namespace, and wraps for the bindings that name it.
ALTER TABLE kek DROP CONSTRAINT kek_label_key;
ALTER TABLE kek ADD COLUMN claimed smallint NOT NULL DEFAULT 0 CHECK (claimed IN (0, 1));
CREATE UNIQUE INDEX kek_label ON kek (label) WHERE claimed = 0;
CREATE UNIQUE INDEX kek_claimed_label ON kek (peer, label) WHERE claimed = 1;

ALTER TABLE peer ADD COLUMN hide_existence smallint NOT NULL DEFAULT 0 CHECK (hide_existence IN (0, 1));
ALTER TABLE peer ADD COLUMN claim_keks smallint NOT NULL DEFAULT 0 CHECK (claim_keks IN (0, 1));

-- NULL: the current KEK of the Application Server's peer.
ALTER TABLE binding ADD COLUMN kek bigint REFERENCES kek;
