package joinery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Terms is under what a request may change anything. The door that took the
// request puts them into its context, and the store looks at them in the very
// transaction that makes the change, whatever rule it is that changes what: so
// nothing can come between the look and the change.
type Terms struct {
	// Device or Peer is the thing that must be as one of Tags says; zero for
	// neither. CodePrecondition where it is not.
	Device DeviceID
	Peer   PeerID
	Tags   []string
	// Once is the mark that this request leaves with its change; nil for none.
	// CodeConflict where it was left before.
	Once *Once

	met atomic.Bool
}

// Once names a request, so that it is done once however often it is sent.
type Once struct {
	// ID stands for the caller and the name that he gave the request, Request for
	// all that was sent. Neither can be turned back into what it was made from.
	ID      [sha256.Size]byte
	Request [sha256.Size]byte
	At      time.Time
}

// Answer is what a request was answered, for when it is sent again.
type Answer struct {
	Request [sha256.Size]byte // of the request that it answers
	// Status is 0 where the request was done and its answer is not known.
	Status      int
	ContentType string
	ETag        string
	Body        []byte
}

// KeepAnswers is for how long a request is known by its name.
const KeepAnswers = 24 * time.Hour

type termsKey struct{}

// WithTerms gives a context under which changes are made under t only.
func WithTerms(ctx context.Context, t *Terms) context.Context {
	return context.WithValue(ctx, termsKey{}, t)
}

// TermsOf gives the terms of a context that were not met yet; nil for none. Once
// a first change was made under them, the request may go on changing.
func TermsOf(ctx context.Context) *Terms {
	if t, ok := ctx.Value(termsKey{}).(*Terms); ok && !t.met.Load() {
		return t
	}
	return nil
}

// Meet says that a change was made under the terms.
func (t *Terms) Meet() { t.met.Store(true) }

// Met tells whether a change was made.
func (t *Terms) Met() bool { return t.met.Load() }

// Allow tells whether a thing with that tag may be changed.
func (t *Terms) Allow(tag string) error {
	if len(t.Tags) == 0 || slices.Contains(t.Tags, tag) {
		return nil
	}
	return Errorf(CodePrecondition, "it was changed since it was read; read it again")
}

// Tag stands for what people set of a device: owner, binding, suspension, resets.
// Joins leave it as it is.
func (s ActivationState) Tag() string {
	binding := "none"
	if s.Binding != nil {
		binding = fmt.Sprint(s.Binding.Epoch, s.Binding.Locked)
	}
	d := s.Device
	return tagOf(d.ID, d.Ownership.Org, d.Ownership.Epoch, d.Ownership.TokenGeneration, binding, d.Suspended, d.Disclosed,
		s.KeySet.ID, s.KeySet.Nonces.ResetAt.UnixMilli())
}

// Tag stands for everything that can be changed of a peer.
func (p Peer) Tag() string {
	// In an order, for the store has none for names.
	sorted := func(list any) []string {
		texts := strings.Fields(strings.Trim(fmt.Sprint(list), "[]"))
		slices.Sort(texts)
		return texts
	}
	var credentials []string
	for _, c := range p.Credentials {
		credentials = append(credentials, fmt.Sprintf("%s %x %x %q", c.Kind, c.SPKI, c.CA, c.SAN))
	}
	return tagOf(p.ID, p.Org, fmt.Sprintf("%q", p.Name), sorted(p.NetIDs), sorted(p.NSIDs), sorted(p.ASIDs), credentials,
		p.ClearKeys, p.OmitSessionKeyID, p.AppSKeyAtLeast, p.DiscloseDevices, p.IgnoreNSID, p.Suspended)
}

// tagOf is a short hash over values; none of them is secret.
func tagOf(values ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprintln(values...)))
	return hex.EncodeToString(sum[:12])
}
