package fault

import (
	"bytes"
	"context"
	"crypto/aes"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/leak"
	"joinery/test/rig"
)

// ofOthers tells whether a file is not the server's own: those of simulated
// parties and the list that the test imports hold keys.
func ofOthers(path string) bool {
	return strings.Contains(path, "/sim/") || strings.HasSuffix(path, "/devices.csv")
}

func setLogLevel(t *testing.T, s *rig.Server, level string) {
	t.Helper()
	name := s.Path("joinery.yaml")
	content, err := os.ReadFile(name)
	ok(t, err)
	changed := strings.Replace(string(content), "level: info", "level: "+level, 1)
	ok(t, os.WriteFile(name, []byte(changed), 0o600))
	c, err := config.Read(name)
	ok(t, err)
	if c.Log.Level != level {
		t.Fatalf("log level %q", c.Log.Level)
	}
}

// roots are the root keys of one device; Nwk is nil before 1.1.
type roots struct{ nwk, app []byte }

func rootsOf(t *testing.T, list string) map[lorawan.EUI64]roots {
	t.Helper()
	file, err := os.Open(list)
	ok(t, err)
	defer func() { _ = file.Close() }()
	rows, err := csv.NewReader(file).ReadAll()
	ok(t, err)
	all := map[lorawan.EUI64]roots{}
	for _, row := range rows[1:] {
		devEUI, err := lorawan.ParseEUI64(row[1])
		ok(t, err)
		nwk, err := hex.DecodeString(row[3])
		ok(t, err)
		app, err := hex.DecodeString(row[4])
		ok(t, err)
		all[devEUI] = roots{nwk, app}
	}
	return all
}

func plantRoots(t *testing.T, s *leak.Secrets, list string) {
	t.Helper()
	for devEUI, r := range rootsOf(t, list) {
		s.PlantKey("AppKey of "+devEUI.String(), r.app)
		if len(r.nwk) == 0 {
			continue
		}
		s.PlantKey("NwkKey of "+devEUI.String(), r.nwk)
		// TS001-1.1 §6.1.1.3
		s.PlantKey("JSIntKey of "+devEUI.String(), derived(t, r.nwk, 6, littleEndian(devEUI[:])))
		s.PlantKey("JSEncKey of "+devEUI.String(), derived(t, r.nwk, 5, littleEndian(devEUI[:])))
	}
}

func plantKEKs(t *testing.T, s *leak.Secrets, simJSON string) {
	t.Helper()
	content, err := os.ReadFile(simJSON)
	ok(t, err)
	var c struct {
		NS, AS []struct {
			KEKs map[string]string `json:"keks"`
		}
	}
	ok(t, json.Unmarshal(content, &c))
	n := 0
	for _, p := range slices.Concat(c.NS, c.AS) {
		for label, digits := range p.KEKs {
			key, err := hex.DecodeString(digits)
			ok(t, err)
			s.PlantKey("KEK "+label, key)
			n++
		}
	}
	if n < 3 {
		t.Fatalf("%d KEKs", n)
	}
}

// plantSession derives the session keys of a join by TS001-1.0.4 §6.2.6 or
// TS001-1.1 §6.2.5; that they are right, the device says.
func plantSession(t *testing.T, s *leak.Secrets, r roots, m *device.Device, netID lorawan.NetID, joined *sim.Result) {
	t.Helper()
	var nonce [4]byte
	binary.LittleEndian.PutUint32(nonce[:], uint32(joined.Accepted.JoinNonce))
	joinEUI := m.JoinEUI()
	devNonce := joined.Sent.PHYPayload[17:19]
	made := map[element.KeyID][]byte{}
	if m.MACVersion() == lorawan.MAC1_1 {
		context := slices.Concat(nonce[:3], littleEndian(joinEUI[:]), devNonce)
		made[element.FNwkSIntKey] = derived(t, r.nwk, 1, context)
		made[element.AppSKey] = derived(t, r.app, 2, context)
		made[element.SNwkSIntKey] = derived(t, r.nwk, 3, context)
		made[element.NwkSEncKey] = derived(t, r.nwk, 4, context)
	} else {
		context := slices.Concat(nonce[:3], littleEndian(netID[:]), devNonce)
		made[element.FNwkSIntKey] = derived(t, r.app, 1, context)
		made[element.AppSKey] = derived(t, r.app, 2, context)
	}
	for id, key := range made {
		if !m.HoldsSessionKey(id, key) {
			t.Fatalf("device %s (%s): the test derives another %s", m.DevEUI(), m.MACVersion(), id)
		}
		s.PlantKey(fmt.Sprintf("%s of %s, JoinNonce %d", id, m.DevEUI(), joined.Accepted.JoinNonce), key)
	}
}

