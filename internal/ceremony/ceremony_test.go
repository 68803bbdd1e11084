package ceremony_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"joinery/internal/ceremony"
)

func plan() ceremony.Plan {
	return ceremony.Plan{
		Name: "acme", Participants: []ceremony.Participant{{Name: "Ada", Role: "leads"}}, Directory: "out", MinimumLevel: "in-token",
		Token:   ceremony.Token{Module: "m.so", Label: "keys", PINFile: "pin"},
		Custody: ceremony.Custody{Token: ceremony.Token{Module: "m.so", Label: "custody", PINFile: "custody.pin"}},
		Masters: []ceremony.Master{
			{Name: "drawn", Generate: true, Share: []ceremony.Share{{To: "to.pub", KID: "k", File: "f"}}},
			{Name: "accepted", Accept: "a.master", KCV: "12abCD"},
			{Name: "split", KCV: "123456", Components: []ceremony.Component{{Holder: "A", File: "a", KCV: "111111"}, {Holder: "B", File: "/b", KCV: "222222"}}},
		},
	}
}

// Everything that is wrong with a plan is told, each by its place.
func TestCheck(t *testing.T) {
	if err := plan().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*ceremony.Plan){
		"ceremony: want a name":      func(p *ceremony.Plan) { p.Name = "a/b" },
		"participants: want":         func(p *ceremony.Plan) { p.Participants = nil },
		"number 1: want a name":      func(p *ceremony.Plan) { p.Participants[0].Role = "" },
		"directory: want":            func(p *ceremony.Plan) { p.Directory = "" },
		"minimum_level: want":        func(p *ceremony.Plan) { p.MinimumLevel = "" },
		"token.module: want":         func(p *ceremony.Plan) { p.Token.Module = "" },
		"token.pin_file: want":       func(p *ceremony.Plan) { p.Token.PINFile = "" },
		"custody.label: want":        func(p *ceremony.Plan) { p.Custody.Label = "keys" },
		"custody.pin_file: want":     func(p *ceremony.Plan) { p.Custody.PINFile = "pin" },
		"not both":                   func(p *ceremony.Plan) { p.Custody.PublicKey = "x.pub" },
		`"drawn" is there twice`:     func(p *ceremony.Plan) { p.Masters[1] = ceremony.Master{Name: "drawn", Generate: true} },
		"exactly one of":             func(p *ceremony.Plan) { p.Masters[1].Generate = true },
		"never leaves it":            func(p *ceremony.Plan) { p.Masters[1].Share = p.Masters[0].Share },
		"accepted: kcv: want":        func(p *ceremony.Plan) { p.Masters[1].KCV = "" },
		"drawn: kcv: want":           func(p *ceremony.Plan) { p.Masters[0].KCV = "xyz" },
		"without a path":             func(p *ceremony.Plan) { p.Masters[0].Share[0].File = "../f" },
		"and its identifier":         func(p *ceremony.Plan) { p.Masters[0].Share[0].KID = "" },
		"want 2 or 3":                func(p *ceremony.Plan) { p.Masters[2].Components = p.Masters[2].Components[:1] },
		"A holds two":                func(p *ceremony.Plan) { p.Masters[2].Components[1].Holder = "A" },
		"rotate: want":               func(p *ceremony.Plan) { p.Rotate = []string{"row-mac"} },
		"join-kek is there twice":    func(p *ceremony.Plan) { p.Rotate = []string{ceremony.JoinKEK, ceremony.JoinKEK} },
		"want holder, file and the ": func(p *ceremony.Plan) { p.Masters[2].Components[1].KCV = "" },
	} {
		p := plan()
		change(&p)
		if err := p.Check(); !errors.Is(err, ceremony.ErrPlan) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	p := plan()
	r := p.Resolve("/x")
	if r.Directory != "/x/out" || r.Token.PINFile != "/x/pin" || r.Custody.PINFile != "/x/custody.pin" || r.Custody.PublicKey != "" ||
		r.Masters[0].Share[0].To != "/x/to.pub" || r.Masters[1].Accept != "/x/a.master" || r.Masters[2].Components[1].File != "/b" ||
		r.ReportFile() != "/x/out/acme.report.json" {
		t.Errorf("%+v", r)
	}
	if p.Masters[0].Share[0].To != "to.pub" {
		t.Error("it was changed in place")
	}
}

