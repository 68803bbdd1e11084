package export

import (
	"cmp"
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"joinery"
	"joinery/internal/exportfile"
)

// MaxRefs is the most devices that one call names; an export of more takes several.
const MaxRefs = 10_000

// maxNote bounds why an export was rejected, in bytes.
const maxNote = 1000

// Spec is an export as somebody asks for it.
type Spec struct {
	Recipient joinery.RecipientID
	// Form of the wrapped keys; "" for the best that there is. Another Join Server
	// gets its own.
	Form exportfile.Form
	// Devices by name, or Select: all that the query finds of the organisation's.
	Devices []joinery.DeviceRef
	Select  *joinery.DeviceQuery
	// More keeps the export open for more devices; see Add.
	More bool
}

// Request asks for an export. Where it needs nobody else it is approved at once.
func (s *Service) Request(ctx context.Context, caller joinery.Caller, spec Spec) (joinery.Export, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return joinery.Export{}, err
	}
	r, err := s.recipient(ctx, caller, spec.Recipient)
	if err != nil {
		return joinery.Export{}, err
	}
	form, err := checkForm(r, spec.Form)
	if err != nil {
		return joinery.Export{}, err
	}
	now := s.time()
	e := joinery.Export{
		ID: joinery.NewExportID(), Org: org, State: joinery.ExportCollecting, Recipient: r.ID, Form: string(form),
		RequestedBy: caller.Name, RequestedPerson: caller.Person, RequestedAt: now, ExpiresAt: now.Add(collectFor),
	}
	ids, err := s.find(ctx, org, spec.Devices) // before anything is made
	if err != nil {
		return e, err
	}
	if len(ids) == 0 && spec.Select == nil && !spec.More {
		return e, joinery.Errorf(joinery.CodeInvalid, "say which devices")
	}
	if err := s.store.BeginExport(ctx, e); err != nil {
		return e, err
	}
	if e, err = s.fill(ctx, e, ids, spec.Select); err == nil && !spec.More {
		e, err = s.submit(ctx, caller, e)
	}
	if err != nil {
		s.abandon(ctx, caller, e)
		return e, err
	}
	return s.store.Export(ctx, e.ID)
}

// abandon ends an export that its request did not finish; else it would end by
// itself after a day.
func (s *Service) abandon(ctx context.Context, caller joinery.Caller, e joinery.Export) {
	ctx = context.WithoutCancel(ctx)
	e, err := s.store.Export(ctx, e.ID)
	if err != nil || e.State != joinery.ExportCollecting {
		return
	}
	e.State, e.EndedAt = joinery.ExportWithdrawn, s.time()
	if err := s.store.MoveExport(ctx, e, []joinery.ExportState{joinery.ExportCollecting}); err != nil {
		s.log.Warn("an export that was not finished ends by itself in a day", "export", e.ID, "caller", caller.Name, "error", err)
	}
}

func checkForm(r joinery.Recipient, form exportfile.Form) (exportfile.Form, error) {
	key, err := exportfile.ParseRecipient([]byte(r.Key))
	if err != nil {
		return "", joinery.WrapError(joinery.CodeConflict, err, "the key of that recipient cannot be used any more; register it again")
	}
	switch {
	case r.Kind == joinery.RecipientServer && (form == "" || form == exportfile.FormSeal):
		return exportfile.FormSeal, nil
	case r.Kind == joinery.RecipientServer:
		return "", joinery.Errorf(joinery.CodeInvalid, "form: another Join Server imports the form seal alone")
	case !slices.Contains([]exportfile.Form{"", exportfile.FormRaw, exportfile.FormJWE, exportfile.FormSeal}, form):
		return "", joinery.Errorf(joinery.CodeInvalid, "form: want raw, jwe or seal")
	case key.RSA() == nil && form != "" && form != exportfile.FormJWE:
		return "", joinery.Errorf(joinery.CodeInvalid, "form: to a key of P-256 root keys go as JWE alone")
	}
	return form, nil
}

