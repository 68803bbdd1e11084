package claim

import (
	"context"
	"crypto/ecdsa"
	"hash/maphash"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Store is the state that these rules need. Changes write their audit entries in
// the same transaction and return nil only after it is durable.
type Store interface {
	Devices
	Offers
	Disputes
	Failures
}

// Devices finds devices and changes who holds them.
type Devices interface {
	// LoadActivation finds a device by what stands on its label; CodeUnknownDevice.
	LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
	// FindDevices finds the devices with a DevEUI, whatever their JoinEUI, up to a
	// bound.
	FindDevices(ctx context.Context, devEUI lorawan.EUI64) ([]joinery.ActivationState, error)
	// Device finds a device by its id; CodeNotFound.
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// Labelled finds many devices, in the order of refs; absent ones have no id.
	Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error)
	// ChangeOwners makes changes in one transaction, each by compare-and-swap on
	// the ownership that it has seen. Each stands or falls alone: outcomes has an
	// error for those that were refused. With err nothing is known of any.
	ChangeOwners(ctx context.Context, changes []joinery.OwnerChange) (outcomes []error, err error)
	// LastOwner says how a device came to its owner; CodeNotFound.
	LastOwner(ctx context.Context, id joinery.DeviceID) (joinery.OwnerLink, error)
}

// Offers lists devices that are offered to others.
type Offers interface {
	// Transfer gives the offer of a device, also one that ended; CodeNotFound.
	Transfer(ctx context.Context, device joinery.DeviceID) (joinery.Transfer, error)
	Transfers(ctx context.Context, q joinery.TransferQuery) ([]joinery.Transfer, error)
}

// Disputes keeps disputes, and challenges for their one use.
type Disputes interface {
	AddChallenge(ctx context.Context, c joinery.Challenge, now time.Time) error
	// TakeChallenge gives a challenge of an organisation and makes an end of it;
	// CodeNotFound.
	TakeChallenge(ctx context.Context, random [32]byte, org joinery.OrgID) (joinery.Challenge, error)
	// OpenDispute is CodeConflict where the claimant disputes the device already.
	OpenDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error
	// CloseDispute ends an open dispute as p says, with what follows for the
	// device; CodeConflict where it is decided, or the device is not p.Holder's.
	CloseDispute(ctx context.Context, p joinery.Dispute, entries ...joinery.AuditEntry) error
	DisputeReader
}

// DisputeReader finds disputes.
type DisputeReader interface {
	Dispute(ctx context.Context, id joinery.DisputeID) (joinery.Dispute, error)
	Disputes(ctx context.Context, q joinery.DisputeQuery) ([]joinery.Dispute, error)
	// DeviceKey is the public key of the private one that is in the device's
	// element and nowhere else; nil for a device that has none.
	DeviceKey(ctx context.Context, id joinery.DeviceID) (*ecdsa.PublicKey, error)
}

// Failures keeps wrong owner tokens over a restart.
type Failures interface {
	// NoteClaimFailures adds failures and forgets those before since.
	NoteClaimFailures(ctx context.Context, failures []joinery.ClaimFailure, since time.Time) error
	// ClaimFailures gives the newest since a time, oldest first.
	ClaimFailures(ctx context.Context, since time.Time, limit int) ([]joinery.ClaimFailure, error)
}

// Registry is the organisations, and the audit log for what changes nothing.
type Registry interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	// Record writes audit entries that belong to no change.
	Record(ctx context.Context, entries ...joinery.AuditEntry) error
}

// Tokens makes and checks owner tokens.
type Tokens interface {
	OwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32) (string, error)
	// CheckOwnerToken compares in constant time and takes either case.
	CheckOwnerToken(ctx context.Context, d joinery.DeviceID, generation uint32, presented string) (bool, error)
}

// Attested is what organisations want of devices that they claim, from memory.
type Attested interface {
	PolicyOf(org joinery.OrgID) joinery.AttestPolicy
}

// Options bound guessing. The zero value of each field is its default.
type Options struct {
	// Now is the clock of the windows; nil is the system's.
	Now func() time.Time
	// Window is how long a failed claim counts: 15 minutes.
	Window time.Duration
	// PerDevice, PerCaller and PerDeviceOfAll are how many claims may fail within
	// it: 5 of one caller for one DevEUI, 100 of one caller, and 100 for one DevEUI
	// of all callers together. The last is high, so that no caller alone can keep
	// others from their device; it is enough for tokens of 65 bits.
	PerDevice      int
	PerCaller      int
	PerDeviceOfAll int
	// AnswerAfter is the time from a request's beginning before which nobody is
	// told that a token or signature is wrong, or that there is no such device, so
	// that the clock does not tell one from the other: 50 ms. Of a batch, each
	// further such item adds a fiftieth of it. Negative is none.
	AnswerAfter time.Duration
	// Attested is what organisations want of devices that they claim; nil is nothing.
	Attested Attested
}

// answerAfter is what Options.AnswerAfter is where none is given.
const answerAfter = 50 * time.Millisecond

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store    Store
	registry Registry
	tokens   Tokens
	now      func() time.Time
	hold     time.Duration
	guard    *guard
	turns    turns
	attested Attested
}

// New makes a Service.
func New(store Store, registry Registry, tokens Tokens, opt Options) *Service {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Service{
		store: store, registry: registry, tokens: tokens, now: opt.Now,
		hold:  max(0, orDefault(opt.AnswerAfter, answerAfter)),
		guard: newGuard(opt),
		turns: turns{seed: maphash.MakeSeed()}, attested: opt.Attested,
	}
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// time is the present in the precision in which it is stored.
func (s *Service) time() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, d joinery.DeviceID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.time(), Event: event, Actor: caller.Name, Org: org, Device: d, Detail: detail}
}

// forOther is entry as another organisation reads it: who of its own acted a
// party tells nobody.
func forOther(e joinery.AuditEntry, org joinery.OrgID, detail map[string]string) joinery.AuditEntry {
	e.Actor, e.Org, e.Detail = "another organisation", org, detail
	return e
}

func noDevice() error { return joinery.Errorf(joinery.CodeNotFound, "no such device") }

// ownDevice finds a device that caller owns; another's is absent.
func (s *Service) ownDevice(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return joinery.ActivationState{}, noDevice()
	}
	return state, err
}

// wait lasts for d, or until nobody listens any more.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
