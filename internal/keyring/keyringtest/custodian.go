package keyringtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// recipientKey is a recipient's RSA key, PKCS #8 in PEM: making one takes a second.
var recipientKey = sync.OnceValues(func() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
})

// Recipient gives an RSA key that receives exports, one for all tests of a process.
func Recipient(tb testing.TB) *exportfile.PrivateKey {
	tb.Helper()
	text, err := recipientKey()
	if err != nil {
		tb.Fatal(err)
	}
	k, err := exportfile.ParsePrivateKey(bytes.Clone(text))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = k.Close() })
	return k
}

// ExportHeader gives the header of an export by c to a recipient.
func ExportHeader(c keyring.Custodian, to exportfile.Recipient, w exportfile.Wrapping, devices int) exportfile.Header {
	return exportfile.Header{
		Format: exportfile.Format, ID: "exp_1", Server: "js.example", Org: "org_1", Recipient: to.Thumbprint(),
		Created: exportfile.FormatCreated(time.Unix(1_800_000_000, 0)), Devices: devices, Wrapping: w, Signer: c.Signer(),
	}
}

// exported is one device of the suite: what is asked for, and what its owner must get.
type exported struct {
	in    keyring.ExportIn
	roots map[string][16]byte
}

// RunCustodian tests a backend's custodian, whose keys are those of f; others are
// custodians that must not open what f sealed.
func RunCustodian(t *testing.T, f Fixture, c keyring.Custodian, sealed bool) {
	devices := f.exportedDevices(t, sealed)
	t.Run("Export", func(t *testing.T) { testExport(t, f, c, devices) })
	t.Run("Refusals", func(t *testing.T) { testExportRefusals(t, c, devices) })
	if sealed {
		t.Run("Swapped", func(t *testing.T) { testExportSwapped(t, f, c) })
		t.Run("Reseal", func(t *testing.T) { testReseal(t, f, c) })
		t.Run("ResealHeld", func(t *testing.T) { testResealHeld(t, f, c) })
	}
}

func (f Fixture) exportedDevices(t *testing.T, sealed bool) (list []exported) {
	t.Helper()
	about := func(ks joinery.KeySet, version lorawan.MACVersion) keyring.ExportIn {
		ks.Nonces = joinery.Nonces{JoinNonce: 7}.With(joinery.JoinEUINonces{JoinEUI: lorawan.EUI64{9}, Next: 5, NextRJCount1: 2})
		return keyring.ExportIn{KeySet: ks, About: keyring.ExportMetadata(ks, lorawan.EUI64{9}, version)}
	}
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_1, lorawan.MAC1_0_3} {
		ks, nwk, app := f.DerivedKeySet(t, NewDevice(true).DevEUI, 3)
		list = append(list, exported{about(ks, version), map[string][16]byte{exportfile.NwkKey: nwk}})
		if version == lorawan.MAC1_1 {
			list[len(list)-1].roots[exportfile.AppKey] = app
		}
	}
	for _, profile := range f.custodianRekeys(t) {
		for _, version := range []lorawan.MACVersion{lorawan.MAC1_1, lorawan.MAC1_0_4} {
			ks, roots := f.RekeyedKeySet(t, profile)
			list = append(list, exported{about(ks, version), roots})
			if version != lorawan.MAC1_1 {
				delete(roots, exportfile.AppKey)
			}
		}
	}
	if sealed {
		two, one := NewDevice(true), NewDevice(false)
		list = append(list,
			exported{about(f.SealedKeySet(t, two), lorawan.MAC1_1), map[string][16]byte{exportfile.NwkKey: two.Nwk, exportfile.AppKey: two.App}},
			exported{about(f.SealedKeySet(t, one), lorawan.MAC1_0_2), map[string][16]byte{exportfile.AppKey: one.Root10}})
	}
	return list
}

// custodianRekeys gives the rekeying profiles that the backend serves.
func (f Fixture) custodianRekeys(t *testing.T) []joinery.RekeyProfile {
	t.Helper()
	ks, _ := f.RekeyedKeySet(t, joinery.RekeyM)
	if _, err := f.Keyring.AuthMAC(context.Background(), ks); errors.Is(err, keyring.ErrNotServed) {
		return []joinery.RekeyProfile{joinery.RekeyS}
	}
	return []joinery.RekeyProfile{joinery.RekeyS, joinery.RekeyM}
}

