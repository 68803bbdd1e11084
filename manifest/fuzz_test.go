package manifest_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"joinery/manifest"
)

func FuzzReader(f *testing.F) {
	s := newSigner(f)
	f.Add(write(f, s, elements(f, 2)))
	for _, seed := range []string{"", "[]", "[1,2]", `[{"a":[]}] `, "[", "{}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r := manifest.NewReader(bytes.NewReader(file))
		var total int
		for {
			raw, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, manifest.ErrFile) && !errors.Is(err, manifest.ErrTooLarge) {
					t.Fatalf("error outside the rules: %v", err)
				}
				return
			}
			if total += len(raw); total > len(file) || !bytes.Contains(file, raw) {
				t.Fatal("an entry that is not in the file")
			}
		}
	})
}

// FuzzVerify looks for entries that pass though nobody signed them.
func FuzzVerify(f *testing.F) {
	s := newSigner(f)
	good := s.entry(f, s.protected(), b64(payloadJSON()), `"header":{"uniqueId":"`+uniqueID+`"},`)
	f.Add(good)
	f.Add([]byte(`{"payload":"","protected":"","signature":""}`))
	want, _, err := manifest.Verify(good, s.lookup)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _, err := manifest.Verify(raw, s.lookup)
		if err == nil && (got.DevEUI != want.DevEUI || got.JoinEUI != want.JoinEUI || got.UniqueID != want.UniqueID) {
			t.Fatal("an element that was never signed")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b)
	raw := s.entry(b, s.protected(), b64(payloadJSON()), "")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := manifest.Verify(raw, s.lookup); err != nil {
			b.Fatal(err)
		}
	}
}
