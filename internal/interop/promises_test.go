package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"joinery"
	"joinery/backend"
	"joinery/lorawan"
)

// P15: SenderID, NSID and AS-ID in a body must belong to the certificate's peer.
// 1,000 random pairs of a certificate and a body.
func TestP15NamesBelongToTheCertificate(t *testing.T) {
	h := openHouse(t)
	rng := rand.New(rand.NewPCG(15, uint64(time.Now().UnixNano())))
	netIDs := []lorawan.NetID{{0, 0, 0x13}, {0, 0, 0x42}, {0x60, 0, 1}, {0xC0, 0, 0x53}}
	nsids := []lorawan.EUI64{{1}, {2}, {3}}
	asids := []string{"as.example.com", "AS.example.com", "as2", `as "3" \ 4`}

	type known struct {
		peer   joinery.Peer
		client *http.Client
	}
	var peers []known
	for i := range 6 {
		p := joinery.Peer{ID: joinery.PeerID(100 + i), Name: "peer " + strconv.Itoa(i), IgnoreNSID: i == 5}
		p.NetIDs = pick(rng, netIDs)
		p.NSIDs = pick(rng, nsids)
		p.ASIDs = pick(rng, asids)
		ca := newAuthority(t, p.Name)
		h.registry.set(ca, p)
		peers = append(peers, known{p, h.client(t, h.tlsConfig(ca.issue(t, "x")))})
	}
	accepted, refused := 0, 0
	for n := range 1000 {
		k := peers[rng.IntN(len(peers))]
		r := backend.Request{
			Header: backend.Header{
				ProtocolVersion: []backend.ProtocolVersion{"1.0", "1.1"}[rng.IntN(2)],
				TransactionID:   rng.Uint32(),
				MessageType:     []backend.MessageType{backend.TypeJoinReq, backend.TypeRejoinReq, backend.TypeAppSKeyReq, backend.TypeHomeNSReq}[rng.IntN(4)],
				ReceiverID:      "70B3D57ED0000000",
			},
			MACVersion: lorawan.MAC1_0_3, PHYPayload: []byte{0}, SessionKeyID: []byte{1},
		}
		var belongs bool
		if r.MessageType == backend.TypeAppSKeyReq {
			r.SenderID = asids[rng.IntN(len(asids))]
			belongs = slices.Contains(k.peer.ASIDs, r.SenderID)
		} else {
			netID := netIDs[rng.IntN(len(netIDs))]
			r.SenderID = netID.String()
			belongs = slices.Contains(k.peer.NetIDs, netID)
			if r.ProtocolVersion == "1.1" {
				nsid := nsids[rng.IntN(len(nsids))]
				r.SenderNSID = nsid.String()
				belongs = belongs && (k.peer.IgnoreNSID || slices.Contains(k.peer.NSIDs, nsid))
			}
		}
		before := h.joins.calls.Load()
		body := r.Append(nil, backend.Style{LowerHex: rng.IntN(2) == 0})
		a := h.mustPost(t, k.client, string(body))
		asked := h.joins.calls.Load() != before
		want := backend.UnknownSender
		if belongs {
			want = backend.Success
		}
		if a.Result.Code != want || asked != belongs || a.ReceiverID != r.SenderID {
			t.Fatalf("pair %d: %s (NetIDs %v, NSIDs %v, AS-IDs %q) sent %s: %+v, rules asked %t",
				n, k.peer.Name, k.peer.NetIDs, k.peer.NSIDs, k.peer.ASIDs, body, a.Result, asked)
		}
		if belongs {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 100 || refused < 100 {
		t.Fatalf("%d accepted, %d refused: the pairs show too little", accepted, refused)
	}
	t.Logf("1,000 pairs: %d accepted, %d refused, all rightly", accepted, refused)
}

func pick[T any](rng *rand.Rand, from []T) (some []T) {
	for _, v := range from {
		if rng.IntN(2) == 0 {
			some = append(some, v)
		}
	}
	return some
}

// mutate makes a body that is likely to be wrong out of one that is right.
func mutate(rng *rand.Rand, body []byte) []byte {
	b := bytes.Clone(body)
	at := func() int { return rng.IntN(len(b)) }
	pieces := []string{
		`"`, `{`, `}`, `[`, `]`, `,`, `:`, `null`, `true`, `-1`, `1e999`, `4294967296`, `"\u0000"`, `"\ud800"`, "\xff", "\x00", `\`, "\ufeff",
		`"1.0"`, `"1.1"`, `"9.9"`, `"JoinReq"`, `"RejoinReq"`, `"AppSKeyReq"`, `"HomeNSReq"`, `"PRStartReq"`, `""`, `"0x"`, `{}`, `[]`,
		strings.Repeat("[", 200), strings.Repeat(`{"a":`, 100), `"` + strings.Repeat("F", 600) + `"`, `"VSExtension":{"Object":[[[{}]]]},`,
	}
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			return b
		}
		switch rng.IntN(8) {
		case 0: // a flipped bit
			b[at()] ^= 1 << rng.IntN(8)
		case 1: // cut short
			b = b[:at()]
		case 2: // a hole
			i := at()
			b = slices.Delete(b, i, min(len(b), i+1+rng.IntN(20)))
		case 3: // something put in
			b = slices.Insert(b, at(), []byte(pieces[rng.IntN(len(pieces))])...)
		case 4: // a value replaced
			if i := bytes.IndexByte(b[at():], ':'); i >= 0 {
				members := bytes.SplitAfter(b, []byte(","))
				m := members[rng.IntN(len(members))]
				if c := bytes.IndexByte(m, ':'); c >= 0 {
					replaced := append(bytes.Clone(m[:c+1]), pieces[rng.IntN(len(pieces))]...)
					b = bytes.Replace(b, m, append(replaced, ','), 1)
				}
			}
		case 5: // a member twice, or gone
			members := bytes.SplitAfter(b, []byte(","))
			m := rng.IntN(len(members))
			if rng.IntN(2) == 0 {
				members = slices.Insert(members, m, members[rng.IntN(len(members))])
			} else {
				members = slices.Delete(members, m, m+1)
			}
			b = bytes.Join(members, nil)
		case 6: // a piece of another message
			other := []string{joinReq10, joinReq11, rejoinReq10, appSKeyReq10, homeNSReq11}[rng.IntN(5)]
			i := rng.IntN(len(other))
			b = slices.Insert(b, at(), []byte(other[i:min(len(other), i+rng.IntN(80))])...)
		case 7: // padded, up to beyond the bound
			b = append(b, bytes.Repeat([]byte{' '}, rng.IntN(DefaultMaxBody+100))...)
		}
	}
	return b
}

// checkAnswered: an answer of the protocol that a strict client reads, or 4xx
// with JSON.
func checkAnswered(status int, text string) error {
	if status == http.StatusOK {
		var a backend.Answer
		if err := a.Parse([]byte(text)); err != nil {
			return fmt.Errorf("answer %s: %w", text, err)
		}
		return nil
	}
	var got struct {
		Result struct{ ResultCode, Description string }
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || status < 400 || status > 499 || got.Result.ResultCode == "" {
		return fmt.Errorf("status %d with %s: %w", status, text, err)
	}
	return nil
}

// P10: malformed input. 10,000 mutated bodies are each answered with a TS002
// code or 4xx, without a panic and without a goroutine left behind.
func TestP10MalformedInput(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	t.Run("10,000 mutated bodies", func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		h := openHouse(t, func(o *Options) { o.Metrics = metrics })
		ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(10, seed))
		took := make([]time.Duration, 0, 10000)
		statuses := map[int]int{}
		for range 10000 {
			body := mutate(rng, []byte([]string{joinReq10, joinReq11, rejoinReq10, appSKeyReq10, homeNSReq11}[rng.IntN(5)]))
			c := ns
			if rng.IntN(5) == 0 {
				c = as
			}
			start := time.Now()
			status, text, err := h.post(c, string(body))
			took = append(took, time.Since(start))
			if err == nil {
				err = checkAnswered(status, text)
			}
			if err != nil {
				t.Fatalf("seed %d: %q: %v", seed, body, err)
			}
			statuses[status]++
		}
		slices.Sort(took)
		t.Logf("statuses %v; p50 %v, p99 %v (promised: 50ms), longest %v", statuses, took[5000], took[9900], took[9999])
		if strings.Contains(h.log.String(), `"defect"`) {
			t.Errorf("a defect was logged:\n%s", h.log)
		}
		checkLabels(t, metrics)
		ns.CloseIdleConnections()
		as.CloseIdleConnections()
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", goroutines, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// checkLabels: whatever clients sent, the labels of metrics come from closed
// sets.
func checkLabels(t *testing.T, registry *prometheus.Registry) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	messages := []string{"none", "JoinReq", "RejoinReq", "AppSKeyReq", "HomeNSReq"}
	requests := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				code, known := backend.ParseResultCode(l.GetValue())
				switch {
				case l.GetName() == "message" && slices.Contains(messages, l.GetValue()):
				case l.GetName() == "result" && (known && string(code) == l.GetValue() || slices.Contains([]string{"http_400", "http_413"}, l.GetValue())):
				default:
					t.Errorf("%s has %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
			if f.GetName() == "joinery_interop_requests_total" {
				requests += int(m.GetCounter().GetValue())
			}
		}
	}
	if requests != 10000 {
		t.Errorf("%d requests were counted", requests)
	}
}

// P13: error bodies never echo secrets, and neither does the log. Each member
// of each message is sent with something that looks like a secret in it.
func TestP13NothingIsEchoed(t *testing.T) {
	h := openHouse(t)
	ns, as := h.client(t, h.tlsConfig(h.ns)), h.client(t, h.tlsConfig(h.as))
	secrets := []string{
		"c0ffee5ec2e7c0ffee5ec2e7c0ffee5e", "C0FFEE5EC2E7C0FFEE5EC2E7C0FFEE5EC2E7C0FFEE5EC2E7",
		"joinery_key_0c3kd5vqmr2hx_c0ffee5ec2e7", "-----BEGIN PRIVATE KEY-----c0ffee5ec2e7", "wP/uXsLnwP/uXsLnwP/uXg==c0ffee5ec2e7", "12648430c0ffee5ec2e7\x7fä",
	}
	sent := 0
	send := func(c *http.Client, what string, body []byte) {
		sent++
		status, text, err := h.post(c, string(body))
		if err == nil {
			err = checkAnswered(status, text)
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if strings.Contains(strings.ToLower(text), "c0ffee5ec2e7") {
			t.Errorf("%s: %s", what, text)
		}
	}
	for _, base := range []string{joinReq10, joinReq11, rejoinReq10, appSKeyReq10, homeNSReq11} {
		c := ns
		if base == appSKeyReq10 {
			c = as
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(base), &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"SenderToken", "ReceiverToken", "ReceiverNSID", "VSExtension", "CFList", "SessionKeyID", "AESKey", "NwkKey", "NwkSKey", "c0ffee5ec2e7"} {
			if members[name] == nil {
				members[name] = ""
			}
		}
		for name := range members {
			for _, secret := range secrets {
				if echoedByProtocol(base, name, secret) {
					continue
				}
				for shape, value := range map[string]any{
					"as string": secret, "as object": map[string]any{secret: secret}, "as array": []any{secret}, "behind 0x": "0x" + secret,
				} {
					changed := map[string]any{}
					for k, v := range members {
						if v != "" {
							changed[k] = v
						}
					}
					changed[name] = value
					body, err := json.Marshal(changed)
					if err != nil {
						t.Fatal(err)
					}
					send(c, name+" "+shape, body)
				}
			}
		}
	}
	for _, secret := range secrets {
		send(ns, "no JSON", []byte(secret))
		send(ns, "string", []byte(strconv.Quote(secret)))
		send(ns, "broken JSON", []byte(`{"NwkKey":"`+secret+`"`))
		send(ns, "member twice", []byte(`{"`+secret+`":1,"`+secret+`":1}`))
	}
	t.Logf("%d requests", sent)
	if strings.Contains(strings.ToLower(h.log.String()), "c0ffee5ec2e7") {
		t.Error("it is in the log")
	}
}

// echoedByProtocol: these members come back as they came, because the protocol
// says so: an AS-ID is free ASCII, tokens and SessionKeyID are opaque digits.
func echoedByProtocol(base, name, secret string) bool {
	digits := strings.Trim(secret, "0123456789abcdefABCDEF") == ""
	switch name {
	case "SenderID":
		return base == appSKeyReq10
	case "SenderToken", "ReceiverToken":
		return digits
	case "SessionKeyID":
		return base == appSKeyReq10 && digits
	}
	return false
}

// FuzzServe: whatever the body and whoever sends it, the answer is one of the
// protocol, or 4xx with JSON.
func FuzzServe(f *testing.F) {
	for i, body := range []string{joinReq10, joinReq11, rejoinReq10, appSKeyReq10, homeNSReq11, ``, `{}`, `[`, strings.Repeat(" ", DefaultMaxBody+1)} {
		f.Add([]byte(body), i%2 == 0)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		f.Add(mutate(rng, []byte(joinReq11)), true)
	}
	h := newHouse(f, func(o *Options) { o.Log = slog.New(slog.DiscardHandler) })
	h.joins.join = refuseByFrame
	f.Fuzz(func(t *testing.T, body []byte, network bool) {
		cert := h.as
		if network {
			cert = h.ns
		}
		w := serveInProcess(h, cert, io.NopCloser(bytes.NewReader(body)), int64(len(body)))
		if err := checkAnswered(w.status, w.body.String()); err != nil {
			t.Fatal(err)
		}
	})
}
