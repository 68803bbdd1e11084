package exposure_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"joinery/internal/exposure"
)

// A text that no database keeps, or a terminal obeys, is refused where it comes in.
func TestNames(t *testing.T) {
	good := exposure.Time{At: time.Unix(1, 0), Recipient: strings.Repeat("r", 43), Kind: "file", By: "Jörg's server", Reference: "exp_1", Org: "org_1"}
	check := func(x exposure.Time) error {
		return exposure.Exposure{Disclosed: true, Times: []exposure.Time{x}}.Check()
	}
	if err := check(good); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"a\x00", "\x1b[2J", "a\u0085b", "a\x7f", "\xff"} {
		by, reference, org := good, good, good
		by.By, reference.Reference, org.Org = bad, bad, bad
		for _, x := range []exposure.Time{by, reference, org} {
			if err := check(x); !errors.Is(err, exposure.ErrExposure) {
				t.Errorf("%+q is taken: %v", bad, err)
			}
		}
	}
}