// find gives the ids of devices that org holds, without repeats. One that it does
// not hold is absent.
func (s *Service) find(ctx context.Context, org joinery.OrgID, refs []joinery.DeviceRef) ([]joinery.DeviceID, error) {
	if len(refs) > MaxRefs {
		return nil, joinery.Errorf(joinery.CodeTooLarge, "at most %d devices at once; add more with a further call", MaxRefs)
	}
	found, err := s.store.Labelled(ctx, refs)
	if err != nil {
		return nil, err
	}
	ids := make([]joinery.DeviceID, 0, len(found))
	seen := make(map[joinery.DeviceID]bool, len(found))
	for i, l := range found {
		d := l.Device
		if d.ID == 0 || d.Ownership.Org != org || d.Ownership.Released {
			return nil, &joinery.Attempted{Device: d.ID,
				Err: joinery.Errorf(joinery.CodeNotFound, "device %d of the request is none of this organisation's; nothing was requested", i)}
		}
		if !seen[d.ID] {
			seen[d.ID] = true
			ids = append(ids, d.ID)
		}
	}
	return ids, nil
}

// fill adds devices, and all that a query finds.
func (s *Service) fill(ctx context.Context, e joinery.Export, ids []joinery.DeviceID, q *joinery.DeviceQuery) (_ joinery.Export, err error) {
	for run := range slices.Chunk(ids, joinery.MaxExportRows) {
		if e, err = s.store.AddExportDevices(ctx, e.ID, run); err != nil {
			return e, err
		}
	}
	if q == nil {
		return e, nil
	}
	where := *q
	where.Org, where.Limit, where.After = e.Org, joinery.MaxExportRows, joinery.DevicePlace{}
	for {
		page, err := s.store.Devices(ctx, where)
		if err != nil {
			return e, err
		}
		run := make([]joinery.DeviceID, 0, len(page.Items))
		for _, d := range page.Items {
			if !d.Device.Ownership.Released {
				run = append(run, d.Device.ID)
			}
		}
		if e, err = s.addPresent(ctx, e, run); err != nil {
			return e, err
		}
		if where.After = page.Next; where.After == (joinery.DevicePlace{}) {
			return e, nil
		}
	}
}

// addPresent adds those that the organisation still holds: between looking and
// adding one may have changed hands.
func (s *Service) addPresent(ctx context.Context, e joinery.Export, run []joinery.DeviceID) (joinery.Export, error) {
	if len(run) == 0 {
		return e, nil
	}
	added, err := s.store.AddExportDevices(ctx, e.ID, run)
	if joinery.CodeOf(err) != joinery.CodeNotFound {
		return added, err
	}
	for _, id := range run {
		added, err := s.store.AddExportDevices(ctx, e.ID, []joinery.DeviceID{id})
		switch {
		case err == nil:
			e = added
		case joinery.CodeOf(err) != joinery.CodeNotFound:
			return e, err
		}
	}
	return e, nil
}

// Add adds devices to an export that was requested with More; without more it is
// complete.
func (s *Service) Add(ctx context.Context, caller joinery.Caller, id joinery.ExportID, refs []joinery.DeviceRef, more bool) (joinery.Export, error) {
	e, err := s.own(ctx, caller, id)
	if err != nil {
		return e, err
	}
	switch {
	case e.State != joinery.ExportCollecting || s.due(e):
		return e, joinery.Errorf(joinery.CodeConflict, "the export is complete; ask for another")
	case e.RequestedBy != caller.Name:
		return e, joinery.Errorf(joinery.CodeForbidden, "whoever began an export says which devices it has; ask for one of your own")
	}
	ids, err := s.find(ctx, e.Org, refs)
	if err != nil {
		return e, err
	}
	if e, err = s.fill(ctx, e, ids, nil); err == nil && !more {
		e, err = s.submit(ctx, caller, e)
	}
	if err != nil {
		return e, err
	}
	return s.store.Export(ctx, id)
}

