package api

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-json-experiment/json"
)

// strict refuses what huma would pass over: parameters that are given without a
// value, or twice, other spellings of true and false, and null for a member that
// has no such value. Somebody meant something by it, and a filter that is passed
// over shows, or changes, more than was meant.
func (s *Server) strict(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	u := ctx.URL()
	wrong := wrongQuery(op, u.Query())
	if len(wrong) == 0 && op.RequestBody != nil {
		wrong = s.wrongNulls(op, bodyOf(ctx))
	}
	if len(wrong) == 0 {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	p := s.statusProblem(http.StatusUnprocessableEntity, statusDetail(http.StatusUnprocessableEntity), requestID(r.Context()))
	p.Errors = wrong
	s.write(w, p)
}

func wrongQuery(op *huma.Operation, query url.Values) (wrong []client.ProblemField) {
	for _, p := range op.Parameters {
		values, given := query[p.Name]
		if p.In != "query" || !given {
			continue
		}
		message := ""
		switch {
		case len(values) > 1:
			message = "is given more than once"
		case values[0] == "":
			message = "is given without a value"
		case p.Schema.Type == huma.TypeBoolean && values[0] != "true" && values[0] != "false":
			message = "expected true or false"
		}
		if message != "" {
			wrong = append(wrong, client.ProblemField{Location: "query." + p.Name, Message: message})
		}
	}
	return wrong
}

// mayHoldNull finds a null in JSON, without reading the base64 of an import for
// one: there is none behind a letter. Bodies of rows are megabytes, and looked
// through by every request; a regular expression took longer than a signature of
// each entry.
func mayHoldNull(body []byte) bool {
	const null = "null"
	for {
		i := bytes.Index(body, []byte(null))
		if i < 0 {
			return false
		}
		if i > 0 && strings.IndexByte("[:, \t\r\n", body[i-1]) >= 0 {
			return true
		}
		body = body[i+len(null):]
	}
}

// wrongNulls looks for nulls where the schema has none.
func (s *Server) wrongNulls(op *huma.Operation, body []byte) []client.ProblemField {
	media := op.RequestBody.Content["application/json"]
	var v any
	if media == nil || !mayHoldNull(body) || json.Unmarshal(body, &v) != nil {
		return nil // what is no JSON is refused by its reader
	}
	n := nulls{registry: s.registry()}
	n.look(media.Schema, v, "body")
	return n.found
}

// nulls looks for nulls that a schema does not allow.
type nulls struct {
	registry huma.Registry
	found    []client.ProblemField
}

func (n *nulls) look(s *huma.Schema, v any, place string) {
	for s != nil && s.Ref != "" {
		s = n.registry.SchemaFromRef(s.Ref)
	}
	if s == nil || len(n.found) == maxFields || s.Type == "" {
		return
	}
	switch v := v.(type) {
	case nil:
		if !s.Nullable && place != "body" {
			n.found = append(n.found, client.ProblemField{Location: place, Message: "is null; leave it out instead"})
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) { // those alone: other names were sent
			if member, ok := v[name]; ok {
				n.look(s.Properties[name], member, place+"."+name)
			}
		}
	case []any:
		for i, item := range v {
			n.look(s.Items, item, fmt.Sprintf("%s[%d]", place, i))
		}
	}
}
