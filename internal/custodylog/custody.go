package custodylog

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/tlog"
)

// Query asks for a part of what was done with a device's keys.
type Query struct {
	Device joinery.DeviceID
	After  joinery.LogRef // the last entry of the part before; 0 begins
	Limit  int            // 0 is 100, at most 500
	// Size is that of the checkpoint which the first part came with; 0 is the newest.
	Size int64
	// From asks for a proof that the log continues its first From leaves; 0 does
	// not.
	From int64
}

// Page is a part of it.
type Page struct {
	Device joinery.CustodyDevice
	Key    auditlog.Key
	Bundle auditlog.Bundle
	Next   joinery.LogRef // 0: that was all
}

const (
	defaultLimit = 100
	maxLimit     = 500
)

// Custody gives everything that was ever done with a device's keys, part by part,
// each entry with a proof that it is in the log: to the operator, and to who has or
// had the device. What was another owner's is shown as a record without content.
func (s *Service) Custody(ctx context.Context, caller joinery.Caller, q Query) (p Page, err error) {
	size, err := s.begin(ctx, caller, q, &p)
	if err != nil {
		return p, err
	}
	p.Bundle.Kind = auditlog.BundleCustody
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	limit := min(q.Limit, maxLimit)
	entries, err := s.store.CustodyEntries(ctx, joinery.CustodyQuery{Device: q.Device, After: q.After, Limit: limit})
	if err != nil {
		return p, err
	}
	if len(entries) == limit {
		p.Next = entries[limit-1].Ref
	}
	w := writer{s: s, ctx: ctx, caller: caller, device: p.Device, tree: s.tree(ctx, size), size: size, shown: map[joinery.LogRef]bool{}}
	for _, e := range entries {
		if err := w.add(e); err != nil {
			return p, err
		}
	}
	if p.Bundle.Sets, err = s.store.DeviceSets(ctx, q.Device, w.subjects); err != nil {
		return p, err
	}
	if q.After == 0 {
		if err := w.restarts(); err != nil {
			return p, err
		}
		if p.Bundle.Import, err = w.imported(); err != nil {
			return p, err
		}
		if err := w.importer(); err != nil {
			return p, err
		}
		p.Bundle.Manifest = p.Device.Manifest
	}
	p.Bundle.Entries = append(w.entries, w.log...)
	return p, nil
}

// Provenance gives the chain of a device's owners, each link with a proof: whom the
// device came from, and whether its root keys were disclosed by then. The caller's
// own name is opened; others open theirs to whom they like.
func (s *Service) Provenance(ctx context.Context, caller joinery.Caller, q Query) (p Page, err error) {
	size, err := s.begin(ctx, caller, q, &p)
	if err != nil {
		return p, err
	}
	p.Bundle.Kind, p.Bundle.Manifest = auditlog.BundleProvenance, p.Device.Manifest
	links, err := s.store.LinkEntries(ctx, q.Device)
	if err != nil {
		return p, err
	}
	w := writer{s: s, ctx: ctx, caller: caller, device: p.Device, tree: s.tree(ctx, size), size: size, shown: map[joinery.LogRef]bool{}, all: true}
	for _, e := range links {
		if err := w.add(e); err != nil {
			return p, err
		}
	}
	if p.Bundle.Import, err = w.imported(); err != nil {
		return p, err
	}
	p.Bundle.Entries = append(w.entries, w.log...)
	p.Bundle.Parties = opened(p.Device.Owners, caller.Org, p.Bundle.Entries)
	return p, nil
}

