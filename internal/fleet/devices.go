package fleet

import (
	"context"
	"slices"
	"strconv"

	"joinery"
	"joinery/lorawan"
)

// maxPage bounds a page of any listing.
const (
	defaultPage = 100
	maxPage     = 500
)

func page(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// Devices gives a page of devices: to an organisation its own, to the operator
// those of q.Org, or all.
func (s *Service) Devices(ctx context.Context, caller joinery.Caller, q joinery.DeviceQuery) (joinery.DevicePage, error) {
	if !caller.Operator {
		if q.Org == 0 {
			q.Org = caller.Org
		}
		if !caller.Owns(q.Org) {
			return joinery.DevicePage{}, notFound("organisation")
		}
	}
	q.Limit = page(q.Limit)
	page, err := s.store.Devices(ctx, q)
	withoutRoots(page.Items)
	return page, err
}

// Device gives one device.
func (s *Service) Device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.device(ctx, caller, id)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	return withoutRoots([]joinery.ActivationState{state})[0], nil
}

// device finds a device that caller owns; another's is absent.
func (s *Service) device(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return joinery.ActivationState{}, notFound("device")
	}
	return state, err
}

// FindDevices gives the caller's devices with a DevEUI, one for each JoinEUI.
func (s *Service) FindDevices(ctx context.Context, caller joinery.Caller, devEUI lorawan.EUI64) ([]joinery.ActivationState, error) {
	list, err := s.store.FindDevices(ctx, devEUI)
	if err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(list, func(d joinery.ActivationState) bool { return !caller.Owns(d.Device.Ownership.Org) })
	return withoutRoots(own), nil
}

// withoutRoots takes sealed roots out of what goes to doors: they have no use
// for them.
func withoutRoots(list []joinery.ActivationState) []joinery.ActivationState {
	for i := range list {
		list[i].KeySet.Nwk, list[i].KeySet.App = joinery.SealedRoot{}, joinery.SealedRoot{}
	}
	return list
}

// Suspend stops a device from joining, or lets it again.
func (s *Service) Suspend(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, suspended bool) error {
	state, err := s.device(ctx, caller, id)
	if err != nil || state.Device.Suspended == suspended {
		return err
	}
	event := joinery.AuditDeviceResumed
	if suspended {
		event = joinery.AuditDeviceSuspended
	}
	return s.store.SetSuspended(ctx, id, state.Device.Ownership.Org, suspended, s.deviceEntry(caller, event, state.Device, nil))
}

// Delete forgets a device for its owner. What its key set accepted and issued
// is kept by the store, should the device ever come back.
func (s *Service) Delete(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	state, err := s.device(ctx, caller, id)
	if err != nil {
		return err
	}
	return s.store.DeleteDevice(ctx, id, state.Device.Ownership.Org, s.deviceEntry(caller, joinery.AuditDeviceDeleted, state.Device, nil))
}

// OpenReset lets the next join of a device, within a day, set a new floor for
// its DevNonces; JoinNonce goes on above joinNonceAtLeast where that is higher.
// It is the operator's: a replayed join-request would pass, too.
func (s *Service) OpenReset(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, joinNonceAtLeast lorawan.JoinNonce) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	if joinNonceAtLeast > lorawan.MaxJoinNonce {
		return joinery.Errorf(joinery.CodeInvalid, "a JoinNonce is at most %d", lorawan.MaxJoinNonce)
	}
	state, err := s.device(ctx, caller, id)
	if err != nil {
		return err
	}
	entry := s.deviceEntry(caller, joinery.AuditNoncesReset, state.Device, map[string]string{
		"joinNonceAtLeast": strconv.FormatUint(uint64(joinNonceAtLeast), 10),
	})
	return s.store.OpenReset(ctx, id, state.Device.Ownership.Org, entry.At, joinNonceAtLeast, entry)
}

// Activations gives activations of a device before one (zero: the newest), newest
// first; to an organisation only those of the time in which it owned the device.
func (s *Service) Activations(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, before joinery.ActivationID, limit int) ([]joinery.Activation, error) {
	if _, err := s.device(ctx, caller, id); err != nil {
		return nil, err
	}
	list, err := s.store.ActivationsBefore(ctx, id, before, page(limit))
	return slices.DeleteFunc(list, func(a joinery.Activation) bool { return !caller.Owns(a.Owner) }), err
}

func (s *Service) deviceEntry(caller joinery.Caller, event joinery.AuditEvent, d joinery.Device, detail map[string]string) joinery.AuditEntry {
	entry := s.entry(caller, event, d.Ownership.Org, detail)
	entry.Device = d.ID
	return entry
}
