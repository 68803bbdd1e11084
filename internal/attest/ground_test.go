package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

// authority is a maker of elements: the signer of its manifests, and the root of its
// elements' certificates.
type authority struct {
	signer  *ecdsa.PrivateKey
	log     []byte // the signer's certificate, DER
	rootKey *ecdsa.PrivateKey
	root    *x509.Certificate
	// unit is what the certificate of a slot says that it is of.
	unit func(slot string) []string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{signer: newKey(t), rootKey: newKey(t), unit: func(slot string) []string {
		if slot == "1" {
			return nil
		}
		return []string{manifest.SlotUnit(slot)}
	}}
	log := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Log Signer"}, SubjectKeyId: []byte{1, 2, 3}, NotBefore: year(2020), NotAfter: year(2040)}
	a.log = certificate(t, log, log, a.signer, a.signer)
	a.root = newRoot(t, a.rootKey)
	return a
}

func year(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }

func newRoot(t testing.TB, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: year(2020), NotAfter: year(2060),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root, err := x509.ParseCertificate(certificate(t, template, template, key, key))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func certificate(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// certified is a key of a chip with its certificate, as the third generation has it.
func (a *authority) certified(t testing.TB, c *chip, slot string) manifest.DeviceKey {
	t.Helper()
	key := c.slot1
	if slot != "1" {
		key = c.slot2
	}
	directory, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "eui64-" + c.DevEUI.String()}}})
	if err != nil {
		t.Fatal(err)
	}
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: directory}})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:    big.NewInt(2),
		Subject:         pkix.Name{CommonName: "sn" + strings.ToUpper(hex.EncodeToString(c.serial[:])), OrganizationalUnit: a.unit(slot)},
		NotBefore:       year(2025),
		NotAfter:        year(2050),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}},
	}
	return manifest.DeviceKey{Slot: slot, Public: &key.PublicKey, Chain: [][]byte{certificate(t, template, a.root, key, a.rootKey)}}
}

// entry is the manifest entry of an element.
func (a *authority) entry(t testing.TB, e manifest.Element) []byte {
	t.Helper()
	id, _, err := manifest.ParseSigner(a.log)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := manifest.NewWriter(&b, id, func(in []byte) ([]byte, error) {
		signature := rs(t, a.signer, sha256.Sum256(in))
		return signature[:], nil
	})
	if err == nil {
		err = w.Write(e)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	entry, err := manifest.NewReader(&b).Next()
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// pin pins the signer of the fixture's manifest.
func (f *fixture) pin(t testing.TB, org joinery.OrgID, roots ...*x509.Certificate) joinery.Signer {
	t.Helper()
	id, _, err := manifest.ParseSigner(f.ca.log)
	if err != nil {
		t.Fatal(err)
	}
	s := joinery.Signer{
		ID: joinery.NewSignerID(), Org: org, Name: joinery.NewSignerID().String(), KID: id.KID, X5TS256: id.X5TS256, DER: f.ca.log, Family: manifest.FamilyJoinery,
		JoinEUIs: joinery.EUIRange{First: lorawan.EUI64FromUint64(joinEUI), Last: lorawan.EUI64FromUint64(joinEUI)},
		DevEUIs:  joinery.EUIRange{First: lorawan.EUI64FromUint64(1), Last: lorawan.EUI64FromUint64(3)}, Master: "m", CreatedAt: f.clock.now(),
	}
	for _, r := range roots {
		s.Roots = append(s.Roots, r.Raw...)
	}
	if err := f.db.AddSigner(t.Context(), s, joinery.AuditEntry{At: f.clock.now()}); err != nil {
		t.Fatal(err)
	}
	return s
}

// unpin takes a pin away, and has what rests on it end.
func (f *fixture) unpin(t testing.TB, s joinery.Signer) {
	t.Helper()
	if err := f.db.RemoveSigner(t.Context(), s.ID, joinery.AuditEntry{At: f.clock.now()}); err != nil {
		t.Fatal(err)
	}
	if err := f.EndUnvouched(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestGround: a result says which signer stands by the key that verified it, whether that
// is pinned, and what the key's certificates are worth; it is never more than that.
func TestGround(t *testing.T) {
	f := newFixture(t)
	other := newRoot(t, newKey(t))
	for name, x := range map[string]struct {
		pin   func() joinery.Signer // nil: none
		basis joinery.AttestBasis
		chain manifest.Chain
	}{
		"no pin":               {nil, joinery.AttestAny, ""},
		"another maker's":      {func() joinery.Signer { return f.pin(t, f.others.Org, f.ca.root) }, joinery.AttestAny, ""},
		"no root":              {func() joinery.Signer { return f.pin(t, f.maker.Org) }, joinery.AttestVouched, manifest.ChainNoRoot},
		"its root":             {func() joinery.Signer { return f.pin(t, f.maker.Org, f.ca.root) }, joinery.AttestChain, manifest.ChainChecked},
		"its root and another": {func() joinery.Signer { return f.pin(t, f.maker.Org, other, f.ca.root) }, joinery.AttestChain, manifest.ChainChecked},
		"another root":         {func() joinery.Signer { return f.pin(t, f.maker.Org, other) }, joinery.AttestAny, manifest.ChainFailed},
	} {
		var pin joinery.Signer
		if x.pin != nil {
			pin = x.pin()
		}
		c := f.chips[0]
		for kind, show := range map[joinery.EvidenceKind]func() []byte{
			l1: func() []byte { return c.possession(t, f.asked(t, c), "one", 1) }, l2: func() []byte { return c.boot(t, f.asked(t, c)) },
		} {
			st := f.shows(t, c, kind, show())
			level, _ := kind.Level()
			r := st.Results[slices.IndexFunc(st.Results, func(r joinery.Attestation) bool { return r.Level == level })]
			if r.Basis != x.basis || r.Ground.Chain != x.chain || r.Ground.Pinned() != (x.chain != "") || r.Ground.Key != 0 || r.Ground.SignerX5TS256 == "" {
				t.Errorf("%s, %s: %s, %+v", name, kind, r.Basis, r.Ground)
			}
			if pinned := x.chain != ""; pinned && (r.Ground.Signer != pin.ID || r.Ground.SignerName != "Log Signer") {
				t.Errorf("%s, %s: %+v", name, kind, r.Ground)
			}
			if st.Device.Attested.BasisOf(level) != x.basis {
				t.Errorf("%s, %s: the device has %s", name, kind, st.Device.Attested.BasisOf(level))
			}
			log := f.audited(t, joinery.AuditDeviceAttested)
			if d := log[len(log)-1].Detail; d["basis"] != x.basis.String() || d["chain"] != string(x.chain) || d["signer"] != r.Ground.SignerX5TS256 {
				t.Errorf("%s, %s: the log has %v", name, kind, d)
			}
		}
		if x.pin != nil {
			f.unpin(t, pin)
		}
	}
	// Chip 4 is none of those that the signer may provision.
	pin := f.pin(t, f.maker.Org, f.ca.root)
	c := f.chips[3]
	if r := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1)).Results[0]; r.Basis != joinery.AttestAny || r.Ground.Pinned() {
		t.Errorf("%s, %+v", r.Basis, r.Ground)
	}
	// What the maker registered is its word, and no more, whatever the manifest's signer.
	f.unpin(t, pin)
	c = f.chips[1]
	st := f.shows(t, c, l3, f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "one")))
	if r := st.Results[0]; r.Basis != joinery.AttestVouched || r.Ground.Key == 0 || r.Ground.Chain != "" || r.Ground.SignerX5TS256 != "" {
		t.Errorf("%s, %+v", r.Basis, r.Ground)
	}
}

