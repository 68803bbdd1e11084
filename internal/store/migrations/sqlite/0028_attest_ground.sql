-- What results rest on, further: who stands by the key that verified the evidence.

-- basis: 0 nobody now, or it was not noted (results from before this), 1 the signer of
-- the manifest is pinned, or the maker registered the key, 2 besides, certificates of
-- the key lead to a root that is pinned with the signer. chain: what these are worth,
-- none, no-root, failed or checked; '' where it is no matter or is not known. signer is
-- the pin, which unpinned_at says the end of, signer_name and signer_x5t what its
-- certificate says and hashes to.
ALTER TABLE attest_result ADD COLUMN basis INTEGER NOT NULL DEFAULT 0 CHECK (basis BETWEEN 0 AND 2);
ALTER TABLE attest_result ADD COLUMN chain TEXT NOT NULL DEFAULT '' CHECK (chain IN ('', 'none', 'no-root', 'failed', 'checked'));
ALTER TABLE attest_result ADD COLUMN signer INTEGER;
ALTER TABLE attest_result ADD COLUMN signer_name TEXT NOT NULL DEFAULT '';
ALTER TABLE attest_result ADD COLUMN signer_x5t TEXT NOT NULL DEFAULT '';
ALTER TABLE attest_result ADD COLUMN unpinned_at INTEGER;
CREATE INDEX attest_result_signer ON attest_result (signer) WHERE signer IS NOT NULL AND unpinned_at IS NULL;
UPDATE attest_result SET basis = 1 WHERE key IS NOT NULL;

-- Pins that went, while results still say that they stand.
CREATE TABLE attest_unpinned (
    signer INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL
) STRICT;

-- The same for every join: two bits for each level, L1 lowest, of the result that
-- counts; above them two of what the owner's rule for this device wants.
ALTER TABLE device ADD COLUMN attest_basis INTEGER CHECK (attest_basis BETWEEN 0 AND 255);
UPDATE device SET attest_basis = 16 WHERE EXISTS (SELECT 1 FROM attest_result r WHERE r.device = device.id AND r.level = 3 AND r.basis = 1 AND r.ended_at IS NULL);
UPDATE device SET attest_basis = coalesce(attest_basis, 0) + 4
    WHERE EXISTS (SELECT 1 FROM attest_result r WHERE r.device = device.id AND r.level = 2 AND r.basis = 1 AND r.ended_at IS NULL);

-- basis: what results have to rest on to count. What is wanted already stays as it was.
ALTER TABLE attest_policy ADD COLUMN basis INTEGER NOT NULL DEFAULT 0 CHECK (basis BETWEEN 0 AND 2);

-- The releases of what tokens measured beside the application, by its type: none below
-- the highest is accepted.
CREATE TABLE attest_shown (
    device    INTEGER NOT NULL REFERENCES device,
    component TEXT NOT NULL,
    firmware  INTEGER NOT NULL REFERENCES firmware_release,
    PRIMARY KEY (device, component, firmware)
) STRICT, WITHOUT ROWID;
