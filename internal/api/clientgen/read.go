package main

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"joinery/client"
	"joinery/internal/api"

	"github.com/danielgtaylor/huma/v2"
)

// call is one method of the client.
type call struct {
	name        string // of the method
	method      string // of HTTP
	path        string // behind the base path
	summary     string
	description string
	in          string  // Go type of the body, "" for none, "io.Reader" for one that is no JSON
	inKind      string  // Content-Type of a body that is no JSON
	out         string  // Go type of the answer, "" for none, "[]byte" for one that is no JSON
	items       string  // Go type of the items of a listing
	paging      paging  // how a listing is read
	inPath      []param // in the path's order
	required    []param // in the query
	optional    []param // in the query
}

// paging is how a listing is read.
type paging int

const (
	unpaged paging = iota
	few            // client.List: the method reads all pages
	many           // client.Page: the method ranges over pages
)

// param is one parameter of a call.
type param struct {
	name, doc string
	kind      kind
}

// field is the name of a parameter as a member of a struct.
func (p param) field() string {
	if p.name == "nsid" || p.name == "asID" || p.name == "id" {
		return strings.ToUpper(p.name)
	}
	return upper(p.name)
}

// kind is how a parameter is written in Go.
type kind struct {
	goType string
	given  string // an expression over %s that is true where it was given
	text   string // an expression over %s that gives its text
}

var (
	textKind    = kind{goType: "string", given: `%s != ""`, text: "%s"}
	numberKind  = kind{goType: "int", given: "%s != 0", text: "strconv.Itoa(%s)"}
	flagKind    = kind{goType: "bool", given: "%s", text: "strconv.FormatBool(%s)"}
	eitherKind  = kind{goType: "*bool", given: "%s != nil", text: "strconv.FormatBool(*%s)"}
	timeKind    = kind{goType: "time.Time", given: "!%s.IsZero()", text: "%s.Format(time.RFC3339Nano)"}
	euiKind     = kind{goType: "lorawan.EUI64", given: "!%s.IsZero()", text: "%s.String()"}
	networkKind = kind{goType: "*lorawan.NetID", given: "%s != nil", text: "%s.String()"}
)

// identifiers is the Go type of each kind of identifier.
var identifiers = map[string]string{
	"org": "joinery.OrgID", "dev": "joinery.DeviceID", "kst": "joinery.KeySetID", "peer": "joinery.PeerID", "kek": "joinery.KEKID",
	"act": "joinery.ActivationID", "sgn": "joinery.SignerID", "imp": "joinery.ImportID", "key": "joinery.APIKeyID", "per": "joinery.PersonID", "inv": "joinery.InvitationID", "ses": "joinery.SessionID", "psk": "joinery.PasskeyID",
	"dsp": "joinery.DisputeID", "whk": "joinery.WebhookID", "rcp": "joinery.RecipientID", "exp": "joinery.ExportID",
	"rky": "joinery.RekeyID", "rkb": "joinery.RekeyBatchID", "jsv": "joinery.JoinServerID", "arr": "joinery.ArrivalID", "xpc": "joinery.ExpectationID",
	"prd": "joinery.ProductID", "pky": "joinery.ProductKeyID", "rel": "joinery.ReleaseID",
}

// read lists the calls of a document, in the order of their names.
func read(d *huma.OpenAPI) (calls []call, err error) {
	for path, item := range d.Paths {
		behind, ours := strings.CutPrefix(path, client.BasePath)
		if !ours {
			continue // another protocol's paths, which have clients of their own
		}
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			c, err := readOperation(d, op, behind)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op.OperationID, err)
			}
			calls = append(calls, c)
		}
	}
	slices.SortFunc(calls, func(a, b call) int { return cmp.Compare(a.name, b.name) })
	return calls, nil
}

func readOperation(d *huma.OpenAPI, op *huma.Operation, path string) (c call, err error) {
	c = call{
		name: methodName(op), method: op.Method, path: path,
		summary: op.Summary, description: op.Description,
	}
	if op.RequestBody != nil {
		if c.in, c.inKind, err = bodyType(d, op.RequestBody.Content, "io.Reader"); err != nil {
			return c, err
		}
	}
	for status, response := range op.Responses {
		if code, err := strconv.Atoi(status); err != nil || code < 200 || code > 299 || len(response.Content) == 0 {
			continue
		}
		if c.out, _, err = bodyType(d, response.Content, "[]byte"); err != nil {
			return c, err
		}
	}
	c.paging, c.items = listing(c.out)
	return c, c.readParams(op)
}