// TestGroundIsTakenBack: with the pin goes what rests on it, and its owner is told; a pin
// that comes back brings nothing back; joins are judged by what is left.
func TestGroundIsTakenBack(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	c := f.chips[0]
	want := joinery.AttestPolicy{AttestRule: joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse, Basis: joinery.AttestUnsaid}}
	got, err := f.SetPolicy(ctx, f.maker, want)
	if err != nil || got.Basis != joinery.AttestVouched {
		t.Fatalf("%+v, %v", got, err)
	}
	standing := func() Standing {
		t.Helper()
		st, err := f.Standing(ctx, f.maker, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1)); st.Level != 1 || st.Counts != 0 || !st.Broken {
		t.Errorf("nobody stands by it, and %+v", st)
	}
	pin := f.pin(t, f.maker.Org, f.ca.root)
	if st := standing(); st.Counts != 0 || st.Results[0].Basis != joinery.AttestAny {
		t.Errorf("a pin alone makes more of an old result: %+v", st)
	}
	if st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1)); st.Counts != 1 || st.Broken {
		t.Errorf("%+v", st)
	}
	f.unpin(t, pin)
	f.pin(t, f.maker.Org, f.ca.root)
	st := standing()
	if g := st.Results[0].Ground; st.Level != 1 || st.Counts != 0 || !st.Broken || g.Pinned() || g.UnpinnedAt.IsZero() || g.SignerName != "Log Signer" || !st.Results[0].EndedAt.IsZero() {
		t.Errorf("the signer was unpinned, and %+v", st)
	}
	told := f.audited(t, joinery.AuditAttestUnvouched)
	if len(told) != 1 || told[0].Org != f.maker.Org || told[0].Device != c.ID || told[0].Detail["was"] != "chain" || told[0].Detail["level"] != "L1" {
		t.Errorf("%+v", told)
	}

	// Who wants chains gets them, of all devices and of one; what cannot be is refused.
	if got, err = f.SetPolicy(ctx, f.maker, want); err != nil || got.Basis != joinery.AttestVouched {
		t.Fatalf("%+v, %v", got, err)
	}
	rule := joinery.AttestRule{Level: joinery.AttestBoot, Activate: joinery.AttestRefuse, Basis: joinery.AttestChain}
	if err := f.SetRule(ctx, f.maker, c.ID, &rule); err != nil {
		t.Fatal(err)
	}
	if st := standing(); st.Rule != rule || !st.Broken {
		t.Errorf("%+v", st)
	}
	if st := f.shows(t, c, l2, c.boot(t, f.asked(t, c))); st.Broken || st.Counts != 2 {
		t.Errorf("%+v", st)
	}
	rule.Basis = joinery.AttestUnsaid
	if err := f.SetRule(ctx, f.maker, c.ID, &rule); err != nil {
		t.Fatal(err)
	}
	if st := standing(); st.Rule.Basis != joinery.AttestVouched {
		t.Errorf("%+v", st.Rule)
	}
	rule.Level, rule.Basis = joinery.AttestToken, joinery.AttestChain
	wantCode(t, f.SetRule(ctx, f.maker, c.ID, &rule), joinery.CodeInvalid)
	want.AttestRule = rule
	_, err = f.SetPolicy(ctx, f.maker, want)
	wantCode(t, err, joinery.CodeInvalid)
}

