package joinery

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joinery/lorawan"
)

func someActivation(t testing.TB) Activation {
	t.Helper()
	cf, err := lorawan.ParseCFList([]byte("0123456789abcde\x00"))
	if err != nil {
		t.Fatal(err)
	}
	a := Activation{
		ID: 0x0102030405060708, At: time.UnixMilli(0x019AB0000001).UTC(), Device: 0x11, KeySet: 0x12, Owner: 0x13, Peer: 0x14,
		Type: JoinTypeRejoin1, JoinEUI: lorawan.EUI64{0xE1}, DevEUI: lorawan.EUI64{0xE2}, OptNeg: true, Root: AppKey, Count: 0x2122,
		JoinNonce: 0x313233, NetID: lorawan.NetID{0x41, 0x42, 0x43}, NSID: lorawan.EUI64{0xE3}, DevAddr: lorawan.DevAddr{1, 2, 3, 4},
		DLSettings: 0x8F, RxDelay: 15, CFList: cf, NSKEK: 0x15, ASKEK: 0x16, Policy: AppSKeyByID, SendSessionKeyID: true,
		SessionKeyID: SessionKeyID{0x51}, ASID: "as.example.com", BindingEpoch: 0x61626364,
	}
	a.FrameHash[0], a.FrameHash[31] = 0x71, 0x72
	return a
}

// The stored form, byte by byte, written out by hand from its description.
func TestActivationPayload(t *testing.T) {
	want := strings.Join([]string{
		"01", "0102030405060708", "0000019ab0000001", "0000000000000011", "0000000000000012", "0000000000000013", "0000000000000014",
		"71" + strings.Repeat("00", 30) + "72", "01", "e100000000000000", "e200000000000000", "07", "02", "2122",
		"313233", "414243", "e300000000000000", "01020304", "8f", "0f",
		"0000000000000015", "0000000000000016", "02", "51" + strings.Repeat("00", 15), "61626364",
		"30313233343536373839616263646500", hex.EncodeToString([]byte("as.example.com")),
	}, "")
	a := someActivation(t)
	got := a.AppendPayload([]byte("kept"))
	if string(got[:4]) != "kept" || hex.EncodeToString(got[4:]) != want {
		t.Fatalf("got  %x\nwant %s", got[4:], want)
	}
	back, err := ParseActivation(got[4:])
	if err != nil || back != a {
		t.Fatalf("%+v, %v", back, err)
	}
}

func TestActivationRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Activation
		fillRandom(t, reflect.ValueOf(&a).Elem())
		b := a.AppendPayload(nil)
		back, err := ParseActivation(b)
		if err != nil || back != a {
			t.Fatalf("%+v came back as %+v, %v", a, back, err)
		}
		clear(b)
		if back != a {
			t.Fatal("the result shares memory with the stored form")
		}
	})
}

// fillRandom draws every field of an Activation.
func fillRandom(t *rapid.T, v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch name {
		case "At":
			f.Set(reflect.ValueOf(time.UnixMilli(rapid.Int64Range(0, 1<<45).Draw(t, name)).UTC()))
			continue
		case "JoinNonce":
			f.SetUint(uint64(rapid.Uint32Range(0, 1<<24-1).Draw(t, name)))
			continue
		case "CFList":
			if rapid.Bool().Draw(t, name) {
				wire := append(rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, name), 1)
				if cf, err := lorawan.ParseCFList(wire); err == nil {
					f.Set(reflect.ValueOf(cf))
				}
			}
			continue
		}
		switch f.Kind() {
		case reflect.Bool:
			f.SetBool(rapid.Bool().Draw(t, name))
		case reflect.String:
			f.SetString(rapid.String().Draw(t, name))
		case reflect.Int64:
			f.SetInt(rapid.Int64Range(0, 1<<63-1).Draw(t, name))
		case reflect.Uint8, reflect.Uint16, reflect.Uint32:
			f.SetUint(rapid.Uint64Range(0, 1<<f.Type().Bits()-1).Draw(t, name))
		case reflect.Array:
			reflect.Copy(f, reflect.ValueOf(rapid.SliceOfN(rapid.Byte(), f.Len(), f.Len()).Draw(t, name)))
		default:
			t.Fatalf("no way to draw %s of %s", name, f.Kind())
		}
	}
}

// A leaf covers every field: whatever changes gives another payload.
func TestActivationPayloadCoversEveryField(t *testing.T) {
	a := someActivation(t)
	payload := a.AppendPayload(nil)
	for i := range reflect.TypeFor[Activation]().NumField() {
		b := a
		f := reflect.ValueOf(&b).Elem().Field(i)
		name := reflect.TypeFor[Activation]().Field(i).Name
		switch {
		case name == "At":
			b.At = b.At.Add(time.Millisecond)
		case name == "CFList":
			b.CFList = lorawan.CFList{}
		case f.Kind() == reflect.Bool:
			f.SetBool(!f.Bool())
		case f.Kind() == reflect.String:
			f.SetString(f.String() + "x")
		case f.Kind() == reflect.Int64:
			f.SetInt(f.Int() + 1)
		case f.Kind() == reflect.Array:
			f.Index(f.Len() - 1).SetUint(f.Index(f.Len()-1).Uint() ^ 0x80)
		default:
			f.SetUint(f.Uint() ^ 1)
		}
		if b == a {
			t.Fatalf("%s was not changed", name)
		}
		if bytes.Equal(b.AppendPayload(nil), payload) {
			t.Errorf("%s is not in the payload", name)
		}
	}
}

func TestParseActivationRefuses(t *testing.T) {
	whole := someActivation(t).AppendPayload(nil)
	for cut := range activationFixed + lorawan.CFListLen {
		if _, err := ParseActivation(whole[:cut]); !errors.Is(err, ErrActivation) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	whole[0] = 2
	if _, err := ParseActivation(whole); !errors.Is(err, ErrActivation) {
		t.Fatalf("another format: %v", err)
	}
}

func TestSessionKeyIDNamesItsActivation(t *testing.T) {
	s := SessionKeyID{0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0xFF}
	if got := s.ActivationID(); got != 0x0102030405060708 {
		t.Fatalf("got %x", int64(got))
	}
	s[0] = 0x81 // whatever a peer sends, an id is not negative
	if got := s.ActivationID(); got != 0x0102030405060708 {
		t.Fatalf("got %x", int64(got))
	}
}

func TestActivationAccept(t *testing.T) {
	a := someActivation(t)
	want := lorawan.JoinAccept{JoinNonce: a.JoinNonce, NetID: a.NetID, DevAddr: a.DevAddr, DLSettings: a.DLSettings, RxDelay: a.RxDelay, CFList: a.CFList}
	if a.Accept() != want {
		t.Fatalf("got %+v", a.Accept())
	}
}

func FuzzParseActivation(f *testing.F) {
	f.Add(someActivation(f).AppendPayload(nil))
	f.Add(Activation{At: time.UnixMilli(0)}.AppendPayload(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseActivation(b)
		if err != nil {
			if !errors.Is(err, ErrActivation) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := ParseActivation(a.AppendPayload(nil))
		if err != nil || again != a {
			t.Fatalf("%+v came back as %+v, %v", a, again, err)
		}
	})
}
