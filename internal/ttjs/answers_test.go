package ttjs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"joinery"
	"joinery/lorawan"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// judge holds answers against the document. Every request of these tests goes by it.
type judge struct {
	routes []documented
}

// documented is one operation of the document.
type documented struct {
	method string
	path   *regexp.Regexp
	// answers is by status; nil has no body.
	answers map[string]*jsonschema.Schema
	// headers is by status, the names of all that an answer may and must have.
	headers map[string][]string
}

const documentURL = "https://joinery.invalid/openapi.json"

var theJudge = sync.OnceValues(newJudge)

func newJudge() (*judge, error) {
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, root); err != nil {
		return nil, err
	}
	var d struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	j := new(judge)
	for path, operations := range d.Paths {
		for method, operation := range operations {
			if method == "parameters" {
				continue
			}
			r := documented{
				method: strings.ToUpper(method), path: regexp.MustCompile("^" + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "[^/]+") + "$"),
				answers: map[string]*jsonschema.Schema{}, headers: map[string][]string{},
			}
			var o struct {
				Responses map[string]struct {
					Headers map[string]any
					Content map[string]any
				}
			}
			if err := json.Unmarshal(operation, &o); err != nil {
				return nil, err
			}
			for status, response := range o.Responses {
				r.answers[status] = nil
				for name := range response.Headers {
					r.headers[status] = append(r.headers[status], name)
				}
				for kind := range response.Content {
					at := "#"
					for _, step := range []string{"paths", path, method, "responses", status, "content", kind, "schema"} {
						at += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
					}
					if r.answers[status], err = compiler.Compile(documentURL + at); err != nil {
						return nil, err
					}
				}
			}
			j.routes = append(j.routes, r)
		}
	}
	return j, nil
}

// find gives the operation that a request means: a path without a parameter goes
// before one with.
func (j *judge) find(method, path string) (found *documented) {
	for i, r := range j.routes {
		if r.method == method && r.path.MatchString(path) && (found == nil || len(r.path.String()) > len(found.path.String())) {
			found = &j.routes[i]
		}
	}
	return found
}

// judged is the way to the server, with the judge on it.
type judged struct {
	testing.TB
	by http.RoundTripper
}

func (j judged) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := j.by.RoundTrip(r)
	path, ours := strings.CutPrefix(r.URL.Path, "/api/v2")
	if err != nil || !ours {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.HasPrefix(body, []byte("Client sent an HTTP request to an HTTPS server")) {
		return res, nil // says net/http
	}
	j.judge(r, path, res, body)
	return res, nil
}

// CloseIdleConnections is http.Client's.
func (j judged) CloseIdleConnections() { (&http.Client{Transport: j.by}).CloseIdleConnections() }

func (j judged) judge(r *http.Request, path string, res *http.Response, body []byte) {
	book, err := theJudge()
	if err != nil {
		j.Fatal(err)
	}
	tell := func(format string, args ...any) {
		j.Errorf("%s %s: %d %s: %s", r.Method, r.URL, res.StatusCode, body, fmt.Sprintf(format, args...))
	}
	operation := book.find(r.Method, path)
	if operation == nil {
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			tell("the document has no such operation")
		}
		return
	}
	status := strconv.Itoa(res.StatusCode)
	schema, known := operation.answers[status]
	switch {
	case !known:
		tell("the document has no such status here")
		return
	case schema == nil && len(body) > 0:
		tell("the document has no body here")
	case schema != nil:
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			tell("it does not fit: %v", err)
		}
	}
	for _, name := range operation.headers[status] {
		unlimited := r.URL.Host == "operator" // the socket
		if res.Header.Get(name) == "" && name != "Link" && !unlimited {
			tell("it has no header %s", name)
		}
	}
	if res.Header.Get("X-Request-Id") == "" {
		tell("it has no request id")
	}
}