// submit ends the collecting, and decides whether another person is needed.
func (s *Service) submit(ctx context.Context, caller joinery.Caller, e joinery.Export) (joinery.Export, error) {
	r, err := s.store.Recipient(ctx, e.Recipient)
	if err != nil {
		return e, err
	}
	set, err := s.store.FixExportSet(ctx, e.ID)
	if err != nil {
		return e, err
	}
	e.Digest, e.Devices, e.Root = set.Digest, set.Devices, set.Root
	if e.Devices == 0 {
		return e, joinery.Errorf(joinery.CodeInvalid, "there is no device in this export")
	}
	policy, err := s.policyFor(ctx, caller, e.Org)
	if err != nil {
		return e, err
	}
	now := s.time()
	e.NeedsApproval = policy.Needed
	e.State, e.ExpiresAt = joinery.ExportApproved, now.Add(custodyFor)
	detail := s.about(e, r.Thumbprint)
	detail["approval"] = "not needed"
	if e.NeedsApproval {
		e.State, e.ExpiresAt = joinery.ExportRequested, now.Add(waitFor)
		detail["approval"] = "needed"
	}
	a := s.entry(caller, joinery.AuditExportRequested, e.Org, detail)
	if err := s.store.MoveExport(ctx, e, []joinery.ExportState{joinery.ExportCollecting}, a); err != nil {
		return e, err
	}
	if !e.NeedsApproval {
		s.tellApproved()
	}
	return e, nil
}

// about says in the log what an export is.
func (s *Service) about(e joinery.Export, thumbprint string) map[string]string {
	set := joinery.DeviceSet{Devices: e.Devices, Digest: e.Digest, Root: e.Root}
	return set.Detail(map[string]string{"export": e.ID.String(), "recipient": thumbprint})
}

// Approve lets an export go on. digest and thumbprint are what the approver looked
// at: CodeConflict where they are not the export's.
func (s *Service) Approve(ctx context.Context, caller joinery.Caller, id joinery.ExportID, digest [32]byte, thumbprint string) (joinery.Export, error) {
	e, err := s.own(ctx, caller, id)
	if err != nil {
		return e, err
	}
	switch {
	case e.State != joinery.ExportRequested || s.due(e):
		return e, joinery.Errorf(joinery.CodeConflict, "the export is %s; it waits for no approval", s.stateOf(e))
	case e.Digest != digest || e.Thumbprint != thumbprint:
		return e, joinery.Errorf(joinery.CodeConflict, "what you approve is not what was requested: other devices, or another key; look at the export again")
	}
	if err := s.another(ctx, caller, e.Org, e.RequestedPerson); err != nil {
		return e, err
	}
	e.State, e.DecidedBy, e.DecidedAt, e.ExpiresAt = joinery.ExportApproved, caller.Name, s.time(), s.time().Add(custodyFor)
	detail := s.about(e, e.Thumbprint)
	detail["requested_by"] = e.RequestedBy
	if err := s.store.MoveExport(ctx, e, []joinery.ExportState{joinery.ExportRequested}, s.entry(caller, joinery.AuditExportApproved, e.Org, detail)); err != nil {
		return e, err
	}
	s.tellApproved()
	return e, nil
}

// Reject ends an export that waits for approval. Whoever may approve one may reject
// his own as well.
func (s *Service) Reject(ctx context.Context, caller joinery.Caller, id joinery.ExportID, note string) (joinery.Export, error) {
	if len(note) > maxNote || !utf8.ValidString(note) {
		return joinery.Export{}, joinery.Errorf(joinery.CodeInvalid, "note: at most %d bytes of text", maxNote)
	}
	e, err := s.own(ctx, caller, id)
	if err != nil {
		return e, err
	}
	e.State, e.DecidedBy, e.DecidedAt, e.Note, e.EndedAt = joinery.ExportRejected, caller.Name, s.time(), note, s.time()
	a := s.entry(caller, joinery.AuditExportRejected, e.Org, s.about(e, e.Thumbprint))
	return e, s.store.MoveExport(ctx, e, []joinery.ExportState{joinery.ExportRequested}, a)
}

// Withdraw ends an export at any time before it was delivered. What was wrapped is
// deleted; what was disclosed stays so.
func (s *Service) Withdraw(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
	return s.end(ctx, caller, id, joinery.ExportWithdrawn, joinery.AuditExportWithdrawn, joinery.ExportCollecting, joinery.ExportRequested,
		joinery.ExportApproved, joinery.ExportWorking, joinery.ExportReady)
}

// Acknowledge says that what was downloaded is safe where it is: what was wrapped
// is deleted here. Once more changes nothing.
func (s *Service) Acknowledge(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
	if e, err := s.own(ctx, caller, id); err != nil || e.State == joinery.ExportDelivered {
		return e, err
	}
	return s.end(ctx, caller, id, joinery.ExportDelivered, joinery.AuditExportDelivered, joinery.ExportReady)
}

