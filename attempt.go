package joinery

import (
	"slices"
	"time"

	"joinery/lorawan"
)

// AttemptReason says, in a word of a closed set, why somebody was refused what
// they asked for at the management API. The words are stored and stand in the
// custody log; one that was given is never given another meaning.
type AttemptReason string

// The reasons. Those of credentials are told to whose credential it is, the
// others also, or only, to who holds the device.
const (
	AttemptNoRight      AttemptReason = "no-right"      // the credential lacks the right that the act needs
	AttemptNotAllowed   AttemptReason = "not-allowed"   // the right is there, and a rule forbids it
	AttemptOwnRequest   AttemptReason = "own-request"   // who asked for it cannot approve it
	AttemptKeyWrong     AttemptReason = "key-wrong"     // an API key with the id of one of the organisation's, and another secret
	AttemptKeyRevoked   AttemptReason = "key-revoked"   // a revoked API key
	AttemptKeyExpired   AttemptReason = "key-expired"   // one that has ended
	AttemptKeyOrphaned  AttemptReason = "key-orphaned"  // one whose maker does not belong to the organisation any more
	AttemptOtherOrg     AttemptReason = "other-org"     // it was to act for an organisation that is not its own
	AttemptNotHeld      AttemptReason = "not-held"      // the device is another organisation's
	AttemptNoCredential AttemptReason = "no-credential" // no credential that is known here
	AttemptOwned        AttemptReason = "owned"         // claimed with the right owner token, of a device that has an owner
	AttemptTooMany      AttemptReason = "too-many"      // claims after too many wrong owner tokens; nobody looked at the token
	AttemptOther        AttemptReason = "other"         // of more kinds than are told apart
)

// AttemptReasons is all of them.
var AttemptReasons = []AttemptReason{
	AttemptNoRight, AttemptNotAllowed, AttemptOwnRequest, AttemptKeyWrong, AttemptKeyRevoked, AttemptKeyExpired, AttemptKeyOrphaned,
	AttemptOtherOrg, AttemptNotHeld, AttemptNoCredential, AttemptOwned, AttemptTooMany, AttemptOther,
}

// OfHolder tells whether a reason is for who holds the device alone: to whoever
// asked it would tell that there is one.
func (r AttemptReason) OfHolder() bool {
	return slices.Contains([]AttemptReason{AttemptNotHeld, AttemptNoCredential, AttemptOwned, AttemptTooMany}, r)
}

// AttemptOtherAct stands for the act where kinds are not told apart.
const AttemptOtherAct = "other"

// Who tried, as a holder of a device is told who is nobody of its own.
const (
	ByAnother  = "another organisation"
	ByOperator = "operator"
	ByNobody   = "no credential"
)

// Bounds of refused attempts whose hour is not over.
const (
	// MaxOrgAttempts is how many kinds are told apart of one organisation,
	// MaxDeviceAttempts of one device of it. What is over that is one more kind.
	MaxOrgAttempts    = 256
	MaxDeviceAttempts = 16
)

// Attempt is a request at the management API that was refused.
type Attempt struct {
	At     time.Time
	Act    string // the operation
	Reason AttemptReason
	// By is the credential, as Caller.Name; "" for none that is known. Org is
	// whose it is; zero and Operator for the operator's.
	By       string
	Org      OrgID
	Operator bool
	// Device is what the request was about, or DevEUI and perhaps JoinEUI; zero for
	// nothing. Whether there is such a device nobody has looked yet.
	Device  DeviceID
	JoinEUI lorawan.EUI64
	DevEUI  lorawan.EUI64
}

// Learn adds what only the rules knew of an attempt.
func (a *Attempt) Learn(more Attempted) {
	if more.Reason != "" {
		a.Reason = more.Reason
	}
	if more.By != "" {
		a.By, a.Org, a.Operator = more.By, more.Org, more.Operator
	}
	if more.Device != 0 {
		a.Device, a.JoinEUI, a.DevEUI = more.Device, lorawan.EUI64{}, lorawan.EUI64{}
	}
}

// AttemptCount is refused attempts that have all but their time in common: when
// the last of them was, how many there were, and when the first was.
type AttemptCount struct {
	Attempt
	Count uint64
	First time.Time
}

// With is c and later in one.
func (c AttemptCount) With(later AttemptCount) AttemptCount {
	later.Count += c.Count
	if c.First.Before(later.First) {
		later.First = c.First
	}
	return later
}

// Attempted is an error with what the log of refused attempts is to know beside
// it. Its text and its code are those of Err, so that it makes no difference to
// whoever is told. What is zero is not known.
type Attempted struct {
	Reason AttemptReason
	By     string
	Org    OrgID
	// Operator: the credential is one of the operator's.
	Operator bool
	Device   DeviceID
	Err      error
}

// Error implements error.
func (a *Attempted) Error() string { return a.Err.Error() }

// Unwrap gives the error that the requester is told.
func (a *Attempted) Unwrap() error { return a.Err }