// TestAnswersKeepToTheDocument asks every route with what the document allows, and
// with what it does not, from everybody who may be at the other end. The judge looks
// at each answer; a refused claim changes nothing, and what the schema of a claim
// forbids is never accepted.
func TestAnswersKeepToTheDocument(t *testing.T) {
	f := startLimited(t, 1_000_000)
	generous := f.newParty(t, "generous", func(p *joinery.Peer) { p.ClaimKEKs = true })
	shy := f.newParty(t, "shy", func(p *joinery.Peer) { p.HideExistence = true })
	// Some devices, so that wrong tokens for one do not end all claims, and the last
	// with a twin.
	const devices = 40
	var euis, tokens [devices]string
	for i := range devices {
		d, token := f.device(t)
		euis[i], tokens[i] = d.DevEUI.String(), token
		if i == devices-1 {
			f.deviceAt(t, lorawan.EUI64FromUint64(joinEUI.Uint64()+1), d.DevEUI)
		}
	}
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	r := rand.New(rand.NewPCG(1, 2))
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	at := 0 // the device that the next request is about
	devEUI := func() string {
		if r.IntN(8) > 0 {
			return one(euis[at], euis[at], strings.ToLower(euis[at]))
		}
		return one("0000000000000001", "FFFFFFFFFFFFFFFF", "1", "%20", "G000000000000001", "..;", "é")
	}
	member := func(name string, values ...string) string {
		if r.IntN(8) == 0 {
			return ""
		}
		return strconv.Quote(name) + ":" + one(values...) + ","
	}
	body := func() string {
		if r.IntN(12) == 0 {
			return one("", "{", "[]", "null", `"x"`, "\x00", `{"ownerToken":"a","ownerToken":"b"}`, strings.Repeat(" ", 9000))
		}
		right := strconv.Quote(tokens[at])
		text := "{" + member("ownerToken", right, right, right, right, `""`, `"AAAA"`, "1") +
			member("homeNetID", `"000013"`, `"60002a"`, `"60002A"`, `"13"`, "19")
		if r.IntN(2) == 0 {
			text += member("homeNSID", `"EC656E0000000101"`, `"EC656E0000000101"`, `"x"`) + member("lock", "true", "false", `"yes"`) +
				member("asID", `"here.example.com"`, `"generous.example.com"`, `"shy.example.com"`, `"a b"`, "{}") +
				member("regenerateOwnerToken", "false", "false", "true") +
				member("kek", `{"label":"a","key":"`+oneKey+`"}`, `{"label":"a","key":"`+otherKey+`"}`, `{"label":"","key":"`+oneKey+`"}`, `{"label":"b"}`, "{}", "1")
		}
		return text + `"more":[{}]}`
	}
	accepted, answered := 0, map[int]int{}
	transports := map[string]http.RoundTripper{}
	for who, p := range map[string][]certificate{"nobody": nil, "here": certs(f.here), "generous": certs(generous), "shy": certs(shy), "stranger": certs(party{cert: f.ca.leaf(t)})} {
		transport := &http.Transport{TLSClientConfig: f.config(p...)}
		t.Cleanup(transport.CloseIdleConnections)
		transports[who] = transport
	}
	for range rounds {
		at = r.IntN(devices)
		path := one("/devices/"+devEUI()+"/claim", "/devices/"+devEUI()+"/claim", "/devices/"+devEUI()+","+devEUI()+"/claims", "/devices", "/devices/"+devEUI(),
			"/devices/import/"+one("formats", "microchip-atecc608", "csv", "x"), "/join-eui-prefixes", "/openapi.json", "/x")
		path += one("", "", "?joinEUI="+joinEUI.String(), "?joinEUI=0000000000000001", "?joinEUI=1", "?limit=1", "?limit=0", "?after=x", "?nonces=true", "?rootKeys=true", "?macVersion=1.0.4", "?macVersion=9")
		method := one(http.MethodGet, http.MethodPut, http.MethodPut, http.MethodDelete, http.MethodPost)
		if method == http.MethodDelete && !strings.Contains(path, "/claim") && r.IntN(4) > 0 {
			method = http.MethodGet // few devices die
		}
		if r.IntN(3) == 0 {
			method, path = http.MethodPut, "/devices/"+devEUI()+"/claim"
		}
		text := ""
		if method == http.MethodPut || method == http.MethodPost {
			text = body()
		}
		who := one("here", "generous", "generous", "shy", "stranger", "nobody", "nobody", "nobody")
		credential := one("Bearer "+f.key, "Bearer "+f.key, "Bearer x", "Basic eDp5", "x")
		a := f.sendBy(t, transports[who], f.url, method, "/api/v2"+path, text, "Authorization", credential)
		answered[a.status]++
		if a.status == http.StatusCreated {
			accepted++
			for _, forbidden := range []string{`"ownerToken":1`, `"AAAA"`, `"13"`, ":19", `"x"`, `"yes"`, `"a b"`, "{},", `"regenerateOwnerToken":true`, `"label":""`, `"label":"b"`, `"kek":1`} {
				if strings.Contains(text, forbidden) {
					t.Errorf("accepted: %s", text)
				}
			}
			if !strings.Contains(text, tokens[at]) {
				t.Errorf("accepted: %s", text)
			}
		}
	}
	t.Logf("answers by status: %v", answered)
	if accepted < rounds/100 {
		t.Errorf("only %d claims were accepted of %d requests", accepted, rounds)
	}
}
