package joinery

import (
	"slices"

	"joinery/lorawan"
)

// MaxASID is the length of the longest AS-ID, in bytes.
const MaxASID = 64

// CheckASID refuses what cannot be an AS-ID: it is 1 to 64 bytes of printable
// ASCII without spaces, since it travels in JSON as SenderID and is compared
// byte by byte.
func CheckASID(s string) error {
	visible := func(r rune) bool { return '!' <= r && r <= '~' }
	if s == "" || len(s) > MaxASID || slices.ContainsFunc([]rune(s), func(r rune) bool { return !visible(r) }) {
		return Errorf(CodeInvalid, "an AS-ID is 1 to %d printable ASCII characters without spaces", MaxASID)
	}
	return nil
}

// Check refuses a binding that an owner cannot mean. Whether the network or the
// Application Server is known here does not matter: it may be added later, and
// until then joins are refused. Policy has no default: whoever reads a request
// must insist that it names one, since the zero value is AppSKeyClear.
func (b Binding) Check() error {
	if b.Policy > AppSKeyByID {
		return Errorf(CodeInvalid, "the AppSKey policy is clear, wrapped or session-key-id")
	}
	if b.ASID == "" && b.Policy != AppSKeyClear {
		return Errorf(CodeInvalid, "AppSKey policy %s needs the AS-ID of the Application Server that may have the key", b.Policy)
	}
	if b.ASID != "" {
		return CheckASID(b.ASID)
	}
	return nil
}

// SameTerms tells whether two bindings let the same parties do the same; epoch
// and time do not matter.
func (b Binding) SameTerms(o Binding) bool {
	b.Epoch, b.Since = o.Epoch, o.Since
	return b == o
}

// NewDevNonceSet makes the set of values, of any number and in any order.
func NewDevNonceSet(values []lorawan.DevNonce) DevNonceSet {
	sorted := slices.Compact(slices.Sorted(slices.Values(values)))
	if 2*len(sorted) < bitmapLen {
		s := DevNonceSet{make([]byte, 0, 2*len(sorted))}
		for _, v := range sorted {
			s.stored = append(s.stored, byte(v>>8), byte(v))
		}
		return s
	}
	s := DevNonceSet{make([]byte, bitmapLen)}
	for _, v := range sorted {
		s.stored[v/8] |= 1 << (v % 8)
	}
	return s
}

// ActingFor gives the organisation for which c acts: the one that it names, or
// its own, or, for an operator who says nothing where there is only one, that
// one. orgs are all that exist. An organisation that is not c's is answered
// like one that does not exist.
func (c Caller) ActingFor(named OrgID, orgs []Organisation) (OrgID, error) {
	if named == 0 {
		named = c.Org
	}
	if named == 0 && c.Operator && len(orgs) == 1 {
		named = orgs[0].ID
	}
	exists := slices.ContainsFunc(orgs, func(o Organisation) bool { return o.ID == named })
	switch {
	case named == 0:
		return 0, Errorf(CodeInvalid, "say for which organisation")
	case !exists || !c.Owns(named):
		return 0, Errorf(CodeNotFound, "no such organisation")
	}
	return named, nil
}
