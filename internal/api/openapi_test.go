package api_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
)

// document is what these tests need of an OpenAPI document.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Info       struct{ Title, Version string } `json:"info"`
	Security   []map[string][]string           `json:"security"`
	Paths      map[string]map[string]operation `json:"paths"`
	Tags       []struct{ Name string }         `json:"tags"`
	Components struct {
		Schemas         map[string]*schema        `json:"schemas"`
		SecuritySchemes map[string]map[string]any `json:"securitySchemes"`
	} `json:"components"`
}

type operation struct {
	OperationID string   `json:"operationId"`
	Summary     string   `json:"summary"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Parameters  []struct {
		Name, In, Description string
		Required              bool
		Schema                *schema
	} `json:"parameters"`
	Right       joinery.Right `json:"x-joinery-right"`
	RequestBody *struct {
		Required bool                 `json:"required"`
		Content  map[string]mediaType `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Description string               `json:"description"`
		Content     map[string]mediaType `json:"content"`
	} `json:"responses"`

	method, path string
}

type mediaType struct{ Schema *schema }

type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 any                `json:"type"`
	Description          string             `json:"description"`
	Pattern              string             `json:"pattern"`
	Format               string             `json:"format"`
	ContentEncoding      string             `json:"contentEncoding"`
	Enum                 []any              `json:"enum"`
	Examples             []any              `json:"examples"`
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	Items                *schema            `json:"items"`
	AdditionalProperties any                `json:"additionalProperties"`
	MinItems             *int               `json:"minItems"`
}

func readDocument(t testing.TB, f *fixture) (d document, text string) {
	t.Helper()
	a := f.send(t, "", http.MethodGet, "/api/v1/openapi.json", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatal(err)
	}
	return d, a.body
}

// operations lists all operations, in order.
func (d document) operations() (out []operation) {
	for path, methods := range d.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			out = append(out, op)
		}
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return out
}

