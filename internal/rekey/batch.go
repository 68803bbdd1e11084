package rekey

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"joinery"
	"joinery/lorawan"
)

// Batches keeps orders to rekey many devices. See the methods of the same names of
// the store.
type Batches interface {
	BeginRekeyBatch(ctx context.Context, b joinery.RekeyBatch) error
	AddRekeyBatchDevices(ctx context.Context, id joinery.RekeyBatchID, devices []joinery.DeviceID) (joinery.RekeyBatch, error)
	// FixRekeyBatchSet says which devices the batch has, and keeps what proves it of each.
	FixRekeyBatchSet(ctx context.Context, id joinery.RekeyBatchID) (joinery.DeviceSet, error)
	MoveRekeyBatch(ctx context.Context, b joinery.RekeyBatch, from []joinery.RekeyBatchState, entries ...joinery.AuditEntry) error
	// ArmRekeyBatch takes what becomes of waiting devices; each stands or falls alone.
	ArmRekeyBatch(ctx context.Context, id joinery.RekeyBatchID, list []joinery.RekeyBatchArm, done joinery.AuditEntry) (joinery.RekeyBatch, error)
	BatchReader
}

// BatchReader reads them, and finds the devices that go in.
type BatchReader interface {
	RekeyBatch(ctx context.Context, id joinery.RekeyBatchID) (joinery.RekeyBatch, error)
	RekeyBatches(ctx context.Context, q joinery.RekeyBatchQuery) ([]joinery.RekeyBatch, error)
	RekeyBatchItems(ctx context.Context, id joinery.RekeyBatchID, from uint64, waiting bool, limit int) ([]joinery.RekeyBatchItem, error)
	RekeyBatchDigest(ctx context.Context, id joinery.RekeyBatchID) (digest [32]byte, devices int64, err error)
	Devices(ctx context.Context, q joinery.DeviceQuery) (joinery.DevicePage, error)
	// Labelled finds many, in the order of refs; absent ones have no id.
	Labelled(ctx context.Context, refs []joinery.DeviceRef) ([]joinery.Labelled, error)
}

// Bounds of batches.
const (
	// MaxRefs is the most devices that one call names; a batch of more takes several.
	MaxRefs = 10_000
	// collectFor is how long a batch may be collected.
	collectFor = 24 * time.Hour
	// maxNote bounds why a batch was rejected, in bytes.
	maxNote = 1000
)

// NewBatch is an order to rekey many devices as somebody gives it.
type NewBatch struct {
	// Arm is the order that each device gets; it names no device.
	Arm
	// Devices by name, or Select: all that the query finds of the organisation's.
	Devices []joinery.DeviceRef
	Select  *joinery.DeviceQuery
	// More keeps the batch open for more devices; see AddToBatch.
	More bool
}

// RequestBatch asks to rekey many devices. Where it needs nobody else the server
// arms them from then on, one after another. absent are the places in n.Devices of
// those that the organisation does not hold: they keep no other out.
func (s *Service) RequestBatch(ctx context.Context, caller joinery.Caller, n NewBatch) (b joinery.RekeyBatch, absent []int, err error) {
	if err := s.checkArm(&n.Arm); err != nil {
		return b, nil, err
	}
	org, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return b, nil, err
	}
	if _, err := s.authority.NeedsAnother(ctx, caller, org); err != nil { // whether he may ask at all
		return b, nil, err
	}
	to, err := s.targetFor(ctx, org, n.Arm)
	if err != nil {
		return b, nil, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	b = joinery.RekeyBatch{
		ID: joinery.NewRekeyBatchID(), Org: org, State: joinery.BatchCollecting, JoinEUI: n.JoinEUI, Server: n.To, Recipient: n.Recipient, To: to.name,
		Thumbprint: to.thumbprint, RekeyKey: n.RekeyKey, Life: n.Life,
		RequestedBy: caller.Name, RequestedPerson: caller.Person, RequestedAt: now, ExpiresAt: now.Add(collectFor),
	}
	ids, absent, err := s.find(ctx, org, n.Devices) // before anything is made
	if err != nil {
		return b, nil, err
	}
	if len(n.Devices) == 0 && n.Select == nil && !n.More {
		return b, nil, joinery.Errorf(joinery.CodeInvalid, "say which devices")
	}
	if err := s.store.BeginRekeyBatch(ctx, b); err != nil {
		return b, nil, err
	}
	if b, err = s.fill(ctx, b, ids, n.Select); err == nil && !n.More {
		b, err = s.submit(ctx, caller, b)
	}
	if err != nil {
		s.abandon(ctx, b)
	}
	return b, absent, err
}

