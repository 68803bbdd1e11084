package api

import (
	"slices"
	"strings"

	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
)

// maxFields bounds how many wrong members one answer names.
const maxFields = 32

// fields says which members of a request are wrong, in words that are ours. Of
// what huma found it keeps the place and, of messages that are made from the
// schema alone, the message; never the value. A place that was sent and not
// looked up, such as the name of an unknown member, is a value too.
func (s *Server) fields(op *huma.Operation, errs []*huma.ErrorDetail) []client.ProblemField {
	var out []client.ProblemField
	for _, e := range errs {
		if e == nil {
			continue
		}
		if len(out) == maxFields {
			out = append(out, client.ProblemField{Message: "and more"})
			break
		}
		f := s.field(op, e)
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func (s *Server) field(op *huma.Operation, e *huma.ErrorDetail) client.ProblemField {
	switch {
	case e.Message == validation.MsgUnexpectedProperty:
		location, names := s.known(op, e.Location)
		return client.ProblemField{Location: location, Message: "has a member that is not known here; known are " + strings.Join(names, ", ")}
	case e.Message == "unknown query parameter":
		return client.ProblemField{Location: "query", Message: "has a parameter that is not known here"}
	case strings.HasPrefix(e.Message, "expected "):
		// Formats that quote the parser's error put it behind a colon.
		message, _, _ := strings.Cut(e.Message, ": ")
		return client.ProblemField{Location: e.Location, Message: message}
	case strings.HasPrefix(e.Message, "required ") && strings.HasSuffix(e.Message, " parameter is missing"),
		e.Message == "invalid integer", e.Message == "invalid boolean":
		return client.ProblemField{Location: e.Location, Message: e.Message}
	case strings.HasPrefix(e.Message, decodePrefix):
		return client.ProblemField{Location: "body", Message: strings.TrimPrefix(e.Message, decodePrefix)}
	}
	return client.ProblemField{Location: e.Location, Message: "is not valid"}
}

// known walks location, "body.keks[0].name", down op's schema, and gives the
// place of the object whose last member is not known, with the members that are.
func (s *Server) known(op *huma.Operation, location string) (place string, names []string) {
	registry := s.registry()
	schema := op.RequestBody.Content["application/json"].Schema
	place = "body"
	for _, step := range strings.Split(location, ".")[1:] {
		for schema.Ref != "" {
			schema = registry.SchemaFromRef(schema.Ref)
		}
		name, index, isItem := strings.Cut(step, "[")
		next, ok := schema.Properties[name]
		if !ok {
			break
		}
		schema, place = next, place+"."+step
		for schema.Ref != "" {
			schema = registry.SchemaFromRef(schema.Ref)
		}
		if isItem && index != "" && schema.Items != nil {
			schema = schema.Items
		}
	}
	for schema.Ref != "" {
		schema = registry.SchemaFromRef(schema.Ref)
	}
	for name := range schema.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return place, names
}
