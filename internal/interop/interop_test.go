package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"joinery"
	"joinery/backend"
	"joinery/internal/activation"
	"joinery/lorawan"
)

// TestAnswersByteForByte: the whole way, from a client's body to ours.
func TestAnswersByteForByte(t *testing.T) {
	h := openHouse(t)
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	zeros24, zeros16 := strings.Repeat("00", 24), strings.Repeat("00", 16)
	for _, tt := range []struct {
		name   string
		client *http.Client
		body   string
		want   string
	}{
		{"JoinReq 1.0", ns, joinReq10, `{"ProtocolVersion":"1.0","TransactionID":7,"MessageType":"JoinAns","SenderID":"70b3d57ed0000000","ReceiverID":"000013",` +
			`"Result":{"ResultCode":"Success"},"PHYPayload":"` + strings.Repeat("00", 17) + `","Lifetime":0,` +
			`"NwkSKey":{"KEKLabel":"ns-v1","AESKey":"` + zeros24 + `"},"AppSKey":{"KEKLabel":"as-v1","AESKey":"` + zeros24 + `"},` +
			`"SessionKeyID":"` + zeros16 + `"}`},
		{"JoinReq 1.1", ns, joinReq11, `{"ProtocolVersion":"1.1","TransactionID":0,"MessageType":"JoinAns","SenderID":"70B3D57ED0000000","ReceiverID":"42FFFF",` +
			`"ReceiverNSID":"70B3D57ED0000001","ReceiverToken":"0A0B","Result":{"ResultCode":"Success"},"PHYPayload":"` + strings.Repeat("00", 17) + `","Lifetime":0,` +
			`"SNwkSIntKey":{"KEKLabel":"ns-v1","AESKey":"` + zeros24 + `"},"FNwkSIntKey":{"KEKLabel":"ns-v1","AESKey":"` + zeros24 + `"},` +
			`"NwkSEncKey":{"KEKLabel":"ns-v1","AESKey":"` + zeros24 + `"},"AppSKey":{"KEKLabel":"as-v1","AESKey":"` + zeros24 + `"},` +
			`"SessionKeyID":"` + zeros16 + `"}`},
		{"AppSKeyReq", as, appSKeyReq10, `{"ProtocolVersion":"1.0","TransactionID":9,"MessageType":"AppSKeyAns","SenderID":"70B3D57ED0000000","ReceiverID":"as.example.com",` +
			`"Result":{"ResultCode":"Success"},"DevEUI":"0102030405060708","AppSKey":{"KEKLabel":"as-v1","AESKey":"` + zeros24 + `"},` +
			`"SessionKeyID":"016BFA7BAD4756346A674981E75CDBDC"}`},
		{"HomeNSReq", ns, homeNSReq11, `{"ProtocolVersion":"1.1","TransactionID":10,"MessageType":"HomeNSAns","SenderID":"70B3D57ED0000000","ReceiverID":"000013",` +
			`"ReceiverNSID":"70B3D57ED0000001","Result":{"ResultCode":"Success"},"HNetID":"000013","HNSID":"0100000000000000"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, got, err := h.post(tt.client, tt.body)
			if err != nil || status != http.StatusOK || got != tt.want {
				t.Errorf("status %d, %v\ngot  %s\nwant %s", status, err, got, tt.want)
			}
		})
	}
	if a := h.mustPost(t, ns, rejoinReq10); a.MessageType != backend.TypeRejoinAns || a.Result.Code != backend.Success {
		t.Errorf("RejoinReq was answered with %+v", a)
	}
}

// TestWhatTheJoinerGets: every field arrives where it belongs.
func TestWhatTheJoinerGets(t *testing.T) {
	h := openHouse(t)
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	var got any
	h.joins.join = func(_ context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
		r.PHYPayload = append([]byte(nil), r.PHYPayload...)
		got = r
		return activation.JoinAnswer{}, errors.New("enough")
	}
	h.joins.appS = func(_ context.Context, r activation.AppSKeyRequest) (activation.Envelope, error) {
		r.SessionKeyID = append([]byte(nil), r.SessionKeyID...)
		got = r
		return activation.Envelope{}, errors.New("enough")
	}
	h.joins.homeNS = func(_ context.Context, r activation.HomeNSRequest) (activation.HomeNSAnswer, error) {
		got = r
		return activation.HomeNSAnswer{}, errors.New("enough")
	}
	joinEUI, devEUI := lorawan.EUI64FromUint64(0x70B3D57ED0000000), lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}
	nsid := lorawan.EUI64FromUint64(0x70B3D57ED0000001)
	cfList, err := lorawan.ParseCFList(mustHex(t, "184f84e85684b85e84886684586e8400"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		client *http.Client
		body   string
		want   any
	}{
		{"JoinReq 1.0", ns, joinReq10, activation.JoinRequest{
			Requester: activation.Requester{Peer: nsPeer(), NetID: lorawan.NetID{0, 0, 0x13}},
			JoinEUI:   joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_0_3,
			PHYPayload: mustHex(t, "00000000d07ed5b370080706050403020100003851f0b6"),
			DevAddr:    lorawan.DevAddr{1, 2, 3, 4}, RxDelay: 1, CFList: cfList,
		}},
		{"JoinReq 1.1", ns, joinReq11, activation.JoinRequest{
			Requester: activation.Requester{Peer: nsPeer(), NetID: lorawan.NetID{0x42, 0xFF, 0xFF}, NSID: nsid},
			JoinEUI:   joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_1,
			PHYPayload: mustHex(t, "00000000d07ed5b370080706050403020100003851f0b6"),
			DevAddr:    lorawan.DevAddr{1, 2, 3, 4}, DLSettings: 0x80, RxDelay: 5,
		}},
		{"RejoinReq", ns, rejoinReq10, activation.JoinRequest{
			Requester: activation.Requester{Peer: nsPeer(), NetID: lorawan.NetID{0, 0, 0x13}},
			JoinEUI:   joinEUI, DevEUI: devEUI, MACVersion: lorawan.MAC1_1,
			PHYPayload: mustHex(t, "c000130000080706050403020100007b000000"),
			DevAddr:    lorawan.DevAddr{1, 2, 3, 4}, DLSettings: 0x80,
		}},
		{"AppSKeyReq", as, appSKeyReq10, activation.AppSKeyRequest{
			Peer: asPeer(), ASID: "as.example.com", JoinEUI: joinEUI, DevEUI: devEUI, SessionKeyID: mustHex(t, "016BFA7BAD4756346A674981E75CDBDC"),
		}},
		{"HomeNSReq", ns, homeNSReq11, activation.HomeNSRequest{
			Requester: activation.Requester{Peer: nsPeer(), NetID: lorawan.NetID{0, 0, 0x13}, NSID: nsid}, JoinEUI: joinEUI, DevEUI: devEUI,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got = nil
			if a := h.mustPost(t, tt.client, tt.body); a.Result.Code != backend.Other || a.Result.Description != "internal error" {
				t.Errorf("result %+v", a.Result)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

// TestResultCodes: each of our codes, as a 1.0 and as a 1.1 peer reads it.
func TestResultCodes(t *testing.T) {
	h := openHouse(t)
	ns := h.client(t, h.tlsConfig(h.ns))
	for _, tt := range []struct {
		code         joinery.Code
		in1_0, in1_1 backend.ResultCode
	}{
		{joinery.CodeInternal, "Other", "Other"},
		{joinery.CodeUnavailable, "Other", "Other"},
		{joinery.CodeInvalid, "MalformedRequest", "MalformedMessage"},
		{joinery.CodeTooLarge, "MalformedRequest", "MalformedMessage"},
		{joinery.CodeUnauthenticated, "UnknownSender", "UnknownSender"},
		{joinery.CodeForbidden, "ActivationDisallowed", "ActivationDisallowed"},
		{joinery.CodeNotFound, "UnknownDevEUI", "UnknownDevEUI"},
		{joinery.CodeConflict, "Other", "Other"},
		{joinery.CodePrecondition, "Other", "Other"},
		{joinery.CodeRateLimited, "Other", "Other"},
		{joinery.CodeProtocol, "InvalidProtocolVersion", "InvalidProtocolVersion"},
		{joinery.CodeUnknownSender, "UnknownSender", "UnknownSender"},
		{joinery.CodeUnknownReceiver, "UnkownReceiver", "UnkownReceiver"},
		{joinery.CodeUnknownDevice, "UnknownDevEUI", "UnknownDevEUI"},
		{joinery.CodeSuspended, "ActivationDisallowed", "ActivationDisallowed"},
		{joinery.CodeLapsed, "ActivationDisallowed", "ActivationDisallowed"},
		{joinery.CodeMIC, "MICFailed", "MICFailed"},
		{joinery.CodeReplay, "JoinReqFailed", "FrameReplayed"},
		{joinery.CodeExhausted, "JoinReqFailed", "JoinReqFailed"},
		{joinery.CodeJoinRefused, "JoinReqFailed", "JoinReqFailed"},
		{joinery.CodeNoRoaming, "NoRoamingAgreement", "NoRoamingAgreement"},
		{joinery.CodeKEKMissing, "Other", "Other"},
		{"a code that nobody mapped", "Other", "Other"},
	} {
		h.joins.join = func(context.Context, activation.JoinRequest) (activation.JoinAnswer, error) {
			return activation.JoinAnswer{PHYPayload: make([]byte, 17)}, // must not travel with an error
				fmt.Errorf("wrapped: %w", joinery.WrapError(tt.code, errors.New("cause-for-the-log"), "words for the peer"))
		}
		for body, want := range map[string]backend.ResultCode{joinReq10: tt.in1_0, joinReq11: tt.in1_1} {
			status, text, err := h.post(ns, body)
			var a backend.Answer
			if err != nil || status != http.StatusOK || a.Parse([]byte(text)) != nil {
				t.Fatalf("%s: %d %s %v", tt.code, status, text, err)
			}
			if a.Result.Code != want || a.Result.Description != "words for the peer" {
				t.Errorf("%s was told as %+v, want %s", tt.code, a.Result, want)
			}
			if strings.Contains(text, "cause-for-the-log") || strings.Contains(text, "PHYPayload") {
				t.Errorf("%s: %s", tt.code, text)
			}
		}
		if _, mapped := resultCodes[tt.code]; !mapped && tt.code != "a code that nobody mapped" {
			t.Errorf("%s stands in no table", tt.code)
		}
	}
	if !strings.Contains(h.log.String(), "cause-for-the-log") {
		t.Error("the log does not tell the cause")
	}
}

// TestMalformedMessages: an answer can be addressed, so it is a TS002 answer
// that names the member; where none can be, it is 400 with JSON.
func TestMalformedMessages(t *testing.T) {
	h := openHouse(t)
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	for _, tt := range []struct {
		name    string
		client  *http.Client
		base    string
		replace []string
		code    backend.ResultCode // "": 400
		field   string
	}{
		{"1.0, no DevEUI", ns, joinReq10, []string{`"DevEUI"`, `"devEUI"`}, backend.MalformedRequest, "DevEUI"},
		{"1.1, no DevEUI", ns, joinReq11, []string{`"DevEUI"`, `"devEUI"`}, backend.MalformedMessage, "DevEUI"},
		{"1.1, no NSID", ns, joinReq11, []string{`"SenderNSID"`, `"SenderNsID"`}, backend.MalformedMessage, "SenderNSID"},
		{"1.0, MACVersion", ns, joinReq10, []string{`"1.0.3"`, `"1.3"`}, backend.MalformedRequest, "MACVersion"},
		{"1.0, TransactionID", ns, joinReq10, []string{`:7`, `:4294967296`}, backend.MalformedRequest, "TransactionID"},
		{"version 2", ns, joinReq10, []string{`"1.0"`, `"2.0"`}, backend.InvalidProtocolVersion, "ProtocolVersion"},
		{"no version", ns, joinReq10, []string{`"ProtocolVersion":"1.0",`, ``}, backend.MalformedRequest, "ProtocolVersion"},
		{"AppSKeyReq without id", as, appSKeyReq10, []string{`"SessionKeyID"`, `"sessionKeyID"`}, backend.MalformedRequest, "SessionKeyID"},
		{"no JSON", ns, "hello", nil, "", "JSON"},
		{"empty", ns, "", nil, "", "JSON"},
		{"array", ns, "[]", nil, "", "JSON"},
		{"twice", ns, joinReq10, []string{`"RxDelay":1`, `"RxDelay":1,"RxDelay":2`}, "", "twice"},
		{"deep", ns, joinReq10, []string{`"RxDelay":1`, `"RxDelay":1,"x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000)}, "", "nested"},
		{"unknown type", ns, joinReq10, []string{`JoinReq`, `PRStartReq`}, "", "MessageType"},
		{"an answer", ns, joinReq10, []string{`JoinReq`, `JoinAns`}, "", "MessageType"},
		{"ReceiverID", ns, joinReq10, []string{`70b3d57ed0000000`, `70b3d57ed000000`}, "", "ReceiverID"},
		{"SenderID", ns, joinReq10, []string{`"000013"`, `13`}, "", "SenderID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.NewReplacer(tt.replace...).Replace(tt.base)
			before := h.joins.calls.Load()
			status, text, err := h.post(tt.client, body)
			if err != nil {
				t.Fatal(err)
			}
			want := http.StatusOK
			if tt.code == "" {
				want = http.StatusBadRequest
			}
			var got struct {
				ProtocolVersion string
				MessageType     string
				Result          struct{ ResultCode, Description string }
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil || status != want {
				t.Fatalf("%d %s: %v", status, text, err)
			}
			if tt.code != "" {
				var a backend.Answer
				if err := a.Parse([]byte(text)); err != nil || a.Result.Code != tt.code {
					t.Errorf("%s: %v", text, err)
				}
			}
			if tt.code == backend.InvalidProtocolVersion && got.ProtocolVersion != "1.1" {
				t.Errorf("an unsupported version is answered in %s", got.ProtocolVersion)
			}
			if !strings.Contains(got.Result.Description, tt.field) {
				t.Errorf("%q does not name %s", got.Result.Description, tt.field)
			}
			if n := h.joins.calls.Load() - before; n != 0 {
				t.Errorf("the rules were asked %d times", n)
			}
		})
	}
}

// TestRelayedFrame: ChirpStack forwards the outer frame of a relayed join. It
// reaches the rules as it is; it is theirs to refuse.
func TestRelayedFrame(t *testing.T) {
	h := openHouse(t)
	outer := "40040302018001" + strings.Repeat("00", 40)
	h.joins.join = func(_ context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
		if len(r.PHYPayload) != len(outer)/2 {
			t.Errorf("the frame has %d bytes", len(r.PHYPayload))
		}
		_, err := lorawan.ParseJoinRequest(r.PHYPayload)
		return activation.JoinAnswer{}, joinery.WrapError(joinery.CodeInvalid, err, "PHYPayload is not a join-request")
	}
	body := strings.Replace(joinReq10, "00000000d07ed5b370080706050403020100003851f0b6", outer, 1)
	if a := h.mustPost(t, h.client(t, h.tlsConfig(h.ns)), body); a.Result.Code != backend.MalformedRequest {
		t.Errorf("result %+v", a.Result)
	}
}

// TestHTTP: what is not a POST of a bounded body is refused with JSON, and a
// connection stays usable where the body was read.
func TestHTTP(t *testing.T) {
	h := openHouse(t)
	ns := h.client(t, h.tlsConfig(h.ns))
	huge := strings.Repeat(" ", DefaultMaxBody) + joinReq10
	for _, tt := range []struct {
		name, method, path, contentType string
		body                            io.Reader
		want                            int
	}{
		{"GET", http.MethodGet, "/", "", nil, http.StatusMethodNotAllowed},
		{"PUT", http.MethodPut, "/", "application/json", strings.NewReader(joinReq10), http.StatusMethodNotAllowed},
		{"OPTIONS", http.MethodOptions, "*", "", nil, http.StatusMethodNotAllowed},
		{"too long", http.MethodPost, "/", "application/json", strings.NewReader(huge), http.StatusRequestEntityTooLarge},
		{"too long, of unknown length", http.MethodPost, "/", "application/json", io.MultiReader(strings.NewReader(huge)), http.StatusRequestEntityTooLarge},
		{"root", http.MethodPost, "/", "application/json", strings.NewReader(joinReq10), http.StatusOK},
		{"path of old", http.MethodPost, "/api/v1/rens/x/lbi_joinreq?y", "application/json", strings.NewReader(joinReq10), http.StatusOK},
		{"charset", http.MethodPost, "/", "application/json; charset=utf-8", strings.NewReader(joinReq10), http.StatusOK},
		{"no type", http.MethodPost, "/", "", strings.NewReader(joinReq10), http.StatusOK},
		{"of unknown length", http.MethodPost, "/", "application/json", io.MultiReader(strings.NewReader(joinReq10)), http.StatusOK},
		{"exactly as long as allowed", http.MethodPost, "/", "application/json", strings.NewReader(huge[len(joinReq10):]), http.StatusOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, "https://"+h.addr+strings.Replace(tt.path, "*", "/", 1), tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if tt.path == "*" {
				req.URL.Opaque = "*"
			}
			if tt.contentType != "" {
				req.Header.Set("Content-Type", tt.contentType)
			}
			resp, err := ns.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.want || !json.Valid(body) || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %s %s %v", resp.StatusCode, resp.Header, body, err)
			}
			if allow := resp.Header.Get("Allow"); (allow == "POST") != (tt.want == http.StatusMethodNotAllowed) {
				t.Errorf("Allow is %q", allow)
			}
		})
	}
}

