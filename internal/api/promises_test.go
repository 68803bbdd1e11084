package api_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// canary is a secret that was put where it does not belong.
type canary struct{ bytes []byte }

func newCanary() canary {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand)
	return canary{b}
}

func (c canary) hex() string { return hex.EncodeToString(c.bytes) }

// in tells whether s holds the canary in some form.
func (c canary) in(s string) bool {
	lower := strings.ToLower(s)
	return strings.Contains(lower, c.hex()) ||
		strings.Contains(s, base64.StdEncoding.EncodeToString(c.bytes)) ||
		strings.Contains(s, base64.RawURLEncoding.EncodeToString(c.bytes)) ||
		strings.Contains(s, string(c.bytes))
}

// TestP13 puts a secret in every spot of every request, in every wrong form,
// and looks for it in what comes back and in the log.
func TestP13(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	f := start(t)
	w := f.populate(t)
	d, _ := readDocument(t, f)
	tried := 0
	check := func(where string, c canary, a answer) {
		t.Helper()
		tried++
		if a.status < 400 {
			return // it was allowed there
		}
		if a.status >= 500 {
			t.Errorf("%s: %d %s", where, a.status, a.body)
		}
		a.problem(t)
		if c.in(a.body) || c.in(fmt.Sprint(a.header)) {
			t.Errorf("%s: the answer repeats it: %s", where, a.body)
		}
		if c.in(f.log.String()) {
			t.Fatalf("%s: the log holds it", where)
		}
	}
	for _, op := range d.operations() {
		path := op.pathIDs(t, absentIDs())
		if op.hasPathID() && op.RequestBody == nil {
			c := newCanary()
			check(op.OperationID+" path", c, f.send(t, w.operatorKey, op.method, pathParam.ReplaceAllString(op.path, c.hex()), ""))
		}
		for _, p := range op.Parameters {
			c := newCanary()
			switch p.In {
			case "query":
				check(op.OperationID+" query "+p.Name, c, f.send(t, w.operatorKey, op.method, path+"?"+p.Name+"="+c.hex(), ""))
			case "header":
				check(op.OperationID+" header "+p.Name, c, f.send(t, w.operatorKey, op.method, path, "", p.Name, c.hex()))
			}
		}
		c := newCanary()
		check(op.OperationID+" unknown query", c, f.send(t, w.operatorKey, op.method, path+"?"+c.hex()+"="+c.hex(), ""))
		check(op.OperationID+" wrong key", c, f.send(t, c.hex(), op.method, path, ""))
		if op.RequestBody != nil {
			f.spoilBody(t, d, op, w.operatorKey, path, check)
		}
	}
	t.Logf("%d requests", tried)
	if tried < 1000 {
		t.Errorf("only %d requests were tried", tried)
	}
}

// spoilBody puts a secret in every spot of a body.
func (f *fixture) spoilBody(t *testing.T, d document, op operation, key, path string, check func(string, canary, answer)) {
	good := d.sample(t, d.body(op), absentIDs())
	text := marshal(t, good)
	for name, make := range map[string]func(canary) string{
		"no JSON":       func(c canary) string { return c.hex() },
		"bytes":         func(c canary) string { return string(c.bytes) },
		"cut":           func(c canary) string { return `{"name":"` + c.hex() },
		"behind":        func(c canary) string { return text + c.hex() },
		"text":          func(c canary) string { return `"` + c.hex() + `"` },
		"unknown":       func(c canary) string { return `{"` + c.hex() + `":1,` + text[1:] },
		"unknown value": func(c canary) string { return `{"zzz":"` + c.hex() + `",` + text[1:] },
		"twice":         func(c canary) string { return `{"` + c.hex() + `":1,"` + c.hex() + `":2}` },
	} {
		c := newCanary()
		check(op.OperationID+" body "+name, c, f.send(t, key, op.method, path, make(c)))
	}
	for _, p := range d.places(d.body(op)) {
		for name, make := range map[string]func(canary) any{
			"text":    func(c canary) any { return c.hex() },
			"long":    func(c canary) any { return strings.Repeat(c.hex(), 100) },
			"base64":  func(c canary) any { return base64.StdEncoding.EncodeToString(c.bytes) },
			"bad 64":  func(c canary) any { return c.hex() + "===!" },
			"object":  func(c canary) any { return map[string]any{c.hex(): c.hex()} },
			"array":   func(c canary) any { return []any{c.hex(), 1, nil} },
			"nested":  func(c canary) any { return map[string]any{"key": map[string]any{"k": []any{c.hex()}}} },
			"number":  func(c canary) any { return []any{1e300, c.hex()} },
			"breaks":  func(c canary) any { return c.hex() + "\n\x00\u202e" },
			"as last": func(c canary) any { return "x" + c.hex() },
		} {
			c := newCanary()
			body := marshal(t, set(good, p.path, make(c)))
			check(op.OperationID+" "+p.String()+" "+name, c, f.send(t, key, op.method, path, body))
		}
	}
}

