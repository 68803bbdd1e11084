package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/evidence"
	"joinery/internal/firmware"
	"joinery/internal/store"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
	"joinery/manifest"
)

// clock is set by tests.
type clock struct{ atomic.Pointer[time.Time] }

func (c *clock) now() time.Time { return *c.Load() }

func (c *clock) add(d time.Duration) {
	t := c.now().Add(d)
	c.Store(&t)
}

// chip is a device with the private keys of its element, and the state of one that
// verifies firmware.
type chip struct {
	joinery.Device
	serial    [9]byte
	slot1     *ecdsa.PrivateKey
	slot2     *ecdsa.PrivateKey
	digest    [32]byte // what it verified
	counter   uint32
	bootState func(*evidence.Boot) // changes what it says of itself; may be nil
}

// fixture is a Service over a database file, a maker with two products, and two of
// its devices.
type fixture struct {
	*Service
	db            *store.DB
	clock         *clock
	maker, others joinery.Caller
	product       joinery.Product
	other         joinery.Product // of the same maker
	releaseKey    *ecdsa.PrivateKey
	tokenKey      *ecdsa.PrivateKey
	chips         []*chip
	ca            *authority
}

const joinEUI = 0x70B3D57ED0000000

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rs signs a digest: r ‖ s, as elements do.
func rs(t testing.TB, key *ecdsa.PrivateKey, digest [32]byte) (out [64]byte) {
	t.Helper()
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

func spki(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func image(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{db: sqlitetest.New(t), clock: new(clock), releaseKey: newKey(t), tokenKey: newKey(t)}
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	f.clock.Store(&start)
	var err error
	if f.Service, err = Start(t.Context(), f.db, Options{Now: f.clock.now, Verifier: "js.example.com"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*joinery.Caller{"Maker": &f.maker, "Others": &f.others} {
		o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: start}
		if err := f.db.AddOrg(t.Context(), o, joinery.AuditEntry{At: start}); err != nil {
			t.Fatal(err)
		}
		*c = joinery.Caller{Org: o.ID, Name: "key of " + name}
	}
	span := joinery.EUIRange{First: lorawan.EUI64FromUint64(joinEUI), Last: lorawan.EUI64FromUint64(joinEUI)}
	if err := f.db.AssignRange(t.Context(), joinery.JoinEUIRange{EUIRange: span, Org: f.maker.Org}, joinery.AuditEntry{At: start}); err != nil {
		t.Fatal(err)
	}
	f.ca = newAuthority(t)
	f.importChips(t, 4)
	f.product = f.addProduct(t, "meter-3", 1, 10, &joinery.BootProfile{KeySlot: 2, DigestSlot: 7})
	f.other = f.addProduct(t, "valve-1", 11, 20, nil)
	f.addKey(t, joinery.ProductKey{Product: f.product.ID, Use: joinery.KeyForReleases, Public: spki(t, f.releaseKey)})
	f.addKey(t, joinery.ProductKey{Product: f.product.ID, Use: joinery.KeyForTokens, Public: spki(t, f.tokenKey)})
	f.addKey(t, joinery.ProductKey{Product: f.other.ID, Use: joinery.KeyForReleases, Public: spki(t, f.releaseKey)})
	f.release(t, f.product, "1.0.0", "one", 1)
	f.release(t, f.product, "2.0.0", "two", 2)
	f.release(t, f.other, "9.0.0", "nine", 9)
	return f
}

func (f *fixture) addProduct(t testing.TB, name string, first, last uint64, boot *joinery.BootProfile) joinery.Product {
	t.Helper()
	p, err := f.AddProduct(t.Context(), f.maker, joinery.Product{
		Name: name, Hardware: "rev-c", Boot: boot,
		DevEUIs: []joinery.EUIRange{{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(last)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) addKey(t testing.TB, k joinery.ProductKey) joinery.ProductKey {
	t.Helper()
	k, err := f.AddKey(t.Context(), f.maker, k)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (f *fixture) statement(t testing.TB, p joinery.Product, version, img string, counter uint32) []byte {
	t.Helper()
	st, err := firmware.Sign(firmware.Release{Product: p.Name, Hardware: p.Hardware, Version: version, Digest: image(img), Counter: counter},
		func(digest [32]byte) ([64]byte, error) { return rs(t, f.releaseKey, digest), nil })
	if err != nil {
		t.Fatal(err)
	}
	text, err := st.Text()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (f *fixture) release(t testing.TB, p joinery.Product, version, img string, counter uint32) joinery.Release {
	t.Helper()
	r, err := f.AddRelease(t.Context(), f.maker, p.ID, f.statement(t, p, version, img, counter))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// importChips imports devices with DevEUI 1 and up, whose manifest entries name the
// keys of slots 1 and 2.
func (f *fixture) importChips(t testing.TB, n int) {
	t.Helper()
	i, err := f.db.BeginImport(t.Context(), joinery.Import{
		Org: f.maker.Org, Kind: joinery.ImportManifest, SHA256: image("manifest"), MACVersion: lorawan.MAC1_0_4, CreatedAt: f.clock.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := joinery.ImportRows{Import: i.ID, Count: uint64(n), Last: true}
	for k := range n {
		c := &chip{slot1: newKey(t), slot2: newKey(t), serial: [9]byte{1, 0x23, 8: 0xEE}, digest: image("one"), counter: 1}
		c.serial[7] = byte(k)
		c.Device = joinery.Device{
			ID: joinery.NewDeviceID(), JoinEUI: lorawan.EUI64FromUint64(joinEUI), DevEUI: lorawan.EUI64FromUint64(uint64(k) + 1),
			MACVersion: lorawan.MAC1_0_4, Maker: f.maker.Org, Ownership: joinery.Ownership{Org: f.maker.Org}, CreatedAt: f.clock.now(),
		}
		e := manifest.Element{
			Version: 1, UniqueID: hex.EncodeToString(c.serial[:]), JoinEUI: c.JoinEUI, DevEUI: c.DevEUI, ProvisionedAt: f.clock.now(),
			Keys: []manifest.DeviceKey{f.ca.certified(t, c, "1"), f.ca.certified(t, c, "2")},
		}
		rows.Devices = append(rows.Devices, joinery.NewDevice{
			Index: uint64(k), Device: c.Device, Serial: e.UniqueID, Manifest: f.ca.entry(t, e),
			KeySet: joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: c.ID, DevEUI: c.DevEUI, Origin: joinery.OriginDerived, Master: "m", Root10: joinery.NwkKey},
		})
		f.chips = append(f.chips, c)
	}
	results, err := f.db.CommitRows(t.Context(), rows, joinery.AuditEntry{At: f.clock.now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Status != joinery.RowCreated {
			t.Fatal(r.Reason)
		}
	}
}

// asked is a new challenge about a device.
func (f *fixture) asked(t testing.TB, c *chip) evidence.About {
	t.Helper()
	a, err := f.Challenge(t.Context(), f.maker, c.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.About{Challenge: a.Random, JoinEUI: c.JoinEUI, DevEUI: c.DevEUI}
}

// possession is what the chip's software says it runs, signed in slot 1.
func (c *chip) possession(t testing.TB, a evidence.About, img string, counter uint32) []byte {
	t.Helper()
	p := evidence.Possession{Tag: a.Tag(), Digest: image(img), Counter: counter}
	p.Signature = rs(t, c.slot1, p.SigningDigest(a))
	return p.Bytes()
}

// boot is what the chip signs of its own state.
func (c *chip) boot(t testing.TB, a evidence.About) []byte {
	t.Helper()
	b := evidence.Boot{
		Tag: a.Tag(), Digest: c.digest, Counter: c.counter, Serial: c.serial, KeySlot: 2, DigestSlot: 7,
		KeySlotConfig: 0x8F82, KeyKeyConfig: 0x1013, DigestSlotConfig: 0x8F0F, DigestKeyConfig: 0x001C,
	}
	b.Config[6], b.Config[7] = 0x0B, 0x67
	rand.Read(b.Random[:])
	if c.bootState != nil {
		c.bootState(&b)
	}
	b.Signature = rs(t, c.slot2, b.SigningDigest(a))
	return b.Bytes()
}

func (f *fixture) shows(t testing.TB, c *chip, kind joinery.EvidenceKind, b []byte) Standing {
	t.Helper()
	st, err := f.Evidence(t.Context(), f.maker, c.ID, kind, b)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// refuses checks that evidence is refused with a reason that the log has, and that
// it changes nothing.
func (f *fixture) refuses(t testing.TB, c *chip, kind joinery.EvidenceKind, b []byte, word string) {
	t.Helper()
	before, err := f.Standing(t.Context(), f.maker, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Evidence(t.Context(), f.maker, c.ID, kind, b)
	wantCode(t, err, joinery.CodeAttestation)
	last := f.audited(t, joinery.AuditAttestRefused)
	if len(last) == 0 || last[len(last)-1].Detail["reason"] != word || last[len(last)-1].Device != c.ID || last[len(last)-1].Org != f.maker.Org {
		t.Errorf("want reason %s, the log has %+v (%v)", word, last, err)
	}
	after, err := f.Standing(t.Context(), f.maker, c.ID)
	if err != nil || after.Level != before.Level || !after.Until.Equal(before.Until) || !slices.Equal(after.Results, before.Results) {
		t.Errorf("refused, and yet %+v became %+v, %v", before, after, err)
	}
}

func (f *fixture) audited(t testing.TB, event joinery.AuditEvent) []joinery.AuditEntry {
	t.Helper()
	list, err := f.db.AuditEntries(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(e joinery.AuditEntry) bool { return e.Event != event })
}

func wantCode(t testing.TB, err error, want joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != want {
		t.Fatalf("got %v, want code %s", err, want)
	}
}
