package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"joinery/internal/keyring"
	"joinery/lorawan"
)

// known lists the errors that callers tell apart. Their place is their number in
// the protocol: a change is a new Version.
var known = [...]error{
	keyring.ErrMIC,
	keyring.ErrIntegrity,
	keyring.ErrNoKEK,
	keyring.ErrUnknownMaster,
	keyring.ErrNoRoot,
	keyring.ErrTransport,
	keyring.ErrRequest,
	keyring.ErrClosed,
	keyring.ErrToken,
	keyring.ErrNotServed,
	keyring.ErrLevel,
	keyring.ErrPIN,
	lorawan.ErrFrame,
	context.Canceled,
	context.DeadlineExceeded,
	keyring.ErrLimit,
}

// maxErrorText bounds the text of an error on the wire.
const maxErrorText = 1 << 10

// Codes of errors that need no text.
const (
	noError    = 0
	otherError = 0xFF // a set of known errors, and a text; else 1 + the place in known
)

// Error is an error of the other side: its text, and which of the known errors it
// is.
type Error struct {
	text string
	is   uint32 // bits by place in known
}

// Error implements error.
func (e *Error) Error() string { return e.text }

// Is implements errors.Is.
func (e *Error) Is(target error) bool {
	for i, k := range known {
		if e.is&(1<<i) != 0 && k == target { //nolint:errorlint // these very errors
			return true
		}
	}
	return false
}

// err appends an error, nil included. Texts of the keyring say nothing about
// keys; what a token's own might say is cut to what can be read.
func (e *encoder) err(err error) {
	if err == nil {
		e.u8(noError)
		return
	}
	set := uint32(0)
	for i, k := range known {
		if err == k { //nolint:errorlint // this very error has this very text
			e.u8(uint8(1 + i))
			return
		}
		if errors.Is(err, k) {
			set |= 1 << i
		}
	}
	e.u8(otherError)
	e.u32(set)
	e.string(legible(err.Error()))
}

func (d *decoder) err() error {
	switch code := d.u8(); {
	case code == noError:
		return nil
	case int(code) <= len(known):
		return known[code-1]
	case code == otherError:
		e := &Error{is: d.u32(), text: legible(d.string())}
		if e.is>>len(known) != 0 {
			d.bad = true
		}
		return e
	}
	d.bad = true
	return nil
}

// legible makes text that fits into a line of a log.
func legible(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return text
}

// ErrLost says that the connection ended before the answer came. Whether the
// verb was done nobody knows, and it does not matter: all can be asked again.
var ErrLost = fmt.Errorf("%w: the connection to its process was lost", keyring.ErrToken)

// ErrVersion says that the other side speaks another version of the protocol.
var ErrVersion = errors.New("the keyring's process is of another release")
