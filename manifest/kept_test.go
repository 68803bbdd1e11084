package manifest_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"joinery/manifest"
)

// What is left of an entry is its signed part: it verifies as the whole did, and has
// nothing else.
func TestSignedPart(t *testing.T) {
	s := newSigner(t)
	payload := b64(payloadJSON())
	for name, beside := range map[string]string{
		"as in real files": `"header":{"uniqueId":"` + uniqueID + `"},`,
		"nothing beside":   "",
		"more beside":      `"x":"y","header":{"uniqueId":"` + uniqueID + `","x":["y",{}],"alg":"none","jku":"https://example.com"},"signatures":[],`,
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.entry(t, s.protected(), payload, beside)
			part, err := manifest.SignedPart(raw)
			if err != nil {
				t.Fatal(err)
			}
			var whole, kept map[string]any
			if err := errors.Join(json.Unmarshal(raw, &whole), json.Unmarshal(part, &kept)); err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(kept)); !slices.Equal(got, []string{"payload", "protected", "signature"}) {
				t.Errorf("members %v", got)
			}
			for member, text := range kept {
				if whole[member] != text {
					t.Errorf("%s was changed", member)
				}
			}
			if _, _, err := manifest.Verify(part, s.lookup); err != nil {
				t.Error(err)
			}
			if again, err := manifest.SignedPart(part); err != nil || string(again) != string(part) {
				t.Errorf("again: %s, %v", again, err)
			}
		})
	}
	for _, raw := range []string{"", "[]", "{}", `{"payload":"a","protected":"b"}`, `{"payload":"a","protected":"b","signature":"c","signature":"d"}`, `{"payload":1,"protected":"b","signature":"c"}`} {
		if part, err := manifest.SignedPart([]byte(raw)); !errors.Is(err, manifest.ErrSyntax) || part != nil {
			t.Errorf("%s: %s, %v", raw, part, err)
		}
	}
}