// resolve follows references.
func (d document) resolve(s *schema) *schema {
	for s != nil && s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// body gives the schema of an operation's body; nil for none.
func (d document) body(op operation) *schema {
	if op.RequestBody == nil {
		return nil
	}
	return d.resolve(op.RequestBody.Content["application/json"].Schema)
}

// routes is what the API promises.
const routes = `
GET /status
GET /transport-key
GET /organisations
POST /organisations
GET /join-eui-ranges
POST /join-eui-ranges
DELETE /join-eui-ranges
GET /signers
POST /signers
DELETE /signers/{id}
GET /peers
POST /peers
GET /peers/{id}
PUT /peers/{id}
DELETE /peers/{id}
POST /peers/{id}/keks
GET /keks
POST /keks/{id}/retire
GET /devices
GET /devices/{id}
DELETE /devices/{id}
POST /devices/{id}/provenance
POST /devices/{id}/suspend
POST /devices/{id}/resume
POST /devices/{id}/reset-nonces
GET /devices/{id}/activations
GET /devices/{id}/refusals
GET /devices/{id}/custody
GET /devices/{id}/provenance
POST /log/ceremonies
POST /log/erasures
GET /peers/{id}/refusals
GET /devices/{id}/manifest-entry
GET /devices/{id}/owner-token
PUT /devices/{id}/binding
DELETE /devices/{id}/binding
POST /claims
POST /owner-tokens
POST /devices/{id}/release
POST /devices/{id}/owner-token/regenerate
PUT /devices/{id}/transfer
GET /devices/{id}/transfer
DELETE /devices/{id}/transfer
POST /devices/{id}/transfer/accept
GET /transfers
POST /ownership
POST /challenges
POST /disputes
GET /disputes
GET /disputes/{id}
DELETE /disputes/{id}
POST /disputes/{id}/decision
POST /imports
GET /imports/{id}
POST /imports/{id}/rows
GET /imports/{id}/errors
GET /imports/{id}/devices
GET /roaming
PUT /roaming
GET /api-keys
POST /api-keys
DELETE /api-keys/{id}
GET /audit
PUT /organisations/{id}
GET /people
PUT /people/{id}
DELETE /people/{id}
GET /invitations
POST /invitations
DELETE /invitations/{id}
POST /operator/bootstrap
GET /me
POST /me/invitations
POST /me/invitations/offer
DELETE /me/organisations/{id}
GET /me/sessions
DELETE /me/sessions/{id}
GET /me/passkeys
DELETE /me/passkeys/{id}
POST /login
POST /login/token
GET /events
GET /webhooks
POST /webhooks
GET /webhooks/{id}
DELETE /webhooks/{id}
POST /webhooks/{id}/rotate
POST /webhooks/{id}/enable
POST /webhooks/{id}/test
GET /webhooks/{id}/deliveries
GET /devices/{id}/service
GET /service/devices
POST /service/extensions
GET /service/credits
POST /service/credits
GET /service/plans
PUT /service/plans
DELETE /service/plans
GET /service/usage
GET /service/usage.csv
GET /service/clock
POST /service/clock/confirm
GET /exports
POST /exports
GET /exports/{id}
GET /exports/{id}/devices
POST /exports/{id}/devices
POST /exports/{id}/approve
POST /exports/{id}/reject
POST /exports/{id}/withdraw
GET /exports/{id}/file
POST /exports/{id}/acknowledge
GET /export-recipients
GET /export-signers
POST /export-recipients
DELETE /export-recipients/{id}
GET /export-policy
PUT /export-policy
POST /export-policy/approve
GET /devices/{id}/disclosures
GET /custody/exports
POST /custody/exports/{id}/start
GET /custody/exports/{id}/devices
POST /custody/exports/{id}/devices
POST /custody/exports/{id}/word
GET /rotation
GET /rotation/roots
POST /rotation/roots
GET /devices/{id}/rekey
POST /devices/{id}/rekey
DELETE /devices/{id}/rekey
PUT /devices/{id}/rekey/profile
POST /devices/{id}/rekey/confirm
GET /rekey/requests
POST /rekey/approvals
POST /rekey/rejections
POST /rekey/batches
GET /rekey/batches
GET /rekey/batches/{id}
GET /rekey/batches/{id}/devices
POST /rekey/batches/{id}/devices
POST /rekey/batches/{id}/approve
POST /rekey/batches/{id}/reject
POST /rekey/batches/{id}/withdraw
POST /rekey/tickets
POST /rekey/results
POST /rekey/handovers
POST /rekey/receipts
POST /rekey/confirmations
GET /arrivals
POST /arrivals/files
POST /arrivals/rejections
GET /expectations
POST /expectations
DELETE /expectations/{id}
GET /join-servers
POST /join-servers
PUT /join-servers/{id}
DELETE /join-servers/{id}
GET /statement-key
GET /devices/{id}/attestation
POST /devices/{id}/attestation/challenges
POST /devices/{id}/attestation/evidence
POST /devices/{id}/attestation/fragments
PUT /devices/{id}/attestation/rule
DELETE /devices/{id}/attestation/rule
GET /attestation-policy
PUT /attestation-policy
GET /products
POST /products
GET /products/{id}
DELETE /products/{id}
GET /products/{id}/keys
POST /products/{id}/keys
DELETE /products/{id}/keys/{key}
GET /products/{id}/releases
POST /products/{id}/releases
DELETE /products/{id}/releases/{release}
PUT /products/{id}/releases/{release}/floor
`

func TestDocumentHasEveryRoute(t *testing.T) {
	d, _ := readDocument(t, start(t))
	var got []string
	for _, op := range d.operations() {
		got = append(got, op.method+" "+strings.TrimPrefix(op.path, "/api/v1"))
	}
	want := strings.Fields(strings.ReplaceAll(routes, " ", "·"))
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "·", " ")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDocumentIsWhole(t *testing.T) {
	d, text := readDocument(t, start(t))
	if d.OpenAPI != "3.1.0" || d.Info.Title == "" || d.Info.Version != "1.2.3" {
		t.Errorf("head: %s, %+v", d.OpenAPI, d.Info)
	}
	scheme := d.Components.SecuritySchemes["apiKey"]
	if len(d.Security) != 1 || d.Security[0]["apiKey"] == nil || scheme["type"] != "http" || scheme["scheme"] != "bearer" {
		t.Errorf("security %v, schemes %v", d.Security, d.Components.SecuritySchemes)
	}
	for _, ref := range regexp.MustCompile(`"\$ref": "#/components/schemas/([^"]+)"`).FindAllStringSubmatch(text, -1) {
		if d.Components.Schemas[ref[1]] == nil {
			t.Errorf("no schema %s", ref[1])
		}
	}
	for name := range d.Components.Schemas {
		if strings.HasPrefix(name, "Error") {
			t.Errorf("schema %s is huma's own", name)
		}
	}
	ids := map[string]bool{}
	for _, op := range d.operations() {
		d.checkOperation(t, op)
		if ids[op.OperationID] {
			t.Errorf("operationId %s twice", op.OperationID)
		}
		ids[op.OperationID] = true
	}
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

func (d document) checkOperation(t *testing.T, op operation) {
	if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
		t.Errorf("%s %s: id %q, summary %q, tags %v", op.method, op.path, op.OperationID, op.Summary, op.Tags)
	}
	if !slices.ContainsFunc(d.Tags, func(t struct{ Name string }) bool { return t.Name == op.Tags[0] }) {
		t.Errorf("%s: tag %s is not described", op.OperationID, op.Tags[0])
	}
	declared := map[string]bool{}
	for _, p := range op.Parameters {
		declared[p.In+" "+p.Name] = true
		if p.Description == "" || p.Schema == nil || p.In == "path" && (!p.Required || p.Schema.Pattern == "") {
			t.Errorf("%s: parameter %+v", op.OperationID, p)
		}
	}
	for _, m := range pathParam.FindAllStringSubmatch(op.path, -1) {
		if !declared["path "+m[1]] {
			t.Errorf("%s: {%s} is not a parameter", op.OperationID, m[1])
		}
	}
	if body := d.body(op); body != nil {
		if body.AdditionalProperties != false {
			t.Errorf("%s: unknown members are not refused", op.OperationID)
		}
		d.checkDescribed(t, op.OperationID, body, map[*schema]bool{})
	}
	success := 0
	for status, r := range op.Responses {
		if strings.HasPrefix(status, "2") {
			success++
			content, ok := r.Content["application/json"]
			if !ok {
				content, ok = r.Content["text/csv"]
			}
			if status != "204" && (!ok || content.Schema == nil) {
				t.Errorf("%s: %s has no schema", op.OperationID, status)
			}
			continue
		}
		if s := r.Content["application/problem+json"].Schema; s == nil || s.Ref != "#/components/schemas/Problem" {
			t.Errorf("%s: %s is no problem", op.OperationID, status)
		}
	}
	if success != 1 {
		t.Errorf("%s: %d ways to succeed", op.OperationID, success)
	}
}

// checkDescribed wants words for every member of a request.
func (d document) checkDescribed(t *testing.T, where string, s *schema, seen map[*schema]bool) {
	s = d.resolve(s)
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	for name, p := range s.Properties {
		if p.Description == "" {
			t.Errorf("%s.%s is not described", where, name)
		}
		d.checkDescribed(t, where+"."+name, p, seen)
		d.checkDescribed(t, where+"."+name, p.Items, seen)
	}
}

// TestAnswersFitTheDocument reads every listing and checks each member that
// comes against the schema that promises it.
func TestAnswersFitTheDocument(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	d, _ := readDocument(t, f)
	checked := 0
	for _, op := range d.operations() {
		if op.method != http.MethodGet || strings.HasPrefix(op.path, "/api/v1/custody/") { // for the operator socket alone
			continue
		}
		path := op.pathIDs(t, w.ids)
		if op.OperationID == "listRoaming" {
			path += "?organisation=" + f.orgA.String()
		}
		var header []string
		if op.Tags[0] == "people" || op.Tags[0] == "exports" || op.OperationID == "listRekeyRequests" || strings.Contains(op.path, "/rekey/batches") || op.OperationID == "getAttestPolicy" { // an operator of none of several organisations has no people
			header = []string{client.OrganisationHeader, f.orgA.String()}
		}
		credential := w.operatorKey
		if op.Right == joinery.RightExportRequest {
			credential = w.exporterKey
		}
		a := f.send(t, credential, http.MethodGet, path, "", header...)
		if strings.Contains(op.Description, "On the operator socket alone") {
			if a.status != http.StatusForbidden {
				t.Errorf("%s, with the key of an operator: %d %s", path, a.status, a.body)
			}
			a = f.sendOnSocket(t, http.MethodGet, path)
		}
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
			continue
		}
		if _, isCSV := op.Responses["200"].Content["text/csv"]; isCSV {
			if !strings.HasPrefix(a.body, "month,maker,") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") {
				t.Errorf("%s: %v %s", path, a.header, a.body)
			}
			continue
		}
		var v any
		if err := json.Unmarshal([]byte(a.body), &v); err != nil {
			t.Fatal(err)
		}
		d.fits(t, op.OperationID, v, op.Responses["200"].Content["application/json"].Schema)
		checked++
	}
	if checked < 15 {
		t.Errorf("only %d answers were checked", checked)
	}
}

