package custodylog

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/ceremony"
)

// signedReport is the report of a ceremony, as a token's audit key signs it.
func signedReport(t *testing.T) (report []byte, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	report, err = ceremony.Sign(ceremony.Report{
		Ceremony: "acme-2026", Plan: strings.Repeat("a", 64), Program: "joinery", Started: epoch, Finished: epoch,
		Participants: []ceremony.Participant{{Name: "Ada Lind", Role: "leads"}, {Name: "Bo Marsh", Role: "witness"}},
		Objects:      []ceremony.Object{{Label: ceremony.AuditLabel, PublicKey: public, Rights: []string{}}},
		Masters:      []ceremony.Made{{Name: "own-2026", Profile: "ecb-v1", KCV: "5A2B11", Origin: "drawn"}},
	}, public, func(digest []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, key, digest) })
	if err != nil {
		t.Fatal(err)
	}
	return report, ceremony.Fingerprint(public)
}

// A report comes into the log as it was signed, by the key that the participants
// know; its entry can be erased, for people are named in it.
func TestCeremonyIsEntered(t *testing.T) {
	w := newWorld(t, Options{})
	report, key := signedReport(t)
	for name, c := range map[string]struct {
		caller joinery.Caller
		report []byte
		key    string
		want   joinery.Code
	}{
		"not the operator":  {as(w.maker), report, key, joinery.CodeForbidden},
		"another key":       {operator, report, strings.Repeat("0", 64), joinery.CodeInvalid},
		"altered":           {operator, bytes.Replace(report, []byte("Ada"), []byte("Eva"), 1), key, joinery.CodeInvalid},
		"not a report":      {operator, []byte("{}"), key, joinery.CodeInvalid},
		"something follows": {operator, append(bytes.Clone(report), "{}"...), key, joinery.CodeInvalid},
	} {
		if _, err := w.EnterCeremony(w.ctx, c.caller, c.report, c.key); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	entered, err := w.EnterCeremony(w.ctx, operator, report, strings.ToUpper(key))
	w.ok(err)
	if entered.Name != "acme-2026" || entered.SHA256 != digest(string(report)) || entered.Signer != key {
		t.Errorf("%+v", entered)
	}
	w.publish()
	entries, err := w.db.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	last := entries[len(entries)-1]
	if last.Event != joinery.AuditCeremonyReported || last.Detail["report"] != entered.SHA256 || last.Detail["signer"] != key ||
		last.Detail["participants"] != "Ada Lind (leads), Bo Marsh (witness)" || last.Detail["masters"] != "own-2026 ecb-v1 5A2B11 drawn" {
		t.Errorf("%+v", last)
	}
	e, err := w.db.LogEntry(w.ctx, joinery.AuditRef(last.ID))
	w.ok(err)
	if e.Leaf < 0 {
		t.Error("it is not in the tree")
	}
	w.ok(w.Erase(w.ctx, operator, e.Ref, "asked for"))
}