func (c *call) readParams(op *huma.Operation) error {
	for _, p := range op.Parameters {
		if p.In == "header" || c.paging == few && (p.Name == "after" || p.Name == "limit") {
			continue // those are options of every call, or followed by the call itself
		}
		k, err := kindOf(p)
		if err != nil {
			return err
		}
		if c.paging == many && p.Name == "after" && k != textKind {
			return fmt.Errorf("its 'after' has a form that people could build on; take the cursor of the API's type Paging")
		}
		one := param{name: p.Name, doc: p.Description, kind: k}
		switch {
		case p.In == "path":
			c.inPath = append(c.inPath, one)
		case p.Required:
			c.required = append(c.required, one)
		default:
			c.optional = append(c.optional, one)
		}
	}
	// As they stand in the path.
	slices.SortFunc(c.inPath, func(a, b param) int {
		return cmp.Compare(strings.Index(c.path, "{"+a.name+"}"), strings.Index(c.path, "{"+b.name+"}"))
	})
	return nil
}

// methodName makes "Peer" of getPeer, "Peers" of listPeers, "AddPeer" of addPeer;
// an operation may name its method otherwise.
func methodName(op *huma.Operation) string {
	if name, ok := op.Extensions[api.GoName].(string); ok {
		return name
	}
	for _, verb := range []string{"get", "list"} {
		if rest, ok := strings.CutPrefix(op.OperationID, verb); ok {
			return rest
		}
	}
	return upper(op.OperationID)
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// bodyType gives the Go type of a body: that of its schema, or other where it is
// no JSON.
func bodyType(d *huma.OpenAPI, content map[string]*huma.MediaType, other string) (goType, mediaType string, err error) {
	media, ok := content["application/json"]
	if !ok {
		for kind := range content {
			mediaType = kind
		}
		return other, mediaType, nil
	}
	t := d.Components.Schemas.TypeFromRef(media.Schema.Ref)
	if t == nil {
		return "", "", fmt.Errorf("its body has no type that the client shares")
	}
	goType, err = typeName(t)
	return goType, "", err
}

// typeName gives a type of the package client as it is written there.
func typeName(t reflect.Type) (string, error) {
	if t.PkgPath() != reflect.TypeFor[client.Problem]().PkgPath() {
		return "", fmt.Errorf("type %s is not one of the package client: whoever calls could not name it", t)
	}
	return strings.ReplaceAll(t.Name(), t.PkgPath()+".", ""), nil
}

// listing tells how a type of answers is read.
func listing(goType string) (paging, string) {
	for prefix, how := range map[string]paging{"List[": few, "Page[": many} {
		if rest, ok := strings.CutPrefix(goType, prefix); ok {
			return how, strings.TrimSuffix(rest, "]")
		}
	}
	return unpaged, ""
}

// kindOf tells how a parameter is written, by its schema.
func kindOf(p *huma.Param) (kind, error) {
	s := p.Schema
	switch s.Type {
	case huma.TypeBoolean:
		if s.Default != nil {
			return flagKind, nil
		}
		return eitherKind, nil
	case huma.TypeInteger:
		return numberKind, nil
	case huma.TypeString:
		return textKindOf(s)
	}
	return kind{}, fmt.Errorf("parameter %s: no Go type for %s", p.Name, s.Type)
}

func textKindOf(s *huma.Schema) (kind, error) {
	if s.Format == "date-time" {
		return timeKind, nil
	}
	switch s.Pattern {
	case "^[0-9A-Fa-f]{16}$":
		return euiKind, nil
	case "^[0-9A-Fa-f]{6}$":
		return networkKind, nil
	}
	prefix, _, isID := strings.Cut(strings.TrimPrefix(s.Pattern, "^"), "_[0-9a-f]")
	if !isID {
		return textKind, nil
	}
	goType := identifiers[prefix]
	if goType == "" {
		return kind{}, fmt.Errorf("no Go type for identifiers that begin with %s_: add it to the list in clientgen", prefix)
	}
	return kind{goType: goType, given: "%s != 0", text: "%s.String()"}, nil
}

// hasBody tells whether the call sends something.
func (c call) hasBody() bool { return c.in != "" }

// reads tells whether the call changes nothing.
func (c call) reads() bool { return c.method == http.MethodGet }
