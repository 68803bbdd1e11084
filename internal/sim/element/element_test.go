package element

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
	devEUI  = lorawan.EUI64{0, 4, 0xA3, 0x10, 0, 0x1F, 0xF9, 0xDA}
)

func randomKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key)
	return key
}

func provision(t testing.TB, nwkKey, appKey []byte) *Element {
	t.Helper()
	e, err := Provision(joinEUI, devEUI, nwkKey, appKey)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestProvision(t *testing.T) {
	for _, c := range []struct {
		name           string
		nwkKey, appKey []byte
		root10         KeyID
		good           bool
	}{
		{"both", randomKey(), randomKey(), NwkKey, true},
		{"NwkKey alone", randomKey(), nil, NwkKey, true},
		{"AppKey alone", nil, randomKey(), AppKey, true},
		{"none", nil, nil, 0, false},
		{"short NwkKey", randomKey()[:15], randomKey(), 0, false},
		{"long AppKey", nil, append(randomKey(), 0), 0, false},
		{"empty AppKey", randomKey(), []byte{}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := Provision(joinEUI, devEUI, c.nwkKey, c.appKey)
			if !c.good {
				if err == nil {
					t.Error("want an error")
				}
				return
			}
			if err != nil || e.Root10() != c.root10 || e.Has(NwkKey) != (c.nwkKey != nil) || e.Has(AppKey) != (c.appKey != nil) {
				t.Errorf("got %v, %v, root of 1.0.x %v", e, err, e.Root10())
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	e := provision(t, randomKey(), randomKey())
	if e.JoinEUI() != joinEUI || e.DevEUI() != devEUI {
		t.Fatalf("got %v, %v", e.JoinEUI(), e.DevEUI())
	}
	if err := e.SetJoinEUI(devEUI); err != nil {
		t.Fatal(err)
	}
	e.SetDevEUI(joinEUI)
	if e.JoinEUI() != devEUI || e.DevEUI() != joinEUI {
		t.Errorf("after setting: got %v, %v", e.JoinEUI(), e.DevEUI())
	}
}

// Printing an element in any way gives no byte of a key.
func TestElementNeverPrintsKeys(t *testing.T) {
	nwkKey, appKey := randomKey(), randomKey()
	e := provision(t, nwkKey, appKey)
	if err := e.DeriveAndStore(AppSKey, NwkKey, &[16]byte{1}); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		for _, v := range []any{e, []*Element{e}, struct{ E *Element }{e}} {
			got := fmt.Sprintf(verb, v)
			for _, key := range [][]byte{nwkKey, appKey} {
				for _, form := range []string{hex.EncodeToString(key[:4]), strings.ToUpper(hex.EncodeToString(key[:4])), strings.Trim(fmt.Sprintf("%d", key[:4]), "[]"), string(key[:8])} {
					if strings.Contains(got, form) {
						t.Errorf("%s of %T shows a key", verb, v)
					}
				}
			}
		}
	}
}

func TestUses(t *testing.T) {
	e := provision(t, randomKey(), randomKey())
	var block [16]byte
	for _, id := range []KeyID{NwkKey, AppKey, JSIntKey, JSEncKey, 0, slots, 200} {
		if err := e.Encrypt(id, block[:], block[:]); !errors.Is(err, ErrUse) {
			t.Errorf("Encrypt under %v: got %v, want ErrUse", id, err)
		}
	}
	for _, c := range []struct{ target, root KeyID }{
		{NwkKey, AppKey}, {AppKey, NwkKey}, {AppSKey, JSIntKey}, {AppSKey, AppSKey}, {0, NwkKey}, {slots, NwkKey}, {AppSKey, 0},
	} {
		if err := e.DeriveAndStore(c.target, c.root, &block); !errors.Is(err, ErrUse) {
			t.Errorf("derive %v from %v: got %v, want ErrUse", c.target, c.root, err)
		}
	}
	if err := e.Encrypt(AppSKey, block[:], block[:]); !errors.Is(err, ErrNoKey) {
		t.Errorf("Encrypt under an empty slot: got %v, want ErrNoKey", err)
	}
	for _, id := range []KeyID{AppSKey, slots, 0, 255} {
		if _, err := e.ComputeCMAC(id, nil, nil); !errors.Is(err, ErrNoKey) {
			t.Errorf("CMAC under %v: got %v, want ErrNoKey", id, err)
		}
	}
	if err := provision(t, nil, randomKey()).DeriveAndStore(AppSKey, NwkKey, &block); !errors.Is(err, ErrNoKey) {
		t.Errorf("derive from an empty root: got %v, want ErrNoKey", err)
	}
}

func TestDeriveStoresAESOfInput(t *testing.T) {
	root, input := randomKey(), [16]byte{2, 7, 1}
	e := provision(t, root, randomKey())
	block, err := aes.NewCipher(root)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 16)
	block.Encrypt(want, input[:])
	for range 2 { // a slot is overwritten with its key schedule
		if err := e.DeriveAndStore(AppSKey, NwkKey, &input); err != nil {
			t.Fatal(err)
		}
		if !e.Holds(AppSKey, want) || e.Holds(AppSKey, input[:]) || e.Holds(AppSKey, want[:15]) || e.Holds(AppSKey, nil) {
			t.Error("AppSKey is not AES(root, input), or Holds does not tell keys apart")
		}
		derived, err := aes.NewCipher(want)
		if err != nil {
			t.Fatal(err)
		}
		expect, got := make([]byte, 32), make([]byte, 32)
		derived.Encrypt(expect, expect)
		derived.Encrypt(expect[16:], expect[16:])
		if err := e.Encrypt(AppSKey, got, got); err != nil || !bytes.Equal(got, expect) {
			t.Errorf("Encrypt: got %x, %v, want %x", got, err, expect)
		}
		input[3]++
		block.Encrypt(want, input[:])
	}
	if err := e.Encrypt(AppSKey, make([]byte, 32), make([]byte, 17)); !errors.Is(err, ErrLength) {
		t.Errorf("Encrypt of 17 bytes: got %v, want ErrLength", err)
	}
	if err := e.Encrypt(AppSKey, make([]byte, 15), make([]byte, 16)); !errors.Is(err, ErrLength) {
		t.Errorf("Encrypt to 15 bytes: got %v, want ErrLength", err)
	}
}

// Holds says nothing about roots.
func TestHoldsIsNotForRoots(t *testing.T) {
	key := randomKey()
	e := provision(t, key, key)
	if e.Holds(NwkKey, key) || e.Holds(AppKey, key) || e.Holds(AppSKey, make([]byte, 16)) || e.Holds(slots, key) {
		t.Error("Holds answered for a root or an empty slot")
	}
}

func TestProcessJoinAcceptRefuses(t *testing.T) {
	nwkKey, jsIntKey, jsEncKey := randomKey(), randomKey(), randomKey()
	two := withKeys(map[KeyID][]byte{NwkKey: nwkKey, AppKey: randomKey(), JSIntKey: jsIntKey, JSEncKey: jsEncKey})
	old := withKeys(map[KeyID][]byte{NwkKey: nwkKey})
	accept := lorawan.JoinAccept{JoinNonce: 1, NetID: lorawan.NetID{0, 0, 0x13}, DevAddr: lorawan.DevAddr{0x26, 1, 2, 3}, RxDelay: 1}
	plain10 := accept.Append(nil)
	accept.DLSettings = 0x80
	plain11 := accept.Append(nil)
	join11 := prefix11(Join, joinEUI, 7)
	rejoin11 := prefix11(Rejoin1, joinEUI, 7)
	for _, c := range []struct {
		name  string
		e     *Element
		t     JoinType
		frame []byte
		want  error
	}{
		{"1.0 for 1.0", old, Join, makeAccept(t, plain10, nwkKey, nwkKey, nil), nil},
		{"1.0 for 1.1", two, Join, makeAccept(t, plain10, nwkKey, nwkKey, nil), nil},
		{"1.1 for 1.1", two, Join, makeAccept(t, plain11, jsIntKey, nwkKey, join11), nil},
		{"1.1 rejoin", two, Rejoin1, makeAccept(t, plain11, jsIntKey, jsEncKey, rejoin11), nil},
		{"OptNeg to a 1.0 device", old, Join, makeAccept(t, plain11, nwkKey, nwkKey, nil), ErrVersion},
		{"1.1 accept to a 1.0 device", old, Join, makeAccept(t, plain11, jsIntKey, nwkKey, join11), ErrMIC},
		{"1.1 MIC with the 1.0 rule", two, Join, makeAccept(t, plain11, nwkKey, nwkKey, nil), ErrMIC},
		{"1.1 MIC without its prefix", two, Join, makeAccept(t, plain11, jsIntKey, nwkKey, nil), ErrMIC},
		{"1.1 MIC of a rejoin for a join", two, Join, makeAccept(t, plain11, jsIntKey, nwkKey, rejoin11), ErrMIC},
		{"rejoin encrypted with NwkKey", two, Rejoin1, makeAccept(t, plain11, jsIntKey, nwkKey, rejoin11), ErrMIC},
		{"join encrypted with JSEncKey", two, Join, makeAccept(t, plain11, jsIntKey, jsEncKey, join11), ErrMIC},
		{"rejoin answered with OptNeg 0", two, Rejoin1, makeAccept(t, plain10, nwkKey, jsEncKey, nil), ErrMIC},
		{"rejoin to a 1.0 device", old, Rejoin1, makeAccept(t, plain11, jsIntKey, jsEncKey, rejoin11), ErrNoKey},
		{"too short", two, Join, make([]byte, 16), ErrLength},
		{"between the lengths", two, Join, make([]byte, 32), ErrLength},
		{"too long", two, Join, make([]byte, 49), ErrLength},
		{"nothing", two, Join, nil, ErrLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			plain, optNeg, err := c.e.ProcessJoinAccept([]byte("head"), c.t, joinEUI, 7, c.frame)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				want := plain10
				if optNeg {
					want = plain11
				}
				if !bytes.Equal(plain, append([]byte("head"), want...)) {
					t.Errorf("got %x, want %x", plain, want)
				}
			} else if plain != nil {
				t.Error("plaintext came with an error")
			}
		})
	}
}

