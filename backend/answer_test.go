package backend

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"joinery/lorawan"
)

// Answers as they must stand on the wire, byte for byte.
const (
	joinAns1_0 = `{"ProtocolVersion":"1.0","TransactionID":3735928559,"MessageType":"JoinAns","SenderID":"70b3d57ed0000000","ReceiverID":"000013",` +
		`"Result":{"ResultCode":"Success"},"PHYPayload":"20D4C9879F995EC01556DEB22489CD01D0","Lifetime":0,` +
		`"NwkSKey":{"KEKLabel":"ns-000013-v2","AESKey":"EB56FE6681999F25D548CFEDD4A6528B331BB5ADE1CAF17F"},` +
		`"AppSKey":{"KEKLabel":"as:010042","AESKey":"2A195CC93CA54AD82CFB36C83D91450F3D2D523556F13E69"},` +
		`"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	joinAns1_1 = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"JoinAns","SenderID":"70B3D57ED0000000","ReceiverID":"42FFFF",` +
		`"ReceiverNSID":"70B3D57ED0000001","SenderToken":"0B","ReceiverToken":"0A","Result":{"ResultCode":"Success"},` +
		`"PHYPayload":"2074F3B23B27591069C6038641BE75721668C9BDABA560D4C940083A170F30439C","Lifetime":3600,` +
		`"SNwkSIntKey":{"AESKey":"02020202020202020202020202020202"},"FNwkSIntKey":{"AESKey":"01010101010101010101010101010101"},` +
		`"NwkSEncKey":{"AESKey":"03030303030303030303030303030303"},"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	joinAnsRefused = `{"ProtocolVersion":"1.0","TransactionID":1,"MessageType":"RejoinAns","SenderID":"70B3D57ED0000000","ReceiverID":"42FFFF",` +
		`"Result":{"ResultCode":"UnkownReceiver","Description":"JoinEUI is not served"}}`
	appSKeyAns = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"AppSKeyAns","SenderID":"70B3D57ED0000000","ReceiverID":"as \"x\" \\",` +
		`"Result":{"ResultCode":"Success"},"DevEUI":"0102030405060708",` +
		`"AppSKey":{"KEKLabel":"as:010042","AESKey":"2A195CC93CA54AD82CFB36C83D91450F3D2D523556F13E69"},` +
		`"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	appSKeyAnsRefused = `{"ProtocolVersion":"1.0","TransactionID":0,"MessageType":"AppSKeyAns","SenderID":"70B3D57ED0000000","ReceiverID":"as.example.com",` +
		`"Result":{"ResultCode":"UnknownDevEUI"},"DevEUI":"0102030405060708","SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`
	homeNSAns = `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"HomeNSAns","SenderID":"70B3D57ED0000000","ReceiverID":"42FFFF",` +
		`"ReceiverNSID":"70B3D57ED0000001","Result":{"ResultCode":"Success"},"HNetID":"000013","HNSID":"70B3D57ED0000002"}`
)

func answersOnTheWire(t testing.TB) map[string]Answer {
	label := func(label, key string) KeyEnvelope { return KeyEnvelope{KEKLabel: label, AESKey: mustHex(t, key)} }
	id := mustHex(t, "016BFA7BAD4756346A674981E75CDBDC")
	devEUI := lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}
	return map[string]Answer{
		joinAns1_0: {
			Header: Header{ProtocolVersion: "1.0", TransactionID: 3735928559, MessageType: TypeJoinAns, SenderID: "70b3d57ed0000000", ReceiverID: "000013"},
			Result: Result{Code: Success}, PHYPayload: mustHex(t, "20D4C9879F995EC01556DEB22489CD01D0"),
			NwkSKey:      label("ns-000013-v2", "EB56FE6681999F25D548CFEDD4A6528B331BB5ADE1CAF17F"),
			AppSKey:      label("as:010042", "2A195CC93CA54AD82CFB36C83D91450F3D2D523556F13E69"),
			SessionKeyID: id,
		},
		joinAns1_1: {
			Header: Header{ProtocolVersion: "1.1", MessageType: TypeJoinAns, SenderID: "70B3D57ED0000000", ReceiverID: "42FFFF",
				ReceiverNSID: "70B3D57ED0000001", SenderToken: "0B", ReceiverToken: "0A"},
			Result: Result{Code: Success}, PHYPayload: mustHex(t, "2074F3B23B27591069C6038641BE75721668C9BDABA560D4C940083A170F30439C"), Lifetime: 3600,
			SNwkSIntKey:  label("", "02020202020202020202020202020202"),
			FNwkSIntKey:  label("", "01010101010101010101010101010101"),
			NwkSEncKey:   label("", "03030303030303030303030303030303"),
			SessionKeyID: id,
		},
		joinAnsRefused: {
			Header: Header{ProtocolVersion: "1.0", TransactionID: 1, MessageType: TypeRejoinAns, SenderID: "70B3D57ED0000000", ReceiverID: "42FFFF"},
			Result: Result{Code: UnknownReceiver, Description: "JoinEUI is not served"},
		},
		appSKeyAns: {
			Header: Header{ProtocolVersion: "1.1", MessageType: TypeAppSKeyAns, SenderID: "70B3D57ED0000000", ReceiverID: `as "x" \`},
			Result: Result{Code: Success}, DevEUI: devEUI, SessionKeyID: id,
			AppSKey: label("as:010042", "2A195CC93CA54AD82CFB36C83D91450F3D2D523556F13E69"),
		},
		appSKeyAnsRefused: {
			Header: Header{ProtocolVersion: "1.0", MessageType: TypeAppSKeyAns, SenderID: "70B3D57ED0000000", ReceiverID: "as.example.com"},
			Result: Result{Code: UnknownDevEUI}, DevEUI: devEUI, SessionKeyID: id,
		},
		homeNSAns: {
			Header: Header{ProtocolVersion: "1.1", MessageType: TypeHomeNSAns, SenderID: "70B3D57ED0000000", ReceiverID: "42FFFF", ReceiverNSID: "70B3D57ED0000001"},
			Result: Result{Code: Success}, HNetID: lorawan.NetID{0, 0, 0x13}, HNSID: lorawan.EUI64FromUint64(0x70B3D57ED0000002),
		},
	}
}

func TestAnswersOnTheWire(t *testing.T) {
	for wire, a := range answersOnTheWire(t) {
		if got := a.Append([]byte("kept")); string(got) != "kept"+wire {
			t.Errorf("wrote\n%s\nwant\n%s", got[4:], wire)
		}
		var got Answer
		if err := got.Parse([]byte(wire)); err != nil || cmp.Diff(a, got) != "" {
			t.Errorf("%s: %v\n-want +got:\n%s", wire, err, cmp.Diff(a, got))
		}
	}
}

// TestAnswerWithoutKeysOnFailure: what a failed answer was given by mistake does
// not travel.
func TestAnswerWithoutKeysOnFailure(t *testing.T) {
	for wire, a := range answersOnTheWire(t) {
		a.Result.Code = Other
		for _, version := range []ProtocolVersion{Version1_0, Version1_1} {
			a.ProtocolVersion = version
			body := a.Append(nil)
			for _, word := range []string{"AESKey", "PHYPayload", "HNetID", "HNSID", "Lifetime", "null"} {
				if bytes.Contains(body, []byte(word)) {
					t.Errorf("%s\nbecame, failed, %s", wire, body)
				}
			}
		}
	}
}

// TestAnswerNeverSays1_1To1_0: ChirpStack v4 drops a message over a code that it
// does not know.
func TestAnswerNeverSays1_1To1_0(t *testing.T) {
	for _, version := range []ProtocolVersion{Version1_0, "1.0.0", Version1_1, "1.1.0"} {
		for i := range codes {
			a := Answer{Header: Header{ProtocolVersion: version, MessageType: TypeJoinAns, SenderID: "70B3D57ED0000000", ReceiverID: "42FFFF"},
				Result: Result{Code: codes[i].code}}
			if a.Result.Code == Success {
				continue
			}
			body := a.Append(nil)
			var got Answer
			if err := got.Parse(body); err != nil { // refuses codes of the other version
				t.Errorf("%s: %v", body, err)
			}
			for _, word := range []string{"NoAction", "FrameReplayed", "MalformedMessage"} {
				if !version.Is1_1() && bytes.Contains(body, []byte(word)) {
					t.Errorf("a 1.0 peer gets %s", body)
				}
			}
		}
	}
}

func TestResultCodes(t *testing.T) {
	for _, tt := range []struct{ code, in1_0, in1_1 ResultCode }{
		{Success, Success, Success}, {FrameReplayed, JoinReqFailed, FrameReplayed}, {JoinReqFailed, JoinReqFailed, JoinReqFailed},
		{MalformedMessage, MalformedRequest, MalformedMessage}, {MalformedRequest, MalformedRequest, MalformedMessage},
		{NoAction, Other, NoAction}, {Other, Other, Other}, {UnknownReceiver, "UnkownReceiver", "UnkownReceiver"},
		{"NoSuchCode", Other, Other}, {"", Other, Other},
	} {
		for v, want := range map[ProtocolVersion]ResultCode{"1.0": tt.in1_0, "1.0.0": tt.in1_0, "1.1": tt.in1_1, "1.1.0": tt.in1_1} {
			if got := tt.code.For(v); got != want {
				t.Errorf("%s in %s is %s, want %s", tt.code, v, got, want)
			}
		}
	}
	if n0, n1 := len(ResultCodes(Version1_0)), len(ResultCodes(Version1_1)); n0 != 19 || n1 != 21 {
		t.Errorf("%d codes in 1.0, %d in 1.1", n0, n1)
	}
	for _, c := range ResultCodes(Version1_1) {
		if got, ok := ParseResultCode(string(c)); !ok || got != c {
			t.Errorf("%s was read as %s, %t", c, got, ok)
		}
	}
	if got, ok := ParseResultCode("UnknownReceiver"); !ok || got != UnknownReceiver {
		t.Errorf("UnknownReceiver was read as %s, %t", got, ok)
	}
	for _, bad := range []string{"", "success", "RoamingActDisallowedA", "Success "} {
		if got, ok := ParseResultCode(bad); ok {
			t.Errorf("%q was read as %s", bad, got)
		}
	}
}

func TestVocabulary(t *testing.T) {
	for m := range MessageType(20) {
		text := m.String()
		if valid := m >= TypeJoinReq && m <= TypeHomeNSAns; valid != (ParseMessageType(text) == m && m != 0) {
			t.Errorf("type %d is %q, read as %d", m, text, ParseMessageType(text))
		} else if valid && m.IsRequest() != strings.HasSuffix(text, "Req") {
			t.Errorf("%s: IsRequest %t", m, m.IsRequest())
		}
		want := ""
		if m.IsRequest() {
			want = strings.TrimSuffix(text, "Req") + "Ans"
		}
		if got := m.Answer(); (got == 0) != (want == "") || got != 0 && got.String() != want {
			t.Errorf("the answer to %s is %s", m, got)
		}
		if m.FromNetwork() != (m.IsRequest() && m != TypeAppSKeyReq) {
			t.Errorf("%s: FromNetwork %t", m, m.FromNetwork())
		}
	}
	for _, s := range []string{"", "unknown", "PRStartReq", "joinreq"} {
		if m := ParseMessageType(s); m != 0 {
			t.Errorf("%q was read as %s", s, m)
		}
	}
	for v, want := range map[ProtocolVersion]bool{"1.0": true, "1.0.0": true, "1.1": true, "1.1.0": true, "": false, "1": false, "1.2": false, "1.1.1": false} {
		if v.Supported() != want || v.Is1_1() != (want && v[2] == '1') {
			t.Errorf("version %q: supported %t, 1.1 %t", v, v.Supported(), v.Is1_1())
		}
	}
}

func TestKeyEnvelopeHidesItsKey(t *testing.T) {
	key := mustHex(t, "c0ffee5ec2e7c0ffee5ec2e7c0ffee5e")
	a := Answer{AppSKey: KeyEnvelope{AESKey: key}}
	for _, text := range []string{
		fmt.Sprintf("%v", a), fmt.Sprintf("%+v", a), fmt.Sprintf("%#v", a), fmt.Sprint(a.AppSKey), fmt.Sprintf("%s", a.AppSKey),
		fmt.Sprintf("%x", a.AppSKey), fmt.Sprintf("%q", &a.AppSKey), fmt.Sprintf("%d", a.AppSKey),
	} {
		low := strings.ToLower(text)
		if strings.Contains(low, "c0ffee") || strings.Contains(text, "192 255 238") || strings.Contains(low, "0xc0, 0xff") {
			t.Errorf("the key is in %s", text)
		}
	}
	for _, v := range []any{a, a.AppSKey, &a.AppSKey} {
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("%T was marshalled: %s", v, text)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		low := strings.ToLower(log.String())
		if strings.Contains(low, "c0ffee") || strings.Contains(low, "192 255 238") || strings.Contains(low, strings.ToLower(base64.StdEncoding.EncodeToString(key))) {
			t.Errorf("the key is in the log: %s", log.String())
		}
	}
}

func TestParseAnswerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, field, base string
		replace           []string
	}{
		{"text", "", "internal server error", nil},
		{"a request", "MessageType", ttsJoinReq, nil},
		{"no result", "Result", joinAnsRefused, []string{`,"Result":{"ResultCode":"UnkownReceiver","Description":"JoinEUI is not served"}`, ``}},
		{"no code", "ResultCode", joinAns1_0, []string{`"ResultCode":"Success"`, ``}},
		{"unknown code", "ResultCode", joinAns1_0, []string{`"Success"`, `"Succeeded"`}},
		{"code of 1.1 in 1.0", "ResultCode", joinAnsRefused, []string{`"UnkownReceiver"`, `"FrameReplayed"`}},
		{"code of 1.0 in 1.1", "ResultCode", homeNSAns, []string{`"Success"`, `"MalformedRequest"`}},
		{"result a string", "Result", joinAns1_0, []string{`{"ResultCode":"Success"}`, `"Success"`}},
		{"description a number", "Description", joinAnsRefused, []string{`"JoinEUI is not served"`, `5`}},
		{"version unknown", "ProtocolVersion", joinAns1_0, []string{`"1.0"`, `"1.3"`}},
		{"sender a NetID", "SenderID", joinAns1_0, []string{`"70b3d57ed0000000"`, `"000013"`}},
		{"receiver an EUI", "ReceiverID", joinAns1_0, []string{`"000013"`, `"70b3d57ed0000000"`}},
		{"lifetime negative", "Lifetime", joinAns1_0, []string{`"Lifetime":0`, `"Lifetime":-1`}},
		{"lifetime broken", "Lifetime", joinAns1_0, []string{`"Lifetime":0`, `"Lifetime":0.5`}},
		{"no accept", "PHYPayload", joinAns1_0, []string{`"PHYPayload":"20D4C9879F995EC01556DEB22489CD01D0",`, ``}},
		{"accept of 18 bytes", "PHYPayload", joinAns1_0, []string{`"20D4C9`, `"2020D4C9`}},
		{"no network key", "NwkSKey", joinAns1_0, []string{`NwkSKey`, `NwkKey`}},
		{"two of three", "NwkSKey", joinAns1_1, []string{`NwkSEncKey`, `Nothing`}},
		{"both layouts", "NwkSKey", joinAns1_1, []string{`"Lifetime":3600`, `"Lifetime":3600,"NwkSKey":{"AESKey":"02020202020202020202020202020202"}`}},
		{"no application key", "AppSKey", joinAns1_1, []string{`,"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"`, ``}},
		{"wrapped without label", "AESKey", joinAns1_0, []string{`"KEKLabel":"ns-000013-v2",`, ``}},
		{"clear with label", "AESKey", joinAns1_1, []string{`{"AESKey":"0202`, `{"KEKLabel":"x","AESKey":"0202`}},
		{"envelope without key", "AESKey", joinAns1_1, []string{`"AESKey":"02020202020202020202020202020202"`, ``}},
		{"envelope a string", "SNwkSIntKey", joinAns1_1, []string{`{"AESKey":"02020202020202020202020202020202"}`, `"02020202020202020202020202020202"`}},
		{"no AppSKey", "AppSKey", appSKeyAns, []string{`"AppSKey"`, `"appSKey"`}},
		{"AppSKeyAns without device", "DevEUI", appSKeyAns, []string{`"DevEUI":"0102030405060708",`, ``}},
		{"no home", "HNetID", homeNSAns, []string{`"HNetID":"000013",`, ``}},
		{"home an EUI", "HNetID", homeNSAns, []string{`"000013"`, `"70b3d57ed0000000"`}},
		{"NSID too long", "HNSID", homeNSAns, []string{`D0000002`, `D000000200`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.NewReplacer(tt.replace...).Replace(tt.base)
			if tt.replace != nil && body == tt.base {
				t.Fatal("the case changes nothing")
			}
			var a Answer
			e, ok := errors.AsType[*Error](a.Parse([]byte(body)))
			if !ok || e.Field != tt.field {
				t.Fatalf("%s: %v, want an error of %s", body, e, tt.field)
			}
		})
	}
}

// TestAnswerRoundTrip: whatever is in an answer comes through, and nothing in
// the bytes is what a strict client stumbles over.
func TestAnswerRoundTrip(t *testing.T) {
	digits := func(t *rapid.T, n int, label string) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, label) }
	envelope := func(t *rapid.T, label string) KeyEnvelope {
		if rapid.Bool().Draw(t, label+" is clear") {
			return KeyEnvelope{AESKey: digits(t, 16, label)}
		}
		return KeyEnvelope{KEKLabel: rapid.StringMatching(`[ -~äß"\\]{1,20}`).Draw(t, "label"), AESKey: digits(t, 24, label)}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := Answer{
			Header: Header{
				ProtocolVersion: rapid.SampledFrom([]ProtocolVersion{"1.0", "1.0.0", "1.1", "1.1.0"}).Draw(t, "version"),
				TransactionID:   rapid.Uint32().Draw(t, "transaction"),
				MessageType:     rapid.SampledFrom([]MessageType{TypeJoinAns, TypeRejoinAns, TypeAppSKeyAns, TypeHomeNSAns}).Draw(t, "type"),
				SenderID:        rapid.StringMatching(`(0x)?[0-9a-fA-F]{16}`).Draw(t, "sender"),
				ReceiverID:      rapid.StringMatching(`(0X)?[0-9a-fA-F]{6}`).Draw(t, "receiver"),
				ReceiverNSID:    rapid.StringMatching(`([0-9a-fA-F]{16})?`).Draw(t, "NSID"),
				ReceiverToken:   rapid.StringMatching(`([0-9a-fA-F]{2}){0,9}`).Draw(t, "token"),
			},
			Result: Result{Code: Success, Description: rapid.String().Draw(t, "description")},
		}
		if rapid.Bool().Draw(t, "fails") {
			codes := ResultCodes(a.ProtocolVersion)
			a.Result.Code = rapid.SampledFrom(codes[1:]).Draw(t, "code")
		}
		switch {
		case a.MessageType == TypeAppSKeyAns:
			a.ReceiverID = rapid.StringMatching(`[ -~]{1,255}`).Draw(t, "AS-ID")
			a.DevEUI = lorawan.EUI64(digits(t, 8, "DevEUI"))
			a.DevEUI[0] |= 1
			a.SessionKeyID = digits(t, rapid.IntRange(1, 64).Draw(t, "length"), "SessionKeyID")
			if a.Result.Code == Success {
				a.AppSKey = envelope(t, "AppSKey")
			}
		case a.Result.Code != Success:
		case a.MessageType == TypeHomeNSAns:
			a.HNetID = lorawan.NetID(digits(t, 3, "HNetID"))
			if a.ProtocolVersion.Is1_1() {
				a.HNSID = lorawan.EUI64(digits(t, 8, "HNSID"))
			}
		default:
			a.PHYPayload = digits(t, rapid.SampledFrom([]int{17, 33}).Draw(t, "accept"), "PHYPayload")
			a.Lifetime = rapid.Uint32().Draw(t, "lifetime")
			a.SessionKeyID = digits(t, 16, "SessionKeyID")
			a.NwkSKey = envelope(t, "NwkSKey")
		}
		body := a.Append(nil)
		var got Answer
		if err := got.Parse(body); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Fatalf("%s: -want +got\n%s", body, diff)
		}
		if bytes.Contains(body, []byte(":null")) {
			t.Fatalf("null in %s", body)
		}
	})
}

func TestAppendAnswerDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	for wire, a := range answersOnTheWire(t) {
		if strings.Contains(wire, `\"`) {
			continue // escapes may
		}
		if n := testing.AllocsPerRun(100, func() { buf = a.Append(buf[:0]) }); n != 0 {
			t.Errorf("%v allocations for %s", n, wire)
		}
	}
}

func BenchmarkParseJoinReq(b *testing.B) {
	body := []byte(strings.Replace(ttsJoinReq, `5}`, `5,"CFList":"184F84E85684B85E84886684586E8400"}`, 1))
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJoinAns(b *testing.B) {
	a := answersOnTheWire(b)[joinAns1_0]
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = a.Append(buf[:0])
	}
}
