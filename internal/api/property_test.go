package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/api"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestAnswersKeepToTheDocument asks every route that the document has, with what
// its schemas allow, with what lies at the ends of that, and with what was
// spoiled after it was made. No answer may be the server's own failure, each has
// a status and a form that the document names for it, its body fits the schema,
// and what the schemas forbid is never accepted. JOINERY_LONG=1 asks for minutes;
// JOINERY_SEED=n begins elsewhere.
func TestAnswersKeepToTheDocument(t *testing.T) {
	f := start(t, func(o *api.Options) { o.PerMinute = -1 })
	w := f.populate(t)
	p := newProperty(t, f, w)
	rounds := 60
	if os.Getenv("JOINERY_LONG") == "1" {
		rounds = 2000
	}
	for _, op := range p.operations {
		t.Run(op.OperationID, func(t *testing.T) {
			p := p.with(t, op)
			for range rounds {
				p.round()
			}
			t.Logf("%d of %d were accepted", p.accepted, rounds)
		})
	}
}

// property is a run over the routes of the document.
type property struct {
	*testing.T
	*maker
	f          *fixture
	keys       []string
	operations []operation
	schemas    *jsonschema.Compiler
	op         operation
	raw        map[string]any // the operation in the document
	accepted   int
}

const documentURL = "https://joinery.invalid/openapi.json"

func newProperty(t *testing.T, f *fixture, w *world) *property {
	t.Helper()
	d, text := readDocument(t, f)
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, root); err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := json.Unmarshal([]byte(text), &plain); err != nil {
		t.Fatal(err)
	}
	ops := d.operations()
	// What takes away comes last.
	slices.SortStableFunc(ops, func(a, b operation) int { return order(a) - order(b) })
	return &property{
		T: t, f: f, operations: ops, schemas: compiler, keys: []string{w.operatorKey, f.keyA, f.keyB},
		maker: &maker{root: plain, ids: f.known(t, w)},
	}
}

func order(op operation) int {
	return slices.Index([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, op.method)
}

// known gives the identifiers of the world; no credential in use is among them.
func (f *fixture) known(t testing.TB, w *world) map[string][]string {
	ids := map[string][]string{"org": {f.orgA.String(), f.orgB.String()}}
	for segment, id := range w.ids {
		prefix := prefixOf("/api/v1/" + segment)
		ids[prefix] = append(ids[prefix], id)
	}
	spare, err := f.as(t, f.keyA).MakeAPIKey(t.Context(), client.NewAPIKey{Name: "spare"})
	if err != nil {
		t.Fatal(err)
	}
	ids["key"] = []string{spare.Key.ID.String()}
	return ids
}

func (p *property) with(t *testing.T, op operation) *property {
	seed := uint64(1)
	if text := os.Getenv("JOINERY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, op.OperationID)
	q := *p
	m := *p.maker
	m.Rand = rand.New(rand.NewPCG(seed, h.Sum64()))
	q.T, q.op, q.maker = t, op, &m
	q.raw = at(m.root, "paths", op.path, strings.ToLower(op.method))
	return &q
}

// round sends one request and checks its answer.
func (p *property) round() {
	p.Helper()
	path, query, header, allowed := p.parameters()
	var body []byte
	if p.op.RequestBody != nil {
		var kind string
		var fits bool
		body, kind, fits = p.body()
		allowed = allowed && fits
		header.Set("Content-Type", kind)
	}
	key := pick(p.maker, p.keys)
	if p.chance(0.05) {
		key = "" // nobody
	}
	target := path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	a, ok := p.ask(key, target, header, body)
	if ok {
		p.check(a, target, header, body, allowed)
	}
}

func (p *property) ask(key, target string, header http.Header, body []byte) (answer, bool) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), p.op.method, p.f.url+target, bytes.NewReader(body))
	if err != nil {
		return answer{}, false // no client can send it
	}
	req.Header = header
	if key != "" {
		header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.Fatalf("%s %s: %v", p.op.method, target, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}, true
}