// TestKeptEntryIsVerified: who can write to the database puts no key of his into a
// manifest entry while its signer is pinned.
func TestKeptEntryIsVerified(t *testing.T) {
	f := newFixture(t)
	f.pin(t, f.maker.Org)
	c := f.chips[0]
	a, err := f.db.Appraise(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := f.db.Signers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	judge := func() (ground, error) { _, on, err := manifestKey(a, deviceKeySlot, pins); return on, err }
	if on, err := judge(); err != nil || on.basis != joinery.AttestVouched {
		t.Fatal(on, err)
	}
	forged := *c
	forged.slot1 = newKey(t)
	right := f.ca.signer
	f.ca.signer = newKey(t)
	a.Manifest = f.ca.entry(t, manifest.Element{
		Version: 1, UniqueID: hex.EncodeToString(c.serial[:]), JoinEUI: c.JoinEUI, DevEUI: c.DevEUI, ProvisionedAt: f.clock.now(),
		Keys: []manifest.DeviceKey{f.ca.certified(t, &forged, "1")},
	})
	f.ca.signer = right
	_, err = judge()
	if r, ok := errors.AsType[refusal](err); !ok || r.word != "manifest" {
		t.Errorf("%v", err)
	}
	// An entry of another device, well signed, stands by none of this one's keys.
	other, err := f.db.Appraise(t.Context(), f.chips[1].ID)
	if err != nil {
		t.Fatal(err)
	}
	a.Manifest = other.Manifest
	if on, err := judge(); err != nil || on.basis != joinery.AttestAny {
		t.Error(on, err)
	}
}

// TestSlotIsCertified: a signer of manifests that lies about which slot a key is in gets
// no chain for it: the device key signs what it is told, and its certificate says that it
// is the device key.
func TestSlotIsCertified(t *testing.T) {
	f := newFixture(t)
	pin := f.pin(t, f.maker.Org, f.ca.root)
	verifies, err := pin.Pinned()
	if err != nil {
		t.Fatal(err)
	}
	c := *f.chips[0]
	for name, x := range map[string]struct {
		unit func(string) []string
		want map[string]manifest.Chain // by slot
	}{
		"as they are":        {f.ca.unit, map[string]manifest.Chain{"1": manifest.ChainChecked, "2": manifest.ChainChecked, "3": manifest.ChainNone}},
		"the device key's":   {func(string) []string { return nil }, map[string]manifest.Chain{"1": manifest.ChainChecked, "2": manifest.ChainFailed}},
		"the other key's":    {func(string) []string { return []string{"slot 2"} }, map[string]manifest.Chain{"1": manifest.ChainFailed, "2": manifest.ChainChecked}},
		"of some other unit": {func(string) []string { return []string{"meters"} }, map[string]manifest.Chain{"1": manifest.ChainChecked, "2": manifest.ChainFailed}},
	} {
		f.ca.unit = x.unit
		entry := f.ca.entry(t, manifest.Element{
			Version: 1, UniqueID: hex.EncodeToString(c.serial[:]), JoinEUI: c.JoinEUI, DevEUI: c.DevEUI, ProvisionedAt: f.clock.now(),
			Keys: []manifest.DeviceKey{f.ca.certified(t, &c, "1"), f.ca.certified(t, &c, "2")},
		})
		for slot, want := range x.want {
			if _, got, err := verifies.CheckKept(entry, slot); got != want || err != nil {
				t.Errorf("%s, slot %s: %s, %v; want %s", name, slot, got, err, want)
			}
		}
	}
	// The certificate of another chip of the maker.
	other := *f.chips[1]
	f.ca.unit = func(slot string) []string { return []string{manifest.SlotUnit(slot)} }
	stolen := f.ca.certified(t, &other, "2")
	entry := f.ca.entry(t, manifest.Element{
		Version: 1, UniqueID: hex.EncodeToString(c.serial[:]), JoinEUI: c.JoinEUI, DevEUI: c.DevEUI, ProvisionedAt: f.clock.now(),
		Keys: []manifest.DeviceKey{f.ca.certified(t, &c, "1"), stolen},
	})
	if _, got, err := verifies.CheckKept(entry, "2"); got != manifest.ChainFailed || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}
