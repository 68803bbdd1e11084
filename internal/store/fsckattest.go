package store

import "joinery"

// attestRules are the invariants of attestation.
var attestRules = []rule{
	{"attest_component", deviceID, "it belongs to a result of a token", fixTamper,
		"SELECT c.device FROM attest_component c LEFT JOIN attest_result r ON r.device = c.device AND r.level = c.level WHERE r.kind IS NULL OR r.level <> 3"},
	{"firmware_release", releaseID, "it was withdrawn with the key that signed it", fixTamper,
		`SELECT f.id FROM firmware_release f JOIN product_key k ON k.id = f.key JOIN product p ON p.id = f.product
		WHERE k.removed_at IS NOT NULL AND f.withdrawn_at IS NULL AND p.removed_at IS NULL`},
	{"device", deviceID, "its levels end when the results say that count", fixTamper,
		`SELECT d.id FROM device d WHERE coalesce(d.attest_l1, 0) <> coalesce((SELECT until FROM attest_result WHERE device = d.id AND level = 1 AND ended_at IS NULL), 0)
		OR coalesce(d.attest_l2, 0) <> coalesce((SELECT until FROM attest_result WHERE device = d.id AND level = 2 AND ended_at IS NULL), 0)
		OR coalesce(d.attest_l3, 0) <> coalesce((SELECT until FROM attest_result WHERE device = d.id AND level = 3 AND ended_at IS NULL), 0)`},
	{"device", deviceID, "its levels rest on what the results that count rest on", fixTamper,
		`SELECT d.id FROM device d WHERE coalesce(d.attest_basis, 0) % 64 <> (SELECT coalesce(sum(CASE r.level WHEN 1 THEN r.basis WHEN 2 THEN 4 * r.basis ELSE 16 * r.basis END), 0)
		FROM attest_result r WHERE r.device = d.id AND r.ended_at IS NULL) OR coalesce(d.attest_basis, 0) >= 64 AND d.attest_rule IS NULL`},
	{"attest_result", deviceID, "one that is vouched for rests on a key of its maker, or on a signer that is pinned", fixTamper,
		`SELECT a.device FROM attest_result a LEFT JOIN signer s ON s.id = a.signer LEFT JOIN attest_unpinned u ON u.signer = a.signer
		WHERE a.basis > 0 AND a.key IS NULL AND s.id IS NULL AND u.signer IS NULL OR a.basis = 2 AND a.chain <> 'checked'`},
	{"attest_unpinned", signerID, "it names a signer that is gone", fixTamper,
		"SELECT u.signer FROM attest_unpinned u JOIN signer s ON s.id = u.signer"},
	{"attest_shown", deviceID, "it is about releases of the device's maker", fixTamper,
		`SELECT s.device FROM attest_shown s JOIN device d ON d.id = s.device JOIN firmware_release f ON f.id = s.firmware JOIN product p ON p.id = f.product WHERE p.org <> d.maker`},
	{"attest_result", deviceID, "one of L2 or L3 is about a release, of the product's maker who made the device", fixTamper,
		`SELECT a.device FROM attest_result a JOIN device d ON d.id = a.device LEFT JOIN firmware_release f ON f.id = a.firmware
		LEFT JOIN product p ON p.id = f.product WHERE a.firmware IS NOT NULL AND p.org <> d.maker OR a.level > 1 AND a.firmware IS NULL
		OR f.digest <> a.digest OR f.counter <> a.counter`},
	{"attest_challenge", deviceID, "it was asked for by who holds the device", fixTamper,
		"SELECT c.device FROM attest_challenge c JOIN device d ON d.id = c.device WHERE c.org <> d.org OR d.deleted_at IS NOT NULL"},
	{"firmware_release", releaseID, "a key of its product verified it", fixTamper,
		"SELECT f.id FROM firmware_release f JOIN product_key k ON k.id = f.key WHERE k.product <> f.product OR k.use <> 'release'"},
	{"product_range", productID, "it overlaps no other of the same maker", "have the maker remove one of the products",
		`SELECT a.product FROM product_range a JOIN product p ON p.id = a.product JOIN product o ON o.org = p.org JOIN product_range b ON b.product = o.id
		WHERE p.removed_at IS NULL AND o.removed_at IS NULL AND a.first < b.first AND b.first <= a.last`},
}

func releaseID(id int64) string { return joinery.ReleaseID(id).String() }
func productID(id int64) string { return joinery.ProductID(id).String() }
func signerID(id int64) string  { return joinery.SignerID(id).String() }