// State puts into the log how the chain of a device's owners stands, and whether its
// root keys were disclosed, for who is shown the chain: to them it proves that
// nothing is left out of it. It is the owner's. Provenance has it once it is in the
// tree.
func (s *Service) State(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error {
	d, err := s.store.CustodyDevice(ctx, id)
	if err == nil && (d.Owner == 0 || !caller.Owns(d.Owner)) {
		err = joinery.Errorf(joinery.CodeNotFound, "no such device")
	}
	if err != nil {
		return err
	}
	return s.store.StateProvenance(ctx, id, d.Owner, s.opt.Now().UTC().Truncate(time.Millisecond))
}

// opened gives what opens the commitments to the name of org. One that changed its
// name since opens them with the old one, which it knows and this server does not.
func opened(owners []joinery.PastOwner, org joinery.OrgID, links []auditlog.Entry) (list []auditlog.Party) {
	committed := map[string]bool{}
	for _, e := range links {
		if event, err := auditlog.ParseEvent(e.Payload); err == nil {
			committed[event.Detail["from"]], committed[event.Detail["to"]] = true, true
		}
	}
	for _, o := range owners {
		if org != 0 && o.Org == org && len(o.Nonce) > 0 && committed[auditlog.Commitment(o.Nonce, o.Name)] {
			list = append(list, auditlog.Party{Epoch: o.Epoch, Name: o.Name, Nonce: o.Nonce})
		}
	}
	return list
}

// begin decides who may ask, and fills in what all answers have.
func (s *Service) begin(ctx context.Context, caller joinery.Caller, q Query, p *Page) (size int64, err error) {
	if p.Device, err = s.store.CustodyDevice(ctx, q.Device); err != nil {
		return 0, err
	}
	if !caller.Operator && !p.Device.Had(caller.Org) {
		return 0, joinery.Errorf(joinery.CodeNotFound, "no such device")
	}
	newest, err := s.store.LogCheckpoint(ctx)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		err = joinery.Errorf(joinery.CodeUnavailable, "the custody log has no checkpoint yet; try again in some seconds")
	}
	if err != nil {
		return 0, err
	}
	size = newest.Size
	if q.Size > 0 {
		size = q.Size
	}
	if size > newest.Size || q.From > size || q.From < 0 || q.Size < 0 {
		return 0, joinery.Errorf(joinery.CodeInvalid, "size and from: the newest checkpoint has %d entries; begin anew without them", newest.Size)
	}
	if p.Key, err = s.Key(ctx); err != nil {
		return 0, err
	}
	p.Bundle = auditlog.Bundle{
		Format: auditlog.BundleFormat, Device: q.Device.String(), JoinEUI: p.Device.JoinEUI.String(), DevEUI: p.Device.DevEUI.String(),
		Checkpoint: newest.Note,
	}
	if q.From > 0 {
		proof, err := s.tree(ctx, size).Consistency(q.From)
		if err != nil {
			return 0, err
		}
		c := auditlog.Consistency{From: q.From}
		for _, h := range proof {
			c.Proof = append(c.Proof, h[:])
		}
		p.Bundle.Consistency = append(p.Bundle.Consistency, c)
	}
	return size, nil
}

// writer makes entries of a bundle.
type writer struct {
	s       *Service
	ctx     context.Context
	caller  joinery.Caller
	device  joinery.CustodyDevice
	tree    *tlog.Tree
	size    int64
	all     bool // everything is shown
	shown   map[joinery.LogRef]bool
	entries []auditlog.Entry
	log     []auditlog.Entry // about the log
	// subjects are what entries are about that are not about the device alone, and that
	// the caller may read.
	subjects []int64
}

func (w *writer) add(e joinery.CustodyEntry) error {
	kind := auditlog.KindEvent
	switch _, audit := e.Ref.Audit(); {
	case !audit:
		kind = auditlog.KindJoin
	case e.Subject != 0:
		kind = auditlog.KindRelated
	}
	out, err := w.shownAs(kind, e)
	w.entries = append(w.entries, out)
	return err
}

// shownAs gives an entry as far as the caller may read it.
func (w *writer) shownAs(kind string, e joinery.CustodyEntry) (auditlog.Entry, error) {
	out, err := w.entry(e)
	out.Kind = kind
	switch {
	case err != nil:
	case e.Payload == nil:
		out.ErasedBy = EntryName(e.Erasure)
		err = w.about(e.Erasure)
	case !w.sees(e):
		out.Withheld, out.Payload, out.Salt = true, nil, nil
	case e.Subject != 0 && !slices.Contains(w.subjects, e.Subject):
		w.subjects = append(w.subjects, e.Subject)
	}
	return out, err
}

// importer adds the entry that says who imported the device, and others.
func (w *writer) importer() error {
	i := w.device.Import
	if i == nil || i.Told == 0 {
		return nil
	}
	e, err := w.s.store.LogEntry(w.ctx, i.Told)
	if err != nil {
		return err
	}
	out, err := w.shownAs(auditlog.KindRelated, e)
	w.log = append(w.log, out)
	return err
}

