package sim

import (
	"errors"
	"fmt"
	"strings"
)

// Party is who makes a check.
type Party string

// The parties of an activation.
const (
	ByDevice Party = "device"
	ByNS     Party = "NS"
	ByAS     Party = "AS"
)

// Check is one thing that a party looked at.
type Check struct {
	Party Party  `json:"party"`
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	// Detail says more: what was wrong, or under which KEKLabel a key came.
	// It never holds a key.
	Detail string `json:"detail,omitempty"`
}

// String gives one line.
func (c Check) String() string {
	verdict := "ok"
	if !c.OK {
		verdict = "FAILED"
	}
	line := fmt.Sprintf("%s: %s: %s", c.Party, c.Name, verdict)
	if c.Detail != "" {
		line += " (" + c.Detail + ")"
	}
	return line
}

// IsForm tells whether the check is about the form that every answer has, rather
// than about this one's content.
func (c Check) IsForm() bool {
	switch c.Name {
	case CheckHTTPStatus, CheckContentType, CheckJSON, CheckVersion, CheckTransactionID,
		CheckMessageType, CheckSenderID, CheckReceiverID, CheckNSID, CheckCodeKnown:
		return true
	}
	return false
}

// Names of the checks, for tests that look for one.
const (
	CheckHTTPStatus     = "HTTP status is 200"
	CheckContentType    = "Content-Type is application/json"
	CheckJSON           = "body is one strict JSON object"
	CheckVersion        = "ProtocolVersion is the request's"
	CheckTransactionID  = "TransactionID is the request's"
	CheckMessageType    = "MessageType answers the request"
	CheckSenderID       = "SenderID is the JoinEUI"
	CheckReceiverID     = "ReceiverID is who asked"
	CheckNSID           = "NSIDs are as this version wants them"
	CheckCodeKnown      = "ResultCode exists in this version"
	CheckResult         = "ResultCode is the expected one"
	CheckRefusalEmpty   = "a refusal carries no accept and no key"
	CheckPHYPayload     = "PHYPayload is a join-accept of the right length"
	CheckKeySet         = "session keys are those of the asked layout"
	CheckNetworkKey     = "network key opens under a KEK of this network"
	CheckAppSKeyGiven   = "AppSKey or SessionKeyID is there"
	CheckAppSKeyWay     = "AppSKey travels as agreed"
	CheckAppSKeyForAS   = "AppSKey is not wrapped under a KEK of the network"
	CheckSessionKeyID   = "SessionKeyID is new"
	CheckRejoinMIC      = "rejoin-request is signed under a session of this network"
	CheckAccept         = "device opens the accept and its MIC is right"
	CheckAcceptType     = "accept answers this request, in the asked layout"
	CheckAcceptFields   = "accept carries the fields that the network asked for"
	CheckJoinNonce      = "JoinNonce is above the last"
	CheckRekey          = "the list is an instruction to rekey"
	CheckSessionKey     = "session key equals the element's"
	CheckAppSKeyOpens   = "AppSKey opens under a KEK of the Application Server"
	CheckAppSKey        = "AppSKey equals the element's"
	CheckDevEUI         = "DevEUI is the request's"
	CheckSessionKeyEcho = "SessionKeyID is the request's"
	CheckHomeNetwork    = "HNetID is the expected one"
	CheckSameAnswer     = "a repeat gets the same answer"
)

// Checks is a list of checks in the order in which they were made.
type Checks []Check

// add notes a check and gives ok back.
func (c *Checks) add(by Party, name string, ok bool) bool {
	*c = append(*c, Check{Party: by, Name: name, OK: ok})
	return ok
}

// addErr notes a check that holds if err is nil.
func (c *Checks) addErr(by Party, name string, err error) bool {
	if !c.add(by, name, err == nil) {
		c.because(err.Error())
	}
	return err == nil
}

// because adds detail to the last check.
func (c *Checks) because(detail string) { (*c)[len(*c)-1].Detail = detail }

// becausef is because with a format, for a check that failed.
func (c *Checks) becausef(format string, args ...any) { c.because(fmt.Sprintf(format, args...)) }

// OK tells whether there are checks and all of them hold.
func (c Checks) OK() bool { return len(c) > 0 && len(c.Failed()) == 0 }

// Failed gives the checks that do not hold.
func (c Checks) Failed() Checks {
	var failed Checks
	for _, check := range c {
		if !check.OK {
			failed = append(failed, check)
		}
	}
	return failed
}

// ErrChecks is wrapped by Checks.Err.
var ErrChecks = errors.New("checks failed")

// Err gives nil if every check holds, else an error that names those that do
// not.
func (c Checks) Err() error {
	for i := range c {
		if !c[i].OK {
			return &ChecksError{Failed: c.Failed()}
		}
	}
	return nil
}

// ChecksError is the checks that do not hold, one at least.
type ChecksError struct{ Failed Checks }

// Error names all of them.
func (e *ChecksError) Error() string {
	lines := make([]string, len(e.Failed))
	for i, check := range e.Failed {
		lines[i] = check.String()
	}
	return fmt.Sprintf("%v: %s", ErrChecks, strings.Join(lines, "; "))
}

// Unwrap gives ErrChecks.
func (e *ChecksError) Unwrap() error { return ErrChecks }

// Kind names the first one, and for a ResultCode which was wanted and which
// came: the same text for the same fault of two answers.
func (e *ChecksError) Kind() string {
	first := e.Failed[0]
	kind := string(first.Party) + ": " + first.Name
	if what, _, ok := strings.Cut(first.Detail, ": "); ok && first.Name == CheckResult {
		kind += " (" + what + ")"
	}
	return kind
}