func signed(t *testing.T, listed bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	r := ceremony.Report{Ceremony: "acme <&>", Objects: []ceremony.Object{{Label: ceremony.AuditLabel, PublicKey: public}}}
	if !listed {
		r.Objects = nil
	}
	text, err := ceremony.Sign(r, public, func(digest []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, key, digest) })
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A report opens as it was signed, also when its white space is another; a report
// that was changed in any other way does not.
func TestSignedReport(t *testing.T) {
	text := signed(t, true)
	r, fingerprint, err := ceremony.Verify(text)
	if err != nil || r.Ceremony != "acme <&>" || len(fingerprint) != 64 {
		t.Fatalf("%v %+v %s", err, r, fingerprint)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ceremony.Verify(compact.Bytes()); err != nil {
		t.Errorf("without white space: %v", err)
	}
	change := func(old, with string) []byte { return bytes.Replace(text, []byte(old), []byte(with), 1) }
	var other ceremony.Signed
	if err := json.Unmarshal(signed(t, true), &other); err != nil {
		t.Fatal(err)
	}
	key, err := json.Marshal(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	var mine ceremony.Signed
	if err := json.Unmarshal(text, &mine); err != nil {
		t.Fatal(err)
	}
	own, err := json.Marshal(mine.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string][]byte{
		"another name":                          change("acme", "acmf"),
		"another algorithm":                     change(ceremony.Algorithm, "none"),
		"a field more":                          change(`"report"`, `"more": 1, "report"`),
		"another key":                           bytes.ReplaceAll(text, own, key),
		"no key":                                bytes.ReplaceAll(text, own, []byte(`""`)),
		"something after":                       append(bytes.Clone(text), "{}"...),
		"cut":                                   text[:len(text)/2],
		"signed by a key that it does not list": signed(t, false),
	} {
		if _, _, err := ceremony.Verify(changed); !errors.Is(err, ceremony.ErrReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// auditor is an audit key of a test.
type auditor struct {
	t       *testing.T
	label   string
	private *ecdsa.PrivateKey
	public  string
}

func newAuditor(t *testing.T, label string) auditor {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return auditor{t, label, private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

// signs signs a report, of a ceremony that replaced the audit key where next is one.
func (a auditor) signs(next *auditor) []byte {
	a.t.Helper()
	r := ceremony.Report{Ceremony: "test", Objects: []ceremony.Object{{Label: a.label, PublicKey: a.public}}}
	if next != nil {
		r.Rotated = []ceremony.Rotated{
			{Key: ceremony.JoinKEK, Label: "joinery.join-kek.2", Generation: 2},
			{Key: ceremony.AuditKey, Label: next.label, Generation: 2, KID: ceremony.Fingerprint(next.public)},
		}
	}
	text, err := ceremony.Sign(r, a.public, func(digest []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, a.private, digest) })
	if err != nil {
		a.t.Fatal(err)
	}
	return text
}

// Who trusts one audit key trusts those that follow it, and no others.
func TestFollow(t *testing.T) {
	one, two, three, other := newAuditor(t, "joinery.audit"), newAuditor(t, "joinery.audit.2"), newAuditor(t, "joinery.audit.3"), newAuditor(t, "joinery.audit")
	first := ceremony.Fingerprint(one.public)
	got, err := ceremony.Follow(first, one.signs(&two), two.signs(&three))
	if err != nil || got != ceremony.Fingerprint(three.public) {
		t.Errorf("%s, %v", got, err)
	}
	if got, err = ceremony.Follow(strings.ToUpper(first)); err != nil || !strings.EqualFold(got, first) {
		t.Errorf("nothing was replaced: %s, %v", got, err)
	}
	changed := bytes.Replace(one.signs(&two), []byte("joinery.audit.2"), []byte("joinery.audit.9"), 1)
	for name, reports := range map[string][][]byte{
		"out of order": {two.signs(&three), one.signs(&two)}, "of another token": {other.signs(&three)},
		"without a replacement": {one.signs(nil)}, "changed": {changed},
	} {
		if _, err := ceremony.Follow(first, reports...); !errors.Is(err, ceremony.ErrReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
