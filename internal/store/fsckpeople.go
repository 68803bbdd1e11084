package store

import "joinery"

func orgID(id int64) string    { return joinery.OrgID(id).String() }
func personID(id int64) string { return joinery.PersonID(id).String() }
func apiKeyID(id int64) string { return joinery.APIKeyID(id).String() }

// peopleRules are the invariants of people and credentials.
var peopleRules = []rule{
	{"organisation", orgID, "the operator's organisation, and no other, is of the kind server-operator", fixTamper,
		`SELECT o.id FROM organisation o JOIN store s ON s.id = 1
		WHERE CASE WHEN o.id = s.operator_org THEN 1 ELSE 0 END <> CASE WHEN o.kinds LIKE '%server-operator%' THEN 1 ELSE 0 END`},
	{"person", personID, "who belongs to no organisation is forgotten", fixTamper,
		`SELECT p.id FROM person p WHERE NOT EXISTS (SELECT 1 FROM membership WHERE person = p.id)
		AND (p.name <> '' OR p.email <> '' OR EXISTS (SELECT 1 FROM session WHERE person = p.id)
		OR EXISTS (SELECT 1 FROM passkey WHERE person = p.id) OR EXISTS (SELECT 1 FROM identity WHERE person = p.id))`},
	{"api_key", apiKeyID, "the key that made it is there", fixTamper,
		"SELECT k.id FROM api_key k WHERE k.made_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM api_key m WHERE m.id = k.made_by)"},
	{"api_key", apiKeyID, "it is revoked where the key that made it is", "revoke it",
		"SELECT k.id FROM api_key k JOIN api_key m ON m.id = k.made_by WHERE m.revoked_at IS NOT NULL AND k.revoked_at IS NULL"},
}
