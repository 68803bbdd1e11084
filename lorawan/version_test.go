package lorawan

import (
	"errors"
	"testing"
)

func TestMACVersionSpellings(t *testing.T) {
	for in, want := range map[string]MACVersion{
		"1.0": MAC1_0_0, "1.0.0": MAC1_0_0,
		"1.0.1": MAC1_0_1, "1.0.2": MAC1_0_2, "1.0.3": MAC1_0_3, "1.0.4": MAC1_0_4,
		"1.1": MAC1_1, "1.1.0": MAC1_1, "1.1.1": MAC1_1,
	} {
		var unmarshalled MACVersion
		got, err := ParseMACVersion(in)
		if err2 := unmarshalled.UnmarshalText([]byte(in)); err != nil || err2 != nil || got != want || unmarshalled != want {
			t.Errorf("%q = %v, %v; unmarshalled %v, %v; want %v", in, got, err, unmarshalled, err2, want)
		}
		again, err := ParseMACVersion(got.String())
		if text, _ := got.MarshalText(); err != nil || again != want || string(text) != got.String() {
			t.Errorf("%v does not survive its own text form %q", got, text)
		}
	}
	for _, in := range []string{
		"", "1", "1.", "1.2", "1.0.5", "1.1.2", "1.10", "01.0", "1.0.0.0", " 1.0", "1.0 ", "v1.0", "1,0", "2.0", "LoRaWAN 1.0.3",
		"unknown", "MAC_V1_0_3", "1.0.3\x00", "c0ffee5ec2e7c0ffee5ec2e7c0ffee5e",
	} {
		got, err := ParseMACVersion(in)
		if !errors.Is(err, ErrSyntax) || got != 0 {
			t.Errorf("%q = %v, %v; want ErrSyntax", in, got, err)
		}
		// The text names the versions there are, so only longer inputs tell.
		if err != nil && len(in) > 16 && echoes(err, in) {
			t.Errorf("error %q repeats its input", err)
		}
	}
}

func TestMACVersionPredicates(t *testing.T) {
	type facts struct{ counts, twoRoots, negotiates, rejoins bool }
	want := map[MACVersion]facts{
		MAC1_0_0: {}, MAC1_0_1: {}, MAC1_0_2: {}, MAC1_0_3: {},
		MAC1_0_4: {counts: true},
		MAC1_1:   {counts: true, twoRoots: true, negotiates: true, rejoins: true},
	}
	for v, w := range want {
		got := facts{v.CountsDevNonces(), v.HasTwoRootKeys(), v.NegotiatesOptions(), v.Rejoins()}
		if got != w || !v.Valid() {
			t.Errorf("%v: valid %t, %+v; want %+v", v, v.Valid(), got, w)
		}
		for other, o := range want {
			// A 1.0.x device serves any 1.0.x, a 1.1 device serves all.
			if serves := v.Serves(other); serves != (w.negotiates || !o.negotiates) {
				t.Errorf("%v serves a network that asks for %v: %t", v, other, serves)
			}
		}
		for _, none := range []MACVersion{0, MAC1_1 + 1, 255} {
			if v.Serves(none) || none.Valid() || none.String() != "unknown" {
				t.Errorf("version %d: valid %t, %q, served by %v %t", none, none.Valid(), none, v, v.Serves(none))
			}
		}
	}
}
