package backend

// ErrorKind tells what can be done about a message that is not well-formed.
type ErrorKind uint8

// The kinds of errors, in the order in which they are looked for.
const (
	// Unanswerable: no answer can be addressed. The body is not one JSON object,
	// its MessageType is none of ours, or SenderID or ReceiverID cannot be read.
	Unanswerable ErrorKind = iota + 1
	// UnsupportedVersion: ProtocolVersion is not one that we speak; the header
	// is readable.
	UnsupportedVersion
	// Malformed: a member is missing or not what it should be; the header is
	// readable as far as the member that is wrong.
	Malformed
)

// Error tells what is wrong with a message: which member, and what was wanted.
// It holds nothing of what was there.
type Error struct {
	Kind  ErrorKind
	Field string // "" is the message as a whole
	Want  string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Want
	}
	return e.Field + ": " + e.Want
}
