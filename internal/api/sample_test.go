package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"joinery"
)

// absentIDs gives, by prefix, well-formed identifiers that nothing has.
func absentIDs() map[string]string {
	return map[string]string{
		"org": joinery.NewOrgID().String(), "dev": joinery.NewDeviceID().String(), "peer": joinery.NewPeerID().String(),
		"kek": joinery.NewKEKID().String(), "sgn": joinery.NewSignerID().String(), "imp": joinery.NewImportID().String(),
		"key": joinery.NewAPIKeyID().String(), "per": joinery.NewPersonID().String(), "inv": joinery.NewInvitationID().String(),
		"ses": joinery.NewSessionID().String(), "psk": joinery.NewPasskeyID().String(), "dsp": joinery.NewDisputeID().String(), "whk": joinery.NewWebhookID().String(),
		"kst": joinery.NewKeySetID().String(), "rcp": joinery.NewRecipientID().String(), "exp": joinery.NewExportID().String(),
		"jsv": joinery.NewJoinServerID().String(), "xpc": joinery.NewExpectationID().String(), "arr": joinery.NewArrivalID().String(), "rky": joinery.NewRekeyID().String(), "rkb": joinery.NewRekeyBatchID().String(),
		"prd": joinery.NewProductID().String(), "pky": joinery.NewProductKeyID().String(), "rel": joinery.NewReleaseID().String(),
	}
}

// sample makes a value that the schema allows; ids fills identifiers.
func (d document) sample(t testing.TB, s *schema, ids map[string]string) any {
	t.Helper()
	s = d.resolve(s)
	switch s.Type {
	case "object":
		out := map[string]any{}
		for name, p := range s.Properties {
			out[name] = d.sample(t, p, ids)
		}
		return out
	case "array":
		return []any{d.sample(t, s.Items, ids)}
	case "boolean":
		return true
	case "integer", "number":
		return 1
	case "string":
		return sampleText(t, s, ids)
	}
	t.Fatalf("no sample for type %v", s.Type)
	return nil
}

func sampleText(t testing.TB, s *schema, ids map[string]string) string {
	if len(s.Enum) > 0 {
		return fmt.Sprint(s.Enum[0])
	}
	if prefix, ok := idPattern(s); ok {
		return ids[prefix]
	}
	switch {
	case s.ContentEncoding == "base64":
		return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	case s.Pattern == "^[!-~]{1,64}$":
		return "as.example.com"
	case s.Pattern == "^[0-9A-Fa-f]{1,16}$":
		return "0004"
	case s.Pattern == "^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$":
		return "meter-3"
	case s.Pattern == "^[a-z0-9][a-z0-9-]{0,31}$":
		return "standard"
	case s.Pattern == "^([A-Z]{3})?$":
		return "EUR"
	case s.Pattern == "^[0-9]{1,10}([.][0-9]{1,4})?$":
		return "12.5"
	case s.Pattern == "^[0-9]{4}-[0-9]{2}$":
		return "2026-10"
	case s.Pattern == "^[A-Za-z0-9_-]{43}$":
		return strings.Repeat("x", 43)
	case s.Pattern == "^[0-9a-f]{0,18}$":
		return "27"
	case strings.Contains(s.Pattern, "{6}"):
		return "000013"
	case strings.Contains(s.Pattern, "{14}"):
		return "A1B2C3D4E5F607"
	case strings.Contains(s.Pattern, "{16}"):
		return "70B3D57ED0000001"
	case strings.Contains(s.Pattern, "{64}"):
		return strings.Repeat("ab", 32)
	case s.Pattern != "":
		t.Fatalf("no sample for pattern %s", s.Pattern)
	case s.Format == "date-time":
		return "2036-01-02T03:04:05Z"
	}
	return "text"
}

// idPattern tells which identifier a schema wants.
func idPattern(s *schema) (prefix string, ok bool) {
	rest, ok := strings.CutPrefix(s.Pattern, "^")
	if !ok {
		return "", false
	}
	prefix, _, ok = strings.Cut(rest, "_[")
	return prefix, ok
}

// place is one spot of a request's body.
type place struct {
	path   []string // names of members; "[]" for the one item of an array
	schema *schema
}

func (p place) String() string { return strings.Join(p.path, ".") }

// places lists every spot of a body, members before what is in them.
func (d document) places(s *schema, path ...string) (out []place) {
	s = d.resolve(s)
	if len(path) > 0 {
		out = append(out, place{slices.Clone(path), s})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		out = append(out, d.places(s.Properties[name], append(slices.Clone(path), name)...)...)
	}
	if s.Items != nil {
		out = append(out, d.places(s.Items, append(slices.Clone(path), "[]")...)...)
	}
	return out
}

// set puts v at a place of a sample.
func set(sample any, path []string, v any) any {
	if len(path) == 0 {
		return v
	}
	switch s := sample.(type) {
	case map[string]any:
		s = maps.Clone(s)
		s[path[0]] = set(s[path[0]], path[1:], v)
		return s
	case []any:
		return []any{set(s[0], path[1:], v)}
	}
	return sample
}
