package sim

import (
	"encoding/hex"
	"testing"

	"joinery/lorawan"
)

// The message that The Things Stack's client publishes in its tests
// (pkg/interop/client_test.go): our imitation has to spell it the same.
func TestTTSDialectSpellsThePublishedMessage(t *testing.T) {
	const published = `{"ProtocolVersion":"1.0","TransactionID":0,"MessageType":"JoinReq","SenderID":"42FFFF","ReceiverID":"70B3D57ED0000000",` +
		`"MACVersion":"1.0.3","PHYPayload":"00000000D07ED5B370080706050403020100003851F0B6","DevEUI":"0102030405060708",` +
		`"DevAddr":"01020304","DLSettings":"00","RxDelay":5}`
	d, err := ParseDialect("tts")
	if err != nil {
		t.Fatal(err)
	}
	netID := lorawan.NetID{0x42, 0xFF, 0xFF}
	q := request{
		dialect: &d, protocol: Protocol10, messageType: joinReq, transactionID: d.transactionID(), netID: &netID,
		joinEUI: lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0},
	}
	phy, err := hex.DecodeString("00000000D07ED5B370080706050403020100003851F0B6")
	if err != nil {
		t.Fatal(err)
	}
	got := q.appendJoin(nil, &Parameters{
		MACVersion: lorawan.MAC1_0_3, PHYPayload: phy, DevEUI: lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}, DevAddr: lorawan.DevAddr{1, 2, 3, 4}, RxDelay: 5,
	})
	if string(got) != published {
		t.Errorf("got  %s\nwant %s", got, published)
	}
}