// RekeyedKeySet gives a key set that came of a derived one by three instructions, and
// its root keys.
func (f Fixture) RekeyedKeySet(tb testing.TB, profile joinery.RekeyProfile) (joinery.KeySet, map[string][16]byte) {
	tb.Helper()
	ks, _, _ := f.DerivedKeySet(tb, NewDevice(true).DevEUI, 5)
	ks.Origin, ks.Rekey, ks.Serial = joinery.OriginRekeyed, profile, [9]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	var nwk, app [16]byte
	key := f.root(tb, 3, 5, ks.DevEUI)
	for n := range byte(3) {
		step := lorawan.Rekey{JoinEUI: lorawan.EUI64{0xEC, 7: n}, Cookie: lorawan.Cookie{n, 1, 2, 3, 4, 5, 6}}
		ks.Steps = append(ks.Steps, step)
		if profile == joinery.RekeyM {
			nwk, app = f.chipRoots(tb, ks)
			continue
		}
		nwk, app = encryptS(tb, key, 0x21, step), encryptS(tb, key, 0x22, step)
		key = encryptS(tb, key, 0x23, step)
	}
	return ks, map[string][16]byte{exportfile.NwkKey: nwk, exportfile.AppKey: app}
}

// RekeyingKeys gives what the root keys of a key set of RekeyedKeySet came from: every
// rekeying key of profile S, or both halves of the slot key of profile M.
func (f Fixture) RekeyingKeys(tb testing.TB, ks joinery.KeySet) (list [][16]byte) {
	tb.Helper()
	if ks.Rekey == joinery.RekeyM {
		return [][16]byte{f.root(tb, 4, 5, ks.DevEUI), f.root(tb, 5, 5, ks.DevEUI)}
	}
	list = append(list, f.root(tb, 3, 5, ks.DevEUI))
	for n, step := range ks.Steps {
		list = append(list, encryptS(tb, list[n], 0x23, step))
	}
	return list
}

// testExport: the recipient, and he alone, gets the very root keys, in every form that
// the backend can make; they sign join-requests that the server takes.
func testExport(t *testing.T, f Fixture, c keyring.Custodian, devices []exported) {
	private := Recipient(t)
	to := private.Recipient().WithSHA1()
	var in []keyring.ExportIn
	for _, d := range devices {
		in = append(in, d.in)
	}
	made := 0
	for _, w := range c.Wrappings() {
		if to.Allows(w) != nil && private.Recipient().Allows(w) != nil {
			continue // to P-256
		}
		as := to
		if to.Allows(w) != nil {
			as = private.Recipient()
		}
		made++
		h := ExportHeader(c, as, w, len(in))
		out, err := c.Export(context.Background(), h, as, in)
		if err != nil {
			t.Fatalf("%v: %v", w, err)
		}
		var file bytes.Buffer
		writer, err := exportfile.NewWriter(&file, h)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			if o.Err != nil {
				t.Fatalf("%v: %v", w, o.Err)
			}
			if err := writer.Write(o.Device); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := openExport(&file, c.Signer().Thumbprint(), private, devices, f); err != nil {
			t.Errorf("%v: %v", w, err)
		}
	}
	if made == 0 {
		t.Error("the backend can wrap to no RSA key")
	}
}