// TestPanic: a defect is answered as Other and logged by place, without a value
// that could be a secret; the connection goes on.
func TestPanic(t *testing.T) {
	h := openHouse(t)
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	h.joins.join = func(_ context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
		if r.RxDelay == 1 {
			panic("c0ffee5ec2e7c0ffee5ec2e7c0ffee5e")
		}
		return activation.JoinAnswer{}, fmt.Errorf("%d", r.PHYPayload[int(r.RxDelay)*100])
	}
	h.joins.appS = func(context.Context, activation.AppSKeyRequest) (activation.Envelope, error) {
		panic(errors.New("c0ffee5ec2e7c0ffee5ec2e7c0ffee5e"))
	}
	if a := h.mustPost(t, ns, joinReq10); a.Result.Code != backend.Other || a.TransactionID != 7 || a.ReceiverID != "000013" {
		t.Errorf("answer %+v", a)
	}
	if a := h.mustPost(t, ns, joinReq11); a.Result.Code != backend.Other || a.ReceiverNSID == "" {
		t.Errorf("answer %+v", a)
	}
	if a := h.mustPost(t, as, appSKeyReq10); a.Result.Code != backend.Other || a.DevEUI.IsZero() || len(a.SessionKeyID) != 16 {
		t.Errorf("answer %+v", a)
	}
	if a := h.mustPost(t, ns, homeNSReq11); a.Result.Code != backend.Success {
		t.Errorf("after a defect: %+v", a)
	}
	log := h.log.String()
	if strings.Contains(log, "c0ffee") || !strings.Contains(log, "interop.TestPanic.func1:") || !strings.Contains(log, "index out of range") {
		t.Errorf("log:\n%s", log)
	}
}

