package activation

import (
	"context"
	"errors"
	"time"

	"joinery"
	"joinery/internal/keyring"
)

// Rekeying is the state of devices that are told to derive new root keys. Both
// methods give joinery.ErrSwapLost, and wrote nothing, where the device moved
// since s was loaded.
type Rekeying interface {
	// NoteRekeySent is durable before an accept with the order's instruction
	// leaves. next becomes the key set to which it leads, unless there is one.
	NoteRekeySent(ctx context.Context, s joinery.ActivationState, o joinery.RekeyOrder, next joinery.KeySetID, at time.Time, a joinery.AuditEntry) error
	// ProveKeySet makes a candidate the key set of its device.
	ProveKeySet(ctx context.Context, s joinery.ActivationState, proven joinery.KeySetID, a joinery.AuditEntry) error
}

// settleRekeying brings state to where the device is: one that obeyed an
// instruction and asks here all the same signs with a candidate's key. Who makes
// no MIC changes nothing.
func (s *Service) settleRekeying(ctx context.Context, req JoinRequest, state joinery.ActivationState) (joinery.ActivationState, error) {
	if state.Rekeying == nil {
		return state, nil
	}
	if hasMoved(state) {
		return state, moved()
	}
	if s.rekeying == nil || len(state.Rekeying.Candidates) == 0 {
		return state, nil
	}
	if err := s.keys.VerifyJoin(ctx, state.KeySet, req.PHYPayload); !errors.Is(err, keyring.ErrMIC) {
		return state, keyringError(err)
	}
	for _, k := range state.Rekeying.Candidates {
		err := s.keys.VerifyJoin(ctx, k, req.PHYPayload)
		if errors.Is(err, keyring.ErrMIC) {
			continue
		}
		if err != nil {
			return state, keyringError(err)
		}
		entry := s.rekeyEntry(joinery.AuditRekeyObeyed, req, state)
		entry.Detail["key_set"] = k.ID.String()
		if err := s.rekeying.ProveKeySet(ctx, state, k.ID, entry); err != nil {
			return state, storeError(err)
		}
		return s.load(ctx, req)
	}
	return state, keyringError(keyring.ErrMIC)
}

// instruct notes that the device's order goes with the accept that is about to be
// made, and gives the state after that; ok is false where there is none to go. It
// is called for a frame that is right but for its MIC.
func (s *Service) instruct(ctx context.Context, req JoinRequest, state joinery.ActivationState) (_ joinery.ActivationState, ok bool, err error) {
	if s.rekeying == nil || !canInstruct(state, s.now()) {
		return state, false, nil
	}
	if err := s.keys.VerifyJoin(ctx, state.KeySet, req.PHYPayload); err != nil {
		return state, false, keyringError(err)
	}
	o := *state.Rekeying.Order
	entry := s.rekeyEntry(joinery.AuditRekeySent, req, state)
	entry.Detail["order"], entry.Detail["cookie"], entry.Detail["new_join_eui"] = o.ID.String(), o.Rekey.Cookie.String(), o.Rekey.JoinEUI.String()
	if err := s.rekeying.NoteRekeySent(ctx, state, o, joinery.NewKeySetID(), entry.At, entry); err != nil {
		return state, false, storeError(err)
	}
	if state, err = s.load(ctx, req); err != nil {
		return state, false, err
	}
	if r := state.Rekeying; r == nil || r.Order == nil || r.Order.ID != o.ID || !r.Order.StateAt(s.now()).Open() {
		return state, false, joinery.ErrSwapLost // from the beginning
	}
	return state, true, nil
}

// canInstruct tells whether a device has an order that an accept may carry now: it
// is open, and the other Join Server would answer the device. An accept that carries
// one has no room for the network's channels, so a device of which nobody but its
// owner says that it rekeys is told a few times.
func canInstruct(state joinery.ActivationState, now time.Time) bool {
	r, d := state.Rekeying, state.Device
	return r != nil && r.Order != nil && d.Rekey != 0 && r.Order.StateAt(now).Open() && !r.Order.Held() &&
		(d.RekeyWord != joinery.RekeyByOwner || r.Order.Sent < joinery.RekeyTries)
}

// leaveTries is how many joins of a device whose service has lapsed one order to
// rekey has answered: the order is there to leave by, and no service by itself. A
// device hears one of so many accepts; where it did not, its owner orders anew.
const leaveTries = 8

// isLetGo tells whether the service term of a device does not matter, because it is
// told to leave. Accepts that carried its order before the lapse do not count
// against it: one goes out after the lapse in any case.
func isLetGo(state joinery.ActivationState, now time.Time) bool {
	if !canInstruct(state, now) {
		return false
	}
	o := state.Rekeying.Order
	return o.Sent < leaveTries || o.LastSentAt.Before(state.Device.Service.RefuseAt)
}

// hasMoved tells whether the device is known to have joined at another Join
// Server, with keys that it derived to go there.
func hasMoved(state joinery.ActivationState) bool {
	r := state.Rekeying
	return r != nil && r.Order != nil && r.Order.State == joinery.RekeyConfirmed
}

func moved() error {
	err := joinery.Errorf(joinery.CodeJoinRefused, "the device was rekeyed and joined at another Join Server")
	return joinery.Refuse(joinery.RefusedMoved, err)
}

func (s *Service) rekeyEntry(event joinery.AuditEvent, req JoinRequest, state joinery.ActivationState) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: s.now().UTC().Truncate(time.Millisecond), Event: event, Actor: "peer " + req.Peer.ID.String(),
		Org: state.Device.Ownership.Org, Device: state.Device.ID, Detail: map[string]string{},
	}
}
