-- What a signer's entries must keep to. family: where they have the identifiers.
-- roots: certificates (DER, one after the other) to which device certificates must
-- lead. serial_suffix: how serial numbers end. shared: every organisation may
-- import what it signed.
ALTER TABLE signer ADD COLUMN family TEXT NOT NULL DEFAULT 'joinery' CHECK (family IN ('joinery', 'microchip'));
ALTER TABLE signer ADD COLUMN roots BLOB;
ALTER TABLE signer ADD COLUMN serial_suffix TEXT NOT NULL DEFAULT '';
ALTER TABLE signer ADD COLUMN shared INTEGER NOT NULL DEFAULT 0 CHECK (shared IN (0, 1));

-- Which element a refused row names, and whether it is somebody else's.
ALTER TABLE import_error ADD COLUMN serial TEXT NOT NULL DEFAULT '';
ALTER TABLE import_error ADD COLUMN conflict INTEGER NOT NULL DEFAULT 0 CHECK (conflict IN (0, 1));