// TestP13SecretFields names the secret fields, so that one that is renamed or
// comes new is looked at.
func TestP13SecretFields(t *testing.T) {
	f := start(t)
	d, _ := readDocument(t, f)
	secret := regexp.MustCompile(`(?i)token|wrapped|nwkKey$|appKey$|secret|password|seal\.key$`)
	want := map[string]bool{
		"addPeer keks.[].wrapped": true, "addPeer keks.[].seal.key": true, "addKEK wrapped": true, "addKEK seal.key": true,
		"acceptInvitation token": true, "readOffer token": true, "finishLogin secret": true,
		"claimDevice ownerToken": true, "changeOwnership items.[].ownerToken": true, "openDispute ownerToken": true, "importRows keys.[].nwkKey": true, "importRows keys.[].appKey": true, "importRows seal.key": true,
		"rewrapRoots rows.[].keys.nwkKey": true, "rewrapRoots rows.[].keys.appKey": true, "rewrapRoots seal.key": true,
	}
	for _, op := range d.operations() {
		if op.RequestBody == nil {
			continue
		}
		for _, p := range d.places(d.body(op)) {
			if name := op.OperationID + " " + p.String(); secret.MatchString(p.String()) && !want[name] && p.schema.Enum == nil && p.schema.Type != "boolean" {
				t.Errorf("%s may hold a secret and is not in the list", name)
			} else {
				delete(want, name)
			}
		}
	}
	for name := range want {
		t.Errorf("%s is no field any more", name)
	}
}

// pathIDs fills the path of an operation with one of ids for each parameter, by
// the kind of identifier that it wants.
func (op operation) pathIDs(t testing.TB, ids map[string]string) string {
	t.Helper()
	path := op.path
	for _, p := range op.Parameters {
		if p.In != "path" {
			continue
		}
		prefix, ok := idPattern(p.Schema)
		if !ok || ids[prefix] == "" {
			t.Fatalf("%s: no identifier for {%s} (%s): absentIDs and populate must make one of each kind", op.OperationID, p.Name, p.Schema.Pattern)
		}
		path = strings.Replace(path, "{"+p.Name+"}", ids[prefix], 1)
	}
	return path
}

// hasPathID tells whether an operation is about one thing.
func (op operation) hasPathID() bool { return strings.Contains(op.path, "{") }

var requestIDMember = regexp.MustCompile(`"requestId":"[^"]*"`)

// same compares two answers but for the request's id.
func same(a, b answer) bool {
	return a.status == b.status && requestIDMember.ReplaceAllString(a.body, "") == requestIDMember.ReplaceAllString(b.body, "")
}

// TestP18 gives every route, wherever it takes an identifier, one of another
// organisation's and one that nothing has: the answers must not differ, neither
// to an API key nor to a person who signed in.
func TestP18(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	d, _ := readDocument(t, f)
	credentials := map[string]string{"API key": f.keyB, "person": f.signedIn(t, f.orgB, joinery.RoleAdmin, "ben").token}
	slots := 0
	for who, credential := range credentials {
		for _, op := range d.operations() {
			slots += f.isolates(t, d, op, w.ids, credential, who)
		}
		f.checkListingsOfB(t, d, w, credential)
	}
	t.Logf("%d places for identifiers", slots)
	if slots < 130 {
		t.Errorf("only %d places for identifiers were found", slots)
	}
	f.checkClaims(t, w)
	f.checkUntouched(t, w)
	f.checkAttempts(t, d, w)
}

