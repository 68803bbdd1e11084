package backend

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"joinery/lorawan"
)

// Bodies as the clients in the field write them, spelling and order of members
// included.
const (
	// The Things Stack, Backend Interfaces 1.0: upper case, TransactionID
	// always 0, no CFList where there is none.
	ttsJoinReq = `{"ProtocolVersion":"1.0","TransactionID":0,"MessageType":"JoinReq","SenderID":"42FFFF",` +
		`"ReceiverID":"70B3D57ED0000000","MACVersion":"1.0.3","PHYPayload":"00000000D07ED5B370080706050403020100003851F0B6",` +
		`"DevEUI":"0102030405060708","DevAddr":"01020304","DLSettings":"00","RxDelay":5}`
	// The same in 1.1, with the NSID of the network.
	ttsJoinReq11 = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"JoinReq","SenderID":"42FFFF",` +
		`"ReceiverID":"70B3D57ED0000000","SenderNSID":"70B3D57ED0000001","MACVersion":"1.1",` +
		`"PHYPayload":"00000000D07ED5B370080706050403020100003851F0B6","DevEUI":"0102030405060708","DevAddr":"01020304",` +
		`"DLSettings":"80","RxDelay":5,"CFList":"184F84E85684B85E84886684586E8400"}`
	// An Application Server of The Things Stack names no NSID, also not in 1.1.
	ttsAppSKeyReq11 = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"AppSKeyReq","SenderID":"as.example.com",` +
		`"ReceiverID":"70B3D57ED0000000","DevEUI":"0102030405060708","SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	// ChirpStack v4: lower case, random TransactionID, full MACVersion.
	chirpstackJoinReq = `{"ProtocolVersion":"1.0","SenderID":"000013","ReceiverID":"70b3d57ed0000000","TransactionID":3735928559,` +
		`"MessageType":"JoinReq","MACVersion":"1.1.0","PHYPayload":"00000000d07ed5b370080706050403020100003851f0b6",` +
		`"DevEUI":"0102030405060708","DevAddr":"01020304","DLSettings":"80","RxDelay":1,"CFList":"184f84e85684b85e84886684586e8400"}`
	chirpstackHomeNSReq = `{"ProtocolVersion":"1.0","SenderID":"000013","ReceiverID":"70b3d57ed0000000","TransactionID":1,` +
		`"MessageType":"HomeNSReq","DevEUI":"0102030405060708"}`
	// brocaar/lorawan and ChirpStack Network Server v3: an empty VSExtension in
	// every message, empty strings for what there is not.
	brocaarJoinReq = `{"ProtocolVersion":"1.0","SenderID":"010203","ReceiverID":"0807060504030201","TransactionID":1234,` +
		`"MessageType":"JoinReq","SenderToken":"","ReceiverToken":"","VSExtension":{},"MACVersion":"1.0.2",` +
		`"PHYPayload":"0001020304050607080807060504030201010225ccf89f","DevEUI":"0102030405060708","DevAddr":"01020304",` +
		`"DLSettings":"10","RxDelay":0,"CFList":""}`
	brocaarRejoinReq = `{"ProtocolVersion":"1.0","SenderID":"010203","ReceiverID":"0807060504030201","TransactionID":1234,` +
		`"MessageType":"RejoinReq","VSExtension":{},"MACVersion":"1.1.0","PHYPayload":"c000030201080706050403020100007b000000",` +
		`"DevEUI":"0102030405060708","DevAddr":"01020304","DLSettings":"80","RxDelay":0}`
)

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustCFList(t testing.TB, s string) lorawan.CFList {
	t.Helper()
	c, err := lorawan.ParseCFList(mustHex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var compareCFLists = cmp.Comparer(func(a, b lorawan.CFList) bool { return a == b })

func TestParseRequestOfKnownClients(t *testing.T) {
	cfList := mustCFList(t, "184f84e85684b85e84886684586e8400")
	join := mustHex(t, "00000000D07ED5B370080706050403020100003851F0B6")
	joinEUI := lorawan.EUI64FromUint64(0x70B3D57ED0000000)
	devEUI := lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}
	devAddr := lorawan.DevAddr{1, 2, 3, 4}
	for name, tt := range map[string]struct {
		body string
		want Request
	}{
		"The Things Stack, 1.0": {ttsJoinReq, Request{
			Header: Header{ProtocolVersion: "1.0", MessageType: TypeJoinReq, SenderID: "42FFFF", ReceiverID: "70B3D57ED0000000"},
			NetID:  lorawan.NetID{0x42, 0xFF, 0xFF}, JoinEUI: joinEUI, DevEUI: devEUI,
			MACVersion: lorawan.MAC1_0_3, PHYPayload: join, DevAddr: devAddr, RxDelay: 5,
		}},
		"The Things Stack, 1.1": {ttsJoinReq11, Request{
			Header: Header{ProtocolVersion: "1.1", MessageType: TypeJoinReq, SenderID: "42FFFF",
				ReceiverID: "70B3D57ED0000000", SenderNSID: "70B3D57ED0000001"},
			NetID: lorawan.NetID{0x42, 0xFF, 0xFF}, NSID: lorawan.EUI64FromUint64(0x70B3D57ED0000001), JoinEUI: joinEUI, DevEUI: devEUI,
			MACVersion: lorawan.MAC1_1, PHYPayload: join, DevAddr: devAddr, DLSettings: 0x80, RxDelay: 5, CFList: cfList,
		}},
		"The Things Stack, Application Server": {ttsAppSKeyReq11, Request{
			Header:  Header{ProtocolVersion: "1.1", MessageType: TypeAppSKeyReq, SenderID: "as.example.com", ReceiverID: "70B3D57ED0000000"},
			JoinEUI: joinEUI, DevEUI: devEUI, SessionKeyID: mustHex(t, "016BFA7BAD4756346A674981E75CDBDC"),
		}},
		"ChirpStack v4, JoinReq": {chirpstackJoinReq, Request{
			Header: Header{ProtocolVersion: "1.0", TransactionID: 3735928559, MessageType: TypeJoinReq,
				SenderID: "000013", ReceiverID: "70b3d57ed0000000"},
			NetID: lorawan.NetID{0, 0, 0x13}, JoinEUI: joinEUI, DevEUI: devEUI,
			MACVersion: lorawan.MAC1_1, PHYPayload: join, DevAddr: devAddr, DLSettings: 0x80, RxDelay: 1, CFList: cfList,
		}},
		"ChirpStack v4, HomeNSReq": {chirpstackHomeNSReq, Request{
			Header: Header{ProtocolVersion: "1.0", TransactionID: 1, MessageType: TypeHomeNSReq, SenderID: "000013", ReceiverID: "70b3d57ed0000000"},
			NetID:  lorawan.NetID{0, 0, 0x13}, JoinEUI: joinEUI, DevEUI: devEUI,
		}},
		"brocaar/lorawan, JoinReq": {brocaarJoinReq, Request{
			Header: Header{ProtocolVersion: "1.0", TransactionID: 1234, MessageType: TypeJoinReq, SenderID: "010203", ReceiverID: "0807060504030201"},
			NetID:  lorawan.NetID{1, 2, 3}, JoinEUI: lorawan.EUI64{8, 7, 6, 5, 4, 3, 2, 1}, DevEUI: devEUI,
			MACVersion: lorawan.MAC1_0_2, PHYPayload: mustHex(t, "0001020304050607080807060504030201010225ccf89f"),
			DevAddr: devAddr, DLSettings: 0x10,
		}},
		"brocaar/lorawan, RejoinReq": {brocaarRejoinReq, Request{
			Header: Header{ProtocolVersion: "1.0", TransactionID: 1234, MessageType: TypeRejoinReq, SenderID: "010203", ReceiverID: "0807060504030201"},
			NetID:  lorawan.NetID{1, 2, 3}, JoinEUI: lorawan.EUI64{8, 7, 6, 5, 4, 3, 2, 1}, DevEUI: devEUI,
			MACVersion: lorawan.MAC1_1, PHYPayload: mustHex(t, "c000030201080706050403020100007b000000"),
			DevAddr: devAddr, DLSettings: 0x80,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Request{Header: Header{SenderID: "FFFFFF"}, DevAddr: lorawan.DevAddr{9}} // as left by the request before
			if err := got.Parse([]byte(tt.body)); err != nil {
				t.Fatal(err)
			}
			if len(got.PHYPayload) == 0 {
				got.PHYPayload = nil
			}
			if len(got.SessionKeyID) == 0 {
				got.SessionKeyID = nil
			}
			if diff := cmp.Diff(tt.want, got, compareCFLists); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestAppendRequestOfKnownClients: what a simulated client writes is what the
// client would, up to the order of members.
func TestAppendRequestStyles(t *testing.T) {
	var r Request
	if err := r.Parse([]byte(ttsJoinReq11)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		style Style
		want  []string
	}{
		"upper":  {Style{}, []string{`"MACVersion":"1.1"`, `"CFList":"184F84E8`, `"PHYPayload":"00000000D07E`, `"SenderID":"42FFFF"`}},
		"lower":  {Style{LowerHex: true}, []string{`"MACVersion":"1.1"`, `"CFList":"184f84e8`, `"PHYPayload":"00000000d07e`}},
		"full":   {Style{FullMACVersion: true}, []string{`"MACVersion":"1.1.0"`}},
		"vendor": {Style{EmptyVSExtension: true}, []string{`"VSExtension":{}`}},
	} {
		t.Run(name, func(t *testing.T) {
			body := r.Append(nil, tt.style)
			for _, want := range tt.want {
				if !bytes.Contains(body, []byte(want)) {
					t.Errorf("%s is not in %s", want, body)
				}
			}
			var again Request
			if err := again.Parse(body); err != nil || cmp.Diff(r, again, compareCFLists) != "" {
				t.Errorf("%s came back as %+v, %v", body, again, err)
			}
		})
	}
}

func TestParseRequestSpellings(t *testing.T) {
	var want Request
	if err := want.Parse([]byte(ttsJoinReq11)); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string][]string{
		"0x":                     {`"PHYPayload":"`, `"PHYPayload":"0x`, `"DevEUI":"`, `"DevEUI":"0x`, `"DevAddr":"`, `"DevAddr":"0x`, `"DLSettings":"`, `"DLSettings":"0x`, `"CFList":"`, `"CFList":"0x`},
		"0X":                     {`"PHYPayload":"`, `"PHYPayload":"0X`, `"DevEUI":"`, `"DevEUI":"0X`},
		"lower case":             {`D07ED5B3`, `d07ed5b3`, `184F84E8`, `184f84e8`},
		"null for absent":        {`"RxDelay":5`, `"RxDelay":5,"SenderToken":null,"ReceiverToken":null,"VSExtension":null,"SessionKeyID":null`},
		"members nobody knows":   {`"RxDelay":5`, `"RxDelay":5,"Frequency":868.1,"GWInfo":[{"ID":"00"},null,true],"devEUI":"x","":0`},
		"vendor's extension":     {`"RxDelay":5`, `"RxDelay":5,"VSExtension":{"VendorID":"EC656E","Object":{"TTSV3":{"HTenantID":"t"}}}`},
		"space":                  {`{`, " {\n\t", `:`, ` : `, `,`, "\r\n, "},
		"escaped digits":         {`"DevAddr":"01020304"`, `"DevAddr":"\u00301020304"`},
		"escaped name":           {`"DevAddr"`, `"\u0044evAddr"`},
		"escaped type":           {`"JoinReq"`, `"\u004aoinReq"`},
		"NSID to be ignored":     {`"RxDelay":5`, `"RxDelay":5,"ReceiverNSID":"no such thing"`},
		"MACVersion 1.1.0":       {`"MACVersion":"1.1"`, `"MACVersion":"1.1.0"`},
		"MACVersion 1.1.1":       {`"MACVersion":"1.1"`, `"MACVersion":"1.1.1"`},
		"escaped protocol":       {`"ProtocolVersion":"1.1"`, `"ProtocolVersion":"1\u002e1"`},
		"nested as deep as well": {`"RxDelay":5`, `"RxDelay":5,"deep":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1)},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.NewReplacer(replace...).Replace(ttsJoinReq11)
			var got Request
			if err := got.Parse([]byte(body)); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if diff := cmp.Diff(want, got, compareCFLists); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestParseRequestEchoesIdentifiers: an answer gives identifiers and version