// abandon ends a batch that its request did not finish; else it would end by itself
// after a day.
func (s *Service) abandon(ctx context.Context, b joinery.RekeyBatch) {
	ctx = context.WithoutCancel(ctx)
	b, err := s.store.RekeyBatch(ctx, b.ID)
	if err != nil || b.State != joinery.BatchCollecting {
		return
	}
	b.State, b.EndedAt = joinery.BatchWithdrawn, s.now().UTC().Truncate(time.Millisecond)
	_ = s.store.MoveRekeyBatch(ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}) // or it ends by itself
}

// AddToBatch adds devices to a batch that was requested with More; without more it
// is complete.
func (s *Service) AddToBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, refs []joinery.DeviceRef, more bool) (b joinery.RekeyBatch, absent []int, err error) {
	if b, err = s.ownBatch(ctx, caller, id); err != nil {
		return b, nil, err
	}
	switch {
	case b.StateAt(s.now()) != joinery.BatchCollecting:
		return b, nil, joinery.Errorf(joinery.CodeConflict, "the batch is complete; begin another")
	case b.RequestedBy != caller.Name:
		return b, nil, joinery.Errorf(joinery.CodeForbidden, "whoever began a batch says which devices it has; begin one of your own")
	}
	ids, absent, err := s.find(ctx, b.Org, refs)
	if err != nil {
		return b, nil, err
	}
	if b, err = s.fill(ctx, b, ids, nil); err == nil && !more {
		b, err = s.submit(ctx, caller, b)
	}
	return b, absent, err
}

// find gives the ids of devices that org holds, and the places of the others.
func (s *Service) find(ctx context.Context, org joinery.OrgID, refs []joinery.DeviceRef) (ids []joinery.DeviceID, absent []int, err error) {
	if len(refs) > MaxRefs {
		return nil, nil, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once; add more with a further call", MaxRefs)
	}
	found, err := s.store.Labelled(ctx, refs)
	if err != nil {
		return nil, nil, err
	}
	for i, l := range found {
		if l.Device.ID == 0 || l.Device.Ownership.Org != org || l.Device.Ownership.Released {
			absent = append(absent, i)
		} else {
			ids = append(ids, l.Device.ID)
		}
	}
	return ids, absent, nil
}

// fill adds devices, and all that a query finds.
func (s *Service) fill(ctx context.Context, b joinery.RekeyBatch, ids []joinery.DeviceID, q *joinery.DeviceQuery) (_ joinery.RekeyBatch, err error) {
	add := func(ids []joinery.DeviceID) error {
		for run := range slices.Chunk(ids, joinery.MaxRekeyRows) {
			next, err := s.store.AddRekeyBatchDevices(ctx, b.ID, run)
			if err != nil {
				return err
			}
			b = next
		}
		return nil
	}
	if err := add(ids); err != nil || q == nil {
		return b, err
	}
	where := *q
	where.Org, where.Limit, where.After = b.Org, joinery.MaxRekeyRows, joinery.DevicePlace{}
	for {
		page, err := s.store.Devices(ctx, where)
		if err != nil {
			return b, err
		}
		ids := make([]joinery.DeviceID, len(page.Items))
		for i, d := range page.Items {
			ids[i] = d.Device.ID
		}
		if err := add(ids); err != nil {
			return b, err
		}
		if where.After = page.Next; where.After == (joinery.DevicePlace{}) {
			return b, nil
		}
	}
}

// submit ends the collecting, and decides whether another person is needed.
func (s *Service) submit(ctx context.Context, caller joinery.Caller, b joinery.RekeyBatch) (joinery.RekeyBatch, error) {
	another, err := s.authority.NeedsAnother(ctx, caller, b.Org)
	if err != nil {
		return b, err
	}
	set, err := s.store.FixRekeyBatchSet(ctx, b.ID)
	if err != nil {
		return b, err
	}
	b.Digest, b.Devices, b.Root = set.Digest, set.Devices, set.Root
	if b.Devices == 0 {
		return b, joinery.Errorf(joinery.CodeInvalid, "there is no device in this batch that the organisation holds")
	}
	b.NeedsApproval, b.State = another, joinery.BatchApproved
	approval := "not needed"
	if another {
		b.State, b.ExpiresAt, approval = joinery.BatchRequested, s.now().UTC().Truncate(time.Millisecond).Add(joinery.RekeyWait), "needed"
	}
	entry := s.batchEntry(caller, joinery.AuditRekeyBatchRequested, b)
	entry.Detail["approval"] = approval
	if err := s.store.MoveRekeyBatch(ctx, b, []joinery.RekeyBatchState{joinery.BatchCollecting}, entry); err != nil {
		return b, err
	}
	s.hurryBatches()
	return b, nil
}

