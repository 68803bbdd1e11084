// Package jsonlist bounds the lists of JSON that a stranger wrote while they are read:
// an item of three bytes may take a hundred once it is read, so that to count after is
// too late.
package jsonlist

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Most has lists of T read as long as count does not pass most, with tooMany else.
// Lists that share count are bounded together, also over several values.
func Most[T any](most int, count *int, tooMany error) *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]T) error {
		*to = nil
		if d.PeekKind() != '[' {
			return errors.ErrUnsupported // null, or what the reader refuses
		}
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		*to = []T{}
		for d.PeekKind() != ']' {
			if *count++; *count > most {
				return tooMany
			}
			var item T
			if err := json.UnmarshalDecode(d, &item); err != nil {
				return err
			}
			*to = append(*to, item)
		}
		_, err := d.ReadToken()
		return err
	})
}
