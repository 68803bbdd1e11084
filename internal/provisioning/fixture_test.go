package provisioning

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"testing"
	"time"

	"joinery"
	"joinery/internal/seal"
	"joinery/internal/store"
	"joinery/lorawan"
	"joinery/manifest"
)

// The ranges of the tests: elements of Acme, ordinary devices of Acme, and the
// same of another organisation.
const (
	elements      = 0x70B3D57ED0000000
	ordinary      = 0x70B3D57ED0001000
	otherElements = 0x70B3D57ED0002000
	otherOrdinary = 0x70B3D57ED0003000
	rangeSize     = 0x100

	firstDevEUI = 0x0004A310001A0000
	lastDevEUI  = 0x0004A310001AFFFF
)

// fixture is a Service over a database file and a software keyring.
type fixture struct {
	*Service
	db           *store.DB
	acme, others joinery.Caller
	maker        signer // pinned for Acme
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	return newFixtureOver(t, newStore(t))
}

func newFixtureOver(t testing.TB, db *store.DB) fixture {
	t.Helper()
	f := fixture{db: db, maker: newSigner(t)}
	f.Service = New(f.db, f.db, keys)
	f.acme, f.others = f.newOrg(t, "Acme"), f.newOrg(t, "Others")
	for first, c := range map[uint64]joinery.Caller{elements: f.acme, ordinary: f.acme, otherElements: f.others, otherOrdinary: f.others} {
		f.assign(t, c.Org, first, first == elements || first == otherElements)
	}
	f.pin(t, f.maker, f.acme.Org, span(elements, rangeSize/2), master)
	return f
}

func eui(v uint64) lorawan.EUI64 { return lorawan.EUI64FromUint64(v) }

func span(first, n uint64) joinery.EUIRange {
	return joinery.EUIRange{First: eui(first), Last: eui(first + n - 1)}
}

func (f fixture) newOrg(t testing.TB, name string) joinery.Caller {
	t.Helper()
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: time.Now()}
	if err := f.db.AddOrg(t.Context(), o, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return joinery.Caller{Org: o.ID, Name: "key of " + name}
}

func (f fixture) assign(t testing.TB, org joinery.OrgID, first uint64, onlyElements bool) {
	t.Helper()
	r := joinery.JoinEUIRange{EUIRange: span(first, rangeSize), Org: org, Elements: onlyElements}
	if err := f.db.AssignRange(t.Context(), r, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) pin(t testing.TB, s signer, org joinery.OrgID, joinEUIs joinery.EUIRange, master string) joinery.Signer {
	t.Helper()
	pinned := joinery.Signer{
		ID: joinery.NewSignerID(), Org: org, Name: s.id.KID, KID: s.id.KID, X5TS256: s.id.X5TS256, DER: s.der,
		JoinEUIs: joinEUIs, DevEUIs: joinery.EUIRange{First: eui(firstDevEUI), Last: eui(lastDevEUI)},
		Master: master, Generation: 7, CreatedAt: time.Now(),
	}
	if err := f.db.AddSigner(t.Context(), pinned, joinery.AuditEntry{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return pinned
}

// signer is a maker's signing key with its certificate.
type signer struct {
	key *ecdsa.PrivateKey
	der []byte
	id  manifest.SignerID
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ski := make([]byte, 20)
	rand.Read(ski)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), SubjectKeyId: ski, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := manifest.ParseSigner(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, der, id}
}

func (s signer) sign(in []byte) ([]byte, error) {
	digest := sha256.Sum256(in)
	r, v, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	v.FillBytes(out[32:])
	return out, nil
}

func element(joinEUI, devEUI uint64) manifest.Element {
	return manifest.Element{
		Version: 1, UniqueID: fmt.Sprintf("0123%012x27", devEUI&(1<<48-1)), JoinEUI: eui(joinEUI), DevEUI: eui(devEUI), ProvisionedAt: time.Now(),
	}
}

// entries signs elements and gives the entries of their manifest.
func (s signer) entries(t testing.TB, list ...manifest.Element) (entries []json.RawMessage) {
	t.Helper()
	var file bytes.Buffer
	w, err := manifest.NewWriter(&file, s.id, s.sign)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := manifest.NewReader(&file)
	for {
		raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, raw)
	}
}

// run makes n elements from a DevEUI on.
func (s signer) run(t testing.TB, from uint64, n int) []json.RawMessage {
	t.Helper()
	var list []manifest.Element
	for k := range n {
		list = append(list, element(elements, from+uint64(k)))
	}
	return s.entries(t, list...)
}

func (f fixture) begin(t testing.TB, caller joinery.Caller, spec Spec) joinery.Import {
	t.Helper()
	if spec.SHA256 == [32]byte{} {
		rand.Read(spec.SHA256[:])
	}
	if spec.Kind == joinery.ImportManifest && spec.MACVersion == 0 {
		spec.MACVersion = lorawan.MAC1_1
	}
	i, err := f.Begin(t.Context(), caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (f fixture) take(t testing.TB, caller joinery.Caller, c Chunk) ([]joinery.RowResult, joinery.Import) {
	t.Helper()
	results, i, err := f.Rows(t.Context(), caller, c)
	if err != nil {
		t.Fatal(err)
	}
	for k, r := range results {
		if r.Index != c.From+uint64(k) {
			t.Fatalf("result %d is of row %d", k, r.Index)
		}
	}
	return results, i
}

func (f fixture) state(t testing.TB, joinEUI, devEUI uint64) joinery.ActivationState {
	t.Helper()
	s, err := f.db.LoadActivation(t.Context(), eui(joinEUI), eui(devEUI))
	if err != nil {
		t.Fatal(err)
	}
	// A join reads no custody blobs; the check looks at them, too.
	whole, err := f.db.Device(t.Context(), s.Device.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.CheckKeySet(t.Context(), whole.KeySet); err != nil {
		t.Errorf("%s: %v", eui(devEUI), err)
	}
	return whole
}

func wantCode(t testing.TB, err error, want joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != want {
		t.Errorf("got %v; want code %q", err, want)
	}
}

// sealer seals keys as the customer's machine does.
func sealer(t testing.TB) *seal.Sealer {
	t.Helper()
	s, err := seal.NewSealer(keys.TransportKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealRow gives a row of a 1.0.3 device under an ordinary JoinEUI, with a new key.
func sealRow(t testing.TB, s *seal.Sealer, devEUI uint64) seal.SealedRow {
	t.Helper()
	row := seal.SealedRow{Line: devEUI, JoinEUI: eui(ordinary), DevEUI: eui(devEUI), MACVersion: lorawan.MAC1_0_3, Root10: seal.RootAppKey}
	if err := s.SealRow(&row, nil, newKey()); err != nil {
		t.Fatal(err)
	}
	return row
}

func newKey() []byte {
	key := make([]byte, 16)
	rand.Read(key)
	return key
}
