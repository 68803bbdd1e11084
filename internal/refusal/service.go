package refusal

import (
	"context"
	"slices"
	"time"

	"joinery"
)

// Store is the state behind this package. Absent devices are CodeNotFound.
type Store interface {
	// Device gives a device as it is now.
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// Activations is newest first.
	Activations(ctx context.Context, id joinery.DeviceID, limit int) ([]joinery.Activation, error)
	// DeviceRefusals is of all owners of a device, newest first.
	DeviceRefusals(ctx context.Context, id joinery.DeviceID) ([]joinery.RefusalCount, error)
	// PeerRefusals gives all totals of a peer and the newest of the rest, at most
	// limit rows of devices.
	PeerRefusals(ctx context.Context, id joinery.PeerID, limit int) (joinery.PeerRefusals, error)
	// Peers leaves out removed ones.
	Peers(ctx context.Context) ([]joinery.Peer, error)
}

// Service explains refusals. It is safe for concurrent use.
type Service struct {
	store    Store
	recorder *Recorder
}

// New makes a Service that reads what recorder writes.
func New(store Store, recorder *Recorder) *Service { return &Service{store: store, recorder: recorder} }

// Device is why a device does not join, or that it does.
type Device struct {
	// State is the device as it is, without its sealed roots; Summary says in
	// sentences how it stands.
	State    joinery.ActivationState
	Summary  []string
	Refusals []Explained          // newest first
	Joins    []joinery.Activation // accepted, newest first
	// NotKept is refusals since the server started that nobody could note,
	// because too many came at once: some may have been about this device.
	NotKept uint64
}

// Peer is what a peer was refused.
type Peer struct {
	Totals  []Explained // by reason
	Devices []Explained // devices that are here, newest first
	Unknown []Explained // devices that are not
	NotKept uint64      // as in Device
}

const (
	// lastJoins is how many accepted joins an explanation shows.
	lastJoins = 5
	// syncTimeout is how long a reader waits for what was refused just now.
	syncTimeout = time.Second
	maxPage     = 500
)

// Device explains a device to its owner or the operator; to everybody else it is
// absent. An owner sees what was refused while it held the device, the operator
// all.
func (s *Service) Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (d Device, err error) {
	d.State, err = s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(d.State.Device.Ownership.Org) {
		return Device{}, joinery.Errorf(joinery.CodeNotFound, "no such device")
	}
	if err != nil {
		return Device{}, err
	}
	d.State.KeySet.Nwk, d.State.KeySet.App = joinery.SealedRoot{}, joinery.SealedRoot{}
	s.sync(ctx)
	counts, err := s.store.DeviceRefusals(ctx, id)
	if err != nil {
		return Device{}, err
	}
	v := voiceFor(caller, d.State.Device.Ownership.Org)
	for _, c := range counts {
		if caller.Owns(c.Owner) {
			e := explain(c, v)
			e.Settled = settled(c, d.State)
			d.Refusals = append(d.Refusals, e)
		}
	}
	if d.Joins, err = s.store.Activations(ctx, id, lastJoins); err != nil {
		return Device{}, err
	}
	d.Joins = slices.DeleteFunc(d.Joins, func(a joinery.Activation) bool { return !caller.Owns(a.Owner) })
	d.Summary = summary(d.State, len(d.Refusals), v)
	d.NotKept = s.recorder.Stats().Hurried
	return d, nil
}

// voiceFor speaks to a caller who holds the device as to its owner.
func voiceFor(caller joinery.Caller, owner joinery.OrgID) voice {
	if caller.Org == owner {
		return toOwner
	}
	return toOperator
}

// Peer explains to the operator what a peer was refused; at most limit rows of
// devices. The organisation that holds the peer sees totals only, and of them
// what the peer was told: which devices are here, and whose, is not for it to
// know. To everybody else the peer is absent.
func (s *Service) Peer(ctx context.Context, caller joinery.Caller, id joinery.PeerID, limit int) (p Peer, err error) {
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return Peer{}, err
	}
	if !slices.ContainsFunc(peers, func(p joinery.Peer) bool { return p.ID == id && caller.Owns(p.Org) }) {
		return Peer{}, joinery.Errorf(joinery.CodeNotFound, "no such peer")
	}
	s.sync(ctx)
	kept, err := s.store.PeerRefusals(ctx, id, min(max(limit, 1), maxPage))
	if err != nil {
		return Peer{}, err
	}
	if !caller.Operator {
		kept = joinery.PeerRefusals{Totals: folded(kept.Totals)}
	}
	one := func(c joinery.RefusalCount) Explained { return explain(c, toOperator) }
	return Peer{
		Totals: each(kept.Totals, explainTotal), Devices: each(kept.Devices, one), Unknown: each(kept.Unknown, one),
		NotKept: s.recorder.Stats().Hurried,
	}, nil
}

func each(counts []joinery.RefusalCount, explain func(joinery.RefusalCount) Explained) []Explained {
	list := make([]Explained, len(counts))
	for i, c := range counts {
		list[i] = explain(c)
	}
	return list
}

func (s *Service) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	s.recorder.Sync(ctx)
}
