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
