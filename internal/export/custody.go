package export

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
)

// Job is an export that waits for the custody process, with what that needs.
type Job struct {
	joinery.Export
	RecipientKey string // PEM
	// Begin is the first line of the file but for Wrapping and Signer, which the
	// custody process knows. Where the export was begun it is whole.
	Begin exportfile.Header
}

// custodian refuses everybody but a process of the operator's on this machine: the
// work is ciphertext, and yet nobody else's.
func (s *Service) custodian(caller joinery.Caller) error {
	if !caller.Operator || !caller.Socket {
		return joinery.Errorf(joinery.CodeForbidden, "only the custody process does that, on the operator socket of this machine: joinery export run")
	}
	return s.held()
}

// held refuses to disclose anything while the database may not be the newest
// state.
func (s *Service) held() error {
	if err := s.hold(); err != nil {
		return joinery.WrapError(joinery.CodeUnavailable, err, "no root keys leave until the operator has confirmed this database, which may be a copy")
	}
	return nil
}

// Jobs gives exports that are approved and not done, the oldest first.
func (s *Service) Jobs(ctx context.Context, caller joinery.Caller) ([]Job, error) {
	if err := s.custodian(caller); err != nil {
		return nil, err
	}
	list, err := s.store.Exports(ctx, joinery.ExportQuery{States: []joinery.ExportState{joinery.ExportApproved, joinery.ExportWorking}, Limit: maxLines})
	if err != nil {
		return nil, err
	}
	var jobs []Job
	for i := len(list) - 1; i >= 0; i-- {
		if s.due(list[i]) {
			continue
		}
		j, err := s.job(ctx, list[i])
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

func (s *Service) job(ctx context.Context, e joinery.Export) (j Job, err error) {
	r, err := s.store.Recipient(ctx, e.Recipient)
	if err != nil {
		return j, err
	}
	created := e.RequestedAt
	if !e.DecidedAt.IsZero() {
		created = e.DecidedAt
	}
	j = Job{Export: e, RecipientKey: r.Key, Begin: exportfile.Header{
		Format: exportfile.Format, ID: e.ID.String(), Server: s.server, Org: e.Org.String(), Recipient: e.Thumbprint,
		Created: exportfile.FormatCreated(created), Devices: int(e.Devices),
	}}
	if e.Header != nil {
		j.Begin, err = exportfile.ParseHeader(e.Header)
	}
	return j, err
}

// Start fixes the first line of the file of an export. Where that was done before,
// the one that stands is given. Approval covers exactly a set and a key: what is
// stored is held against it here, before the first key is wrapped.
func (s *Service) Start(ctx context.Context, caller joinery.Caller, id joinery.ExportID, h exportfile.Header) (j Job, err error) {
	e, err := s.working(ctx, caller, id)
	if err != nil {
		return j, err
	}
	if j, err = s.job(ctx, e); err != nil || e.Header != nil {
		return j, err
	}
	key, err := exportfile.ParseRecipient([]byte(j.RecipientKey))
	if err != nil {
		return j, err
	}
	digest, n, err := s.store.ExportDigest(ctx, id)
	switch {
	case err != nil:
		return j, err
	case digest != e.Digest || n != e.Devices || key.Thumbprint() != e.Thumbprint:
		return j, joinery.Errorf(joinery.CodeConflict, "the devices or the recipient's key are not those that were requested; somebody changed the database")
	}
	want := j.Begin
	want.Wrapping, want.Signer = h.Wrapping, h.Signer
	if h != want || h.Check() != nil {
		return j, joinery.Errorf(joinery.CodeInvalid, "the first line of the file is not that of this export")
	}
	if err := key.Allows(h.Wrapping); err != nil || e.Form != "" && string(h.Wrapping.Form) != e.Form {
		return j, joinery.Errorf(joinery.CodeInvalid, "the recipient's key is not to be used so")
	}
	line, err := exportfile.MarshalHeader(h)
	if err != nil {
		return j, err
	}
	if e, err = s.store.StartExport(ctx, id, line); err != nil {
		return j, err
	}
	return s.job(ctx, e)
}

// working finds an export that the custody process may work on.
func (s *Service) working(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
	if err := s.custodian(caller); err != nil {
		return joinery.Export{}, err
	}
	e, err := s.store.Export(ctx, id)
	if err != nil {
		return e, err
	}
	if state := s.stateOf(e); state != joinery.ExportApproved && state != joinery.ExportWorking {
		return e, joinery.Errorf(joinery.CodeConflict, "the export is %s; there is nothing to do", state)
	}
	return e, nil
}

// Device is one whose root keys are to be wrapped.
type Device struct {
	Index  uint64
	KeySet joinery.KeySet // with its custody blobs
	About  exportfile.Metadata
}

// Work gives devices that wait to be wrapped, from index from on, and from where to
// go on, 0 where there are no more. Those that are gone, or another's by now, are
// dropped and not given.
func (s *Service) Work(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, limit int) (work []Device, next uint64, err error) {
	e, err := s.working(ctx, caller, id)
	if err != nil {
		return nil, 0, err
	}
	if limit <= 0 || limit > joinery.MaxExportRows {
		limit = joinery.MaxExportRows
	}
	items, states, err := s.store.ExportWork(ctx, id, from, limit)
	if err != nil {
		return nil, 0, err
	}
	var drop []joinery.WrappedItem
	for i, item := range items {
		d, k := states[i].Device, states[i].KeySet
		if d.ID == 0 || d.Ownership.Org != e.Org || d.Ownership.Epoch != item.Epoch || d.Ownership.Released || k.ID != item.KeySet {
			// The store says why, in the transaction that leaves it out.
			drop = append(drop, joinery.WrappedItem{Index: item.Index, KeySet: item.KeySet, Reason: joinery.DropOwner})
			continue
		}
		about, err := s.metadata(ctx, states[i])
		if err != nil {
			return nil, 0, err
		}
		work = append(work, Device{item.Index, k, about})
	}
	if len(items) == limit {
		next = items[len(items)-1].Index + 1
	}
	if len(drop) > 0 {
		_, err = s.commit(ctx, caller, e, drop)
	}
	return work, next, err
}

// metadata gives what an export says of a device: also who could read its root keys
// before, which travels with them.
func (s *Service) metadata(ctx context.Context, state joinery.ActivationState) (exportfile.Metadata, error) {
	m := keyring.ExportMetadata(state.KeySet, state.Device.JoinEUI, state.Device.MACVersion)
	var known []joinery.Disclosure
	var err error
	if state.Device.Disclosed {
		known, err = s.store.Disclosures(ctx, state.Device.ID)
	}
	e := state.Exposure(known)
	m.Exposure = &e
	return m, err
}

// Done is what became of one device in the custody process: its line of the file,
// or why there is none.
type Done struct {
	Index  uint64
	KeySet joinery.KeySetID
	Line   []byte
	Reason string // one of Reasons
}

// Reasons are those for which the custody process leaves a device out.
func Reasons() []string {
	return []string{joinery.DropUnwrapped, joinery.DropNotAllowed, joinery.DropNoKey, joinery.DropWrapping}
}

// HandIn takes devices that were wrapped, at most joinery.MaxExportRows, rising by
// index. A device that was handed in before changes nothing. With each the
// disclosure is written, before anybody can download it.
func (s *Service) HandIn(ctx context.Context, caller joinery.Caller, id joinery.ExportID, done []Done) (joinery.Export, error) {
	e, err := s.store.Export(ctx, id)
	over := []joinery.ExportState{joinery.ExportReady, joinery.ExportDelivered, joinery.ExportFailed}
	if err == nil && slices.Contains(over, e.State) && s.custodian(caller) == nil {
		return e, nil // the answer was lost
	}
	if e, err = s.working(ctx, caller, id); err != nil {
		return e, err
	}
	if len(done) > joinery.MaxExportRows {
		return e, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once", joinery.MaxExportRows)
	}
	if e.Header == nil {
		return e, joinery.Errorf(joinery.CodeConflict, "say first what the first line of the file is")
	}
	items, err := s.check(ctx, e, done)
	if err != nil {
		return e, err
	}
	return s.commit(ctx, caller, e, items)
}

// Fail ends an export of which nothing can be wrapped, and says why: for its owner to
// ask for another. One of which something was wrapped goes on.
func (s *Service) Fail(ctx context.Context, caller joinery.Caller, id joinery.ExportID, why string) (joinery.Export, error) {
	return s.tell(ctx, caller, id, why, func(e joinery.Export) (joinery.Export, joinery.AuditEvent, error) {
		if e.Wrapped > 0 {
			return e, "", joinery.Errorf(joinery.CodeConflict, "keys of this export were wrapped; leave out the devices that cannot be")
		}
		e.State, e.EndedAt = joinery.ExportFailed, s.time()
		return e, joinery.AuditExportFailed, nil
	})
}

// Stall says why devices of an export wait on. Its owner is told once for each reason.
func (s *Service) Stall(ctx context.Context, caller joinery.Caller, id joinery.ExportID, why string) (joinery.Export, error) {
	return s.tell(ctx, caller, id, why, func(e joinery.Export) (joinery.Export, joinery.AuditEvent, error) {
		return e, joinery.AuditExportStalled, nil
	})
}

func (s *Service) tell(ctx context.Context, caller joinery.Caller, id joinery.ExportID, why string,
	next func(joinery.Export) (joinery.Export, joinery.AuditEvent, error)) (joinery.Export, error) {
	if why == "" || len(why) > maxNote || !utf8.ValidString(why) {
		return joinery.Export{}, joinery.Errorf(joinery.CodeInvalid, "why: 1 to %d bytes of text", maxNote)
	}
	e, err := s.working(ctx, caller, id)
	if err != nil {
		return e, err
	}
	from, told := e.State, e.Note == why
	e, event, err := next(e)
	if err != nil || told && e.State == from {
		return e, err
	}
	e.Note = why
	detail := s.about(e, e.Thumbprint)
	detail["why"] = why
	a := s.entry(caller, event, e.Org, detail)
	a.Actor = "custody process"
	return e, s.store.MoveExport(ctx, e, []joinery.ExportState{from}, a)
}

func (s *Service) commit(ctx context.Context, caller joinery.Caller, e joinery.Export, items []joinery.WrappedItem) (joinery.Export, error) {
	// Every later owner of the device reads this one, so it names no person: who
	// asked and who approved is in the entries of the export.
	exposed := s.entry(caller, joinery.AuditKeysExposed, e.Org, map[string]string{
		"export": e.ID.String(), "recipient": e.Thumbprint, "kind": string(e.Kind),
	})
	exposed.Actor = "custody process"
	return s.store.CommitExport(ctx, e.ID, items, s.time().Add(readyFor), exposed, s.entry(caller, joinery.AuditExportReady, e.Org, s.about(e, e.Thumbprint)))
}

// check holds what was wrapped against what was asked for.
func (s *Service) check(ctx context.Context, e joinery.Export, done []Done) ([]joinery.WrappedItem, error) {
	if len(done) == 0 {
		return nil, nil
	}
	h, err := exportfile.ParseHeader(e.Header)
	if err != nil {
		return nil, err
	}
	// That the key is the custody process's own only the owner can judge; that the
	// lines are signed by the one that the first line names, this can.
	verifier, err := exportfile.NewVerifier(h, h.Signer.Thumbprint())
	if err != nil {
		return nil, err
	}
	first, last := done[0].Index, done[len(done)-1].Index
	if last < first || last-first >= 5*joinery.MaxExportRows {
		return nil, joinery.Errorf(joinery.CodeInvalid, "the devices are not in order, or too far apart")
	}
	asked, err := s.store.ExportItems(ctx, e.ID, first, int(last-first)+1)
	if err != nil {
		return nil, err
	}
	out := make([]joinery.WrappedItem, len(done))
	for i, d := range done {
		if d.Index < first || d.Index-first >= uint64(len(asked)) || i > 0 && d.Index <= done[i-1].Index {
			return nil, joinery.Errorf(joinery.CodeInvalid, "device %d is not in this export, or not in order", d.Index)
		}
		if out[i], err = checkLine(verifier, h, asked[d.Index-first], d); err != nil {
			return nil, joinery.WrapError(joinery.CodeInvalid, err, "device %d is not one that was asked for, or not whole", d.Index)
		}
	}
	return out, nil
}

func checkLine(v *exportfile.Verifier, h exportfile.Header, asked joinery.ExportItem, d Done) (joinery.WrappedItem, error) {
	out := joinery.WrappedItem{Index: d.Index, KeySet: d.KeySet, Blob: d.Line, Reason: d.Reason}
	if d.Reason != "" {
		if !slices.Contains(Reasons(), d.Reason) || len(d.Line) > 0 {
			return out, fmt.Errorf("unknown reason")
		}
		return out, nil
	}
	device, err := exportfile.ParseDevice(d.Line, h)
	switch {
	case err != nil:
		return out, err
	case bytes.ContainsAny(d.Line, "\r\n") || device.JoinEUI != asked.JoinEUI || device.DevEUI != asked.DevEUI || d.KeySet != asked.KeySet:
		return out, fmt.Errorf("another device")
	}
	if device.Exposure == nil {
		return out, fmt.Errorf("it does not say what is known of disclosures; the custody process is of another version than the server")
	}
	for _, k := range device.Keys {
		if len(k.Wrapped) == 0 && k.JWE == "" {
			return out, fmt.Errorf("no key")
		}
	}
	return out, v.Verify(device)
}