func TestDialects(t *testing.T) {
	netID := lorawan.NetID{0, 0, 0x1A}
	list, err := lorawan.ParseCFList(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"chirpstack": `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"00001a","ReceiverID":"00000000000000ab","MACVersion":"1.1.0","PHYPayload":"cd","DevEUI":"00000000000000ef","DevAddr":"00000000","DLSettings":"83","RxDelay":1,"CFList":"00000000000000000000000000000000"}`,
		"tts":        `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"00001A","ReceiverID":"00000000000000AB","MACVersion":"1.1","PHYPayload":"CD","DevEUI":"00000000000000EF","DevAddr":"00000000","DLSettings":"83","RxDelay":1,"CFList":"00000000000000000000000000000000"}`,
		"brocaar":    `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"00001a","ReceiverID":"00000000000000ab","VSExtension":{},"MACVersion":"1.1.0","PHYPayload":"cd","DevEUI":"00000000000000ef","DevAddr":"00000000","DLSettings":"83","RxDelay":1,"CFList":"00000000000000000000000000000000"}`,
		"prefixed":   `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"0x00001a","ReceiverID":"0x00000000000000ab","MACVersion":"1.1.1","PHYPayload":"0xcd","DevEUI":"0x00000000000000ef","DevAddr":"0x00000000","DLSettings":"0x83","RxDelay":1,"CFList":"0x00000000000000000000000000000000"}`,
	} {
		d, err := ParseDialect(name)
		if err != nil {
			t.Fatal(err)
		}
		q := request{dialect: &d, protocol: Protocol10, messageType: joinReq, transactionID: 7, netID: &netID, joinEUI: lorawan.EUI64{7: 0xAB}}
		got := q.appendJoin(nil, &Parameters{MACVersion: lorawan.MAC1_1, PHYPayload: []byte{0xCD}, DevEUI: lorawan.EUI64{7: 0xEF}, DLSettings: 0x83, RxDelay: 1, CFList: list})
		if string(got) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

// The prefixes of DevAddr by type of NetID (TS002-1.0, "DevAddr Assignment");
// 000013 owns 26000000/7.
func TestDrawDevAddr(t *testing.T) {
	for _, c := range []struct {
		netID  string
		prefix uint32
		bits   int
	}{
		{"000013", 0x26000000, 7}, {"00003F", 0x7E000000, 7}, {"20003F", 0xBF000000, 8}, {"4001FF", 0xDFF00000, 12},
		{"600000", 0xE0000000, 15}, {"800001", 0xF0008000, 17}, {"A00001", 0xF8002000, 19}, {"C00001", 0xFC000400, 22}, {"E00001", 0xFE000080, 25},
	} {
		netID, err := lorawan.ParseNetID(c.netID)
		if err != nil {
			t.Fatal(err)
		}
		different := map[lorawan.DevAddr]bool{}
		for range 50 {
			a := drawDevAddr(netID)
			different[a] = true
			if a.Uint32()>>(32-c.bits) != c.prefix>>(32-c.bits) {
				t.Fatalf("NetID %s: got %v, want prefix %08X/%d", c.netID, a, c.prefix, c.bits)
			}
		}
		if len(different) < 10 {
			t.Errorf("NetID %s: %d addresses in 50", c.netID, len(different))
		}
	}
}

// Codes that one version renamed or added are not the other's.
func TestResultCodes(t *testing.T) {
	for _, protocol := range []string{Protocol10, Protocol11} {
		codes := map[string]bool{}
		for _, c := range resultCodes(protocol) {
			if codes[c] {
				t.Errorf("%s: %s twice", protocol, c)
			}
			codes[c] = true
		}
		is11 := protocol == Protocol11
		if codes["FrameReplayed"] != is11 || codes["NoAction"] != is11 || codes["MalformedMessage"] != is11 || codes["MalformedRequest"] == is11 ||
			!codes[ReplayCode(protocol)] || !codes[MalformedCode(protocol)] || !codes["UnkownReceiver"] || codes["UnknownReceiver"] {
			t.Errorf("%s: %v", protocol, codes)
		}
	}
}

// Whatever comes as an answer: no panic, and what is taken has the right types.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"ProtocolVersion":"1.0","TransactionID":1,"MessageType":"JoinAns","SenderID":"00","ReceiverID":"01","Result":{"ResultCode":"Success"},` +
		`"PHYPayload":"20","Lifetime":0,"NwkSKey":{"KEKLabel":"a","AESKey":"00"},"AppSKey":{"AESKey":"00"},"SessionKeyID":"01","VSExtension":{}}`))
	f.Add([]byte(`{"Result":{"ResultCode":"Other","Description":"x"},"HNetID":"000013","HNSID":"","SenderNSID":"","ReceiverNSID":"","DevEUI":"","SenderToken":"00"}`))
	f.Add([]byte(`{"TransactionID":-1}`))
	f.Add([]byte(`{"Result":null}`))
	f.Add([]byte(`[[[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if (a == nil) == (err == nil) {
			t.Fatalf("got %v and %v", a, err)
		}
		if err != nil {
			return
		}
		q := &request{messageType: joinReq}
		if !a.same(a) || a.carriesNothing(q) != (a.PHYPayload == nil && a.SessionKeyID == nil && a.Keys == [keyNames]*Envelope{}) {
			t.Error("an answer differs from itself")
		}
	})
}

func FuzzKEKOpen(f *testing.F) {
	f.Add("a", []byte("0123456789abcdef01234567"))
	f.Add("", []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, label string, key []byte) {
		k, err := newKEKs(map[string][]byte{"a": make([]byte, 16)}, false)
		if err != nil {
			t.Fatal(err)
		}
		var out [16]byte
		err = k.open(&Envelope{KEKLabel: label, AESKey: key}, false, &out)
		if err == nil {
			t.Fatalf("label %q opened %d bytes that nobody wrapped", label, len(key))
		}
	})
}

func BenchmarkParseAnswer(b *testing.B) {
	body := []byte(`{"ProtocolVersion":"1.0","TransactionID":1234567890,"MessageType":"JoinAns","SenderID":"70B3D57ED0000000","ReceiverID":"000013",` +
		`"Result":{"ResultCode":"Success"},"PHYPayload":"20d4c9879f995ec01556deb22489cd01d0279601d19ac1e8e35a90e058ac0dbb3c","Lifetime":0,` +
		`"NwkSKey":{"KEKLabel":"ns-000013-v1","AESKey":"e71b6104579ad4bd0611a2e249bc6ff5c517bd3b43645e25"},` +
		`"AppSKey":{"KEKLabel":"as-example-v1","AESKey":"3a4993a53d316e3d82a48b537c5d015d967812d8bddd597f"},"SessionKeyID":"3CC8BE1749E02606184A1B108D75D4FE"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseAnswer(body); err != nil {
			b.Fatal(err)
		}
	}
}
