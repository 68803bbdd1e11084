package lorawan

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, n int, label string) []byte {
	return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label)
}

func drawJoinRequest(t *rapid.T) JoinRequest {
	return JoinRequest{
		JoinEUI:  EUI64(drawBytes(t, 8, "JoinEUI")),
		DevEUI:   EUI64(drawBytes(t, 8, "DevEUI")),
		DevNonce: DevNonce(rapid.Uint16().Draw(t, "DevNonce")),
		MIC:      MIC(drawBytes(t, 4, "MIC")),
	}
}

func drawRejoinRequest(t *rapid.T) RejoinRequest {
	f := RejoinRequest{
		Type:    RejoinType(rapid.IntRange(0, 2).Draw(t, "type")),
		DevEUI:  EUI64(drawBytes(t, 8, "DevEUI")),
		RJCount: RJCount(rapid.Uint16().Draw(t, "RJcount")),
		MIC:     MIC(drawBytes(t, 4, "MIC")),
	}
	if f.Type == Rejoin1 {
		f.JoinEUI = EUI64(drawBytes(t, 8, "JoinEUI"))
	} else {
		f.NetID = NetID(drawBytes(t, 3, "NetID"))
	}
	return f
}

func drawJoinAccept(t *rapid.T) JoinAccept {
	f := JoinAccept{
		JoinNonce:  JoinNonce(rapid.Uint32Max(uint32(MaxJoinNonce)).Draw(t, "JoinNonce")),
		NetID:      NetID(drawBytes(t, 3, "NetID")),
		DevAddr:    DevAddr(drawBytes(t, 4, "DevAddr")),
		DLSettings: DLSettings(rapid.Byte().Draw(t, "DLSettings")),
		RxDelay:    rapid.Byte().Draw(t, "RxDelay"),
	}
	if rapid.Bool().Draw(t, "has CFList") {
		f.CFList, _ = ParseCFList(drawBytes(t, CFListLen, "CFList"))
	}
	return f
}

func TestJoinRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawJoinRequest(t)
		wire := f.Append([]byte("kept"))
		if string(wire[:4]) != "kept" {
			t.Fatal("Append touched what was there")
		}
		wire = wire[4:]
		if len(wire) != JoinRequestLen || !bytes.Equal(wire[:JoinRequestLen-MICLen], f.AppendUnsigned(nil)) {
			t.Fatalf("frame is % X", wire)
		}
		if got, err := ParseJoinRequest(wire); err != nil || got != f {
			t.Fatalf("%+v came back as %+v, %v", f, got, err)
		}
	})
}

func TestRejoinRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawRejoinRequest(t)
		wire := f.Append([]byte("kept"))[4:]
		want := RejoinRequest02Len
		if f.Type == Rejoin1 {
			want = RejoinRequest1Len
		}
		if len(wire) != want || !bytes.Equal(wire[:want-MICLen], f.AppendUnsigned(nil)) {
			t.Fatalf("frame is % X", wire)
		}
		if got, err := ParseRejoinRequest(wire); err != nil || got != f {
			t.Fatalf("%+v came back as %+v, %v", f, got, err)
		}
	})
}

func TestJoinAcceptRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawJoinAccept(t)
		wire := f.Append([]byte("kept"))[4:]
		want := JoinAcceptLen - MICLen
		if f.CFList.IsPresent() {
			want = JoinAcceptCFListLen - MICLen
		}
		if len(wire) != want {
			t.Fatalf("frame has %d bytes, want %d", len(wire), want)
		}
		if got, err := ParseJoinAccept(wire); err != nil || got != f {
			t.Fatalf("%+v came back as %+v, %v", f, got, err)
		}
	})
}

// TestJoinNonceKeepsToItsBytes: a JoinNonce beyond 24 bits must not spill into
// the fields beside it.
func TestJoinNonceKeepsToItsBytes(t *testing.T) {
	wire := JoinAccept{JoinNonce: MaxJoinNonce + 1}.Append(nil)
	if want := (JoinAccept{}).Append(nil); !bytes.Equal(wire, want) {
		t.Errorf("frame is % X, want % X", wire, want)
	}
}