func (s *Service) end(ctx context.Context, caller joinery.Caller, id joinery.ExportID, to joinery.ExportState, event joinery.AuditEvent, from ...joinery.ExportState) (joinery.Export, error) {
	e, err := s.own(ctx, caller, id)
	if err != nil {
		return e, err
	}
	e.State, e.EndedAt = to, s.time()
	if err := s.store.MoveExport(ctx, e, from, s.entry(caller, event, e.Org, s.about(e, e.Thumbprint))); err != nil {
		return e, err
	}
	s.clear(context.WithoutCancel(ctx))
	return e, nil
}

// due tells whether an export has ended by itself, though that is not written yet.
func (s *Service) due(e joinery.Export) bool { return !e.State.Ended() && !s.now().Before(e.ExpiresAt) }

func (s *Service) stateOf(e joinery.Export) joinery.ExportState {
	if s.due(e) {
		return joinery.ExportExpired
	}
	return e.State
}

// Export gives one export of the caller's organisation.
func (s *Service) Export(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
	return s.own(ctx, caller, id)
}

// Exports gives those of the caller's organisation, newest first; the next page is
// before the last of this one.
func (s *Service) Exports(ctx context.Context, caller joinery.Caller, before joinery.ExportID, limit int) ([]joinery.Export, error) {
	org, err := s.acting(ctx, caller)
	if err != nil {
		return nil, err
	}
	return s.store.Exports(ctx, joinery.ExportQuery{Org: org, Before: before, Limit: limit})
}

// Items gives the devices of an export from index from on, in the order of the set.
func (s *Service) Items(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, error) {
	if _, err := s.own(ctx, caller, id); err != nil {
		return nil, err
	}
	return s.store.ExportItems(ctx, id, from, limit)
}

// Page is a part of the file of an export: its first line, and lines of devices.
type Page struct {
	Header []byte
	Lines  []joinery.WrappedItem
}

// maxLines bounds a page of the file.
const maxLines = 500

// File gives a page of the file of an export that is ready, of devices from index
// from on but for the first skip of them. The same page can be had again until the
// export is acknowledged.
func (s *Service) File(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, skip, limit int) (p Page, err error) {
	e, err := s.own(ctx, caller, id)
	if err != nil {
		return p, err
	}
	if err := s.held(); err != nil {
		return p, err
	}
	if s.due(e) {
		return p, joinery.Errorf(joinery.CodeConflict, "the export has expired; ask for another")
	}
	p.Header = e.Header
	p.Lines, err = s.store.ExportBlobs(ctx, id, from, skip, min(cmp.Or(limit, maxLines), maxLines))
	return p, err
}

// Disclosures tells each time that root keys of a device were disclosed, to its
// owner of now.
func (s *Service) Disclosures(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) ([]joinery.Disclosure, error) {
	state, err := s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return nil, notFound("device")
	}
	if err != nil {
		return nil, err
	}
	return s.store.Disclosures(ctx, id)
}

// sweepEvery is how often exports are looked at that should have ended.
const sweepEvery = time.Minute

// Run ends exports whose time is over, and deletes what was wrapped in those that
// ended, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("exports that are over could not be cleared", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
	}
}

// Sweep is one turn of Run.
func (s *Service) Sweep(ctx context.Context) error {
	due, err := s.store.DueExports(ctx, s.time())
	if err != nil {
		return err
	}
	server := joinery.Caller{Name: "server"}
	for _, e := range due {
		from := e.State
		e.State, e.EndedAt = joinery.ExportExpired, s.time()
		var entries []joinery.AuditEntry
		if from != joinery.ExportCollecting { // of that nobody was told
			entries = append(entries, s.entry(server, joinery.AuditExportExpired, e.Org, s.about(e, e.Thumbprint)))
		}
		if err := s.store.MoveExport(ctx, e, []joinery.ExportState{from}, entries...); err != nil && joinery.CodeOf(err) != joinery.CodeConflict {
			return err
		}
	}
	return s.clearAll(ctx)
}

func (s *Service) clear(ctx context.Context) {
	if err := s.clearAll(ctx); err != nil {
		s.log.Warn("an export that is over is cleared in a minute", "error", err)
	}
}

func (s *Service) clearAll(ctx context.Context) error {
	for more := true; more; {
		var err error
		if more, err = s.store.ClearExports(ctx); err != nil {
			return err
		}
	}
	return nil
}