// BatchApproval is what another person looked at: exactly the devices of Digest, the
// JoinEUI at which they are to join, the key to which their new root keys go, and
// whether the next rekeying keys go there, too.
type BatchApproval struct {
	Digest     [32]byte
	JoinEUI    lorawan.EUI64
	Thumbprint string
	RekeyKey   bool
}

// ApproveBatch lets a batch go on that waits for another person. CodeConflict where
// what the approver looked at is not what was asked for.
func (s *Service) ApproveBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, a BatchApproval) (joinery.RekeyBatch, error) {
	b, err := s.ownBatch(ctx, caller, id)
	if err != nil {
		return b, err
	}
	switch {
	case b.StateAt(s.now()) != joinery.BatchRequested:
		return b, joinery.Errorf(joinery.CodeConflict, "the batch is %s; it waits for no approval", b.StateAt(s.now()))
	case a != BatchApproval{b.Digest, b.JoinEUI, b.Thumbprint, b.RekeyKey}:
		return b, joinery.Errorf(joinery.CodeConflict, "what you approve is not what was asked for: other devices, another JoinEUI, another key, or rekeying keys that go, too, or do not; look at the batch again")
	}
	if err := s.authority.Another(ctx, caller, b.Org, b.RequestedPerson); err != nil {
		return b, err
	}
	// What is stored is held against it here, before the first device is armed.
	digest, n, err := s.store.RekeyBatchDigest(ctx, id)
	if err == nil && (digest != b.Digest || n != b.Devices) {
		err = joinery.Errorf(joinery.CodeConflict, "the devices are not those that were requested; somebody changed the database")
	}
	if err != nil {
		return b, err
	}
	b.State, b.DecidedBy, b.DecidedAt = joinery.BatchApproved, caller.Name, s.now().UTC().Truncate(time.Millisecond)
	entry := s.batchEntry(caller, joinery.AuditRekeyBatchApproved, b)
	entry.Detail["requested_by"] = b.RequestedBy
	if err := s.store.MoveRekeyBatch(ctx, b, []joinery.RekeyBatchState{joinery.BatchRequested}, entry); err != nil {
		return b, err
	}
	s.hurryBatches()
	return b, nil
}

// RejectBatch ends a batch that waits for approval. Whoever may approve one may
// reject his own as well.
func (s *Service) RejectBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, note string) (joinery.RekeyBatch, error) {
	if len(note) > maxNote || !utf8.ValidString(note) {
		return joinery.RekeyBatch{}, joinery.Errorf(joinery.CodeInvalid, "note: at most %d bytes of text", maxNote)
	}
	b, err := s.ownBatch(ctx, caller, id)
	if err != nil {
		return b, err
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	b.State, b.DecidedBy, b.DecidedAt, b.Note, b.EndedAt = joinery.BatchRejected, caller.Name, now, note, now
	return b, s.store.MoveRekeyBatch(ctx, b, []joinery.RekeyBatchState{joinery.BatchRequested}, s.batchEntry(caller, joinery.AuditRekeyBatchRejected, b))
}

// WithdrawBatch ends a batch before it is done. Devices that were armed stay so:
// cancel their orders.
func (s *Service) WithdrawBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
	b, err := s.ownBatch(ctx, caller, id)
	for tries := 0; err == nil; tries++ {
		b.State, b.EndedAt = joinery.BatchWithdrawn, s.now().UTC().Truncate(time.Millisecond)
		from := []joinery.RekeyBatchState{joinery.BatchCollecting, joinery.BatchRequested, joinery.BatchApproved}
		err = s.store.MoveRekeyBatch(ctx, b, from, s.batchEntry(caller, joinery.AuditRekeyBatchWithdrawn, b))
		if joinery.CodeOf(err) != joinery.CodeConflict || tries == 10 {
			break
		}
		if b, err = s.store.RekeyBatch(ctx, id); err == nil && !b.EndedAt.IsZero() { // devices were armed meanwhile
			err = joinery.Errorf(joinery.CodeConflict, "the batch is %s by now", b.State)
		}
	}
	return b, err
}

