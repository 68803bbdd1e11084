package joinery

import "time"

// Caller is who asks. Every rule takes it as an argument; none finds it in a
// context.
type Caller struct {
	// Org is the organisation for which the caller acts; zero for the server's
	// operator acting for no organisation.
	Org OrgID
	// Operator is set for the server's operator: root or the server's own user
	// on the operator socket, an API key with that role, or somebody who belongs
	// to the operator's organisation.
	Operator bool
	// Name is for the audit log: "socket uid 0", "key key_0c3k…",
	// "person per_0c3k…".
	Name string
	// ExpiresAt is when the caller's API key ends; zero for one without end, and
	// for the operator socket.
	ExpiresAt time.Time
	// Rights is what the caller may do for Org, or as operator. The doors hold
	// every call against it before a rule sees the call; rules decide about whose
	// things they are.
	Rights Rights
	// Person is who signed in, or who made the API key; zero where no person did.
	Person PersonID
	// Session is set where the caller is a person who signed in, Key where it is
	// an API key, Socket for the operator socket. SessionKind is the session's.
	Session     SessionID
	SessionKind SessionKind
	Key         APIKeyID
	Socket      bool
}

// May tells whether the caller has a right.
func (c Caller) May(r Right) bool { return c.Rights.Has(r) }

// Require refuses who lacks a right, and names it.
func (c Caller) Require(r Right) error {
	switch {
	case c.May(r):
		return nil
	case c.Session != 0 && c.Org == 0 && !c.Operator:
		return Errorf(CodeForbidden, "you belong to several organisations, or to none: say for which one you act")
	}
	return &Attempted{Reason: AttemptNoRight, Err: Errorf(CodeForbidden, "this needs the right %s, which you do not have here", r)}
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

// RequireSocket refuses everyone but the operator on the operator socket: for what
// passes between the server and programs on its own machine, and is no business of
// anybody who holds a key or a session.
func (c Caller) RequireSocket() error {
	if !c.Operator || !c.Socket {
		return Errorf(CodeForbidden, "that is possible on the operator socket only, on the server's own machine")
	}
	return nil
}
