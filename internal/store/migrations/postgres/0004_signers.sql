-- What a signer's entries must keep to. family: where they have the identifiers.
-- roots: certificates (DER, one after the other) to which device certificates must
-- lead. serial_suffix: how serial numbers end. shared: every organisation may
-- import what it signed.
ALTER TABLE signer
    ADD COLUMN family        text COLLATE "C" NOT NULL DEFAULT 'joinery' CHECK (family IN ('joinery', 'microchip')),
    ADD COLUMN roots         bytea,
    ADD COLUMN serial_suffix text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN shared        smallint         NOT NULL DEFAULT 0 CHECK (shared IN (0, 1));

-- Which element a refused row names, and whether it is somebody else's.
ALTER TABLE import_error
    ADD COLUMN serial   text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN conflict smallint         NOT NULL DEFAULT 0 CHECK (conflict IN (0, 1));