// TestFramesRefused: every length but the right one, every MHDR but the right
// one, every rejoin type that does not exist.
func TestFramesRefused(t *testing.T) {
	parsers := map[string]struct {
		parse   func([]byte) (any, error)
		mhdr    byte
		lengths []int
	}{
		"join-request": {func(b []byte) (any, error) { f, err := ParseJoinRequest(b); return f, err }, MHDRJoinRequest, []int{JoinRequestLen}},
		"join-accept":  {func(b []byte) (any, error) { f, err := ParseJoinAccept(b); return f, err }, MHDRJoinAccept, []int{13, 29}},
		"rejoin-request 0": {func(b []byte) (any, error) { f, err := ParseRejoinRequest(withType(b, 0)); return f, err },
			MHDRRejoinRequest, []int{RejoinRequest02Len}},
		"rejoin-request 1": {func(b []byte) (any, error) { f, err := ParseRejoinRequest(withType(b, 1)); return f, err },
			MHDRRejoinRequest, []int{RejoinRequest1Len}},
		"rejoin-request 2": {func(b []byte) (any, error) { f, err := ParseRejoinRequest(withType(b, 2)); return f, err },
			MHDRRejoinRequest, []int{RejoinRequest02Len}},
	}
	zero := map[string]string{}
	for name, p := range parsers {
		f, _ := p.parse(nil)
		zero[name] = fmt.Sprintf("%+v", f)
	}
	for name, p := range parsers {
		for length := range 260 {
			for _, mhdr := range []int{0x00, 0x01, 0x1F, 0x20, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xC1, 0xE0, 0xFF} {
				frame := make([]byte, length)
				if length > 0 {
					frame[0] = byte(mhdr)
				}
				valid := byte(mhdr) == p.mhdr && (length == p.lengths[0] || length == p.lengths[len(p.lengths)-1])
				f, err := p.parse(frame)
				if valid != (err == nil) || (err != nil && !errors.Is(err, ErrFrame)) {
					t.Fatalf("%s of %d bytes, MHDR %02X: %v", name, length, mhdr, err)
				}
				if err != nil && fmt.Sprintf("%+v", f) != zero[name] {
					t.Fatalf("%s of %d bytes, MHDR %02X: failed and left %+v", name, length, mhdr, f)
				}
			}
		}
	}
	for rejoinType := 3; rejoinType < 256; rejoinType++ {
		for _, length := range []int{RejoinRequest02Len, RejoinRequest1Len} {
			frame := make([]byte, length)
			frame[0], frame[1] = MHDRRejoinRequest, byte(rejoinType)
			if f, err := ParseRejoinRequest(frame); !errors.Is(err, ErrFrame) || f != (RejoinRequest{}) {
				t.Fatalf("rejoin type %d of %d bytes: %+v, %v", rejoinType, length, f, err)
			}
		}
	}
}

func withType(b []byte, rejoinType byte) []byte {
	b = bytes.Clone(b)
	if len(b) > 1 {
		b[1] = rejoinType
	}
	return b
}

func TestCFList(t *testing.T) {
	if c, err := ParseCFList(nil); err != nil || c.IsPresent() || len(c.Append(nil)) != 0 || c != (CFList{}) {
		t.Errorf("no bytes: %+v, %v", c, err)
	}
	zeros := make([]byte, CFListLen)
	c, err := ParseCFList(zeros)
	if err != nil || !c.IsPresent() || !bytes.Equal(c.Append(nil), zeros) || c == (CFList{}) {
		t.Errorf("sixteen zeros: %+v, %v; a present list must not equal the absent one", c, err)
	}
	zeros[0] = 1
	if c.Append(nil)[0] != 0 {
		t.Error("the list keeps the caller's bytes")
	}
	for n := 1; n < 40; n++ {
		if n == CFListLen {
			continue
		}
		if c, err := ParseCFList(make([]byte, n)); !errors.Is(err, ErrFrame) || c != (CFList{}) {
			t.Errorf("%d bytes: %+v, %v", n, c, err)
		}
	}
}

func TestOptNeg(t *testing.T) {
	for v := range 256 {
		if got := DLSettings(v).OptNeg(); got != (v >= 128) {
			t.Errorf("DLSettings %02X: OptNeg %t", v, got)
		}
	}
}

// Frames are parsed and written for each join: none of it may allocate.
func TestFramesDoNotAllocate(t *testing.T) {
	jr := JoinRequest{JoinEUI: EUI64{1}, DevEUI: EUI64{2}, DevNonce: 3}
	rj := RejoinRequest{Type: Rejoin1, JoinEUI: EUI64{1}, DevEUI: EUI64{2}, RJCount: 3}
	ja := JoinAccept{JoinNonce: 1, CFList: CFList{present: true}}
	jrWire, rjWire, jaWire := jr.Append(nil), rj.Append(nil), ja.Append(nil)
	buf := make([]byte, 0, 64)
	var failed error
	for name, run := range map[string]func(){
		"ParseJoinRequest":     func() { _, failed = ParseJoinRequest(jrWire) },
		"JoinRequest.Append":   func() { buf = jr.Append(buf[:0]) },
		"ParseRejoinRequest":   func() { _, failed = ParseRejoinRequest(rjWire) },
		"RejoinRequest.Append": func() { buf = rj.Append(buf[:0]) },
		"ParseJoinAccept":      func() { _, failed = ParseJoinAccept(jaWire) },
		"JoinAccept.Append":    func() { buf = ja.Append(buf[:0]) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 || failed != nil {
			t.Errorf("%s: %v allocations, %v", name, n, failed)
		}
	}
}