// fits checks v against the parts of JSON Schema that the document uses.
func (d document) fits(t *testing.T, where string, v any, s *schema) {
	s = d.resolve(s)
	kind, _ := s.Type.(string)
	switch v := v.(type) {
	case map[string]any:
		if kind != "object" {
			t.Errorf("%s is an object, not %v", where, s.Type)
			return
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				t.Errorf("%s.%s is missing", where, name)
			}
		}
		for name, member := range v {
			p := s.Properties[name]
			if values, ok := s.AdditionalProperties.(map[string]any); p == nil && ok {
				p = &schema{Type: values["type"]}
			}
			if p == nil {
				t.Errorf("%s.%s is not in the document", where, name)
				continue
			}
			d.fits(t, where+"."+name, member, p)
		}
	case []any:
		if kind != "array" {
			t.Errorf("%s is an array, not %v", where, s.Type)
			return
		}
		for _, item := range v {
			d.fits(t, where+"[]", item, s.Items)
		}
	case string:
		if kind != "string" {
			t.Errorf("%s is a string, not %v", where, s.Type)
		}
		if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			t.Errorf("%s: %q does not match %s", where, v, s.Pattern)
		}
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, any(v)) {
			t.Errorf("%s: %q is none of %v", where, v, s.Enum)
		}
	case float64:
		if kind != "integer" && kind != "number" {
			t.Errorf("%s is a number, not %v", where, s.Type)
		}
	case bool:
		if kind != "boolean" {
			t.Errorf("%s is a boolean, not %v", where, s.Type)
		}
	case nil:
		t.Errorf("%s is null", where)
	}
}
