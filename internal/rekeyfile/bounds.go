package rekeyfile

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of one file.
const (
	// MaxDevices is the most devices of a ticket or hand-over, and the most entries of a
	// page of receipts or of an answer to an offer.
	MaxDevices = 200
	// MaxKeySets is the most key sets of all devices of a hand-over together.
	MaxKeySets = 17 * MaxDevices
)

// bounded reads the lists of one file and counts while it does: a file of four
// mebibytes may name a million devices, each of which takes far more room once it is
// read. ErrTooMany.
func bounded() *json.Unmarshalers {
	var devices, sets, entries int
	return json.JoinUnmarshalers(
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]HandedOver) error { return readList(d, to, &devices, MaxDevices) }),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]Generation) error {
			return readList(d, to, &sets, MaxKeySets-MaxDevices)
		}),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]Order) error { return readList(d, to, &devices, MaxDevices) }),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]Told) error { return readList(d, to, &entries, MaxDevices) }),
		json.UnmarshalFromFunc(func(d *jsontext.Decoder, to *[]Joined) error { return readList(d, to, &entries, MaxDevices) }),
	)
}

// readList reads a list, or null for none, as long as count does not pass most.
func readList[T any](d *jsontext.Decoder, to *[]T, count *int, most int) error {
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
			return ErrTooMany
		}
		var item T
		if err := json.UnmarshalDecode(d, &item); err != nil {
			return err
		}
		*to = append(*to, item)
	}
	_, err := d.ReadToken()
	return err
}
