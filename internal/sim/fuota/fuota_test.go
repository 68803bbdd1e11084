package fuota

import (
	"bytes"
	"errors"
	"testing"

	"joinery/internal/fragment"
)

func TestSend(t *testing.T) {
	block := bytes.Repeat([]byte("joinery firmware "), 1800) // 30,600 bytes
	for _, v := range []fragment.Version{fragment.V1, fragment.V2} {
		r := &Receiver{Version: v, Descriptor: Descriptor("meter-3", "rev-c"), Memory: 40 << 10, Key: [16]byte{1}}
		o := Options{Version: v, FragSize: 100, Descriptor: r.Descriptor, Parity: 0.6, SessionCnt: 4, Key: [16]byte{1}}
		p, err := Send(NewAir(0.2, 1), r, block, o)
		if err != nil || !bytes.Equal(r.Block(), block) {
			t.Fatalf("version %d: %+v, %v", v, p, err)
		}
		if p.Fragments != 306 || p.Parity < 40 || p.Parity > 130 {
			t.Errorf("version %d: %+v", v, p)
		}
		// A session that was, again; too large a block; one for other hardware.
		replay, large, other := o, o, o
		large.SessionCnt, other.SessionCnt, other.Descriptor = 5, 5, Descriptor("meter-3", "rev-d")
		if _, err := Send(NewAir(0, 1), r, append(block, 1), replay); v >= fragment.V2 && !errors.Is(err, ErrSetup) {
			t.Errorf("a replayed session: %v", err)
		}
		for name, c := range map[string]struct {
			o     Options
			block []byte
		}{"too large": {large, make([]byte, 41<<10)}, "other hardware": {other, block}} {
			if _, err := Send(NewAir(0, 1), r, c.block, c.o); !errors.Is(err, ErrSetup) {
				t.Errorf("version %d, %s: %v", v, name, err)
			}
		}
	}
}

func TestLost(t *testing.T) {
	block := make([]byte, 3000)
	for name, loss := range map[string]float64{"half": 0.5, "all": 1} {
		r := &Receiver{Version: fragment.V1, Memory: 4000}
		if _, err := Send(NewAir(loss, 7), r, block, Options{Version: fragment.V1, FragSize: 50, Parity: 0.2}); !errors.Is(err, ErrLost) || r.Block() != nil {
			t.Errorf("%s is lost: %v", name, err)
		}
	}
	r := &Receiver{Version: fragment.V2, Memory: 4000, Key: [16]byte{9}}
	if _, err := Send(NewAir(0, 7), r, block, Options{Version: fragment.V2, FragSize: 50}); !errors.Is(err, errMIC) || r.Block() != nil {
		t.Errorf("another key: %v", err)
	}
}

// TestMixedSessions: fragments of the session before that come late spoil a block, and its
// MIC says so in version 2; a setup that cannot be ends no session.
func TestMixedSessions(t *testing.T) {
	old, block := bytes.Repeat([]byte("old "), 25), bytes.Repeat([]byte("new "), 25) // 100 bytes: 10 fragments
	mixed := func(v fragment.Version, late int) *Receiver {
		t.Helper()
		r := &Receiver{Version: v, Memory: 1000, Key: [16]byte{1}}
		encode := func(b []byte, count uint16) *fragment.Encoder {
			e, err := fragment.NewEncoder(v, b, 10)
			if err != nil {
				t.Fatal(err)
			}
			s := fragment.Setup{NbFrag: 10, FragSize: 10, SessionCnt: count}
			if s.MIC, err = MIC(r.Key, s, b); err != nil {
				t.Fatal(err)
			}
			if _, wrong, err := fragment.ParseSetupAnswer(r.Downlink(s.Bytes(v))); err != nil || wrong != 0 {
				t.Fatal(wrong, err)
			}
			return e
		}
		before := encode(old, 1)
		r.Downlink(fragment.Data(0, 1, before.Fragment(1)))
		after := encode(block, 2)
		for n := 1; n <= 10; n++ {
			if n <= late {
				r.Downlink(fragment.Data(0, n, before.Fragment(n)))
			} else {
				r.Downlink(fragment.Data(0, n, after.Fragment(n)))
			}
			for _, none := range []fragment.Setup{{NbFrag: 0, FragSize: 10, SessionCnt: 3}, {NbFrag: 10, FragSize: 0, SessionCnt: 3}, {NbFrag: 1, FragSize: 4, Padding: 4, SessionCnt: 3}} {
				if _, wrong, err := fragment.ParseSetupAnswer(r.Downlink(none.Bytes(v))); err != nil || wrong == 0 {
					t.Errorf("%+v was taken: %v", none, err)
				}
			}
		}
		return r
	}
	for _, v := range []fragment.Version{fragment.V1, fragment.V2} {
		if got := mixed(v, 0).Block(); !bytes.Equal(got, block) {
			t.Errorf("version %d: %q", v, got)
		}
	}
	if got := mixed(fragment.V2, 1).Block(); got != nil {
		t.Errorf("a fragment of another session is in it: %q", got)
	}
	if got := mixed(fragment.V1, 1).Block(); bytes.Equal(got, block) || bytes.Equal(got, old) { // the image's signature is all that tells
		t.Errorf("%q", got)
	}
}

func FuzzDownlink(f *testing.F) {
	f.Add(fragment.Setup{NbFrag: 3, FragSize: 4}.Bytes(fragment.V1), fragment.Data(0, 1, []byte("data")))
	f.Fuzz(func(_ *testing.T, one, other []byte) {
		for _, v := range []fragment.Version{fragment.V1, fragment.V2} {
			r := &Receiver{Version: v, Memory: 1 << 10}
			for _, b := range [][]byte{one, other, other, one} {
				r.Downlink(b)
			}
			r.Block()
		}
	})
}