// elsewhere is a gate behind which another answers.
type elsewhere http.HandlerFunc

func (e elsewhere) Enter(context.Context) (http.Handler, error) { return http.HandlerFunc(e), nil }
func (elsewhere) Leave()                                        {}

// TestAnswerCutOffElsewhere: an answer that another server began and did not end
// is cut off for the client, too, with nothing of ours behind it; that is no
// defect of this program.
func TestAnswerCutOffElsewhere(t *testing.T) {
	h := openHouse(t, func(o *Options) {
		o.Gate = elsewhere(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
	})
	status, text, err := h.post(h.client(t, h.tlsConfig(h.ns)), joinReq10)
	if err == nil {
		t.Errorf("taken for an answer: %d %s", status, text)
	}
	if log := h.log.String(); strings.Contains(log, "defect") {
		t.Errorf("log:\n%s", log)
	}
}

// TestRefusalsAreLogged: one line each, with what an operator needs and no more.
func TestRefusalsAreLogged(t *testing.T) {
	h := openHouse(t)
	ns := h.client(t, h.tlsConfig(h.ns))
	h.joins.join = func(context.Context, activation.JoinRequest) (activation.JoinAnswer, error) {
		return activation.JoinAnswer{}, joinery.Errorf(joinery.CodeReplay, "DevNonce 7 was used before")
	}
	h.mustPost(t, ns, joinReq10)
	var line struct{ Level, Msg, Message, Result, Code, Peer, JoinEUI, DevEUI, Reason string }
	if err := json.Unmarshal([]byte(h.log.String()), &line); err != nil { // fails for two lines
		t.Fatalf("log %q: %v", h.log, err)
	}
	want := line
	want.Level, want.Msg, want.Message, want.Result, want.Code = "INFO", "request refused", "JoinReq", "JoinReqFailed", "replay"
	want.Peer, want.JoinEUI, want.DevEUI, want.Reason = "ns", "70B3D57ED0000000", "0102030405060708", "replay: DevNonce 7 was used before"
	if line != want {
		t.Errorf("line %+v", line)
	}
	before := len(h.log.String())
	h.mustPost(t, ns, homeNSReq11)
	if len(h.log.String()) != before {
		t.Error("a success was logged")
	}
}
