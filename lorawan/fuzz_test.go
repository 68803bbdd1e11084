package lorawan

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// seedFrames adds the requests and accepts of the test vectors and a few frames
// that belong to no activation.
func seedFrames(f *testing.F) {
	f.Helper()
	for _, v := range loadVectors(f) {
		for _, m := range []map[string]any{v.Inputs, v.Expected} {
			for name, value := range m {
				text, ok := value.(string)
				if !ok || (!strings.HasSuffix(name, "PHYPayload") && !strings.HasSuffix(name, "_wire")) {
					continue
				}
				b, err := hex.DecodeString(text)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(b)
			}
		}
	}
	f.Add([]byte{})
	f.Add([]byte{0xC0})
	f.Add([]byte{0xC0, 0x03})
	f.Add(make([]byte, 255))
	// A data uplink, as a relay forwards a join-request inside one.
	f.Add(append([]byte{0x40, 4, 3, 2, 1, 0x80, 1, 0, 226}, make([]byte, 30)...))
}

// checkParsed: what is accepted is written again byte for byte; what is refused
// is refused as ErrFrame.
func checkParsed(t *testing.T, in, again []byte, err error) {
	t.Helper()
	if err != nil {
		if !errors.Is(err, ErrFrame) {
			t.Errorf("error is %v", err)
		}
		return
	}
	if !bytes.Equal(in, again) {
		t.Errorf("% X was written again as % X", in, again)
	}
}

func FuzzParseJoinRequest(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseJoinRequest(b)
		checkParsed(t, b, got.Append(nil), err)
	})
}

func FuzzParseRejoinRequest(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseRejoinRequest(b)
		checkParsed(t, b, got.Append(nil), err)
	})
}

func FuzzParseJoinAccept(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseJoinAccept(b)
		checkParsed(t, b, got.Append(nil), err)
	})
}

func FuzzParseCFList(f *testing.F) {
	seedFrames(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseCFList(b)
		checkParsed(t, b, got.Append(nil), err)
	})
}

func FuzzParseIdentifiers(f *testing.F) {
	for _, s := range []string{"", "000013", "26011BDA", "70b3d57ed0000000", "0x70b3d57ed0000000", "70-B3-D5", "\uff17\uff10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		eui, errEUI := ParseEUI64(s)
		netID, errNetID := ParseNetID(s)
		addr, errAddr := ParseDevAddr(s)
		for _, r := range []struct {
			text string
			err  error
		}{{eui.String(), errEUI}, {netID.String(), errNetID}, {addr.String(), errAddr}} {
			if r.err == nil && r.text != strings.ToUpper(s) {
				t.Errorf("%q was read as %s", s, r.text)
			}
			if r.err != nil && !errors.Is(r.err, ErrSyntax) {
				t.Errorf("%q: %v", s, r.err)
			}
		}
	})
}

func FuzzParseMACVersion(f *testing.F) {
	for _, s := range []string{"1.0", "1.0.0", "1.0.3", "1.0.4", "1.1", "1.1.1", "1.2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseMACVersion(s)
		if (err == nil) != v.Valid() || (err != nil && !errors.Is(err, ErrSyntax)) {
			t.Errorf("%q = %v, %v", s, v, err)
		}
	})
}
