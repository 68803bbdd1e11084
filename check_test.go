package joinery_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"joinery"
	"joinery/lorawan"
)

func TestCheckASID(t *testing.T) {
	for _, good := range []string{"as.example.com", "a", "ttn-v3:EU1/x~!", strings.Repeat("a", joinery.MaxASID)} {
		if err := joinery.CheckASID(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a b", "a\n", "ä", "\x7f", "\xff", strings.Repeat("a", joinery.MaxASID+1)} {
		if code := joinery.CodeOf(joinery.CheckASID(bad)); code != joinery.CodeInvalid {
			t.Errorf("%q: code %q", bad, code)
		}
	}
}

func TestBindingCheck(t *testing.T) {
	for name, c := range map[string]struct {
		binding joinery.Binding
		want    joinery.Code
	}{
		"clear without AS":   {joinery.Binding{}, ""},
		"wrapped":            {joinery.Binding{ASID: "as", Policy: joinery.AppSKeyWrapped}, ""},
		"by id":              {joinery.Binding{ASID: "as", Policy: joinery.AppSKeyByID}, ""},
		"wrapped for nobody": {joinery.Binding{Policy: joinery.AppSKeyWrapped}, joinery.CodeInvalid},
		"by id for nobody":   {joinery.Binding{Policy: joinery.AppSKeyByID}, joinery.CodeInvalid},
		"unknown policy":     {joinery.Binding{ASID: "as", Policy: 3}, joinery.CodeInvalid},
		"AS-ID malformed":    {joinery.Binding{ASID: "a s"}, joinery.CodeInvalid},
	} {
		if code := joinery.CodeOf(c.binding.Check()); code != c.want {
			t.Errorf("%s: code %q, want %q", name, code, c.want)
		}
	}
}

// TestNewDevNonceSet makes sets at once and one by one, on both sides of the
// size at which the stored form changes.
func TestNewDevNonceSet(t *testing.T) {
	for _, n := range []int{0, 1, 2, 4094, 4095, 4096, 5000} {
		var values []lorawan.DevNonce
		var oneByOne joinery.DevNonceSet
		for _, v := range rand.Perm(1 << 16)[:n] {
			values = append(values, lorawan.DevNonce(v))
			oneByOne = oneByOne.With(lorawan.DevNonce(v))
		}
		set := joinery.NewDevNonceSet(append(values, values...))
		if set.Len() != n || !slices.Equal(slices.Collect(set.All), slices.Collect(oneByOne.All)) {
			t.Errorf("%d values: the sets differ", n)
		}
		at := joinery.JoinEUINonces{Used: set}
		stored := joinery.Nonces{}.With(at).Encode()
		back, err := joinery.DecodeNonces(0, stored)
		if err != nil || back.For(at.JoinEUI).Used.Len() != n {
			t.Errorf("%d values: stored form: %v", n, err)
		}
	}
}

func TestActingFor(t *testing.T) {
	one, two, absent := joinery.NewOrgID(), joinery.NewOrgID(), joinery.NewOrgID()
	orgs := []joinery.Organisation{{ID: one}, {ID: two}}
	operator, tenant, nobody := joinery.Caller{Operator: true}, joinery.Caller{Org: one}, joinery.Caller{}
	for name, c := range map[string]struct {
		caller joinery.Caller
		named  joinery.OrgID
		orgs   []joinery.Organisation
		want   joinery.OrgID
		code   joinery.Code
	}{
		"own":                         {tenant, 0, orgs, one, ""},
		"own, named":                  {tenant, one, orgs, one, ""},
		"another's":                   {tenant, two, orgs, 0, joinery.CodeNotFound},
		"absent":                      {tenant, absent, orgs, 0, joinery.CodeNotFound},
		"operator, named":             {operator, two, orgs, two, ""},
		"operator, absent":            {operator, absent, orgs, 0, joinery.CodeNotFound},
		"operator, none of several":   {operator, 0, orgs, 0, joinery.CodeInvalid},
		"operator, none of one":       {operator, 0, orgs[1:], two, ""},
		"operator acting for one":     {joinery.Caller{Operator: true, Org: one}, 0, orgs, one, ""},
		"nobody":                      {nobody, 0, orgs[:1], 0, joinery.CodeInvalid},
		"nobody, named":               {nobody, one, orgs[:1], 0, joinery.CodeNotFound},
		"organisation that was there": {joinery.Caller{Org: absent}, 0, orgs, 0, joinery.CodeNotFound},
	} {
		got, err := c.caller.ActingFor(c.named, c.orgs)
		if got != c.want || joinery.CodeOf(err) != c.code {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
