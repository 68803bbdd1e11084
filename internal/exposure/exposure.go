// Package exposure is what one Join Server tells the next of who could read the root
// keys of a device so far. It travels in what that one signs: in each device of an
// export, and in hand-overs. What is signed cannot be taken out on the way; what the
// teller does afterwards, or never knew, is not in it.
package exposure

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Exposure is what a Join Server knows.
type Exposure struct {
	// Outside: the root keys came to a Join Server from elsewhere, and none told who
	// could read them there; such as from a list, whose maker could.
	Outside bool `json:"outside"`
	// Disclosed: root keys of the device were once made readable to somebody. That
	// can be so without a time: the record may be under other EUIs.
	Disclosed bool `json:"disclosed"`
	// Times are the disclosures that are known, oldest first.
	Times []Time `json:"times"`
}

// Time is one time that root keys of a device were made readable to somebody.
type Time struct {
	At time.Time `json:"at"` // UTC, to the millisecond
	// Recipient is the thumbprint of the key to which they were encrypted; Kind says
	// whose that is: "file", somebody's, or "join-server".
	Recipient string `json:"recipient"`
	Kind      string `json:"kind"`
	// By is the Join Server that did it, where that is not the one that tells.
	By string `json:"by,omitzero"`
	// Reference is how that one calls what it did: an export, or an order to rekey;
	// Org the organisation that had it done, which is no name.
	Reference string `json:"reference"`
	Org       string `json:"org,omitzero"`
	// Former: they were root keys that the device had before, and has not any more.
	Former bool `json:"former,omitzero"`
}

// Bounds of what is told.
const (
	// MaxTimes is as many as a Join Server looks up.
	MaxTimes = 1000
	maxText  = 256
)

// ErrExposure says that what is told contradicts itself, or is too long. It repeats
// no value.
var ErrExposure = errors.New("not a usable statement about disclosures")

var thumbprintForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// Check tells whether e is whole. ErrExposure.
func (e Exposure) Check() error {
	if len(e.Times) > MaxTimes || len(e.Times) > 0 && !e.Disclosed {
		return fmt.Errorf("%w: it has more than %d times, or some and says that there are none", ErrExposure, MaxTimes)
	}
	for _, t := range e.Times {
		switch {
		case t.At.IsZero() || t.At.Year() > 9999:
			return fmt.Errorf("%w: a time is missing", ErrExposure)
		case !thumbprintForm.MatchString(t.Recipient) || t.Kind != "file" && t.Kind != "join-server":
			return fmt.Errorf("%w: a recipient is none", ErrExposure)
		case len(t.By) > maxText || t.Reference == "" || len(t.Reference) > maxText || len(t.Org) > maxText:
			return fmt.Errorf("%w: a name is missing, or longer than %d bytes", ErrExposure, maxText)
		case !IsName(t.By) || !IsName(t.Reference) || !IsName(t.Org):
			return fmt.Errorf("%w: a name has characters that no name has", ErrExposure)
		}
	}
	return nil
}

// IsName tells whether a text that a stranger wrote can be kept and shown: it is UTF-8
// without control characters. Of those PostgreSQL stores no NUL, and a terminal obeys
// some.
func IsName(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// Reaches tells whether the root keys that the device has now are among what was
// disclosed, as far as is known. What has no time may be.
func (e Exposure) Reaches() bool {
	for _, t := range e.Times {
		if !t.Former {
			return true
		}
	}
	return e.Disclosed && len(e.Times) == 0
}

// Former gives e for a device that derived new root keys inside its element: what was
// disclosed of the old ones stays known. Whoever has old root keys, and heard the
// instruction, has not the rekeying key that new ones derive from. They came from
// nowhere else, unless that key did: outside.
func (e Exposure) Former(outside bool) Exposure {
	times := make([]Time, len(e.Times))
	for i, t := range e.Times {
		t.Former = true
		times[i] = t
	}
	return Exposure{Outside: outside, Disclosed: e.Disclosed, Times: times}
}