// back as they came.
func TestParseRequestEchoesIdentifiers(t *testing.T) {
	body := strings.NewReplacer(`"1.1"`, `"1.1.0"`, "42FFFF", "0x42fFfF", `"ReceiverID":"70B3`, `"ReceiverID":"0X70b3`,
		"70B3D57ED0000001", "70b3d57ed0000001", `"TransactionID":0`, `"TransactionID":4294967295,"SenderToken":"0xaB"`).Replace(ttsJoinReq11)
	var r Request
	if err := r.Parse([]byte(body)); err != nil {
		t.Fatal(err)
	}
	want := Header{ProtocolVersion: "1.1.0", TransactionID: 4294967295, MessageType: TypeJoinAns,
		SenderID: "0X70b3D57ED0000000", ReceiverID: "0x42fFfF", ReceiverNSID: "70b3d57ed0000001", ReceiverToken: "0xaB"}
	if diff := cmp.Diff(want, r.Answer()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestParseRequestRefuses: for each member each way of being wrong; the error
// has its kind and names the member.
func TestParseRequestRefuses(t *testing.T) {
	key := "C0FFEE5EC2E7C0FFEE5EC2E7C0FFEE5E" // never to be seen again
	for _, tt := range []struct {
		name    string
		kind    ErrorKind
		field   string
		base    string
		replace []string
	}{
		{"empty body", Unanswerable, "", "", nil},
		{"text", Unanswerable, "", key, nil},
		{"array", Unanswerable, "", `[]`, nil},
		{"string", Unanswerable, "", `"` + key + `"`, nil},
		{"null", Unanswerable, "", `null`, nil},
		{"number", Unanswerable, "", `1`, nil},
		{"cut short", Unanswerable, "", ttsJoinReq[:len(ttsJoinReq)-1], nil},
		{"two objects", Unanswerable, "", ttsJoinReq + `{}`, nil},
		{"something behind", Unanswerable, "", ttsJoinReq + `x`, nil},
		{"BOM", Unanswerable, "", "\ufeff" + ttsJoinReq, nil},
		{"comment", Unanswerable, "", ttsJoinReq, []string{`,"DevAddr"`, `/* */,"DevAddr"`}},
		{"trailing comma", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,}`}},
		{"not UTF-8", Unanswerable, "", ttsJoinReq, []string{`"1.0.3"`, "\"\xff\""}},
		{"duplicate", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"DevEUI":"` + key + `"}`}},
		{"duplicate, escaped", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"\u0044evEUI":"0102030405060708"}`}},
		{"duplicate of a member nobody knows", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"x":1,"x":1}`}},
		{"duplicate inside VSExtension", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"VSExtension":{"Object":{"a":1,"a":2}}}`}},
		{"deep", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"deep":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`}},
		{"deeper and never closed", Unanswerable, "", ttsJoinReq, []string{`5}`, `5,"deep":` + strings.Repeat(`{"a":`, 6000)}},
		{"too long", Unanswerable, "", ttsJoinReq + strings.Repeat(" ", MaxMessageLen), nil},

		{"no type", Unanswerable, "MessageType", ttsJoinReq, []string{`"MessageType":"JoinReq",`, ``}},
		{"type null", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `null`}},
		{"type number", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `1`}},
		{"an answer", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `"JoinAns"`}},
		{"wrong case", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `"joinReq"`}},
		{"no business of ours", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `"PRStartReq"`}},
		{"empty type", Unanswerable, "MessageType", ttsJoinReq, []string{`"JoinReq"`, `""`}},
		{"no sender", Unanswerable, "SenderID", ttsJoinReq, []string{`"SenderID":"42FFFF",`, ``}},
		{"sender too long", Unanswerable, "SenderID", ttsJoinReq, []string{`42FFFF`, key}},
		{"sender odd", Unanswerable, "SenderID", ttsJoinReq, []string{`42FFFF`, `42FFF`}},
		{"sender no digits", Unanswerable, "SenderID", ttsJoinReq, []string{`42FFFF`, `42FFFG`}},
		{"sender a number", Unanswerable, "SenderID", ttsJoinReq, []string{`"42FFFF"`, `424242`}},
		{"sender twice prefixed", Unanswerable, "SenderID", ttsJoinReq, []string{`42FFFF`, `0x0x42FFFF`}},
		{"no receiver", Unanswerable, "ReceiverID", ttsJoinReq, []string{`"ReceiverID":"70B3D57ED0000000",`, ``}},
		{"receiver with dashes", Unanswerable, "ReceiverID", ttsJoinReq, []string{`70B3D57ED0000000`, `70-B3-D5-7E-D0-00-00-00`}},
		{"AS-ID empty", Unanswerable, "SenderID", ttsAppSKeyReq11, []string{`as.example.com`, ``}},
		{"AS-ID with control", Unanswerable, "SenderID", ttsAppSKeyReq11, []string{`as.example.com`, `as\u0000`}},
		{"AS-ID not ASCII", Unanswerable, "SenderID", ttsAppSKeyReq11, []string{`as.example.com`, `äs`}},
		{"AS-ID too long", Unanswerable, "SenderID", ttsAppSKeyReq11, []string{`as.example.com`, strings.Repeat("a", 256)}},

		{"no version", Malformed, "ProtocolVersion", ttsJoinReq, []string{`"ProtocolVersion":"1.0",`, ``}},
		{"version a number", Malformed, "ProtocolVersion", ttsJoinReq, []string{`"1.0"`, `1.0`}},
		{"version unknown", UnsupportedVersion, "ProtocolVersion", ttsJoinReq, []string{`"1.0"`, `"1.2"`}},
		{"version a key", UnsupportedVersion, "ProtocolVersion", ttsJoinReq, []string{`"1.0"`, `"` + key + `"`}},
		{"version empty", UnsupportedVersion, "ProtocolVersion", ttsJoinReq, []string{`"1.0"`, `""`}},

		{"no transaction", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0,`, ``}},
		{"transaction negative", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":-1`}},
		{"transaction too big", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":4294967296`}},
		{"transaction far too big", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":` + strings.Repeat("9", 400)}},
		{"transaction broken", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":1.5`}},
		{"transaction with exponent", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":1e3`}},
		{"transaction text", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":"` + key + `"`}},
		{"transaction null", Malformed, "TransactionID", ttsJoinReq, []string{`"TransactionID":0`, `"TransactionID":null`}},
		{"token no digits", Malformed, "SenderToken", ttsJoinReq, []string{`5}`, `5,"SenderToken":"secret token"}`}},
		{"token odd", Malformed, "ReceiverToken", ttsJoinReq, []string{`5}`, `5,"ReceiverToken":"abc"}`}},
		{"token an object", Malformed, "ReceiverToken", ttsJoinReq, []string{`5}`, `5,"ReceiverToken":{}}`}},
		{"extension no object", Malformed, "VSExtension", ttsJoinReq, []string{`5}`, `5,"VSExtension":"` + key + `"}`}},
		{"no NSID in 1.1", Malformed, "SenderNSID", ttsJoinReq11, []string{`"SenderNSID":"70B3D57ED0000001",`, ``}},
		{"NSID too short in 1.1", Malformed, "SenderNSID", ttsJoinReq11, []string{`70B3D57ED0000001`, `70B3D57ED00001`}},

		{"no DevEUI", Malformed, "DevEUI", ttsJoinReq, []string{`"DevEUI":"0102030405060708",`, ``}},
		{"DevEUI a key", Malformed, "DevEUI", ttsJoinReq, []string{`0102030405060708"`, key + `"`}},
		{"DevEUI empty", Malformed, "DevEUI", chirpstackHomeNSReq, []string{`0102030405060708`, ``}},
		{"no MACVersion", Malformed, "MACVersion", ttsJoinReq, []string{`"MACVersion":"1.0.3",`, ``}},
		{"MACVersion unknown", Malformed, "MACVersion", ttsJoinReq, []string{`1.0.3`, `1.0.9`}},
		{"MACVersion a key", Malformed, "MACVersion", ttsJoinReq, []string{`1.0.3`, key}},
		{"MACVersion a number", Malformed, "MACVersion", ttsJoinReq, []string{`"1.0.3"`, `1.0`}},
		{"no PHYPayload", Malformed, "PHYPayload", ttsJoinReq, []string{`"PHYPayload":"00000000D07ED5B370080706050403020100003851F0B6",`, ``}},
		{"PHYPayload empty", Malformed, "PHYPayload", ttsJoinReq, []string{`00000000D07ED5B370080706050403020100003851F0B6`, ``}},
		{"PHYPayload odd", Malformed, "PHYPayload", ttsJoinReq, []string{`51F0B6`, `51F0B`}},
		{"PHYPayload no digits", Malformed, "PHYPayload", ttsJoinReq, []string{`51F0B6`, `51F0BX`}},
		{"PHYPayload base64", Malformed, "PHYPayload", ttsJoinReq, []string{`00000000D07ED5B370080706050403020100003851F0B6`, `AAAAANB+1bNwCAcGBQQDAgEAADhR8LY=`}},
		{"PHYPayload of 256 bytes", Malformed, "PHYPayload", ttsJoinReq, []string{`00000000D07ED5B370080706050403020100003851F0B6`, strings.Repeat("00", 256)}},
		{"no DevAddr", Malformed, "DevAddr", ttsJoinReq, []string{`"DevAddr":"01020304",`, ``}},
		{"DevAddr of 5 bytes", Malformed, "DevAddr", ttsJoinReq, []string{`"01020304"`, `"0102030405"`}},
		{"no DLSettings", Malformed, "DLSettings", ttsJoinReq, []string{`"DLSettings":"00",`, ``}},
		{"DLSettings a number", Malformed, "DLSettings", ttsJoinReq, []string{`"00"`, `0`}},
		{"DLSettings of 2 bytes", Malformed, "DLSettings", ttsJoinReq, []string{`"00"`, `"0000"`}},
		{"no RxDelay", Malformed, "RxDelay", ttsJoinReq, []string{`,"RxDelay":5`, ``}},
		{"RxDelay 16", Malformed, "RxDelay", ttsJoinReq, []string{`:5}`, `:16}`}},
		{"RxDelay text", Malformed, "RxDelay", ttsJoinReq, []string{`:5}`, `:"5"}`}},
		{"RxDelay true", Malformed, "RxDelay", ttsJoinReq, []string{`:5}`, `:true}`}},
		{"CFList of 15 bytes", Malformed, "CFList", ttsJoinReq, []string{`:5}`, `:5,"CFList":"184F84E85684B85E84886684586E84"}`}},
		{"CFList an array", Malformed, "CFList", ttsJoinReq, []string{`:5}`, `:5,"CFList":[867100000]}`}},
		{"no SessionKeyID", Malformed, "SessionKeyID", ttsAppSKeyReq11, []string{`,"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"`, ``}},
		{"SessionKeyID empty", Malformed, "SessionKeyID", ttsAppSKeyReq11, []string{`016BFA7BAD4756346A674981E75CDBDC`, ``}},
		{"SessionKeyID no digits", Malformed, "SessionKeyID", ttsAppSKeyReq11, []string{`016BFA7BAD4756346A674981E75CDBDC`, `ttn-lw-interop-generated:`}},
		{"SessionKeyID of 65 bytes", Malformed, "SessionKeyID", ttsAppSKeyReq11, []string{`016BFA7BAD4756346A674981E75CDBDC`, strings.Repeat("00", 65)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.NewReplacer(tt.replace...).Replace(tt.base)
			if tt.replace != nil && body == tt.base {
				t.Fatal("the case changes nothing")
			}
			var r Request
			err := r.Parse([]byte(body))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != tt.kind || e.Field != tt.field || !strings.HasPrefix(err.Error(), tt.field) {
				t.Fatalf("got %#v (%v), want kind %d of field %q", e, err, tt.kind, tt.field)
			}
			if strings.Contains(strings.ToUpper(err.Error()), key[:8]) {
				t.Errorf("%q repeats its input", err)
			}
			if e.Kind != Unanswerable {
				checkAnswerable(t, &r)
			}
		})
	}
}

// checkAnswerable: what is left after a failure makes a well-formed answer.
func checkAnswerable(t *testing.T, r *Request) {
	t.Helper()
	code := MalformedRequest.For(r.ProtocolVersion)
	sent := Answer{Header: r.Answer(), Result: Result{Code: code}, DevEUI: r.DevEUI, SessionKeyID: r.SessionKeyID}
	var got Answer
	if err := got.Parse(sent.Append(nil)); err != nil {
		t.Fatalf("the answer %s cannot be read: %v", sent.Append(nil), err)
	}
	if got.SenderID != r.ReceiverID || got.ReceiverID != r.SenderID || got.TransactionID != r.TransactionID || got.Result.Code != code {
		t.Errorf("the answer is %s", sent.Append(nil))
	}
}

// TestParseRequestFindsVersionFirst: whoever speaks another version may have
// other fields; the answer says what matters, under the highest version of ours.
func TestParseRequestFindsVersionFirst(t *testing.T) {
	body := `{"ProtocolVersion":"2.0","TransactionID":7,"MessageType":"JoinReq","SenderID":"000013","ReceiverID":"70B3D57ED0000000","DevEUI":{}}`
	var r Request
	e, ok := errors.AsType[*Error](r.Parse([]byte(body)))
	if !ok || e.Kind != UnsupportedVersion || r.ProtocolVersion != HighestVersion || r.TransactionID != 7 {
		t.Errorf("%v; header %+v", e, r.Header)
	}
}

// TestParseRequest1_0IgnoresNSID: the member does not exist there.
func TestParseRequest1_0IgnoresNSID(t *testing.T) {
	for _, nsid := range []string{`"70B3D57ED0000001"`, `"x"`, `7`, `{}`} {
		body := strings.Replace(ttsJoinReq, `"RxDelay"`, `"SenderNSID":`+nsid+`,"RxDelay"`, 1)
		var r Request
		if err := r.Parse([]byte(body)); err != nil || r.SenderNSID != "" || !r.NSID.IsZero() {
			t.Errorf("SenderNSID %s: %+v, %v", nsid, r.Header, err)
		}
	}
}

// TestParseRequestKeepsEchoesOfAppSKeyReq: an AppSKeyAns repeats DevEUI and
// SessionKeyID also when it tells of an error.
func TestParseRequestKeepsEchoesOfAppSKeyReq(t *testing.T) {
	var r Request
	err := r.Parse([]byte(strings.Replace(ttsAppSKeyReq11, `"TransactionID":0`, `"TransactionID":-5`, 1)))
	if err == nil || r.DevEUI != (lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}) || len(r.SessionKeyID) != 16 {
		t.Errorf("%v, %s, % x", err, r.DevEUI, r.SessionKeyID)
	}
}

// TestParseRequestReuse: nothing of one request reaches the next.
func TestParseRequestReuse(t *testing.T) {
	var r, fresh Request
	for _, body := range []string{ttsJoinReq11, ttsAppSKeyReq11, chirpstackHomeNSReq, `{}`, brocaarRejoinReq, ttsJoinReq} {
		fresh = Request{}
		err, errFresh := r.Parse([]byte(body)), fresh.Parse([]byte(body))
		if fmt.Sprint(err) != fmt.Sprint(errFresh) || fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", fresh) {
			t.Errorf("used again: %+v, %v\nfresh: %+v, %v", r, err, fresh, errFresh)
		}
	}
}

func TestParseRequestDoesNotAllocate(t *testing.T) {
	body := []byte(ttsJoinReq)
	var r Request
	if n := testing.AllocsPerRun(200, func() {
		if err := r.Parse(body); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 && !raceDetector {
		t.Errorf("%v allocations", n)
	}
}
