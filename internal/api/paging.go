package api

import (
	"cmp"
	"encoding"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"joinery"
	"joinery/client"
)

// Paging is where a page of a listing begins and how long it is at most. Its name
// is exported because huma looks past embedded types of other names.
type Paging struct {
	After string `query:"after" maxLength:"256" pattern:"^[A-Za-z0-9_-]+$" patternDescription:"the 'next' of a page" doc:"Go on behind the page whose 'next' this is"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"At most this many items"`
}

// A cursor is the place behind which a page begins: the listing's name and what
// the listing is ordered by, of the last item that was looked at. It is opaque
// only so that nobody builds on what is in it. It needs no seal: it holds
// nothing that its reader was not shown, and whoever makes one up begins
// somewhere in what the rules let him see anyway.

var cursorText = base64.RawURLEncoding

func cursor(listing string, place ...string) string {
	return cursorText.EncodeToString([]byte(strings.Join(append([]string{listing}, place...), " ")))
}

// place reads the cursor of a listing into n values; nil for the beginning.
func (in Paging) place(listing string, n int) ([]string, error) {
	if in.After == "" {
		return nil, nil
	}
	text, err := cursorText.DecodeString(in.After)
	parts := strings.Split(string(text), " ")
	if err != nil || len(parts) != n+1 || parts[0] != listing {
		return nil, errCursor
	}
	return parts[1:], nil
}

var errCursor = joinery.Errorf(joinery.CodeInvalid, "after: want the 'next' of a page of this same listing")

// placeID reads the cursor of a listing that is in the order of identifiers; zero
// for the beginning.
func placeID[T any, P interface {
	*T
	encoding.TextUnmarshaler
}](in Paging, listing string) (id T, err error) {
	place, err := in.place(listing, 1)
	if err == nil && place != nil && P(&id).UnmarshalText([]byte(place[0])) != nil {
		err = errCursor
	}
	return id, err
}

// placeNumber reads the cursor of a listing that is in the order of numbers;
// otherwise gives the beginning.
func placeNumber(in Paging, listing string, otherwise int64) (int64, error) {
	place, err := in.place(listing, 1)
	if err != nil || place == nil {
		return otherwise, err
	}
	n, err := strconv.ParseInt(place[0], 10, 64)
	if err != nil || n < 0 {
		return 0, errCursor
	}
	return n, nil
}

// few makes a page of all that there is, of things of which there are few. key
// is unique and gives the order.
func few[S, T any](in Paging, listing string, all []S, key func(S) string, convert func(S) T) (*body[client.List[T]], error) {
	after, err := in.place(listing, 1)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b S) int { return cmp.Compare(key(a), key(b)) })
	if after != nil {
		from, found := slices.BinarySearchFunc(all, after[0], func(v S, k string) int { return cmp.Compare(key(v), k) })
		if found {
			from++
		}
		all = all[from:]
	}
	next := ""
	if len(all) > in.Limit {
		all = all[:in.Limit]
		next = cursor(listing, key(all[in.Limit-1]))
	}
	return ok(client.List[T]{Items: each(all, convert), Next: next}), nil
}