// sees tells whether the caller may read an entry.
func (w *writer) sees(e joinery.CustodyEntry) bool {
	return w.all || w.caller.Owns(e.Org) || joinery.SharedWithLaterOwners(e.Event) && w.caller.Owns(w.device.Owner)
}

// about adds an entry about the log, once.
func (w *writer) about(ref joinery.LogRef) error {
	if ref == 0 || w.shown[ref] {
		return nil
	}
	w.shown[ref] = true
	e, err := w.s.store.LogEntry(w.ctx, ref)
	if err != nil {
		return err
	}
	out, err := w.entry(e)
	out.Kind = auditlog.KindLog
	if e.Event == joinery.AuditImportCommitted {
		out.Kind = auditlog.KindImport
	}
	w.log = append(w.log, out)
	return err
}

// imported shows where the history of the device begins, and adds the entry that
// says so; nil where none does.
func (w *writer) imported() (*auditlog.Import, error) {
	i := w.device.Import
	if i == nil {
		return nil, nil //nolint:nilnil // as said
	}
	proof, err := auditlog.ImportProof(i.Leaves, i.Row)
	if err != nil {
		return nil, err
	}
	out := auditlog.Import{
		Entry: EntryName(i.Entry), Row: i.Row, JoinEUI: i.Device.JoinEUI, Manifest: i.Device.Manifest, Nonce: i.Device.Nonce, Proof: proof,
	}
	return &out, w.about(i.Entry)
}

// restarts adds what the log says of restores, which concern all devices.
func (w *writer) restarts() error {
	lines, err := w.s.store.LogLines(w.ctx)
	for _, l := range lines {
		if err == nil {
			err = w.about(l.Told)
		}
	}
	return err
}

func (w *writer) entry(e joinery.CustodyEntry) (auditlog.Entry, error) {
	out := auditlog.Entry{ID: EntryName(e.Ref), Leaf: e.Leaf, Record: e.Record[:], Payload: e.Payload, Salt: e.Salt}
	if e.Leaf >= w.size { // after that checkpoint
		out.Leaf = -1
	}
	if out.Leaf < 0 {
		return out, nil
	}
	proof, err := w.tree.Inclusion(e.Leaf)
	for _, h := range proof {
		out.Proof = append(out.Proof, h[:])
	}
	return out, err
}

// auditPrefix begins the names of audit rows among entries; activations have
// their ids.
const auditPrefix = "audit_"

// EntryName is the name of an entry; "" for none.
func EntryName(ref joinery.LogRef) string {
	if number, ok := ref.Audit(); ok {
		return auditPrefix + strconv.FormatInt(number, 10)
	}
	if id, ok := ref.Activation(); ok {
		return id.String()
	}
	return ""
}

// ParseEntryName reads such a name; CodeNotFound for what is none.
func ParseEntryName(name string) (joinery.LogRef, error) {
	if number, ok := strings.CutPrefix(name, auditPrefix); ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err == nil && n > 0 && strconv.FormatInt(n, 10) == number {
			return joinery.AuditRef(n), nil
		}
	}
	var id joinery.ActivationID
	if id.UnmarshalText([]byte(name)) == nil && id > 0 {
		return joinery.ActivationRef(id), nil
	}
	return 0, joinery.Errorf(joinery.CodeNotFound, "no such entry of the custody log")
}

// Erase erases payload and salt of an entry for ever, with a record of who did it
// and why. The tree stands: the record of the entry says nothing without them.
func (s *Service) Erase(ctx context.Context, caller joinery.Caller, ref joinery.LogRef, reason string) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return joinery.Errorf(joinery.CodeInvalid, "say why the entry is erased: that stays in the log")
	}
	e, err := s.store.LogEntry(ctx, ref)
	if err != nil {
		return err
	}
	return s.store.EraseEntry(ctx, ref, joinery.AuditEntry{
		At: s.opt.Now().UTC(), Event: joinery.AuditEntryErased, Actor: caller.Name, Org: e.Org,
		Detail: map[string]string{"entry": EntryName(ref), "record": fmt.Sprintf("%x", e.Record[:]), "reason": reason},
	})
}
