package soft

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// imported seals one root key to k as an import does.
func imported(t *testing.T, k *keyring.Keyring, to seal.PublicKey, id joinery.KeySetID, root []byte) (joinery.StoredRoots, error) {
	t.Helper()
	s, err := seal.NewSealer(to)
	noError(t, err)
	r := joinery.StoredRoots{KeySet: id, JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, MACVersion: lorawan.MAC1_0_3, Root10: joinery.AppKey}
	row := seal.SealedRow{JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, Root10: seal.RootAppKey}
	noError(t, s.SealRow(&row, nil, root))
	out, err := k.SealRoots(t.Context(), s.Header(), []keyring.RootsIn{{KeySet: id, Row: row}})
	if err != nil {
		return r, err
	}
	noError(t, out[0].Err)
	r.App = out[0].App
	return r, nil
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// renew has k read the key file anew, as a server does.
func (f files) renew(t *testing.T, k *keyring.Keyring) {
	t.Helper()
	token, err := Open(t.Context(), Options{KeyFile: f.keys, Unlock: f.unlock})
	noError(t, err)
	noError(t, k.Renew(t.Context(), token))
}

func usable(k *keyring.Keyring, r joinery.StoredRoots) error {
	return k.CheckKeySet(context.Background(), joinery.KeySet{
		ID: r.KeySet, DevEUI: r.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.AppKey, App: r.App,
	})
}

// Every storage key goes to its next generation while the old one still opens; then
// the old ones are taken out, and open nothing.
func TestGenerations(t *testing.T) {
	f := initFiles(t)
	token, err := Open(t.Context(), Options{KeyFile: f.keys, Unlock: f.unlock})
	noError(t, err)
	k := keyring.New(token)
	t.Cleanup(func() { noError(t, k.Close()) })
	oldTransport := k.TransportKey()
	root := make([]byte, 16)
	rand.Read(root)
	old, err := imported(t, k, oldTransport, 1, root)
	noError(t, err)
	if keyring.GenerationOf(old.App.Use) != 1 || old.App.Use[0] != keyring.FormatKeyWrap {
		t.Error("blobs of the first generation have a head")
	}

	_, err = RetireJoinKEKs(f.keys, f.unlock)
	wantError(t, err, ErrInUse)
	_, err = RetireTransportKeys(f.keys, f.unlock)
	wantError(t, err, ErrInUse)
	_, err = NewJoinKEK(f.keys, f.unlock)
	noError(t, err)
	_, err = NewTransportKey(f.keys, f.unlock)
	noError(t, err)
	second := filepath.Join(f.dir, "custody-2.age")
	g, err := NewCustodyKey(InitOptions{KeyFile: f.keys, Unlock: f.unlock, CustodyFile: second, CustodyUnlock: f.apart})
	noError(t, err)
	told, err := Generations(f.keys, f.unlock)
	noError(t, err)
	if !told.Equal(g) || !slices.Equal(g.JoinKEK, []uint32{1, 2}) || g.Custody != 2 || len(g.Transport) != 2 {
		t.Errorf("%+v, %+v", told, g)
	}
	f.renew(t, k)
	if !k.Generations().Equal(g) || k.TransportKey().KID() == oldTransport.KID() {
		t.Error("the keyring did not take the new generations")
	}
	noError(t, usable(k, old))
	late, err := imported(t, k, oldTransport, 2, root) // sealed to the old transport key
	noError(t, err)
	if keyring.GenerationOf(late.App.Use) != 2 || keyring.GenerationOf(late.App.Custody) != 2 {
		t.Error("what came in later is under an old generation")
	}

	fresh := f.reseal(t, k, f.custody, old)
	noError(t, usable(k, fresh))
	f.refusesOtherCustody(t, k, second, old)
	f.refusesOtherCustody(t, k, f.custody, late)

	_, err = RetireJoinKEKs(f.keys, f.unlock)
	noError(t, err)
	_, err = RetireTransportKeys(f.keys, f.unlock)
	noError(t, err)
	f.renew(t, k)
	noError(t, usable(k, fresh))
	noError(t, usable(k, f.reseal(t, k, second, fresh)))
	wantError(t, usable(k, old), keyring.ErrIntegrity)
	_, err = imported(t, k, oldTransport, 3, root)
	wantError(t, err, keyring.ErrTransport)
	g, err = NewJoinKEK(f.keys, f.unlock) // a number is never used again
	noError(t, err)
	if !slices.Equal(g.JoinKEK, []uint32{2, 3}) {
		t.Errorf("%+v", g)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// reseal does what a rotation does with one key set.
func (f files) reseal(t *testing.T, k *keyring.Keyring, custodyFile string, r joinery.StoredRoots) joinery.StoredRoots {
	t.Helper()
	c, err := OpenCustodian(t.Context(), CustodianOptions{CustodyFile: custodyFile, CustodyUnlock: f.apart})
	noError(t, err)
	defer func() { noError(t, c.Close()) }()
	h, rows, err := c.Reseal(t.Context(), k.TransportKey(), []joinery.StoredRoots{r})
	noError(t, err)
	out, err := k.Rewrap(t.Context(), h, []keyring.RewrapIn{{Stored: r, Row: rows[0].Row}})
	noError(t, err)
	noError(t, out[0].Err)
	r.App = out[0].App
	return r
}

func (f files) refusesOtherCustody(t *testing.T, k *keyring.Keyring, custodyFile string, r joinery.StoredRoots) {
	t.Helper()
	c, err := OpenCustodian(t.Context(), CustodianOptions{CustodyFile: custodyFile, CustodyUnlock: f.apart})
	noError(t, err)
	defer func() { noError(t, c.Close()) }()
	_, rows, err := c.Reseal(t.Context(), k.TransportKey(), []joinery.StoredRoots{r})
	noError(t, err)
	wantError(t, rows[0].Err, keyring.ErrOtherCustody)
}

// A factory has no storage keys, and another server's keys do not take the place of
// a server's.
func TestRotationRefusals(t *testing.T) {
	f, other := initFiles(t), initFiles(t)
	factory := filepath.Join(f.dir, "factory.age")
	noError(t, InitFactory(FactoryOptions{KeyFile: factory, Unlock: f.unlock, CommonName: "line 1", Organisation: "Acme"}))
	for _, change := range []func(string, Unlock) (keyring.Generations, error){NewJoinKEK, NewTransportKey, RetireJoinKEKs, RetireTransportKeys, Generations} {
		_, err := change(factory, f.unlock)
		wantError(t, err, ErrNotServer)
	}
	_, err := NewCustodyKey(InitOptions{KeyFile: f.keys, Unlock: f.unlock, CustodyFile: f.custody, CustodyUnlock: f.apart})
	wantError(t, err, ErrExists)
	_, err = NewCustodyKey(InitOptions{KeyFile: f.keys, Unlock: f.unlock, CustodyFile: f.custody + "2", CustodyUnlock: f.unlock})
	wantError(t, err, ErrUnlock)

	token, err := Open(t.Context(), Options{KeyFile: f.keys, Unlock: f.unlock})
	noError(t, err)
	k := keyring.New(token)
	wantError(t, k.Renew(t.Context(), other.open(t)), keyring.ErrRequest)
	noError(t, k.Close())
	wantError(t, k.Renew(t.Context(), other.open(t)), keyring.ErrClosed)
	_, err = OpenCustodian(t.Context(), CustodianOptions{CustodyFile: f.keys, CustodyUnlock: f.unlock})
	wantError(t, err, ErrFormat)
}

// Heads that no token makes do not open.
func TestGenerationHeads(t *testing.T) {
	f := initFiles(t)
	token := f.open(t)
	for _, blob := range [][]byte{{keyring.FormatGeneration}, {keyring.FormatGeneration, 0, 0, 0, 2}, {keyring.FormatGeneration, 0, 0, 0, 1, 1, 2}, {keyring.FormatGeneration, 0, 0, 0, 9, 1, 2}} {
		if _, err := token.OpenRoot(t.Context(), blob); !errors.Is(err, keyring.ErrIntegrity) {
			t.Errorf("%x: %v", blob, err)
		}
	}
	if keyring.GenerationOf(nil) != 0 || keyring.GenerationOf([]byte{keyring.FormatGeneration, 1}) != 0 {
		t.Error("what is no head names a generation")
	}
}
