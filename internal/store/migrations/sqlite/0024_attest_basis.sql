-- What results rest on: the maker takes a release or a key back, and what rests on it
-- ends.

-- key is the registered key that verified the evidence, NULL where the manifest's did.
-- highest is the release with the highest counter that the device has shown at this
-- level: none below it is accepted.
ALTER TABLE attest_result ADD COLUMN key INTEGER REFERENCES product_key;
ALTER TABLE attest_result ADD COLUMN highest INTEGER REFERENCES firmware_release;
UPDATE attest_result SET highest = firmware;
CREATE INDEX attest_result_firmware ON attest_result (firmware) WHERE ended_at IS NULL;
CREATE INDEX attest_result_key ON attest_result (key) WHERE ended_at IS NULL;

-- The releases of what a token measured beside the application.
CREATE TABLE attest_component (
    device   INTEGER NOT NULL REFERENCES device,
    level    INTEGER NOT NULL CHECK (level BETWEEN 1 AND 3),
    firmware INTEGER NOT NULL REFERENCES firmware_release,
    PRIMARY KEY (device, level, firmware)
) STRICT, WITHOUT ROWID;
CREATE INDEX attest_component_firmware ON attest_component (firmware);

-- Releases go with the key that signed them.
UPDATE firmware_release SET withdrawn_at = (SELECT k.removed_at FROM product_key k WHERE k.id = firmware_release.key)
    WHERE withdrawn_at IS NULL AND EXISTS (SELECT 1 FROM product_key k JOIN product p ON p.id = k.product
    WHERE k.id = firmware_release.key AND k.removed_at IS NOT NULL AND p.removed_at IS NULL);
CREATE INDEX firmware_release_withdrawn ON firmware_release (id) WHERE withdrawn_at IS NOT NULL;
CREATE INDEX product_key_removed ON product_key (id) WHERE removed_at IS NOT NULL;