// The factory's rows have the keys that are in the elements, and no element has
// another's.
func TestFactory(t *testing.T) {
	var list bytes.Buffer
	f := NewFactory(&list)
	var made []*Element
	versions := []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_1, lorawan.MAC1_0_4}
	for i, v := range versions {
		e, err := f.Make(joinEUI, lorawan.EUI64FromUint64(uint64(i)), v)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, e)
	}
	if _, err := f.Make(joinEUI, devEUI, 0); err == nil {
		t.Error("an element without MACVersion was made")
	}
	rows, err := csv.NewReader(&list).ReadAll()
	if err != nil || len(rows) != 1+len(made) {
		t.Fatalf("got %d rows, %v", len(rows), err)
	}
	seen := map[string]bool{}
	for i, e := range made {
		row := rows[1+i]
		if row[0] != joinEUI.String() || row[1] != e.DevEUI().String() || row[2] != versions[i].String() {
			t.Errorf("row %v is not of %v", row[:3], e)
		}
		root := row[4]
		if versions[i].HasTwoRootKeys() {
			root = row[3]
		} else if row[3] != "" {
			t.Error("a 1.0.x device has an NwkKey")
		}
		key, err := hex.DecodeString(root)
		if err != nil || len(key) != KeySize || seen[root] {
			t.Fatalf("key of row %d: %d bytes, %v, seen %t", i, len(key), err, seen[root])
		}
		seen[root] = true
		want, err := withKeys(map[KeyID][]byte{NwkKey: key}).ComputeCMAC(NwkKey, nil, []byte(row[1]))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.VerifyCMAC(e.Root10(), nil, []byte(row[1]), want); err != nil {
			t.Errorf("row %d has another key than the element: %v", i, err)
		}
	}
}

func TestFactoryReportsWriteErrors(t *testing.T) {
	f := NewFactory(failingWriter{})
	if _, err := f.Make(joinEUI, devEUI, lorawan.MAC1_0_3); err == nil {
		t.Error("want an error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestAcceptProcessingDoesNotAllocate(t *testing.T) {
	nwkKey, jsIntKey := randomKey(), randomKey()
	e := withKeys(map[KeyID][]byte{NwkKey: nwkKey, JSIntKey: jsIntKey})
	plain := lorawan.JoinAccept{JoinNonce: 1, DLSettings: 0x80}.Append(nil)
	frame := makeAccept(t, plain, jsIntKey, nwkKey, prefix11(Join, joinEUI, 7))
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := e.ProcessJoinAccept(dst, Join, joinEUI, 7, frame); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
