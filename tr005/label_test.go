package tr005

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"joinery/lorawan"
)

func eui(t testing.TB, s string) lorawan.EUI64 {
	t.Helper()
	e, err := lorawan.ParseEUI64(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The identifiers of most vectors.
const (
	final42  = "LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFF42"
	draft2   = "URN:LW:DP:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFF42"
	draft3   = "URN:DEV:LW:42FFFFFFFFFFFFFF_4242FFFFFFFFFFFF_42FFFF42"
	ofSpec   = "LW:D0:1122334455667788:AABBCCDDEEFF0011:AABB1122:OAABBCCDDEEFF:SYYWWNNNNNN:PFOOBAR:CAF2C"
	ofChip   = "LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:OC05EA29C:C1A17"
	ofDraft3 = "URN:DEV:LW:70B3D57ED0000000_0004A31000FFFFFF_00000000_VD53FFFFF"
)

func label42(f Format) Label {
	return Label{
		Format: f, JoinEUI: lorawan.EUI64FromUint64(0x42FFFFFFFFFFFFFF), DevEUI: lorawan.EUI64FromUint64(0x4242FFFFFFFFFFFF),
		ProfileID: ProfileID{Vendor: 0x42FF, Profile: 0xFF42},
	}
}

func (l Label) with(token, serial, proprietary, checksum string) Label {
	l.OwnerToken, l.Serial, l.Proprietary, l.Checksum = token, serial, proprietary, checksum
	return l
}

func (l Label) unchecked(tags string) Label {
	l.Unchecked = tags
	return l
}

// vectors are texts, what they say, and how they are written again. The first is
// the example of TR005; those with 42… and the console's are of The Things
// Stack; the checksums of the others were computed apart from this package.
func vectors(t testing.TB) map[string]struct {
	want  Label
	again string
} {
	t.Helper()
	spec := Label{JoinEUI: eui(t, "1122334455667788"), DevEUI: eui(t, "AABBCCDDEEFF0011"), ProfileID: ProfileID{0xAABB, 0x1122}}.
		with("AABBCCDDEEFF", "YYWWNNNNNN", "FOOBAR", "AF2C")
	chip := Label{JoinEUI: eui(t, "70B3D57ED0000000"), DevEUI: eui(t, "0004A310001AA90A")}
	console := Label{Format: Draft3, JoinEUI: chip.JoinEUI, DevEUI: eui(t, "0004A31000FFFFFF"), OwnerToken: "D53FFFFF"}
	full2, full3 := label42(Draft2).with("0102", "SERIAL", "PROPRIETARY", ""), label42(Draft3).with("0102", "SERIAL", "PROPRIETARY", "")
	return map[string]struct {
		want  Label
		again string
	}{
		ofSpec: {spec, ofSpec},
		ofChip: {chip.with("C05EA29C", "", "", "1A17"), ofChip},
		"LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:C20F8": {chip.with("", "", "", "20F8"), "LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:C20F8"},
		"LW:D0:70b3d57ed0000000:0004a310001aa90a:00000000":       {chip, "LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:C20F8"},
		final42:             {label42(Final), final42 + ":C" + checksum(final42)},
		final42 + ":O:S:P":  {label42(Final), final42 + ":C" + checksum(final42)},
		final42 + ":C:O::P": {label42(Final), final42 + ":C" + checksum(final42)},
		// Any order, and what nobody defined.
		final42 + ":PA B:XNEW:S$%*+-./:O0102":         {label42(Final).with("0102", "$%*+-./", "A B", ""), final42 + ":O0102:S$%*+-./:PA B:C" + checksum(final42+":O0102:S$%*+-./:PA B")},
		final42 + ":C" + checksum(final42) + ":O0102": {label42(Final).with("0102", "", "", checksum(final42)).unchecked("O"), final42 + ":O0102:C" + checksum(final42+":O0102")},
		draft2:                                  {label42(Draft2), draft2},
		draft2 + ":":                            {label42(Draft2), draft2},
		draft2 + ":%V%S%P":                      {label42(Draft2), draft2},
		draft2 + ":%V0102%SSERIAL%PPROPRIETARY": {full2, draft2 + ":%V0102%SSERIAL%PPROPRIETARY"},
		draft2 + ":%PPROPRIETARY%SSERIAL%V0102": {full2, draft2 + ":%V0102%SSERIAL%PPROPRIETARY"},
		draft2 + ":%25VABCD":                    {label42(Draft2).with("ABCD", "", "", ""), draft2 + ":%VABCD"},
		draft2 + ":%25VABCD%25SX":               {label42(Draft2).with("ABCD", "X", "", ""), draft2 + ":%VABCD%SX"},
		draft3:                                  {label42(Draft3), draft3},
		draft3 + "_V_S_P":                       {label42(Draft3), draft3},
		draft3 + "_V0102_SSERIAL_PPROPRIETARY":  {full3, draft3 + "_V0102_SSERIAL_PPROPRIETARY"},
		ofDraft3:                                {console, ofDraft3},
		"4242ffffffffffff":                      {Label{Format: BareDevEUI, DevEUI: lorawan.EUI64FromUint64(0x4242FFFFFFFFFFFF)}, "4242FFFFFFFFFFFF"},
	}
}

func TestVectors(t *testing.T) {
	for text, v := range vectors(t) {
		got, err := Parse(text)
		if err != nil || got != v.want {
			t.Errorf("%s: %#v, %v", text, map[string]any{"label": got, "token": got.OwnerToken, "serial": got.Serial, "proprietary": got.Proprietary, "checksum": got.Checksum}, err)
			continue
		}
		if again, err := got.Encode(); err != nil || again != v.again {
			t.Errorf("%s is written again as %s, %v; want %s", text, again, err, v.again)
		}
	}
}

// Another's program that does not look at the checksum reads this; so do we, and
// say that it is not to be believed.
func TestWrongChecksum(t *testing.T) {
	got, err := Parse(final42 + ":CCHECKSUM:O0102:SSERIAL:PPROPRIETARY")
	if !errors.Is(err, ErrChecksum) || errors.Is(err, ErrSyntax) || got != label42(Final).with("0102", "SERIAL", "PROPRIETARY", "CHECKSUM").unchecked("OSP") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Parse(strings.ToLower(ofSpec[len(ofSpec)-4:])); err == nil {
		t.Error("a checksum alone is no label")
	}
	if _, err := Parse(ofSpec[:len(ofSpec)-4] + "af2c"); err != nil {
		t.Errorf("a checksum in lower case: %v", err)
	}
	// One character misread, at every place that the checksum covers.
	for i := range len(ofSpec) - len(":CAF2C") {
		for _, c := range "08BOS" {
			misread := ofSpec[:i] + string(c) + ofSpec[i+1:]
			if misread == ofSpec {
				continue
			}
			if _, err := Parse(misread); !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrSyntax) {
				t.Errorf("%s: %v", misread, err)
			}
		}
	}
}

// A checksum is over what stands before it: what stands behind may have been misread.
func TestUnchecked(t *testing.T) {
	c := final42 + ":C" + checksum(final42)
	inside := final42 + ":O0102"
	for text, want := range map[string]string{
		c: "", c + ":O:S:": "", c + ":O0102:SX:PY": "OSP", c + ":PY:XNEW:O1": "PXO", ofSpec: "",
		inside + ":C" + checksum(inside) + ":SX": "S", final42 + ":O0102:SX": "", final42 + ":C:O0102": "",
	} {
		if l, err := Parse(text); err != nil || l.Unchecked != want {
			t.Errorf("%s: %q, %v; want %q", text, l.Unchecked, err, want)
		}
	}
}

func TestNoLabels(t *testing.T) {
	for _, text := range []string{
		"", "LW", "LW:D0", "LW:D0:", "4242FFFFFFFFFFF", "4242FFFFFFFFFFFG", "4242FFFFFFFFFFFFF",
		"LW:D0:42FFFFFFFF:4242FFFFFFFFFFFF:42FFFF42", "LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF",
		"LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFF:42FFFF42", "LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:",
		final42 + "AABB", "LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFFZZ", "lw:d0:" + final42[6:], "LW:D1:" + final42[6:],
		" " + final42, final42 + "\n", final42 + ":OA\x00", final42 + ":SÄ", "\uff14\uff12", final42 + ":OA:OA", final42 + ":SA:O1:SA",
		draft2[:len(draft2)-1], draft2 + "00", draft2 + ":V0102", draft2 + ":%P#_", draft2 + ":%Va", draft2 + ":%VA%VB",
		"URN:LW:DP:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF", "URN:LW:DP:42FF:4242FFFFFFFFFFFF:42FFFF42", "URN:LW:DP:42FFFFFFFFFFFFFF_4242FFFFFFFFFFFF_42FFFF42",
		draft3 + "00", draft3 + "_P#", draft3 + "_VA:B", draft3 + "_VA_VA", draft3[:40], "URN:DEV:LW:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFF42",
		"https://ttig.pro/c/0102030405060708/abcdefgh", final42 + ":P" + strings.Repeat("A", MaxLen), strings.Repeat("4", MaxLen+1),
	} {
		got, err := Parse(text)
		if !errors.Is(err, ErrSyntax) || got != (Label{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, l := range map[string]Label{
		"lower-case token":       label42(Final).with("abc", "", "", ""),
		"token of another kind":  label42(Final).with("A-B", "", "", ""),
		"long token":             label42(Final).with(strings.Repeat("A", 33), "", "", ""),
		"colon":                  label42(Final).with("A", "1:2", "", ""),
		"lower case":             label42(Final).with("A", "", "abc", ""),
		"long":                   label42(Final).with("A", "", strings.Repeat("B", MaxLen), ""),
		"percent in draft 2":     label42(Draft2).with("A", "50%", "", ""),
		"space in draft 2":       label42(Draft2).with("A", "5 0", "", ""),
		"underscore in draft 3":  label42(Draft3).with("A", "A_B", "", ""),
		"hyphen in draft 3":      label42(Draft3).with("A", "A-B", "", ""),
		"token without its form": {Format: BareDevEUI, OwnerToken: "A"},
		"JoinEUI likewise":       label42(BareDevEUI),
		"no form":                label42(9),
	} {
		if text, err := l.Encode(); !errors.Is(err, ErrSyntax) || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		} else if strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: the error repeats a value: %v", name, err)
		}
	}
}

// A token shows in the text of a label and nowhere else.
func TestTokenStaysInside(t *testing.T) {
	const token = "SECRETSECRET2"
	l := label42(Final).with(token, "", "", "")
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("read", "label", l)
	for _, text := range []string{fmt.Sprint(l), fmt.Sprintf("%v %+v %#v %s", l, l, l, &l), logged.String()} {
		if strings.Contains(text, token) || !strings.Contains(text, "42FFFFFFFFFFFFFF/4242FFFFFFFFFFFF") {
			t.Errorf("prints as %s", text)
		}
	}
	for _, text := range []string{
		"LW:D0:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFF4:O" + token, final42 + ":O" + token + ":O" + token, final42 + ":O" + token + ":C0000",
		draft2 + ":%V" + token + "#", draft3 + "_V" + token + "#", "O" + token, token + "ABC", final42 + "\x01" + token,
	} {
		if _, err := Parse(text); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("the error of %q is %v", text, err)
		}
	}
	if s := (Label{Format: BareDevEUI}).String(); s != "label of 0000000000000000" {
		t.Error(s)
	}
}

func TestProfileID(t *testing.T) {
	var v struct{ P ProfileID }
	if err := json.Unmarshal([]byte(`{"P":"42ffff42"}`), &v); err != nil || v.P != (ProfileID{0x42FF, 0xFF42}) {
		t.Errorf("%v, %v", v, err)
	}
	if b, err := json.Marshal(v); err != nil || string(b) != `{"P":"42FFFF42"}` {
		t.Errorf("%s, %v", b, err)
	}
	for _, s := range []string{"", "42FFFF4", "42FFFF423", "42FFFFGG", "0x42FFFF"} {
		if p, err := ParseProfileID(s); !errors.Is(err, ErrSyntax) || !p.IsZero() {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
}

// FuzzParse: what is read can be written, unless a value has characters that
// only a tolerant reader takes; and what was written reads as the same.
func FuzzParse(f *testing.F) {
	for text := range vectors(f) {
		f.Add(text)
	}
	for _, text := range []string{"", final42 + ":CCHECKSUM:O0102", final42 + ":Sab", draft2 + ":%25%25", draft3 + "__", "LW:D0:::"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Parse(text)
		if err != nil {
			if errors.Is(err, ErrSyntax) == errors.Is(err, ErrChecksum) || errors.Is(err, ErrSyntax) && l != (Label{}) {
				t.Errorf("%q: %#v, %v", text, l, err)
			}
			return
		}
		again, err := l.Encode()
		if err != nil {
			if values := l.OwnerToken + l.Serial + l.Proprietary; only(values, finalChars) && only(l.OwnerToken, upperCase) && len(values) < 32 {
				t.Errorf("%q cannot be written: %v", text, err)
			}
			return
		}
		second, err := Parse(again)
		if l.Format == Final {
			l.Checksum, l.Unchecked = again[len(again)-4:], ""
		}
		if err != nil || second != l {
			t.Errorf("%q was written as %q and read as %#v, %v", text, again, second, err)
		}
	})
}
