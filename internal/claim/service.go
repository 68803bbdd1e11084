package claim

import (
	"context"
	"hash/maphash"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Store is the state that claims need. Changes write their audit entry in the
// same transaction and return nil only after it is durable.
type Store interface {
	// LoadActivation finds a device by what stands on its label; CodeUnknownDevice.
	LoadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (joinery.ActivationState, error)
	// Device finds a device by its id; CodeNotFound.
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// Labelled finds many devices, in the order of refs; absent ones have no id.
	Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error)
	// Claim makes org the owner and sets its binding, if it has one; CodeConflict
	// where the ownership epoch is not expectedEpoch any more, or the binding is
	// locked by a network.
	Claim(ctx context.Context, device joinery.DeviceID, expectedEpoch uint32, org joinery.OrgID, binding *joinery.Binding, entry joinery.AuditEntry) error
	// SetBinding replaces or (nil) removes the binding; CodeConflict where owner
	// does not hold the device any more, or the binding's epoch is not
	// expectedEpoch, 0 for none.
	SetBinding(ctx context.Context, device joinery.DeviceID, owner joinery.OrgID, expectedEpoch uint32, binding *joinery.Binding, entry joinery.AuditEntry) error
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

// Options bound guessing. The zero value of each field is its default.
type Options struct {
	// Now is the clock of the windows; nil is the system's.
	Now func() time.Time
	// Window is how long a failed claim counts: 15 minutes.
	Window time.Duration
	// PerDevice, PerCaller and PerDeviceOfAll are how many claims may fail within
	// it: 5 of one caller for one (JoinEUI, DevEUI), 100 of one caller, and 100 for
	// one (JoinEUI, DevEUI) of all callers together. The last is high, so that no
	// caller alone can keep others from their device; it is enough for tokens of
	// 65 bits.
	PerDevice      int
	PerCaller      int
	PerDeviceOfAll int
	// AnswerAfter is the time from a claim's beginning before which it is not
	// refused for its token, so that the clock does not tell an unknown device
	// from a wrong token: 50 ms. Negative is none.
	AnswerAfter time.Duration
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store    Store
	registry Registry
	tokens   Tokens
	now      func() time.Time
	hold     time.Duration

	turns   turns
	tries   *failures[try]
	callers *failures[any] // as try.who
	devices *failures[label]
}

// try is one caller's claims of one device; who is its OrgID, or Caller.Name
// where there is none.
type try struct {
	label label
	who   any
}

// label is what stands on a device.
type label struct{ joinEUI, devEUI lorawan.EUI64 }

// Bounds of the memory of failures. A caller can fill one of the first
// two for each of its own failures.
const (
	maxTries   = 1 << 16
	maxDevices = 1 << 16
	maxCallers = 1 << 14
)

// New makes a Service.
func New(store Store, registry Registry, tokens Tokens, opt Options) *Service {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	window := orDefault(opt.Window, 15*time.Minute)
	return &Service{
		store: store, registry: registry, tokens: tokens, now: opt.Now,
		turns:   turns{seed: maphash.MakeSeed()},
		hold:    orDefault(opt.AnswerAfter, 50*time.Millisecond),
		tries:   newFailures[try](window, orDefault(opt.PerDevice, 5), maxTries),
		callers: newFailures[any](window, orDefault(opt.PerCaller, 100), maxCallers),
		devices: newFailures[label](window, orDefault(opt.PerDeviceOfAll, 100), maxDevices),
	}
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, d joinery.DeviceID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: event, Actor: caller.Name, Org: org, Device: d, Detail: detail,
	}
}

// ownDevice finds a device that caller owns; another's is absent.
func (s *Service) ownDevice(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return joinery.ActivationState{}, joinery.Errorf(joinery.CodeNotFound, "no such device")
	}
	return state, err
}