func littleEndian(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

func derived(t *testing.T, key []byte, kind byte, context []byte) []byte {
	t.Helper()
	block := make([]byte, 16)
	block[0] = kind
	copy(block[1:], context)
	c, err := aes.NewCipher(key)
	ok(t, err)
	c.Encrypt(block, block)
	return block
}

// refusals asks for what is refused: the error paths of a join, and bodies that
// hold keys where none belong.
func refusals(t *testing.T, f *fleet, m *member, joined *sim.Result, answers *recorder) {
	t.Helper()
	frame := slices.Clone(joined.Sent.PHYPayload)
	frame[len(frame)-1] ^= 1
	for _, o := range []sim.JoinOptions{
		{Frame: joined.Sent.PHYPayload, RxDelay: 3, Expect: sim.ReplayCode(sim.Protocol10)},
		{Frame: frame, Expect: "MICFailed"},
		{Frame: frame, Network: lorawan.MAC1_0_0, Alter: func(p *sim.Parameters) { p.PHYPayload = p.PHYPayload[:9] }, Expect: "MalformedRequest"},
	} {
		r, err := f.ns.Join(t.Context(), m.Device, o)
		ok(t, err)
		answers.add(r.Reply.Body)
	}
	body := f.ns.JoinBody(m.Device, joined.Sent.PHYPayload, sim.JoinOptions{})
	for _, cut := range []int{len(body) / 2, len(body) - 1} {
		r, err := f.ns.Send(t.Context(), body[:cut])
		ok(t, err)
		answers.add(r.Body)
	}
}

// apiCalls uses the management API, the operator's client and monitoring.
func apiCalls(t *testing.T, f *fleet, apiKey, via string) {
	t.Helper()
	ctx := t.Context()
	get := func(url, key string, want ...int) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		ok(t, err)
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(req)
		ok(t, err)
		body, err := io.ReadAll(resp.Body)
		ok(t, err)
		ok(t, resp.Body.Close())
		if !slices.Contains(want, resp.StatusCode) {
			t.Errorf("%s: %s %s", url, resp.Status, body)
		}
		return body
	}
	c, err := config.Read(f.server.Path("joinery.yaml"))
	ok(t, err)
	id := f.ids[f.members[0].DevEUI()].String()
	for _, path := range []string{
		"/status", "/organisations", "/join-eui-ranges", "/signers", "/peers", "/keks", "/api-keys", "/devices", "/devices/" + id,
		"/devices/" + id + "/activations", "/audit", "/transport-key",
	} {
		get(via+client.BasePath+path, "", 200)
		get("http://"+c.API.Address+client.BasePath+path, apiKey, 200)
		get("http://"+c.API.Address+client.BasePath+path, apiKey+"x", 401)
	}
	for _, path := range []string{"/metrics", "/readyz?verbose", "/livez"} {
		recordAt(via, get("http://"+c.Ops.Address+path, "", 200))
	}
	api, err := client.New(client.Options{Server: via, APIKey: apiKey})
	ok(t, err)
	t.Cleanup(api.Close)
	for n, claimed := range f.unclaimed {
		wrong := claimed
		wrong.OwnerToken = strings.Repeat("A", len(claimed.OwnerToken))
		if _, err := api.Claim(ctx, wrong); err == nil {
			t.Error("a wrong token claims")
		} else {
			recordAt(via, []byte(err.Error()))
		}
		if n == 0 {
			continue // this one stays unclaimed
		}
		_, err := api.Claim(ctx, claimed)
		ok(t, err)
		_, err = api.Claim(ctx, claimed) // again
		recordAt(via, fmt.Append(nil, err))
	}
	device := f.ids[f.members[1].DevEUI()]
	ok(t, api.SuspendDevice(ctx, device))
	ok(t, api.ResumeDevice(ctx, device))
	for _, args := range [][]string{{"device", "list"}, {"peer", "list"}, {"kek", "list"}, {"device", "show", f.members[0].DevEUI().String()}} {
		out, err := f.server.Ctl(ctx, "", args...)
		ok(t, err)
		recordAt(via, []byte(out))
	}
	l := f.lab
	as, err := l.AS("", lab.PeerOptions{})
	ok(t, err)
	r, err := f.ns.Join(ctx, f.members[2].Device, sim.JoinOptions{})
	ok(t, err)
	fetched, err := as.FetchAppSKey(ctx, sim.FetchOptions{JoinEUI: f.members[2].JoinEUI(), DevEUI: f.members[2].DevEUI(), SessionKeyID: r.SessionKeyID})
	ok(t, err)
	recordAt(via, fetched.Reply.Body)
}

// recorder keeps what a server answered.
type recorder struct {
	mu  sync.Mutex
	all bytes.Buffer
}

// recorders finds the recorder behind a proxy's address.
var recorders sync.Map

func recordAt(via string, content []byte) {
	if r, is := recorders.Load(via); is {
		r.(*recorder).add(content)
	}
}

func (r *recorder) add(content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all.Write(content)
	r.all.WriteByte('\n')
}

func (r *recorder) content() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all.Bytes())
}

// proxy leads to the operator socket and keeps every answer, headers included.
func (r *recorder) proxy(t *testing.T, socket string) string {
	t.Helper()
	to, err := url.Parse("http://joinery")
	ok(t, err)
	p := httputil.NewSingleHostReverseProxy(to)
	p.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	p.ModifyResponse = func(resp *http.Response) error {
		body, err := httputil.DumpResponse(resp, true)
		r.add(body)
		return err
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	recorders.Store(server.URL, r)
	return server.URL
}
