// Package rekeylink has both ends of the protocol by which Join Servers hand devices
// over: the door that others call, and the calls to others. Both sides prove by
// their certificates who they are; what goes between is signed files, which package
// rekey makes and judges. docs/handover.md describes it for other implementations.
package rekeylink

// Paths of the protocol's version, below an origin or a path that the operator pinned.
const (
	// Base is that of version 1; what does not know it has another one.
	Base = "/handover/v1"

	pathOffers   = Base + "/offers"
	pathReceipts = Base + "/receipts"
)

// Media types. What is posted must be of the first.
const (
	typeFile    = "application/json"
	typeProblem = "application/problem+json"
)

// MaxBody bounds a message either way, in bytes.
const MaxBody = 4 << 20

// problem is an error of the protocol, as RFC 9457 has it: Code is what a program
// looks at, Detail is for people.
type problem struct {
	Type   string `json:"type"` // "about:blank"
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Codes of problems.
const (
	codeIdentity    = "identity"     // the certificate belongs to no Join Server that is pinned
	codeInvalid     = "invalid"      // the message is not of the format, or not signed by who sends it
	codeTooLarge    = "too-large"    // it is over a bound
	codeAhead       = "ahead"        // there are not so many receipts, or they are of another epoch
	codeRate        = "rate"         // too many calls; see Retry-After
	codeUnavailable = "unavailable"  // try again; see Retry-After
	codeNoSuch      = "no-such-path" // perhaps of another version
)
