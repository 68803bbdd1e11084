package rekey

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"joinery"
	"joinery/internal/rekeyfile"
	"joinery/lorawan"
)

// File is a signed file for many devices.
type File struct {
	Content []byte // nil where no device is left
	Devices int    // in it
	LeftOut []LeftOut
}

// LeftOut is a device that is not in a file, and why.
type LeftOut struct {
	Device joinery.DeviceID
	Code   joinery.Code
	Reason string
}

// leaving is devices of which a file is made: one that does not go keeps the others
// out, or is left out where whoever asks says so.
type leaving struct {
	leaveOut bool
	out      []LeftOut
}

// refuse gives err, unless its device is left out for it.
func (l *leaving) refuse(id joinery.DeviceID, err error) error {
	if !l.leaveOut || !refuses(err) {
		return err
	}
	l.out = append(l.out, LeftOut{id, joinery.CodeOf(err), joinery.MessageOf(err)})
	return nil
}

// Ticket writes the open orders of devices into a signed ticket for the bench.
// From then on each may have been obeyed. A ticket is written whole or not at all,
// unless devices that have no such order are to be left out, and can be written
// again.
func (s *Service) Ticket(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, leaveOut bool) (f File, err error) {
	l := leaving{leaveOut: leaveOut}
	states, err := s.ordered(ctx, caller, devices, &l)
	if err != nil {
		return f, err
	}
	t := rekeyfile.Ticket{At: s.now().UTC().Truncate(time.Second)}
	var orders []rekeyfile.Order
	var going []joinery.ActivationState
	for _, state := range states {
		order, err := s.ticketed(ctx, state)
		if err != nil {
			if err = l.refuse(state.Device.ID, err); err != nil {
				return f, err
			}
			continue
		}
		orders, going = append(orders, order), append(going, state)
	}
	for i, state := range going { // before the ticket leaves
		o := *state.Rekeying.Order
		entry := s.orderEntry(caller, joinery.AuditRekeyTicket, state.Device, o)
		err := s.store.NoteRekeySent(ctx, state, o, joinery.NewKeySetID(), entry.At, entry)
		if errors.Is(err, joinery.ErrSwapLost) {
			err = joinery.WrapError(joinery.CodeConflict, err, "device %s changed meanwhile; ask again", state.Device.DevEUI)
		}
		if err != nil {
			if err = l.refuse(state.Device.ID, err); err != nil {
				return f, err
			}
			continue
		}
		if t.ExpiresAt.IsZero() || o.ExpiresAt.Before(t.ExpiresAt) {
			t.ExpiresAt = o.ExpiresAt
		}
		t.Devices = append(t.Devices, orders[i])
	}
	f = File{Devices: len(t.Devices), LeftOut: l.out}
	if f.Devices > 0 {
		f.Content, err = s.sign(ctx, rekeyfile.FormatTicket, t)
	}
	return f, err
}

// ticketed is the order of a device as a ticket has it.
func (s *Service) ticketed(ctx context.Context, state joinery.ActivationState) (order rekeyfile.Order, err error) {
	o := *state.Rekeying.Order
	if err := owners(state, o); err != nil {
		return order, err
	}
	if !o.StateAt(s.now()).Open() {
		return order, joinery.Errorf(joinery.CodeConflict, "device %s has no open order to rekey: arm it", state.Device.DevEUI)
	}
	if o.Held() {
		return order, joinery.Errorf(joinery.CodeConflict, "the Join Server to which device %s is to go would not answer it yet: see how its hand-over stands", state.Device.DevEUI)
	}
	order = rekeyfile.Order{
		Order: o.ID.String(), JoinEUI: state.Device.JoinEUI, DevEUI: state.Device.DevEUI, Profile: state.Device.Rekey.String(),
		NewJoinEUI: o.Rekey.JoinEUI, Cookie: o.Rekey.Cookie, JoinNonceFloor: floor(state),
	}
	if order.After, err = s.after(ctx, state); err != nil {
		return order, err
	}
	if state.Device.Rekey == joinery.RekeyM {
		mac, err := s.keys.AuthMAC(ctx, state.KeySet)
		if err != nil {
			return order, joinery.WrapError(joinery.CodeConflict, err, "the keyring does not serve profile M")
		}
		order.AuthMAC = mac[:]
	}
	return order, nil
}

// after is the cookie that a device with the key set that it is known to have obeyed
// last, nil for none. A ticket outlives what was known when it was written, and a
// candidate that turns out to be none is forgotten, so the bench needs it to tell.
func (s *Service) after(ctx context.Context, state joinery.ActivationState) (*lorawan.Cookie, error) {
	if n := len(state.KeySet.Steps); n > 0 {
		return &state.KeySet.Steps[n-1].Cookie, nil
	}
	if state.KeySet.Held.KeySet == 0 {
		return nil, nil
	}
	if err := s.noteJoinsOf(ctx, state.Device.ID); err != nil {
		return nil, err
	}
	a, err := s.store.CameBy(ctx, state.Device.ID)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		err = joinery.Errorf(joinery.CodeConflict, "device %s was handed over and did not join here yet: which instruction it obeyed is known once it does", state.Device.DevEUI)
	}
	return &a.Cookie, err
}

