package api

import (
	"context"
	"encoding"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"joinery"
	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
)

// GoName is the member of an operation that names its method in the Go client.
const GoName = "x-go-name"

// Secret is the member of an operation whose answer holds a secret.
const Secret = "x-joinery-secret"

// Right is the member of an operation that names the right which it needs.
const Right = "x-joinery-right"

// spec describes one route for the document.
type spec struct {
	method, path string
	id           string // operationId
	tag          string
	summary      string
	description  string
	call         string // the client's method, where it is not called after the id
	secret       bool   // its answer holds a secret, which is never stored
	status       int    // of success; 0: 200, or 204 without a body
	maxBody      int64  // 0: ordinaryBody
	csv          bool   // its answer is a CSV
}

// none is the input of a route without parameters, or the output of one without
// a body.
type none struct{}

// body is an input or output that is a body and nothing else.
type body[T any] struct{ Body T }

// ok makes an output of v.
func ok[T any](v T) *body[T] { return &body[T]{v} }

// each converts a slice; the result is never nil.
func each[S, T any](in []S, convert func(S) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

// route registers h under sp. The caller is found before h runs and is an
// argument of it; whatever error h gives becomes a problem.
func route[I, O any](s *Server, sp spec, h func(ctx context.Context, caller joinery.Caller, in *I) (*O, error)) {
	op := huma.Operation{
		OperationID: sp.id, Method: sp.method, Path: full(sp.path), Tags: []string{sp.tag},
		Summary: sp.summary, Description: strings.TrimSpace(sp.description + "\n\n" + needText(needs[sp.id])), DefaultStatus: sp.status,
		MaxBodyBytes: ordinaryBody + 1,
		// readBody bounds the reading. A deadline that outlives it would end h with
		// it: the server reads on for the next request, and takes a time-out there
		// for a client that went away.
		BodyReadTimeout: -1,
		Responses:       s.refusals(sp, reflect.TypeFor[I]()),
	}
	op.Extensions = map[string]any{Right: needs[sp.id]}
	if sp.call != "" {
		op.Extensions[GoName] = sp.call
	}
	if sp.secret {
		op.Extensions[Secret] = true
	}
	if sp.maxBody != 0 {
		op.MaxBodyBytes = sp.maxBody + 1
	}
	if sp.csv {
		op.Responses[strconv.Itoa(http.StatusOK)] = &huma.Response{
			Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}
	}
	if needs[sp.id] == everybody {
		op.Security = []map[string][]string{{}}
	} else {
		op.Parameters = headers(sp)
	}
	huma.Register(s.made.huma, op, func(ctx context.Context, in *I) (*O, error) {
		caller, known := ctx.Value(callerKey{}).(joinery.Caller)
		if !known {
			return nil, s.newProblem(joinery.CodeInternal, "internal error", requestID(ctx))
		}
		out, err := h(ctx, caller, in)
		if err != nil {
			s.logFailure(ctx, sp.id, err)
			s.attemptedBy(sp.id, caller, err, in)
			return nil, s.problemOf(err, requestID(ctx))
		}
		return out, nil
	})
}

// organisationParam documents the header that every route takes; see actFor.
func organisationParam() *huma.Param {
	return &huma.Param{
		Name: client.OrganisationHeader, In: "header",
		Description: "The organisation for which the caller acts: any for an operator, one of their own for a person; without it the only one",
		Schema:      &huma.Schema{Type: huma.TypeString, Pattern: "^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$"},
	}
}

// headers documents what a route takes beside its own parameters.
func headers(sp spec) []*huma.Param {
	text := func(name, pattern, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: huma.TypeString, Pattern: pattern}}
	}
	list := []*huma.Param{organisationParam(), text(client.RequestIDHeader, "",
		"The request's name in the answer and in the log, such as a UUID: words of at most 16 letters and digits with dashes or dots between. "+
			"Without it, or where it has another form, the server draws one")}
	if takesMatch(sp.method, full(sp.path)) {
		list = append(list, text(ifMatch, "", "The ETag under which it was read: what was changed since is refused with 412"))
	}
	if sp.method != http.MethodGet && needs[sp.id] != everybody {
		list = append(list, text(idempotencyKey, keyText.String(),
			"A name for this request, such as a random UUID: sent again within a day, with the same content, it does nothing more and gets the same answer"))
	}
	return list
}

// bodyLimit is the most bytes that op takes: huma refuses a body as long as its
// own limit.
func bodyLimit(op *huma.Operation) int64 { return op.MaxBodyBytes - 1 }

// refusals documents the refusals that a route can give.
func (s *Server) refusals(sp spec, in reflect.Type) map[string]*huma.Response {
	statuses := []int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	if _, has := in.FieldByName("Body"); has {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if sp.method != http.MethodGet {
		statuses = append(statuses, http.StatusConflict)
	}
	if takesMatch(sp.method, full(sp.path)) {
		statuses = append(statuses, http.StatusPreconditionFailed)
	}
	schema := s.made.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[client.Problem](), true, "Problem")
	out := map[string]*huma.Response{}
	for _, status := range statuses {
		out[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status),
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: schema}},
		}
	}
	return out
}

// parse reads an identifier of a path. One that is well-formed but is no
// identifier names nothing.
func parse[T any, P interface {
	*T
	encoding.TextUnmarshaler
}](text, what string) (id T, err error) {
	if P(&id).UnmarshalText([]byte(text)) != nil {
		return id, joinery.Errorf(joinery.CodeNotFound, "no such %s", what)
	}
	return id, nil
}
