package keyringtest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// encryptS is one derivation of rekeying profile S, written out: purpose ‖ cookie
// ‖ JoinEUI, little-endian, encrypted under the rekeying key.
func encryptS(tb testing.TB, key [16]byte, purpose byte, r lorawan.Rekey) (out [16]byte) {
	tb.Helper()
	block := append([]byte{purpose}, r.Cookie[:]...)
	block = binary.LittleEndian.AppendUint64(block, r.JoinEUI.Uint64())
	c, err := aes.NewCipher(key[:])
	if err != nil {
		tb.Fatal(err)
	}
	c.Encrypt(out[:], block)
	return out
}

// testRekeyed joins devices whose root keys came of rekeying, and hands them over
// to another keyring.
func testRekeyed(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	p := f.peers(t)
	d := NewDevice(true)
	ks, _, _ := f.DerivedKeySet(t, d.DevEUI, 5)
	ks.Origin, ks.Rekey = joinery.OriginRekeyed, joinery.RekeyS
	key := f.root(t, 3, 5, d.DevEUI)
	for n := range byte(3) {
		step := lorawan.Rekey{JoinEUI: lorawan.EUI64{0xEC, 7: n}, Cookie: lorawan.Cookie{n, 1, 2, 3, 4, 5, 6}}
		ks.Steps = append(ks.Steps, step)
		d.Nwk, d.App = encryptS(t, key, 0x21, step), encryptS(t, key, 0x22, step)
		d.Root10 = d.Nwk
		key = encryptS(t, key, 0x23, step)
		for _, optNeg := range []bool{false, true} {
			frame := d.JoinRequest(uint16(n))
			a := activation(ks, d, joinery.JoinTypeJoin, uint16(n), 9, optNeg)
			f.accept(t, d, p, keyring.AcceptRequest{KeySet: ks, Frame: frame, Activation: a, NSKEK: p.ns, ASKEK: p.as})
		}
	}
	if err := f.Keyring.CheckKeySet(ctx, ks); err != nil {
		t.Error(err)
	}
	testHandover(t, f, other, ks, d, key)
	testStatements(t, f, other)

	for name, change := range map[string]func(*joinery.KeySet){
		"no profile":         func(k *joinery.KeySet) { k.Rekey = 0 },
		"no step":            func(k *joinery.KeySet) { k.Steps = nil },
		"imported root keys": func(k *joinery.KeySet) { k.Master = "" },
	} {
		wrong := ks
		change(&wrong)
		expect(t, name, f.Keyring.VerifyJoin(ctx, wrong, d.JoinRequest(1)), keyring.ErrNoRoot)
	}
	testRekeyedM(t, f, other, ks)
}

