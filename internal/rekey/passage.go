package rekey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"joinery"
	"joinery/internal/exposure"
	"joinery/internal/keyring"
	"joinery/internal/rekeyfile"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Passages keeps how far hand-overs to Join Servers that are reached have come. See
// the methods of the same names of the store.
type Passages interface {
	DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, limit int) ([]joinery.RekeyOrder, error)
	NextPassage(ctx context.Context, to joinery.JoinServerID) (due time.Time, waits bool, err error)
	PassageCounts(ctx context.Context) (map[joinery.PassageState]int, error)
	NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) (goes []joinery.RekeyID, err error)
	MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error
	TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next uint64, list []joinery.PassageChange) error
	ReadReceiptsAgain(ctx context.Context, from joinery.JoinServerID, now time.Time) error
}

// Link reaches other Join Servers, which prove that they are who they are pinned
// as. What they answer is as they sent it.
type Link interface {
	// Offer hands a signed hand-over over, and gives the answer.
	Offer(ctx context.Context, to joinery.JoinServer, file []byte) (answer []byte, err error)
	// Receipts asks for the signed page of receipts behind after. ErrAhead where there
	// are not so many.
	Receipts(ctx context.Context, to joinery.JoinServer, after uint64) (file []byte, err error)
}

// ErrAhead says that a Join Server has not given so many receipts as were read: it
// came back from a backup.
var ErrAhead = joinery.Errorf(joinery.CodeConflict, "there are not so many receipts")

// Bounds of what goes with one call.
const (
	// maxOffer is the most orders of an offer; maxRows the most rows in it, because so
	// many go to a custody process at once.
	maxOffer = 50
	maxRows  = 200
	// maxPages is the most pages of receipts that one turn reads: the other Join
	// Servers wait for it.
	maxPages = 50
	// offerLease is how long nobody else takes up what is being offered.
	offerLease = 2 * time.Minute
	// refusedAgain is when what another Join Server cannot take now is offered again.
	refusedAgain = time.Hour
)

// Handover seals the root keys to which the newest orders of devices lead to the
// Join Server that those orders name, which must be to for all, and signs what goes
// there. It can be made again, as often as it is lost; it is of no use to anybody
// else.
//
// With leaveOut a device that has no such order keeps no other out.
func (s *Service) Handover(ctx context.Context, caller joinery.Caller, to joinery.JoinServerID, devices []joinery.DeviceID, leaveOut bool) (f File, err error) {
	l := leaving{leaveOut: leaveOut}
	states, err := s.ordered(ctx, caller, devices, &l)
	if err != nil {
		return f, err
	}
	j, err := s.target(ctx, 0, to, 0)
	if err != nil {
		return f, err
	}
	var list []parting
	// That these keys may go there was decided when the orders were given; now the
	// device may have them, and must find them there.
	var offers []joinery.PassageOffer
	for _, state := range states {
		if err := s.leaves(state, j); err != nil {
			if err = l.refuse(state.Device.ID, err); err != nil {
				return f, err
			}
			continue
		}
		p, err := s.parting(ctx, state, *state.Rekeying.Order)
		if err != nil {
			return f, err
		}
		list = append(list, p)
		offers = append(offers, s.offerOf(caller, p))
	}
	f = File{Devices: len(list), LeftOut: l.out}
	if len(list) == 0 {
		return f, nil
	}
	if err := fewRows(list); err != nil { // before it is written that they leave
		return File{}, err
	}
	if err := s.store.NoteHandover(ctx, j.server, s.now(), offers); err != nil { // before the keys leave
		return File{}, err
	}
	f.Content, err = s.pack(ctx, j, list)
	for _, p := range list {
		if err == nil {
			err = s.passed(ctx, caller, p.state.Device, p.order, joinery.PassageFile)
		}
	}
	if err != nil {
		return File{}, err
	}
	return f, nil
}

// leaves refuses a device whose newest order leads elsewhere, or nowhere any more.
func (s *Service) leaves(state joinery.ActivationState, to target) error {
	o := *state.Rekeying.Order
	if err := owners(state, o); err != nil {
		return err
	}
	if !to.isOf(o) {
		return joinery.Errorf(joinery.CodeConflict, "the order to rekey device %s names another Join Server or recipient, or another key of it", state.Device.DevEUI)
	}
	if st := o.StateAt(s.now()); !st.Open() && (o.Sent == 0 || st == joinery.RekeyConfirmed) {
		return joinery.Errorf(joinery.CodeConflict, "the order to rekey device %s is %s: there is nothing to hand over", state.Device.DevEUI, st)
	}
	return nil
}

