package joinery

import "time"

// Caller is who asks. Every rule takes it as an argument; none finds it in a
// context.
type Caller struct {
	// Org is the organisation for which the caller acts; zero for the server's
	// operator acting for no organisation.
	Org OrgID
	// Operator is set for the server's operator: root or the server's own user
	// on the operator socket, or an API key with that role.
	Operator bool
	// Name is for the audit log: "socket uid 0", "key key_0c3k…".
	Name string
	// ExpiresAt is when the caller's API key ends; zero for one without end, and
	// for the operator socket.
	ExpiresAt time.Time
}

// Owns tells whether the caller may see and change what org holds.
func (c Caller) Owns(org OrgID) bool { return c.Operator || (org != 0 && c.Org == org) }

// RequireOperator refuses everyone but the operator.
func (c Caller) RequireOperator() error {
	if !c.Operator {
		return Errorf(CodeForbidden, "only the operator of this Join Server may do that")
	}
	return nil
}