// isolates compares what an operation answers to orgB about a foreign identifier
// and an absent one, in every place that takes one, and gives how many there are.
func (f *fixture) isolates(t *testing.T, d document, op operation, foreign map[string]string, credential, who string) (slots int) {
	t.Helper()
	absent := absentIDs()
	compare := func(where, prefix string, request func(ids map[string]string) answer) {
		t.Helper()
		slots++
		if foreign[prefix] == "" {
			t.Fatalf("%s: populate makes nothing with an identifier %s_…", where, prefix)
		}
		theirs, nobodys := request(foreign), request(absent)
		eachByItself := []string{"readOwnerTokens", "changeOwnership", "extendService", "makeRekeyTicket"}
		if op.OperationID == "makeRekeyTicket" { // which names what it leaves out, as it was asked for
			theirs.body = strings.ReplaceAll(theirs.body, foreign[prefix], "it")
			nobodys.body = strings.ReplaceAll(nobodys.body, absent[prefix], "it")
		}
		if theirs.status < 400 && !slices.Contains(eachByItself, op.OperationID) {
			t.Errorf("%s as %s: another organisation's thing is answered %d %s", where, who, theirs.status, theirs.body)
		}
		if !same(theirs, nobodys) {
			t.Errorf("%s as %s: foreign %d %s, absent %d %s", where, who, theirs.status, theirs.body, nobodys.status, nobodys.body)
		}
	}
	send := func(ids map[string]string, query string, body any, header ...string) answer {
		text := ""
		if op.RequestBody != nil {
			text = marshal(t, body)
		}
		return f.send(t, credential, op.method, op.pathIDs(t, ids)+query, text, header...)
	}
	var sample any
	if op.RequestBody != nil {
		sample = d.sample(t, d.body(op), absent)
	}
	for _, p := range op.Parameters {
		prefix, ok := idPattern(p.Schema)
		if !ok || p.Name == "after" { // a place to go on from, which names nothing
			continue
		}
		compare(op.OperationID+" "+p.In+" "+p.Name, prefix, func(ids map[string]string) answer {
			switch p.In {
			case "path":
				return send(ids, "", sample)
			case "header":
				return send(absent, "", sample, p.Name, ids[prefix])
			}
			return send(absent, "?"+p.Name+"="+url.QueryEscape(ids[prefix]), sample)
		})
	}
	if op.RequestBody == nil {
		return slots
	}
	for _, p := range d.places(d.body(op)) {
		if prefix, ok := idPattern(p.schema); ok {
			compare(op.OperationID+" "+p.String(), prefix, func(ids map[string]string) answer {
				return send(absent, "", set(sample, p.path, ids[prefix]))
			})
		}
	}
	return slots
}

// checkListingsOfB: nothing of orgA's is in any listing that orgB reads.
func (f *fixture) checkListingsOfB(t *testing.T, d document, w *world, credential string) {
	t.Helper()
	for _, op := range d.operations() {
		if op.method != http.MethodGet || op.hasPathID() {
			continue
		}
		a := f.send(t, credential, op.method, op.path, "")
		for _, theirs := range append(slices.Collect(maps.Values(w.ids)), "0004A310001AA90A", "Acme", "ann@example.com") {
			if op.OperationID == "listJoinServers" && theirs == w.ids["jsv"] {
				continue // the operator's: every owner may see where devices can go
			}
			if strings.Contains(a.body, theirs) {
				t.Errorf("%s shows orgB what is orgA's (%s): %s", op.OperationID, theirs, a.body)
			}
		}
	}
	for _, filter := range []string{"?joinEUI=70B3D57ED0000000", "?devEUI=0004A310001AA90A"} {
		if a := f.send(t, credential, http.MethodGet, "/api/v1/devices"+filter, ""); !strings.Contains(a.body, `"items":[]`) {
			t.Errorf("devices%s shows orgB %s", filter, a.body)
		}
	}
}

// checkClaims: a device that exists and one that does not are refused alike.
func (f *fixture) checkClaims(t *testing.T, w *world) {
	t.Helper()
	claim := func(devEUI lorawan.EUI64) answer {
		return f.send(t, f.keyB, http.MethodPost, "/api/v1/claims", marshal(t, client.NewClaim{
			JoinEUI: w.device.JoinEUI, DevEUI: devEUI, OwnerToken: "AAAAAAAAAAAAA",
		}))
	}
	known, unknown := claim(w.device.DevEUI), claim(lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8})
	if known.status != http.StatusForbidden || !same(known, unknown) {
		t.Errorf("claims: known %d %s, unknown %d %s", known.status, known.body, unknown.status, unknown.body)
	}
}

// checkUntouched: what orgB tried changed nothing of orgA's.
func (f *fixture) checkUntouched(t *testing.T, w *world) {
	t.Helper()
	d, err := f.as(t, f.keyA).Device(t.Context(), w.device.ID)
	if err != nil || d.Suspended || d.Owner != f.orgA || d.Binding == nil || d.Binding.NetID != (lorawan.NetID{0, 0, 0x13}) {
		t.Errorf("device %+v, %v", d, err)
	}
	peers, err := f.operator.Peers(t.Context())
	if err != nil || len(peers) != 1 || peers[0].Name != "Network A" {
		t.Errorf("peers %+v, %v", peers, err)
	}
	keks, err := f.operator.KEKs(t.Context())
	if err != nil || len(keks) != 1 || keks[0].Retired {
		t.Errorf("KEKs %+v, %v", keks, err)
	}
	signers, err := f.operator.Signers(t.Context())
	if err != nil || len(signers) != 1 {
		t.Errorf("signers %+v, %v", signers, err)
	}
}