// check looks at an answer with the document's eyes.
func (p *property) check(a answer, target string, header http.Header, body []byte, allowed bool) {
	p.Helper()
	tell := func(format string, args ...any) {
		p.Helper()
		if len(body) > 2000 {
			body = append(body[:2000:2000], "…"...)
		}
		header.Del("Authorization")
		p.Errorf("%s\n%s %s %v\n%s\nanswer %d %s", fmt.Sprintf(format, args...), p.op.method, target, header, body, a.status, a.body)
	}
	if a.status >= 500 {
		tell("the server failed")
		return
	}
	if a.status < 300 {
		p.accepted++
		if !allowed {
			tell("what the schemas forbid was accepted")
		}
	}
	if a.header.Get(client.RequestIDHeader) == "" {
		tell("no request id")
	}
	status := strconv.Itoa(a.status)
	response := at(p.raw, "responses", status)
	if response == nil {
		tell("the document has no status %d here", a.status)
		return
	}
	content := at(response, "content")
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	switch {
	case len(content) == 0:
		if a.body != "" {
			tell("the document has no body here")
		}
		return
	case content[kind] == nil:
		tell("the document has no %q here", kind)
		return
	}
	if at(content, kind, "schema") == nil || !strings.HasSuffix(kind, "json") {
		return
	}
	schema := p.compile("responses", status, "content", kind, "schema")
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		tell("the answer does not fit: %v", err)
	}
}

// compile gives a schema of the operation, by its path in the document.
func (p *property) compile(path ...string) *jsonschema.Schema {
	p.Helper()
	pointer := "#"
	for _, step := range append([]string{"paths", p.op.path, strings.ToLower(p.op.method)}, path...) {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	schema, err := p.schemas.Compile(documentURL + pointer)
	if err != nil {
		p.Fatal(err)
	}
	return schema
}

// parameters makes the path, the query and the headers; allowed tells whether
// their schemas allow them all.
func (p *property) parameters() (path string, query url.Values, header http.Header, allowed bool) {
	path, query, header, allowed = p.op.path, url.Values{}, http.Header{}, true
	list, _ := p.raw["parameters"].([]any)
	for _, one := range list {
		param := one.(map[string]any)
		name, in := param["name"].(string), param["in"].(string)
		if param["required"] != true && p.chance(0.75) {
			continue
		}
		schema := at(param, "schema")
		value := textOf(p.value(schema))
		if p.chance(0.08) {
			value = textOf(p.spoil(value))
			allowed = allowed && (in == "header" || p.allows(schema, value))
		}
		switch in {
		case "path":
			if value == "" || value == "." || value == ".." {
				value = "x" // another path
			}
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(value), 1)
		case "query":
			query.Set(name, value)
			allowed = allowed && value != ""
		case "header":
			header.Set(name, strings.Map(func(r rune) rune {
				if r < ' ' || r > '~' {
					return '?'
				}
				return r
			}, value))
		}
	}
	if p.chance(0.03) {
		query.Set("x"+p.matching("[a-z]{3,9}"), "1")
		allowed = false
	}
	return path, query, header, allowed
}

func textOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// allows tells whether a parameter may have a value. A parameter is text; a
// schema of another kind allows what reads as one.
func (p *property) allows(schema map[string]any, value string) bool {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource("param.json", schema); err != nil {
		p.Fatal(err)
	}
	compiled, err := compiler.Compile("param.json")
	if err != nil {
		p.Fatal(err)
	}
	var v any = value
	if schema["type"] != "string" {
		if json.Unmarshal([]byte(value), &v) != nil {
			return false
		}
	}
	return compiled.Validate(v) == nil
}

// body makes a body; fits tells whether its schema allows it.
func (p *property) body() (body []byte, kind string, fits bool) {
	content := at(p.raw, "requestBody", "content")
	for name := range content {
		kind = name
	}
	if _, ok := content["application/json"]; !ok {
		return p.bytes(p.IntN(300)), kind, true // of which the document says nothing more
	}
	kind = "application/json"
	v := p.value(at(content, kind, "schema"))
	switch {
	case p.chance(0.35):
		v = p.spoil(v)
	case p.chance(0.05):
		return p.garble(v), kind, false
	case p.chance(0.02):
		kind = pick(p.maker, []string{"text/plain", "application/xml", "application/json; charset=utf-16", "x"})
	}
	text, err := json.Marshal(v)
	if err != nil {
		p.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		p.Fatal(err)
	}
	return text, kind, p.compile("requestBody", "content", "application/json", "schema").Validate(parsed) == nil
}

// garble makes something that is no JSON of v.
func (p *property) garble(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		p.Fatal(err)
	}
	switch p.IntN(4) {
	case 0:
		return text[:p.IntN(len(text))]
	case 1:
		return append(text, '}')
	case 2:
		return append([]byte{0xEF, 0xBB, 0xBF}, text...)
	}
	return p.bytes(1 + p.IntN(40))
}
