package api_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"joinery/client"
	"joinery/internal/api"
)

// TestListingsArePaged: every route that gives items takes a limit and a cursor,
// and gives a next.
func TestListingsArePaged(t *testing.T) {
	d, _ := readDocument(t, start(t))
	for _, op := range d.operations() {
		content, ok := op.Responses["200"].Content["application/json"]
		if op.method != http.MethodGet || !ok {
			continue
		}
		s := d.resolve(content.Schema)
		if s.Properties["items"] == nil {
			continue
		}
		has := map[string]bool{}
		for _, p := range op.Parameters {
			has[p.Name] = true
		}
		if s.Properties["next"] == nil || !has["after"] || !has["limit"] {
			t.Errorf("%s is not read page by page", op.OperationID)
		}
	}
}

// TestCursorsAreForOneListing: a cursor of one listing or order is refused by
// others, and so is one that somebody made up.
func TestCursorsAreForOneListing(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	c := f.as(t, f.keyA)
	f.importDevice(t, c, w.device.JoinEUI, eui(t, "0004A310001AA90B"))
	p, err := c.DevicesPage(t.Context(), client.DevicesQuery{Limit: 1})
	if err != nil || p.Next == "" {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, path := range []string{
		"/devices?sort=-devEUI&after=" + p.Next, "/devices?sort=lastJoin&after=" + p.Next, "/peers?after=" + p.Next, "/audit?after=" + p.Next,
		"/devices?after=AAAA", "/devices?after=ZGV2aWNlcyBkZXZFVUkgeCB5IHo", "/devices?after=dev_0000000000002",
		"/devices/" + w.device.ID.String() + "/activations?after=" + p.Next,
	} {
		if a := f.send(t, f.keyA, http.MethodGet, "/api/v1"+path, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestGivenButEmpty: what is given and says nothing is refused, not passed over.
func TestGivenButEmpty(t *testing.T) {
	f := start(t)
	for query, says := range map[string]string{
		"devEUI=": "without a value", "limit=1&limit=2": "more than once", "claimed=1": "true or false", "neverJoined=T": "true or false",
	} {
		a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices?"+query, "")
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, says) {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	a := f.send(t, f.keyA, http.MethodPost, "/api/v1/api-keys", `{"name":"x","expiresAt":null}`)
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "body.expiresAt") {
		t.Errorf("null: %d %s", a.status, a.body)
	}
}

// secretWords is what members are called that may hold a secret.
var secretWords = regexp.MustCompile(`(?i)token|secret|password|^text$|private|plain`)

// noSecrets is members that are called so and hold none.
var noSecrets = map[string]bool{}

// TestSecretAnswersSaySo: an answer with a member that may hold a secret is marked,
// so that it is never stored for a request that is sent again.
func TestSecretAnswersSaySo(t *testing.T) {
	f := start(t)
	d, _ := readDocument(t, f)
	raw := newProperty(t, f, f.populate(t)).root
	for _, op := range d.operations() {
		for status, r := range op.Responses {
			content, ok := r.Content["application/json"]
			if !ok || !strings.HasPrefix(status, "2") {
				continue
			}
			for _, p := range d.places(content.Schema) {
				name := p.path[len(p.path)-1]
				marked := at(raw, "paths", op.path, strings.ToLower(op.method))[api.Secret] == true
				if secretWords.MatchString(name) && !marked && !noSecrets[op.OperationID+" "+p.String()] {
					t.Errorf("%s: %s may hold a secret; set 'secret' of its route, or list it here", op.OperationID, p)
				}
			}
		}
	}
}

// TestProblemsAreDocumented: docs/api.md has each code, and no other.
func TestProblemsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, problems, _ := strings.Cut(string(page), "## Problems")
	source, err := os.ReadFile("../../error.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Code = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(problems, "`"+m[1]+"`") {
			t.Errorf("docs/api.md does not explain %s", m[1])
		}
	}
}