func openExport(file *bytes.Buffer, signer string, private *exportfile.PrivateKey, devices []exported, f Fixture) error {
	r, err := exportfile.NewReader(file)
	if err != nil {
		return err
	}
	v, err := exportfile.NewVerifier(r.Header(), signer)
	if err != nil {
		return err
	}
	return private.Open(r.Header(), func(o *exportfile.Opener) error {
		for _, want := range devices {
			d, err := r.Next()
			if err != nil {
				return err
			}
			if err := v.Verify(d); err != nil {
				return err
			}
			if err := o.Open(d, func(keys []exportfile.OpenedKey) error { return want.equal(d, keys, f) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e exported) equal(d exportfile.Device, keys []exportfile.OpenedKey, f Fixture) error {
	if len(keys) != len(e.roots) || d.DevEUI != e.in.KeySet.DevEUI || d.JoinNonce != 7 || d.Nonces[0].NextDevNonce != 5 {
		return errors.New("the device is another one")
	}
	var root10 [16]byte
	for _, k := range keys {
		want := e.roots[k.Root]
		mac := cmac(want[:], make([]byte, 16))
		if !bytes.Equal(k.Key, want[:]) || k.KCV != fmt.Sprintf("%X", mac[:3]) {
			return errors.New("a root key is another one")
		}
		if k.Root == d.Root10 {
			root10 = [16]byte(k.Key)
		}
	}
	device := Device{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, Root10: root10}
	return f.Keyring.VerifyJoin(context.Background(), e.in.KeySet, device.JoinRequest(8))
}

// testExportRefusals: what contradicts itself is refused, each device by itself.
func testExportRefusals(t *testing.T, c keyring.Custodian, devices []exported) {
	ctx, private := context.Background(), Recipient(t)
	to := private.Recipient().WithSHA1()
	w, err := exportfile.Choose(to, c.Wrappings(), "")
	if err != nil {
		t.Fatal(err)
	}
	h := ExportHeader(c, to, w, 1)
	good := devices[0].in
	for name, change := range map[string]struct {
		change func(*keyring.ExportIn)
		want   error
	}{
		"another DevEUI":  {func(in *keyring.ExportIn) { in.About.DevEUI[0] ^= 1 }, keyring.ErrRequest},
		"another root":    {func(in *keyring.ExportIn) { in.KeySet.Root10 = joinery.AppKey }, keyring.ErrRequest},
		"no such master":  {func(in *keyring.ExportIn) { in.KeySet.Master = "none" }, keyring.ErrUnknownMaster},
		"no rekeying key": {func(in *keyring.ExportIn) { in.KeySet.Origin = joinery.OriginRekeyed }, keyring.ErrNoRoot},
		"no origin":       {func(in *keyring.ExportIn) { in.KeySet.Origin = 0 }, keyring.ErrNoRoot},
		"no MACVersion":   {func(in *keyring.ExportIn) { in.About.MACVersion = 0 }, exportfile.ErrFormat},
		"sealed, no blob": {func(in *keyring.ExportIn) { in.KeySet.Origin = joinery.OriginSealed }, keyring.ErrNoRoot},
	} {
		in := good
		change.change(&in)
		out, err := c.Export(ctx, h, to, []keyring.ExportIn{in, good})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expect(t, name, out[0].Err, change.want)
		if out[1].Err != nil || len(out[0].Device.Keys) != 0 {
			t.Errorf("%s: %v; the other device: %v", name, out[0].Device.Keys, out[1].Err)
		}
	}
	for name, change := range map[string]struct {
		change func(*exportfile.Header)
		want   error
	}{
		"another recipient": {func(h *exportfile.Header) { h.Recipient = c.Signer().Thumbprint() }, exportfile.ErrFormat},
		"another signer":    {func(h *exportfile.Header) { h.Signer.X, h.Signer.Y = h.Signer.Y, h.Signer.X }, exportfile.ErrFormat},
		"no format":         {func(h *exportfile.Header) { h.Format = "" }, exportfile.ErrFormat},
		"for P-256":         {func(h *exportfile.Header) { h.Wrapping = exportfile.JWEECDHES }, exportfile.ErrWrapping},
	} {
		broken := h
		change.change(&broken)
		_, err := c.Export(ctx, broken, to, []keyring.ExportIn{good})
		expect(t, name, err, change.want)
	}
	if slices.Contains(c.Wrappings(), exportfile.RawOAEP1) {
		h.Wrapping = exportfile.RawOAEP1
		_, err := c.Export(ctx, h, private.Recipient(), []keyring.ExportIn{good})
		expect(t, "SHA-1 to who did not opt in", err, exportfile.ErrWrapping)
	}
}

// testExportSwapped: whoever can write to the database cannot have the keys of a device
// exported as those of another, or of another role, or under another generation.
func testExportSwapped(t *testing.T, f Fixture, c keyring.Custodian) {
	ctx := context.Background()
	to := Recipient(t).Recipient().WithSHA1()
	w, err := exportfile.Choose(to, c.Wrappings(), "")
	if err != nil {
		t.Fatal(err)
	}
	mine, yours := f.SealedKeySet(t, NewDevice(true)), f.SealedKeySet(t, NewDevice(true))
	for name, change := range map[string]func(*joinery.KeySet){
		"another device's": func(ks *joinery.KeySet) { ks.Nwk.Custody, ks.App.Custody = yours.Nwk.Custody, yours.App.Custody },
		"the other root's": func(ks *joinery.KeySet) { ks.Nwk.Custody, ks.App.Custody = ks.App.Custody, ks.Nwk.Custody },
		"a use blob":       func(ks *joinery.KeySet) { ks.Nwk.Custody = ks.Nwk.Use },
		"of another set":   func(ks *joinery.KeySet) { ks.ID = yours.ID },
		"damaged":          func(ks *joinery.KeySet) { ks.Nwk.Custody = flip(ks.Nwk.Custody, 40) },
		"cut short":        func(ks *joinery.KeySet) { ks.Nwk.Custody = ks.Nwk.Custody[:20] },
		"another generation": func(ks *joinery.KeySet) {
			ks.Nwk.Custody = keyring.WithGeneration(9, ks.Nwk.Custody)
		},
	} {
		ks := mine
		change(&ks)
		in := keyring.ExportIn{KeySet: ks, About: keyring.ExportMetadata(ks, lorawan.EUI64{9}, lorawan.MAC1_1)}
		out, err := c.Export(ctx, ExportHeader(c, to, w, 1), to, []keyring.ExportIn{in})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expect(t, name, out[0].Err, keyring.ErrIntegrity)
		if len(out[0].Device.Keys) != 0 {
			t.Errorf("%s: keys came out", name)
		}
	}
}

// testReseal: what is sealed anew is taken in, and what belongs elsewhere is not even
// opened.
func testReseal(t *testing.T, f Fixture, c keyring.Custodian) {
	ctx := context.Background()
	two, one := f.SealedKeySet(t, NewDevice(true)), f.SealedKeySet(t, NewDevice(false))
	stored := []joinery.StoredRoots{
		{KeySet: two.ID, DevEUI: two.DevEUI, MACVersion: lorawan.MAC1_1, Root10: joinery.NwkKey, Nwk: two.Nwk, App: two.App},
		{KeySet: one.ID, DevEUI: one.DevEUI, MACVersion: lorawan.MAC1_0_3, Root10: joinery.AppKey, App: one.App},
	}
	h, rows, err := c.Reseal(ctx, f.Keyring.TransportKey(), stored)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Keyring.Rewrap(ctx, h, []keyring.RewrapIn{{Stored: stored[0], Row: rows[0].Row}, {Stored: stored[1], Row: rows[1].Row}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		expect(t, "sealed anew", o.Err, nil)
	}
	stored[0].KeySet = one.ID
	h, rows, err = c.Reseal(ctx, f.Keyring.TransportKey(), stored)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "blobs of another key set", rows[0].Err, keyring.ErrIntegrity)
	if len(rows[0].Row.NwkKey) > 0 || rows[1].Err != nil {
		t.Errorf("%+v, the other %v", rows[0].Row, rows[1].Err)
	}
	out, err = f.Keyring.Rewrap(ctx, h, []keyring.RewrapIn{{Stored: stored[1], Row: rows[1].Row}})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "beside a bad one", out[0].Err, nil)
}

// testResealHeld: a rekeying key that was handed over is sealed anew as what it is,
// and in the form of root keys no export has it.
func testResealHeld(t *testing.T, f Fixture, c keyring.Custodian) {
	ctx := context.Background()
	d := NewDevice(true)
	ks, _, _ := f.DerivedKeySet(t, d.DevEUI, 6)
	ks.Origin, ks.Rekey, ks.Steps = joinery.OriginRekeyed, joinery.RekeyS, []lorawan.Rekey{{JoinEUI: lorawan.EUI64{1}, Cookie: lorawan.Cookie{1}}}
	row := seal.SealedRow{JoinEUI: lorawan.EUI64{1}, DevEUI: d.DevEUI, MACVersion: lorawan.MAC1_1, Root10: seal.RootRekeyKey}
	h, rows, err := f.Keyring.Handover(ctx, f.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: ks, Row: row}})
	if errors.Is(err, keyring.ErrNotServed) {
		t.Skip("this token hands nothing over")
	}
	if err != nil {
		t.Fatal(err)
	}
	id := joinery.NewKeySetID()
	out, err := f.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: id, Row: rows[0]}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	stored := joinery.StoredRoots{KeySet: id, JoinEUI: row.JoinEUI, DevEUI: d.DevEUI, MACVersion: lorawan.MAC1_1, Root10: joinery.RekeyKey, Nwk: out[0].Nwk}
	h, resealed, err := c.Reseal(ctx, f.Keyring.TransportKey(), []joinery.StoredRoots{stored})
	if err != nil || resealed[0].Err != nil {
		t.Fatal(err, resealed)
	}
	asRoot := stored
	asRoot.Root10 = joinery.NwkKey
	again, err := f.Keyring.Rewrap(ctx, h, []keyring.RewrapIn{{Stored: stored, Row: resealed[0].Row}, {Stored: asRoot, Row: resealed[0].Row}})
	if err != nil || again[0].Err != nil {
		t.Fatal(err, again)
	}
	expect(t, "a rekeying key as a root key", again[1].Err, keyring.ErrIntegrity)
	there := joinery.KeySet{ID: joinery.NewKeySetID(), DevEUI: d.DevEUI, Origin: joinery.OriginRekeyed, Root10: joinery.NwkKey, Rekey: joinery.RekeyS,
		Steps: ks.Steps, Held: joinery.HeldKey{KeySet: id, First: again[0].Nwk.Use}}
	if err := f.Keyring.CheckKeySet(ctx, there); err != nil {
		t.Error(err)
	}
}

// RunResealOnly tests a custodian that has the custody key and nothing of the server's:
// it seals anew, for a server that checks, and exports nothing.
func RunResealOnly(t *testing.T, f Fixture, c keyring.Custodian) {
	t.Helper()
	ctx := context.Background()
	one, other := f.SealedKeySet(t, NewDevice(false)), f.SealedKeySet(t, NewDevice(false))
	stored := func(id joinery.KeySetID, from joinery.KeySet) joinery.StoredRoots {
		return joinery.StoredRoots{KeySet: id, DevEUI: from.DevEUI, MACVersion: lorawan.MAC1_0_3, Root10: joinery.AppKey, App: from.App}
	}
	swapped := stored(one.ID, other)
	h, rows, err := c.Reseal(ctx, f.Keyring.TransportKey(), []joinery.StoredRoots{stored(one.ID, one), swapped})
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Keyring.Rewrap(ctx, h, []keyring.RewrapIn{{Stored: stored(one.ID, one), Row: rows[0].Row}, {Stored: stored(one.ID, one), Row: rows[1].Row}})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "sealed anew", out[0].Err, nil)
	expect(t, "another device's", out[1].Err, keyring.ErrIntegrity)
	to := Recipient(t).Recipient().WithSHA1()
	w, err := exportfile.Choose(to, c.Wrappings(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Export(ctx, ExportHeader(c, to, w, 0), to, nil); err == nil {
		t.Error("an export without the server's keys")
	}
}

// RefusesSealed checks a custodian that does not have the custody key under which f
// seals: it says so, and derived key sets go on.
func RefusesSealed(t *testing.T, f Fixture, c keyring.Custodian) {
	t.Helper()
	ctx := context.Background()
	to := Recipient(t).Recipient().WithSHA1()
	w, err := exportfile.Choose(to, c.Wrappings(), "")
	if err != nil {
		t.Fatal(err)
	}
	var in []keyring.ExportIn
	devices := f.exportedDevices(t, true)
	for _, d := range devices {
		in = append(in, d.in)
	}
	out, err := c.Export(ctx, ExportHeader(c, to, w, len(in)), to, in)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		want := keyring.ErrOtherCustody
		if in[i].KeySet.Origin != joinery.OriginSealed {
			want = nil
		}
		expect(t, "export without the custody key", o.Err, want)
	}
}