// owners refuses an order that is not of who holds its device now.
func owners(state joinery.ActivationState, o joinery.RekeyOrder) error {
	switch {
	case state.Device.Ownership.Released:
		return released(state.Device)
	case o.Owner != state.Device.Ownership.Org:
		return joinery.Errorf(joinery.CodeConflict, "the order to rekey device %s is its former owner's: arm it anew", state.Device.DevEUI)
	}
	return nil
}

// passed notes that the owner sees to a hand-over, or knows how it ended, where
// this server would have seen to it.
func (s *Service) passed(ctx context.Context, caller joinery.Caller, d joinery.Device, o joinery.RekeyOrder, state joinery.PassageState) error {
	if o.Passage == nil {
		return nil
	}
	p := joinery.Passage{State: state, Said: "by a file", ChangedAt: s.now().UTC().Truncate(time.Millisecond)}
	entry := s.orderEntry(caller, joinery.AuditRekeyPassage, d, o)
	entry.Detail["state"] = string(state)
	return s.store.MovePassage(ctx, o.ID, p, entry)
}

// parting is a device with the key sets that it may have when it arrives.
type parting struct {
	state joinery.ActivationState
	order joinery.RekeyOrder
	sets  []joinery.KeySet
}

// digest names what is offered: order and key sets.
func (p parting) digest() []byte {
	h := sha256.New()
	h.Write([]byte(p.order.ID.String()))
	for _, k := range p.sets {
		h.Write([]byte(label(k)))
	}
	return h.Sum(nil)
}