// testStatements: what a keyring says verifies with its one public key, and no
// other's.
func testStatements(t *testing.T, f, other Fixture) {
	ctx := context.Background()
	signature, public, err := f.Keyring.SignStatement(ctx, []byte("statement"))
	if err != nil {
		t.Fatal(err)
	}
	_, again, err := f.Keyring.SignStatement(ctx, []byte("another"))
	if err != nil || !bytes.Equal(public, again) {
		t.Errorf("another key for another statement: %v", err)
	}
	if _, others, err := other.Keyring.SignStatement(ctx, nil); err != nil || bytes.Equal(public, others) {
		t.Errorf("two keyrings have one key: %v", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	sum := sha256.Sum256([]byte("statement"))
	if !ok || len(signature) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		t.Error("the signature does not verify")
	}
}

// testRekeyedM: profile M, where the token serves it.
func testRekeyedM(t *testing.T, f, other Fixture, ks joinery.KeySet) {
	ctx := context.Background()
	ks.Rekey, ks.Serial = joinery.RekeyM, [9]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}
	mac, err := f.Keyring.AuthMAC(ctx, ks)
	if errors.Is(err, keyring.ErrNotServed) {
		expect(t, "join by profile M", f.Keyring.VerifyJoin(ctx, ks, Device{DevEUI: ks.DevEUI}.JoinRequest(1)), keyring.ErrNotServed)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(f.chipHead(t, ks)); mac != want {
		t.Errorf("authorising MAC %x, want %x", mac, want)
	}
	d := Device{JoinEUI: lorawan.EUI64{1}, DevEUI: ks.DevEUI}
	d.Nwk, d.App = f.chipRoots(t, ks)
	d.Root10 = d.Nwk
	p := f.peers(t)
	a := activation(ks, d, joinery.JoinTypeJoin, 1, 9, true)
	f.accept(t, d, p, keyring.AcceptRequest{KeySet: ks, Frame: d.JoinRequest(1), Activation: a, NSKEK: p.ns, ASKEK: p.as})

	// The slot key handed over serves as the derived one does.
	row := seal.SealedRow{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, MACVersion: lorawan.MAC1_1, Root10: seal.RootRekeyKey}
	h, rows, err := f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: ks, Row: row}})
	if err != nil {
		t.Fatal(err)
	}
	there := ks
	there.Master, there.Held.KeySet = "", joinery.NewKeySetID()
	out, err := other.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: there.Held.KeySet, Row: rows[0]}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	there.Held.First, there.Held.Second = out[0].Nwk.Use, out[0].App.Use
	again, err := other.Keyring.AuthMAC(ctx, there)
	if errors.Is(err, keyring.ErrNotServed) {
		return
	}
	if err != nil || again != mac {
		t.Errorf("authorising MAC %x, %v", again, err)
	}
	if err := other.Keyring.VerifyJoin(ctx, there, d.JoinRequest(1)); err != nil {
		t.Error(err)
	}
	there.Held.First, there.Held.Second = there.Held.Second, there.Held.First
	expect(t, "halves in each other's place", other.Keyring.VerifyJoin(ctx, there, d.JoinRequest(1)), keyring.ErrIntegrity)
}

// chipHead is what a chip of profile M hashes first, written out: its slot key, the
// command and its serial number 01 to 09.
func (f Fixture) chipHead(tb testing.TB, ks joinery.KeySet) []byte {
	tb.Helper()
	first, second := f.root(tb, 4, 5, ks.DevEUI), f.root(tb, 5, 5, ks.DevEUI)
	return append(append(append([]byte{}, first[:]...), second[:]...), 0x1C, 4, 0, 0, 9, 1, 2)
}

// chipRoots is what such a chip derives by the last step of ks.
func (f Fixture) chipRoots(tb testing.TB, ks joinery.KeySet) (nwk, app [16]byte) {
	tb.Helper()
	last := ks.Steps[len(ks.Steps)-1]
	temp := sha256.Sum256(append(append(append([]byte("LWJS-REKEY-v1"), last.JoinEUI[:]...), ks.DevEUI[:]...), last.Cookie[:]...))
	both := sha256.Sum256(append(append(f.chipHead(tb, ks), make([]byte, 25)...), temp[:]...))
	return [16]byte(both[16:]), [16]byte(both[:16])
}

// testHandover: the other keyring takes the new root keys in, and the device joins
// there. Nothing else is handed over.
func testHandover(t *testing.T, f, other Fixture, ks joinery.KeySet, d Device, key [16]byte) {
	ctx := context.Background()
	row := seal.SealedRow{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, MACVersion: lorawan.MAC1_1, Root10: seal.RootNwkKey, JoinNonceFloor: 7}
	h, rows, err := f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: ks, Row: row}})
	if errors.Is(err, keyring.ErrNotServed) {
		t.Logf("this token hands nothing over: %v", err)
		return
	}
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	there := joinery.KeySet{ID: joinery.NewKeySetID(), DevEUI: d.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey}
	out, err := other.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: there.ID, Row: rows[0]}})
	if err != nil || out[0].Err != nil {
		t.Fatal(err, out)
	}
	there.Nwk, there.App = out[0].Nwk, out[0].App
	p := other.peers(t)
	a := activation(there, d, joinery.JoinTypeJoin, 3, 8, true)
	other.accept(t, d, p, keyring.AcceptRequest{KeySet: there, Frame: d.JoinRequest(3), Activation: a, NSKEK: p.ns, ASKEK: p.as})

	_, err = f.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: there.ID, Row: rows[0]}})
	expect(t, "taken in by another keyring", err, keyring.ErrTransport)
	testHeldKey(t, f, other, ks, d, key)
	derived := ks
	derived.Origin, derived.Steps = joinery.OriginDerived, nil
	_, _, err = f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: derived, Row: row}})
	expect(t, "root keys of the factory", err, keyring.ErrRequest)
	row.DevEUI[0]++
	_, _, err = f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: ks, Row: row}})
	expect(t, "under another DevEUI", err, keyring.ErrRequest)
}

