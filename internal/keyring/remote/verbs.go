package remote

// Verb is what a request asks for.
type Verb uint8

// The verbs. Their numbers are the protocol's: a change is a new Version.
const (
	VerifyJoin Verb = iota + 1
	VerifyRejoin
	Accept
	AppSKey
	OwnerToken
	CheckOwnerToken
	WebhookSecret
	SignWebhook
	SealRoots
	SealKEK
	IsKEK
	CheckKeySet
	CheckKEK
	Ready
	// State asks how the worker does. It touches no key.
	State
	Rewrap
	LogKey
	SignCheckpoint
	Handover
	AuthMAC
	SignStatement
	AcceptHash
	verbs // one above the last

	// Last is the verb with the highest number.
	Last = verbs - 1

	// cancel says that nobody waits for the request of that number any more. It
	// has no answer.
	cancel Verb = 0xFF
)

// Verbs are all verbs in order of their numbers, beginning with 1.
func Verbs() []Verb {
	list := make([]Verb, 0, verbs-1)
	for v := VerifyJoin; v < verbs; v++ {
		list = append(list, v)
	}
	return list
}

var verbNames = [verbs]string{
	VerifyJoin: "verify-join", VerifyRejoin: "verify-rejoin", Accept: "accept", AppSKey: "appskey",
	OwnerToken: "owner-token", CheckOwnerToken: "check-owner-token",
	WebhookSecret: "webhook-secret", SignWebhook: "sign-webhook",
	SealRoots: "seal-roots", SealKEK: "seal-kek", IsKEK: "is-kek",
	CheckKeySet: "check-key-set", CheckKEK: "check-kek", Ready: "ready", State: "state", Rewrap: "rewrap",
	LogKey: "log-key", SignCheckpoint: "sign-checkpoint",
	Handover: "handover", AuthMAC: "auth-mac", SignStatement: "sign-statement", AcceptHash: "accept-hash",
}

// String names the verb in logs and metrics.
func (v Verb) String() string {
	if v < verbs {
		return verbNames[v]
	}
	return "unknown"
}
