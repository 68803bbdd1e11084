package api

import (
	"errors"
	"fmt"
	"io"

	"joinery"
	"joinery/lorawan"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decodePrefix marks messages of decodeJSON, which repeat nothing that was sent.
const decodePrefix = "decode: "

// jsonFormat reads strictly: duplicate and unknown members, other spellings of
// a name, invalid UTF-8 and anything behind the value are refused.
func jsonFormat() huma.Format {
	return huma.Format{Marshal: encodeJSON, Unmarshal: decodeJSON}
}

func encodeJSON(w io.Writer, v any) error {
	return json.MarshalWrite(w, v, json.Deterministic(true))
}

func decodeJSON(data []byte, v any) error {
	err := json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	return errors.New(decodePrefix + decodeMessage(err))
}

// decodeMessage says what is wrong without the text of the parser, which quotes
// what it read.
func decodeMessage(err error) string {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		what := "is not valid JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			what = "has a member twice in one object"
		}
		return fmt.Sprintf("%s, at byte %d", what, syntactic.ByteOffset)
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	switch {
	case !ok:
		return "is not valid JSON"
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Sprintf("has a member that is not known here, at byte %d; names are case-sensitive", semantic.ByteOffset)
	case errors.Is(err, lorawan.ErrSyntax), errors.Is(err, joinery.ErrID):
		// These say what they want and never what they got.
		return fmt.Sprintf("%v, at byte %d", semantic.Err, semantic.ByteOffset)
	}
	return fmt.Sprintf("has a value of the wrong form, at byte %d", semantic.ByteOffset)
}