// label names a key set: the same one always, and different ones never alike.
func label(k joinery.KeySet) string {
	h := sha256.New()
	h.Write([]byte(k.Master))
	h.Write([]byte{0, byte(k.Rekey)})
	h.Write([]byte(k.Held.KeySet.String()))
	h.Write(k.DevEUI[:])
	for _, step := range k.Steps {
		h.Write(step.JoinEUI[:])
		h.Write(step.Cookie[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// parting finds the key sets to which an order of a device leads: from the one that
// it is known to have, and from every one that it may have instead; and those of
// its other orders to the same Join Server, which it may have obeyed.
func (s *Service) parting(ctx context.Context, state joinery.ActivationState, o joinery.RekeyOrder) (parting, error) {
	p := parting{state: state, order: o, sets: []joinery.KeySet{leadsTo(state.KeySet, o)}}
	add := func(k joinery.KeySet) {
		same := func(other joinery.KeySet) bool { return slices.Equal(other.Steps, k.Steps) }
		if len(p.sets) <= joinery.MaxRekeyCandidates && !slices.ContainsFunc(p.sets, same) {
			p.sets = append(p.sets, k)
		}
	}
	orders, err := s.store.RekeyOrders(ctx, state.Device.ID)
	if err != nil {
		return p, err
	}
	for _, other := range orders {
		obeyed := slices.ContainsFunc(state.KeySet.Steps, func(r lorawan.Rekey) bool { return r == other.Rekey })
		if other.Server == o.Server && other.Recipient == 0 && other.Sent > 0 && other.Rekey.JoinEUI == o.Rekey.JoinEUI && !obeyed {
			add(leadsTo(state.KeySet, other))
		}
	}
	for _, c := range state.Rekeying.Candidates { // in profile M the last step decides
		if c.Origin == joinery.OriginRekeyed && state.Device.Rekey == joinery.RekeyS {
			add(leadsTo(c, o))
		}
	}
	return p, nil
}

// leadsTo is the key set that a device which has k has once it obeyed o.
func leadsTo(k joinery.KeySet, o joinery.RekeyOrder) joinery.KeySet {
	if n := len(k.Steps); n > 0 && k.Steps[n-1] == o.Rekey {
		return k // it obeyed, and did not store its JoinEUI
	}
	k.Origin, k.Root10 = joinery.OriginRekeyed, joinery.NwkKey
	k.Steps = append(slices.Clone(k.Steps), o.Rekey)
	return k
}

// fewRows refuses more than go at a time.
func fewRows(list []parting) error {
	rows := 0
	for _, p := range list {
		rows += p.rows()
	}
	if rows > maxRows {
		return joinery.Errorf(joinery.CodeTooLarge, "these devices may have %d key sets, and at most %d go at a time: name fewer devices", rows, maxRows)
	}
	return nil
}

// rows counts what a device takes in a hand-over.
func (p parting) rows() int {
	if p.order.RekeyKey {
		return 2 * len(p.sets)
	}
	return len(p.sets)
}

// exposure is what goes with a device: who could read root keys of it. Those to which
// the order leads are new ones, derived inside the element by a key that no exported
// file has; so what was disclosed before is of former ones. It is not where the
// device obeyed here and has the keys that go by now, nor for the recipient himself.
func (s *Service) exposure(ctx context.Context, p parting) (e exposure.Exposure, err error) {
	var known []joinery.Disclosure
	if p.state.Device.Disclosed {
		known, err = s.store.Disclosures(ctx, p.state.Device.ID)
	}
	e = p.state.Exposure(known)
	has := func(k joinery.KeySet) bool { return slices.Equal(k.Steps, p.state.KeySet.Steps) }
	if slices.ContainsFunc(p.sets, has) {
		return e, err
	}
	e = e.Former(p.state.RekeyKeyOutside())
	for i := range e.Times {
		if e.Times[i].By == "" && e.Times[i].Reference == p.order.ID.String() {
			e.Times[i].Former = false
		}
	}
	return e, err
}

// pack seals the keys of devices and signs what goes to a Join Server, or to a
// recipient.
func (s *Service) pack(ctx context.Context, to target, list []parting) ([]byte, error) {
	var in []keyring.HandoverIn
	for _, p := range list {
		row := seal.SealedRow{JoinEUI: p.order.Rekey.JoinEUI, DevEUI: p.state.Device.DevEUI, MACVersion: p.state.Device.MACVersion}
		for _, k := range p.sets {
			row.Root10, row.JoinNonceFloor = seal.RootNwkKey, floor(p.state)
			in = append(in, keyring.HandoverIn{KeySet: k, Row: row})
			if p.order.RekeyKey {
				row.Root10, row.JoinNonceFloor = seal.RootRekeyKey, 0
				in = append(in, keyring.HandoverIn{KeySet: k, Row: row})
			}
		}
	}
	if err := fewRows(list); err != nil {
		return nil, err
	}
	header, rows, err := s.keys.Handover(ctx, to.key, in)
	switch {
	case errors.Is(err, keyring.ErrNotServed):
		return nil, joinery.WrapError(joinery.CodeConflict, err, "this server's token does not wrap keys by the algorithm of the key that they go to, or not the keys of such devices")
	case errors.Is(err, keyring.ErrNoRoot):
		return nil, joinery.WrapError(joinery.CodeConflict, err, "one of these devices has no rekeying key: its root keys were imported, or nobody said how it rekeys")
	case err != nil:
		return nil, joinery.WrapError(joinery.CodeInternal, err, "the new root keys cannot be sealed")
	}
	h := rekeyfile.Handover{At: s.now().UTC().Truncate(time.Millisecond), To: to.name, Seal: header}
	for i, p := range list {
		d := rekeyfile.HandedOver{Order: p.order.ID.String(), Cookie: p.order.Rekey.Cookie, Profile: p.state.Device.Rekey.String()}
		if p.state.Device.Rekey == joinery.RekeyM {
			d.Serial = hex.EncodeToString(p.state.KeySet.Serial[:])
		}
		told, err := s.exposure(ctx, p)
		if err != nil {
			return nil, err
		}
		d.Exposure = &told
		for n, k := range p.sets {
			g := rekeyfile.Generation{Label: label(k), Row: rows[0]}
			g.Row.Line = uint64(i) + 1
			rows = rows[1:]
			if p.order.RekeyKey {
				rekey := rows[0]
				g.RekeyKey, rows = &rekey, rows[1:]
			}
			if n == 0 {
				d.Generation = g
			} else {
				d.Others = append(d.Others, g)
			}
		}
		h.Devices = append(h.Devices, d)
	}
	return s.sign(ctx, rekeyfile.FormatHandover, h)
}

// self is who acts where the server does what owners ordered.
func (s *Service) self(to joinery.JoinServer) joinery.Caller {
	return joinery.Caller{Name: "server, with " + to.Name}
}

// offerDue offers what is due to a Join Server, one call's worth, and tells whether
// there was any.
func (s *Service) offerDue(ctx context.Context, link Link, to joinery.JoinServer) (bool, error) {
	now := s.now().UTC().Truncate(time.Millisecond)
	due, err := s.store.DuePassages(ctx, to.ID, now, now.Add(offerLease), maxOffer)
	if err != nil || len(due) == 0 {
		return false, err
	}
	var list []parting
	rows := 0
	for _, o := range due {
		p, ok, err := s.stillGoes(ctx, to, o)
		if err != nil {
			return true, err
		}
		if !ok {
			continue
		}
		if rows+p.rows() > maxRows && rows > 0 { // the rest comes with the next call
			later := *o.Passage
			later.State, later.NextAt = joinery.PassageWaiting, now
			if err := s.move(ctx, to, p.state.Device, o, later); err != nil {
				return true, err
			}
			continue
		}
		rows += p.rows()
		list = append(list, p)
	}
	if len(list) == 0 {
		return true, nil
	}
	if list, err = s.noteOffered(ctx, to, list); err != nil || len(list) == 0 {
		return true, err
	}
	j, err := serverTarget(to)
	if err != nil {
		return true, err
	}
	file, err := s.pack(ctx, j, list)
	if err != nil {
		return true, s.postpone(ctx, to, list, err)
	}
	answer, err := link.Offer(ctx, to, file)
	if err != nil {
		return true, s.postpone(ctx, to, list, err)
	}
	o, err := rekeyfile.ReadOffered(answer)
	if err != nil {
		return true, s.postpone(ctx, to, list, joinery.WrapError(joinery.CodeUnavailable, err, "it answered what is no answer to an offer"))
	}
	return true, s.answered(ctx, to, list, o.Results)
}

// noteOffered notes, before keys leave for a Join Server, that they do, and gives
// those that still go there: what was looked at may be past. Who cancels an order after
// that cancels what left; its answer is noted all the same.
func (s *Service) noteOffered(ctx context.Context, to joinery.JoinServer, list []parting) (goes []parting, err error) {
	offers := make([]joinery.PassageOffer, len(list))
	for i, p := range list {
		offers[i] = s.offerOf(s.self(to), p)
	}
	ids, err := s.store.NoteOffered(ctx, to, s.now(), offers)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if slices.Contains(ids, p.order.ID) {
			goes = append(goes, p)
			continue
		}
		now, err := s.server(ctx, to.ID)
		if joinery.CodeOf(err) == joinery.CodeNotFound {
			continue // which ended all that goes there
		}
		if err != nil {
			return nil, err
		}
		o, err := s.store.RekeyOrder(ctx, p.order.ID)
		if err == nil && o.Passage != nil {
			_, _, err = s.stillGoes(ctx, now, o) // which notes why not
		}
		if err != nil {
			return nil, err
		}
	}
	return goes, nil
}

// offerOf is what is written of keys that leave.
func (s *Service) offerOf(caller joinery.Caller, p parting) joinery.PassageOffer {
	return joinery.PassageOffer{
		Order: p.order.ID, Owner: p.order.Owner, Sum: p.digest(), Entry: s.orderEntry(caller, joinery.AuditRekeyHandedOver, p.state.Device, p.order),
	}
}

// stillGoes loads the device of an order whose hand-over is due. ok is false where
// it does not go any more, which is noted, or has nothing new to tell.
func (s *Service) stillGoes(ctx context.Context, to joinery.JoinServer, o joinery.RekeyOrder) (p parting, ok bool, err error) {
	state, err := s.store.RekeyingDevice(ctx, o.Device)
	gone := joinery.CodeOf(err) == joinery.CodeNotFound
	if err != nil && !gone {
		return p, false, err
	}
	why := ""
	switch {
	case gone:
		why = "the device was deleted"
	case state.Device.Ownership.Released:
		why = "the device was released"
	case state.Device.Ownership.Org != o.Owner:
		why = "the device changed its owner"
	case o.Thumbprint != "" && o.Thumbprint != kid(to):
		why = "the order names another key of that Join Server"
	case o.Sent == 0 && !o.StateAt(s.now()).Open():
		why = "the order ended, and the device was not told of it"
	}
	if why != "" {
		return p, false, s.move(ctx, to, state.Device, o, joinery.Passage{State: joinery.PassageRefused, Said: why})
	}
	if p, err = s.parting(ctx, state, o); err != nil {
		return p, false, err
	}
	if o.Passage.State != joinery.PassageWaiting && slices.Equal(p.digest(), o.Passage.Offered) {
		return p, false, s.move(ctx, to, state.Device, o, *o.Passage)
	}
	return p, true, nil
}

// kid names the transport key of a Join Server; "" where it is damaged.
func kid(j joinery.JoinServer) string {
	t, _ := serverTarget(j)
	return t.thumbprint
}

// move notes how far the hand-over of an order has come.
func (s *Service) move(ctx context.Context, to joinery.JoinServer, d joinery.Device, o joinery.RekeyOrder, p joinery.Passage) error {
	change := s.change(to, d, o, p)
	return s.store.MovePassage(ctx, o.ID, change.Passage, change.Entry)
}

// change makes a change of a passage with its entry. What waits is tried again when
// p says; nothing else is.
func (s *Service) change(to joinery.JoinServer, d joinery.Device, o joinery.RekeyOrder, p joinery.Passage) joinery.PassageChange {
	p.ChangedAt = s.now().UTC().Truncate(time.Millisecond)
	if p.State != joinery.PassageWaiting {
		p.NextAt, p.Tries = time.Time{}, 0
	}
	if o.Passage != nil {
		p.Lease = o.Passage.Lease
	}
	d.ID, d.Ownership.Org = o.Device, o.Owner
	entry := s.orderEntry(s.self(to), joinery.AuditRekeyPassage, d, o)
	entry.Detail["state"] = string(p.State)
	if p.Said != "" {
		entry.Detail["said"] = p.Said
	}
	return joinery.PassageChange{Order: o.ID, Passage: p, Entry: entry}
}

// postpone notes that a Join Server could not be asked, and gives why.
func (s *Service) postpone(ctx context.Context, to joinery.JoinServer, list []parting, why error) error {
	for _, p := range list {
		tries := p.order.Passage.Tries + 1
		next := joinery.Passage{State: joinery.PassageWaiting, Said: joinery.MessageOf(why), Tries: tries, NextAt: s.now().Add(backoff(tries))}
		if err := s.move(ctx, to, p.state.Device, p.order, next); err != nil {
			return err
		}
	}
	return why
}

// Bounds of waiting between tries.
const (
	firstAgain = 5 * time.Second
	lastAgain  = time.Hour
)

// backoff is how long to wait after so many tries that failed.
func backoff(tries uint32) time.Duration {
	return min(lastAgain, firstAgain<<min(tries-1, 10))
}

// answered notes what a Join Server answered to an offer. What it did not name waits.
func (s *Service) answered(ctx context.Context, to joinery.JoinServer, list []parting, results []rekeyfile.Told) error {
	byOrder := map[string]rekeyfile.Told{}
	for _, r := range results {
		byOrder[r.Order] = r
	}
	for _, p := range list {
		next := joinery.Passage{State: joinery.PassageWaiting, Said: "it did not answer for this order", Tries: p.order.Passage.Tries + 1, NextAt: s.now().Add(refusedAgain)}
		if r, ok := byOrder[p.order.ID.String()]; ok {
			next = s.toldPassage(r)
		}
		if err := s.move(ctx, to, p.state.Device, p.order, next); err != nil {
			return err
		}
	}
	return nil
}

// toldPassage is what another Join Server's word makes of a hand-over. That the
// device joined is believed of a signed receipt alone.
func (s *Service) toldPassage(r rekeyfile.Told) joinery.Passage {
	switch r.State {
	case rekeyfile.StateParked:
		return joinery.Passage{State: joinery.PassageParked}
	case rekeyfile.StateTaken, rekeyfile.StateJoined:
		return joinery.Passage{State: joinery.PassageTaken}
	}
	said, known := refusals[r.Reason]
	if !known {
		said = "it was refused there"
	}
	switch r.Reason {
	case rekeyfile.ReasonSeal, rekeyfile.ReasonFull:
		return joinery.Passage{State: joinery.PassageWaiting, Said: said, Tries: 1, NextAt: s.now().Add(refusedAgain)}
	}
	return joinery.Passage{State: joinery.PassageRefused, Said: said}
}

var refusals = map[string]string{
	rekeyfile.ReasonRange:     "its JoinEUI is not open to this server there: its operator has to allow it",
	rekeyfile.ReasonMalformed: "it was not understood there",
	rekeyfile.ReasonConflict:  "there is such a device already",
	rekeyfile.ReasonSeal:      "it does not open there: its transport key is another one by now; pin it again",
	rekeyfile.ReasonFull:      "too many devices wait to be accepted there",
	rekeyfile.ReasonExhausted: "the device may have too many key sets",
	rekeyfile.ReasonNotServed: "its token takes no root keys in",
	rekeyfile.ReasonRejected:  "its owner there rejected it",
	rekeyfile.ReasonExpired:   "nobody there accepted it in time",
}

// receiptDetail is what the log keeps of a receipt.
func receiptDetail(j rekeyfile.Joined) map[string]string {
	return map[string]string{"by": "receipt", "joined": j.At.UTC().Format(time.RFC3339), "transcript": hex.EncodeToString(j.Transcript)}
}

// readReceipts reads one page of a Join Server's receipts, and tells whether there
// are more. What the page says is done whole, or not at all.
func (s *Service) readReceipts(ctx context.Context, link Link, to joinery.JoinServer) (more bool, err error) {
	file, err := link.Receipts(ctx, to, to.Cursor)
	if errors.Is(err, ErrAhead) && to.Cursor > 0 { // from the start on there is nothing to be ahead of
		return true, s.store.ReadReceiptsAgain(ctx, to.ID, s.now())
	}
	if err != nil {
		return false, err
	}
	var r rekeyfile.Receipt
	if _, err := rekeyfile.Open(file, rekeyfile.FormatReceipt, to.ReceiptKey, &r); err != nil {
		return false, fileError("receipts of "+to.Name, err)
	}
	if err := s.forUs(ctx, r, to.Cursor); err != nil {
		return false, err
	}
	if r.Next == r.After {
		return false, nil
	}
	changes, err := s.changes(ctx, to, r)
	if err != nil {
		return false, err
	}
	return r.More, s.store.TakeReceipt(ctx, to.ID, r.After, r.Next, changes)
}

// forUs refuses a page that is another's, another one than was asked for, or too
// long.
func (s *Service) forUs(ctx context.Context, r rekeyfile.Receipt, after uint64) error {
	public, err := s.StatementKey(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	n := uint64(len(r.Told) + len(r.Joins))
	if !slices.Equal(r.For, sum[:]) || r.After != after || r.Next < r.After || n > MaxBatch || r.Next-r.After != n || r.More && n == 0 {
		return joinery.Errorf(joinery.CodeInvalid, "receipts: not the page that was asked for")
	}
	return nil
}

// changes is what a page of receipts changes. What it says of orders that did not go
// to that Join Server, or are other devices', is left out.
func (s *Service) changes(ctx context.Context, from joinery.JoinServer, r rekeyfile.Receipt) (list []joinery.PassageChange, err error) {
	order := func(text string) (o joinery.RekeyOrder, ok bool) {
		id, parseErr := joinery.ParseRekeyID(text)
		if parseErr != nil || err != nil {
			return o, false
		}
		o, findErr := s.store.RekeyOrder(ctx, id)
		if joinery.CodeOf(findErr) == joinery.CodeNotFound {
			return o, false
		}
		err = findErr
		return o, err == nil && o.Server == from.ID && o.Passage != nil
	}
	for _, t := range r.Told {
		if o, ok := order(t.Order); ok && t.State != rekeyfile.StateJoined {
			list = append(list, s.change(from, joinery.Device{}, o, s.toldPassage(t)))
		}
	}
	for _, j := range r.Joins {
		o, ok := order(j.Order)
		if !ok || j.JoinEUI != o.Rekey.JoinEUI || j.Cookie != o.Rekey.Cookie || !j.Whole() {
			continue
		}
		state, loadErr := s.store.RekeyingDevice(ctx, o.Device)
		if joinery.CodeOf(loadErr) == joinery.CodeNotFound || loadErr == nil && state.Device.DevEUI != j.DevEUI {
			continue
		}
		if loadErr != nil {
			return nil, loadErr
		}
		c := s.change(from, state.Device, o, joinery.Passage{State: joinery.PassageJoined})
		event := joinery.AuditRekeyConfirmed
		if c.State = joinery.RekeyConfirmed; o.Sent == 0 { // it went there by an earlier order
			c.State, event = joinery.RekeyCancelled, joinery.AuditRekeyCancelled
		}
		c.Ended = s.orderEntry(s.self(from), event, state.Device, o)
		for k, v := range receiptDetail(j) {
			c.Ended.Detail[k] = v
		}
		list = append(list, c)
	}
	return list, err
}