// Batch gives one batch of the caller's organisation.
func (s *Service) Batch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
	b, err := s.ownBatch(ctx, caller, id)
	b.State = b.StateAt(s.now())
	return b, err
}

// Batches gives those of the caller's organisation, newest first; the next page is
// before the last of this one.
func (s *Service) Batches(ctx context.Context, caller joinery.Caller, before joinery.RekeyBatchID, limit int) ([]joinery.RekeyBatch, error) {
	org, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	list, err := s.store.RekeyBatches(ctx, joinery.RekeyBatchQuery{Org: org, Before: before, Limit: limit})
	for i := range list {
		list[i].State = list[i].StateAt(s.now())
	}
	return list, err
}

// BatchItems gives the devices of a batch from index from on, in the order of the
// set, and what became of each.
func (s *Service) BatchItems(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID, from uint64, limit int) ([]joinery.RekeyBatchItem, error) {
	if _, err := s.ownBatch(ctx, caller, id); err != nil {
		return nil, err
	}
	return s.store.RekeyBatchItems(ctx, id, from, false, limit)
}

// ownBatch finds a batch of the organisation for which the caller acts; another's is
// absent.
func (s *Service) ownBatch(ctx context.Context, caller joinery.Caller, id joinery.RekeyBatchID) (joinery.RekeyBatch, error) {
	org, err := s.authority.Acting(ctx, caller)
	if err != nil {
		return joinery.RekeyBatch{}, err
	}
	b, err := s.store.RekeyBatch(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && b.Org != org {
		return joinery.RekeyBatch{}, joinery.Errorf(joinery.CodeNotFound, "no such batch")
	}
	return b, err
}

func (s *Service) batchEntry(caller joinery.Caller, event joinery.AuditEvent, b joinery.RekeyBatch) joinery.AuditEntry {
	set := joinery.DeviceSet{Devices: b.Devices, Digest: b.Digest, Root: b.Root}
	detail := set.Detail(map[string]string{"batch": b.ID.String(), "new_join_eui": b.JoinEUI.String(), "key": b.Thumbprint})
	nameServer(detail, b.Server, b.To)
	if b.RekeyKey {
		detail["rekeying_key"] = "goes with it"
	}
	return joinery.AuditEntry{At: s.now().UTC().Truncate(time.Millisecond), Event: event, Actor: caller.Name, Org: b.Org, Detail: detail}
}

func (s *Service) hurryBatches() {
	select {
	case s.wakeBatches <- struct{}{}:
	default:
	}
}

// workBatches arms what is approved until ctx ends. hold tells why nothing may be
// done now, or nil.
func (s *Service) workBatches(ctx context.Context, log *slog.Logger, hold func() error) {
	for {
		more := false
		if hold == nil || hold() == nil { // which is told elsewhere
			var err error
			if more, err = s.WorkBatches(ctx); err != nil && ctx.Err() == nil {
				log.Warn("devices of a batch could not be armed now", "error", err)
			}
		}
		if more && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(maxQuiet):
		case <-s.wakeBatches:
		}
	}
}

// WorkBatches has one turn with all batches that are approved: some devices of each.
// more tells whether there was anything to do.
func (s *Service) WorkBatches(ctx context.Context) (more bool, err error) {
	var list []joinery.RekeyBatch
	approved := joinery.RekeyBatchQuery{States: []joinery.RekeyBatchState{joinery.BatchApproved}, Limit: maxRows}
	for { // all of them: else many new ones would keep the oldest from its turn
		page, err := s.store.RekeyBatches(ctx, approved)
		if err != nil {
			return false, err
		}
		list = append(list, page...)
		if len(page) < approved.Limit {
			break
		}
		approved.Before = page[len(page)-1].ID
	}
	for i := len(list) - 1; i >= 0; i-- { // the oldest first; one that cannot go on keeps no other out
		wrong := s.workBatch(ctx, list[i])
		more, err = more || wrong == nil, errors.Join(err, wrong)
	}
	if more {
		s.hurry()
	}
	return more, err
}

