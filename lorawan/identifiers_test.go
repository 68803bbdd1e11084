package lorawan

import (
	"encoding"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// textForm is what every identifier offers.
type textForm interface {
	comparable
	String() string
	MarshalText() ([]byte, error)
}

// identifierCases run one test over the three identifiers that have a text form.
func identifierCases(t *testing.T, run func(t *testing.T, digits int, parse func(string) (string, error), unmarshal func([]byte) (string, error))) {
	t.Helper()
	t.Run("EUI64", func(t *testing.T) {
		run(t, 16, viaParse(ParseEUI64), func(b []byte) (string, error) { return viaUnmarshal[EUI64](b) })
	})
	t.Run("NetID", func(t *testing.T) {
		run(t, 6, viaParse(ParseNetID), func(b []byte) (string, error) { return viaUnmarshal[NetID](b) })
	})
	t.Run("DevAddr", func(t *testing.T) {
		run(t, 8, viaParse(ParseDevAddr), func(b []byte) (string, error) { return viaUnmarshal[DevAddr](b) })
	})
}

func viaParse[T textForm](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		v, err := parse(s)
		return v.String(), err
	}
}

func viaUnmarshal[T textForm, P interface {
	*T
	encoding.TextUnmarshaler
}](b []byte) (string, error) {
	var v T
	if err := P(&v).UnmarshalText(b); err != nil {
		return v.String(), err
	}
	text, err := v.MarshalText()
	return string(text), err
}

func TestIdentifierTextForm(t *testing.T) {
	identifierCases(t, func(t *testing.T, digits int, parse func(string) (string, error), unmarshal func([]byte) (string, error)) {
		rapid.Check(t, func(t *rapid.T) {
			in := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789abcdefABCDEF")), digits, digits, -1).Draw(t, "digits")
			want := strings.ToUpper(in)
			if got, err := parse(in); err != nil || got != want {
				t.Fatalf("parse(%q) = %q, %v; want %q", in, got, err, want)
			}
			if got, err := unmarshal([]byte(in)); err != nil || got != want {
				t.Fatalf("UnmarshalText(%q) then MarshalText = %q, %v; want %q", in, got, err, want)
			}
		})
	})
}

// TestIdentifierRefused also plants what could be a key, and looks for it in the
// error.
func TestIdentifierRefused(t *testing.T) {
	identifierCases(t, func(t *testing.T, digits int, parse func(string) (string, error), unmarshal func([]byte) (string, error)) {
		good := strings.Repeat("A7", digits/2)
		bad := []string{
			"", good[1:], good + "0", good + good, "0x" + good, "0x" + good[2:], " " + good[1:], good[1:] + " ",
			"g" + good[1:], good[1:] + "-", "A7-" + good[3:], "\u00e9" + good[2:], good[1:] + "\x00", "\uff21" + good[3:],
			"c0ffee5ec2e7c0ffee5ec2e7c0ffee5e", // a 16-byte key where an identifier belongs
		}
		zero := strings.Repeat("0", digits)
		for _, in := range bad {
			for name, call := range map[string]func() (string, error){
				"parse":     func() (string, error) { return parse(in) },
				"unmarshal": func() (string, error) { return unmarshal([]byte(in)) },
			} {
				got, err := call()
				if !errors.Is(err, ErrSyntax) {
					t.Errorf("%s(%q): error %v, want ErrSyntax", name, in, err)
					continue
				}
				if got != zero {
					t.Errorf("%s(%q) failed and left %s", name, in, got)
				}
				if echoes(err, in) {
					t.Errorf("%s: error %q repeats its input", name, err)
				}
			}
		}
	})
}

// echoes tells whether an error repeats its input, or six characters of it.
func echoes(err error, in string) bool {
	text := strings.ToLower(err.Error())
	in = strings.ToLower(in)
	for i := 0; i+6 <= len(in); i++ {
		if strings.Contains(text, in[i:i+6]) {
			return true
		}
	}
	return false
}

func TestEUI64Numbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v")
		e := EUI64FromUint64(v)
		if e.Uint64() != v || e.IsZero() != (v == 0) {
			t.Fatalf("EUI64FromUint64(%d) = %s, back %d, IsZero %t", v, e, e.Uint64(), e.IsZero())
		}
	})
	// Big-endian, as printed: the first digit is the most significant.
	if e := EUI64FromUint64(0x70B3D57ED0000001); e.String() != "70B3D57ED0000001" {
		t.Errorf("0x70B3D57ED0000001 prints as %s", e)
	}
	if a := (DevAddr{0x26, 0x01, 0x1B, 0xDA}); a.Uint32() != 0x26011BDA || a.String() != "26011BDA" {
		t.Errorf("DevAddr %s has the value %08X", a, a.Uint32())
	}
	if m := (MIC{0xD0, 0x14, 0x3C, 0xAE}); m.String() != "D0143CAE" {
		t.Errorf("MIC prints as %s", m)
	}
}