// Results takes in what the bench made of a ticket: orders that were obeyed are
// confirmed. Those that are already stay so. done counts the confirmed ones.
func (s *Service) Results(ctx context.Context, caller joinery.Caller, list []rekeyfile.Result) (done int, err error) {
	if len(list) > MaxBatch {
		return 0, tooMany()
	}
	for _, r := range list {
		if !r.Rekeyed {
			continue
		}
		state, o, err := s.order(ctx, caller, r.Order)
		if err != nil {
			return done, err
		}
		if state.Device.DevEUI != r.DevEUI {
			return done, joinery.Errorf(joinery.CodeInvalid, "order %s is of another device than %s", o.ID, r.DevEUI)
		}
		if err := s.confirm(ctx, caller, state.Device, o, map[string]string{"by": "bench"}); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// Disclose seals the root keys to which the newest orders of devices lead to the
// recipient that they name, as Handover does for a Join Server. Whoever has its
// private key reads the new root keys: each device says so for ever, and it is
// written before they leave.
func (s *Service) Disclose(ctx context.Context, caller joinery.Caller, to joinery.RecipientID, devices []joinery.DeviceID, leaveOut bool) (f File, err error) {
	l := leaving{leaveOut: leaveOut}
	states, err := s.ordered(ctx, caller, devices, &l)
	if err != nil || len(states) == 0 {
		return File{LeftOut: l.out}, err
	}
	r, err := s.target(ctx, states[0].Device.Ownership.Org, 0, to)
	if err != nil {
		return f, err
	}
	var going []joinery.ActivationState
	for _, state := range states {
		if err := s.leaves(state, r); err == nil {
			going = append(going, state)
		} else if err = l.refuse(state.Device.ID, err); err != nil {
			return f, err
		}
	}
	var list []parting
	for _, state := range going { // nothing has left yet
		o := *state.Rekeying.Order
		if err := s.disclose(ctx, state, r.kind, s.orderEntry(caller, joinery.AuditRekeyHandedOver, state.Device, o)); err != nil {
			if err = l.refuse(state.Device.ID, err); err != nil {
				return f, err
			}
			continue
		}
		state.Device.Disclosed = true // as the file says of it, too
		// One key set a device: it is the one that the disclosure names.
		p := parting{state: state, order: o, sets: []joinery.KeySet{leadsTo(state.KeySet, o)}}
		if p.told, err = s.exposure(ctx, p); err != nil {
			return f, err
		}
		list = append(list, p)
	}
	f = File{Devices: len(list), LeftOut: l.out}
	if f.Devices > 0 {
		f.Content, err = s.pack(ctx, r, list)
	}
	return f, err
}

// disclose writes that the new root keys of a device become readable to the
// recipient of its order.
func (s *Service) disclose(ctx context.Context, state joinery.ActivationState, kind joinery.RecipientKind, handedOver joinery.AuditEntry) error {
	o := *state.Rekeying.Order
	// Every later owner reads this one, so it names no person.
	exposed := handedOver
	exposed.Event, exposed.Actor = joinery.AuditKeysExposed, "rekeying"
	exposed.Detail = map[string]string{"rekey": o.ID.String(), "recipient": o.Thumbprint, "kind": string(kind)}
	err := s.store.DiscloseRekey(ctx, state, o, joinery.NewKeySetID(), handedOver, exposed)
	if errors.Is(err, joinery.ErrSwapLost) {
		err = joinery.WrapError(joinery.CodeConflict, err, "device %s changed meanwhile; ask again", state.Device.DevEUI)
	}
	return err
}

// floor is a JoinNonce below every one that the new Join Server issues, and not
// below any that this one issues until the device goes there.
func floor(state joinery.ActivationState) lorawan.JoinNonce {
	return min(state.KeySet.Nonces.JoinNonce+nonceMargin, lorawan.MaxJoinNonce)
}

// HandedOver is a device that another Join Server handed over, and its order there.
type HandedOver struct {
	Device joinery.DeviceID
	Order  string
	Cookie lorawan.Cookie
}

// Receipts signs that devices which were handed over joined here: the transcript of
// the newest join of each, under the JoinEUI that it has here. Devices that did not
// join yet are left out.
func (s *Service) Receipts(ctx context.Context, caller joinery.Caller, list []HandedOver) ([]byte, error) {
	if len(list) > MaxBatch {
		return nil, tooMany()
	}
	r := rekeyfile.Receipt{At: s.now().UTC().Truncate(time.Second), Joins: []rekeyfile.Joined{}}
	for _, h := range list {
		state, err := s.device(ctx, caller, h.Device)
		if err != nil {
			return nil, err
		}
		j, ok, err := s.transcript(ctx, state, h.Order, h.Cookie)
		if err != nil {
			return nil, err
		}
		if ok {
			r.Joins = append(r.Joins, j)
		}
	}
	return s.sign(ctx, rekeyfile.FormatReceipt, r)
}

// TakeReceipts confirms the orders of a receipt, which the Join Server that they name
// must have signed. Those that are confirmed already stay so. done counts them all.
func (s *Service) TakeReceipts(ctx context.Context, caller joinery.Caller, file []byte) (done int, err error) {
	_, key, err := rekeyfile.Verify(file, rekeyfile.FormatReceipt, nil)
	if err != nil {
		return 0, fileError("receipt", err)
	}
	servers, err := s.store.JoinServers(ctx)
	if err != nil {
		return 0, err
	}
	n := slices.IndexFunc(servers, func(j joinery.JoinServer) bool { return j.ReceiptKey != nil && bytes.Equal(j.ReceiptKey, key) })
	if n < 0 {
		return 0, joinery.Errorf(joinery.CodeForbidden, "no Join Server that is pinned here signed this receipt")
	}
	signer := servers[n].ID
	var r rekeyfile.Receipt
	if _, err := rekeyfile.Open(file, rekeyfile.FormatReceipt, key, &r); err != nil {
		return 0, fileError("receipt", err)
	}
	for _, joined := range r.Joins {
		state, o, err := s.order(ctx, caller, joined.Order)
		if err != nil {
			return done, err
		}
		if o.Server != signer || joined.JoinEUI != o.Rekey.JoinEUI || joined.Cookie != o.Rekey.Cookie || joined.DevEUI != state.Device.DevEUI || !joined.Whole() {
			return done, joinery.Errorf(joinery.CodeInvalid, "receipt: what it says of device %s is not of order %s, or not by the Join Server that the order names", joined.DevEUI, o.ID)
		}
		if err := s.confirm(ctx, caller, state.Device, o, receiptDetail(joined)); err != nil {
			return done, err
		}
		if err := s.passed(ctx, caller, state.Device, o, joinery.PassageJoined); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

func (s *Service) confirm(ctx context.Context, caller joinery.Caller, d joinery.Device, o joinery.RekeyOrder, detail map[string]string) error {
	if o.State == joinery.RekeyConfirmed {
		return nil
	}
	entry := s.orderEntry(caller, joinery.AuditRekeyConfirmed, d, o)
	for k, v := range detail {
		entry.Detail[k] = v
	}
	return s.store.EndRekey(ctx, o.ID, d.Ownership.Org, joinery.RekeyConfirmed, entry)
}

// order finds an order of a device that caller owns; another's is absent.
func (s *Service) order(ctx context.Context, caller joinery.Caller, text string) (state joinery.ActivationState, o joinery.RekeyOrder, err error) {
	absent := joinery.Errorf(joinery.CodeNotFound, "no such order to rekey")
	id, err := joinery.ParseRekeyID(text)
	if err != nil {
		return state, o, absent
	}
	if o, err = s.store.RekeyOrder(ctx, id); err != nil {
		if joinery.CodeOf(err) == joinery.CodeNotFound {
			err = absent
		}
		return state, o, err
	}
	if state, err = s.device(ctx, caller, o.Device); joinery.CodeOf(err) == joinery.CodeNotFound {
		err = absent
	}
	return state, o, err
}

// ordered reads devices of the organisation for which caller acts, each of which has an
// order.
func (s *Service) ordered(ctx context.Context, caller joinery.Caller, devices []joinery.DeviceID, l *leaving) (states []joinery.ActivationState, err error) {
	// Keys and tickets leave by who may order that they do.
	if err := caller.Require(joinery.RightExportRequest); err != nil {
		return nil, err
	}
	if err := s.authority.Held(); err != nil {
		return nil, err
	}
	if len(devices) > MaxBatch {
		return nil, tooMany()
	}
	org, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	for _, id := range devices {
		state, err := s.deviceOf(ctx, caller, org, id)
		if err == nil && state.Rekeying.Order == nil {
			err = joinery.Errorf(joinery.CodeConflict, "there is no order to rekey device %s: arm it", state.Device.DevEUI)
		}
		if err != nil {
			if err = l.refuse(id, err); err != nil {
				return nil, err
			}
			continue
		}
		states = append(states, state)
	}
	return states, nil
}

// fileError is why a signed file is not read.
func fileError(what string, err error) error {
	code := joinery.CodeInvalid
	if errors.Is(err, rekeyfile.ErrTooMany) {
		code = joinery.CodeTooLarge
	}
	return joinery.WrapError(code, err, "%s: %s", what, err)
}

func tooMany() error {
	return joinery.Errorf(joinery.CodeTooLarge, "want at most %d devices at a time", MaxBatch)
}