// workBatch arms some devices of a batch.
func (s *Service) workBatch(ctx context.Context, b joinery.RekeyBatch) error {
	items, err := s.store.RekeyBatchItems(ctx, b.ID, 0, true, joinery.MaxRekeyRows)
	if err != nil {
		return err
	}
	to, err := s.targetFor(ctx, b.Org, Arm{JoinEUI: b.JoinEUI, To: b.Server, Recipient: b.Recipient})
	if err == nil && to.thumbprint != b.Thumbprint {
		err = joinery.Errorf(joinery.CodeConflict, "the Join Server or recipient has another key than the one that was named")
	}
	if err != nil && !refuses(err) {
		return err
	}
	list := make([]joinery.RekeyBatchArm, len(items))
	for i, item := range items {
		if err != nil {
			list[i] = joinery.RekeyBatchArm{Index: item.Index, Code: joinery.CodeOf(err), Reason: joinery.MessageOf(err)}
			continue
		}
		arm, held, failed := s.armOf(ctx, b, item)
		if failed != nil {
			return failed
		}
		if held { // before it goes on
			if err := s.noteJoinsOf(ctx, item.Device); err != nil {
				return err
			}
		}
		list[i] = arm
	}
	done := s.batchEntry(joinery.Caller{Name: b.RequestedBy}, joinery.AuditRekeyBatchDone, b)
	b, err = s.store.ArmRekeyBatch(ctx, b.ID, list, done)
	switch {
	case joinery.CodeOf(err) == joinery.CodeConflict: // withdrawn, or another server did the last of it
		return nil
	case err == nil && len(list) == 0 && b.State == joinery.BatchApproved:
		return joinery.Errorf(joinery.CodeInternal, "batch %s has fewer devices than it says; joinery fsck tells more", b.ID)
	}
	return err
}

// refuses tells whether an error is a refusal, not a server that cannot do it now.
func refuses(err error) bool {
	switch joinery.CodeOf(err) {
	case joinery.CodeInvalid, joinery.CodeConflict, joinery.CodeNotFound, joinery.CodeExhausted, joinery.CodeForbidden:
		return true
	}
	return false
}

// armOf is what becomes of one device of a batch. held tells that its rekeying key
// was handed over to this server.
func (s *Service) armOf(ctx context.Context, b joinery.RekeyBatch, item joinery.RekeyBatchItem) (a joinery.RekeyBatchArm, held bool, err error) {
	a.Index = item.Index
	refuse := func(code joinery.Code, reason string) (joinery.RekeyBatchArm, bool, error) {
		a.Code, a.Reason = code, reason
		return a, false, nil
	}
	state, err := s.store.RekeyingDevice(ctx, item.Device)
	switch {
	case joinery.CodeOf(err) == joinery.CodeNotFound:
		return refuse(joinery.CodeNotFound, joinery.RekeyFailedGone)
	case err != nil:
		return a, false, err
	}
	if own := state.Device.Ownership; own.Org != b.Org || own.Epoch != item.Epoch || own.Released {
		return refuse(joinery.CodeConflict, joinery.RekeyFailedOwner)
	}
	now := s.now().UTC().Truncate(time.Millisecond)
	if o := state.Rekeying.Order; o != nil && o.StateAt(now).Open() && o.Owner == b.Org && o.Rekey.JoinEUI == b.JoinEUI &&
		o.Server == b.Server && o.Recipient == b.Recipient && o.Thumbprint == b.Thumbprint && o.RekeyKey == b.RekeyKey {
		a.Had = o.ID
		return a, false, nil
	}
	if err := s.rekeyable(ctx, state); err != nil {
		if !refuses(err) {
			return a, false, err
		}
		return refuse(joinery.CodeOf(err), joinery.MessageOf(err))
	}
	a.Order = joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: item.Device, State: joinery.RekeyArmed, Rekey: lorawan.Rekey{JoinEUI: b.JoinEUI},
		Server: b.Server, To: b.To, Recipient: b.Recipient, Thumbprint: b.Thumbprint, RekeyKey: b.RekeyKey,
		Owner: b.Org, By: b.RequestedBy, Person: b.RequestedPerson, At: now, ArmedAt: now, ExpiresAt: now.Add(cmp.Or(b.Life, DefaultLife)),
	}
	rand.Read(a.Order.Rekey.Cookie[:]) // never fails (crypto/rand)
	a.Entry = s.orderEntry(joinery.Caller{Name: b.RequestedBy}, joinery.AuditRekeyArmed, state.Device, a.Order)
	a.Entry.Detail["batch"] = b.ID.String()
	if b.DecidedBy != "" {
		a.Entry.Detail["approved_by"] = b.DecidedBy
	}
	return a, state.KeySet.Held.KeySet != 0, nil
}