// testHeldKey: the rekeying key goes to the other keyring, which rekeys the device
// on; and it is never taken for a root key, nor a root key for it. key is what the
// device has.
func testHeldKey(t *testing.T, f, other Fixture, ks joinery.KeySet, d Device, key [16]byte) {
	ctx := context.Background()
	row := seal.SealedRow{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, MACVersion: lorawan.MAC1_1, Root10: seal.RootRekeyKey}
	roots := row
	roots.Root10 = seal.RootNwkKey
	h, rows, err := f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: ks, Row: row}, {KeySet: ks, Row: roots}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rows[0].CheckRekeyKey(); err != nil {
		t.Error(err)
	}
	if rows[0].Check() == nil || rows[1].CheckRekeyKey() == nil {
		t.Error("one kind of row passes for the other")
	}
	held := joinery.NewKeySetID()
	as := rows[0]
	as.Root10 = seal.RootNwkKey
	out, err := other.Keyring.SealRoots(ctx, h, []keyring.RootsIn{{KeySet: held, Row: rows[0]}, {KeySet: held, Row: as}, {KeySet: held, Row: rows[1]}})
	if err != nil || out[0].Err != nil || out[2].Err != nil {
		t.Fatal(err, out)
	}
	expect(t, "a rekeying key that says it is a root key", out[1].Err, keyring.ErrTransport)

	step := lorawan.Rekey{JoinEUI: lorawan.EUI64{9}, Cookie: lorawan.Cookie{7}}
	there := joinery.KeySet{ID: joinery.NewKeySetID(), DevEUI: d.DevEUI, Origin: joinery.OriginRekeyed, Root10: joinery.NwkKey, Rekey: joinery.RekeyS,
		Steps: []lorawan.Rekey{step}, Held: joinery.HeldKey{KeySet: held, First: out[0].Nwk.Use}}
	next := d
	next.Nwk, next.App = encryptS(t, key, 0x21, step), encryptS(t, key, 0x22, step)
	next.Root10 = next.Nwk
	p := other.peers(t)
	a := activation(there, next, joinery.JoinTypeJoin, 4, 9, true)
	other.accept(t, next, p, keyring.AcceptRequest{KeySet: there, Frame: next.JoinRequest(4), Activation: a, NSKEK: p.ns, ASKEK: p.as})

	for name, change := range map[string]func(*joinery.KeySet){
		"of another id":      func(k *joinery.KeySet) { k.Held.KeySet++ },
		"a root key as such": func(k *joinery.KeySet) { k.Held.First = out[2].Nwk.Use },
		"as a root key": func(k *joinery.KeySet) {
			*k = joinery.KeySet{ID: held, DevEUI: d.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nwk: out[0].Nwk}
		},
		"changed":              func(k *joinery.KeySet) { k.Held.First = bytes.Clone(k.Held.First); k.Held.First[9] ^= 1 },
		"the form for custody": func(k *joinery.KeySet) { k.Held.First = out[0].Nwk.Custody },
	} {
		wrong := there
		change(&wrong)
		expect(t, name, other.Keyring.VerifyJoin(ctx, wrong, next.JoinRequest(4)), keyring.ErrIntegrity)
	}
	imported := joinery.KeySet{ID: joinery.NewKeySetID(), DevEUI: d.DevEUI, Origin: joinery.OriginRekeyed, Rekey: joinery.RekeyS, Steps: ks.Steps}
	_, _, err = f.Keyring.Handover(ctx, other.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: imported, Row: row}})
	expect(t, "without a rekeying key", err, keyring.ErrNoRoot)
}
