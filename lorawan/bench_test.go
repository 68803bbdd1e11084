package lorawan

import "testing"

func BenchmarkParseJoinRequest(b *testing.B) {
	wire := JoinRequest{JoinEUI: EUI64{1}, DevEUI: EUI64{2}, DevNonce: 3}.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseJoinRequest(wire); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJoinRequest(b *testing.B) {
	f := JoinRequest{JoinEUI: EUI64{1}, DevEUI: EUI64{2}, DevNonce: 3}
	buf := make([]byte, 0, JoinRequestLen)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0])
	}
}

func BenchmarkParseRejoinRequest(b *testing.B) {
	wire := RejoinRequest{Type: Rejoin1, JoinEUI: EUI64{1}, DevEUI: EUI64{2}, RJCount: 3}.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRejoinRequest(wire); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJoinAccept(b *testing.B) {
	cfList, err := ParseCFList(make([]byte, CFListLen))
	if err != nil {
		b.Fatal(err)
	}
	f := JoinAccept{JoinNonce: 1, CFList: cfList}
	buf := make([]byte, 0, JoinAcceptCFListLen)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0])
	}
}

func BenchmarkParseEUI64(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEUI64("70B3D57ED0000001"); err != nil {
			b.Fatal(err)
		}
	}
}
