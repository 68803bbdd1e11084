package rekey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"joinery"
	"joinery/internal/rekeyfile"
)

// Passages keeps how far hand-overs to Join Servers that are reached have come. See
// the methods of the same names of the store.
type Passages interface {
	DuePassages(ctx context.Context, to joinery.JoinServerID, now, until time.Time, limit int) ([]joinery.RekeyOrder, error)
	NextPassage(ctx context.Context, to joinery.JoinServerID) (due time.Time, waits bool, err error)
	PassageCounts(ctx context.Context) (map[joinery.PassageState]int, error)
	NoteOffered(ctx context.Context, to joinery.JoinServer, now time.Time, list []joinery.PassageOffer) (goes []joinery.RekeyID, err error)
	MovePassage(ctx context.Context, id joinery.RekeyID, p joinery.Passage, a joinery.AuditEntry) error
	TakeReceipt(ctx context.Context, from joinery.JoinServerID, after, next joinery.ReceiptPlace, list []joinery.PassageChange) error
	ReadReceiptsAgain(ctx context.Context, from joinery.JoinServerID, epoch uint64, now time.Time) error
}

// Link reaches other Join Servers, which prove that they are who they are pinned
// as. What they answer is as they sent it.
type Link interface {
	// Offer hands a signed hand-over over, and gives the answer.
	Offer(ctx context.Context, to joinery.JoinServer, file []byte) (answer []byte, err error)
	// Receipts asks for the signed page of receipts behind after. ErrAhead where there
	// are not so many.
	Receipts(ctx context.Context, to joinery.JoinServer, after joinery.ReceiptPlace) (file []byte, err error)
}

// ErrAhead says that a Join Server has not given the receipts that were read: it
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
		return joinery.Errorf(joinery.CodeConflict, "the order to rekey device %s names another Join Server or recipient, or another key of it than it has by now: cancel it and give it anew", state.Device.DevEUI)
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
// this server would have seen to it; see NoteHandover for where it would not.
func (s *Service) passed(ctx context.Context, caller joinery.Caller, d joinery.Device, o joinery.RekeyOrder, state joinery.PassageState) error {
	if o.Passage == nil {
		return nil
	}
	p := joinery.Passage{State: state, Said: "by a file", ChangedAt: s.now().UTC().Truncate(time.Millisecond)}
	entry := s.orderEntry(caller, joinery.AuditRekeyPassage, d, o)
	entry.Detail["state"] = string(state)
	return s.store.MovePassage(ctx, o.ID, p, entry)
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
		Order: p.order.ID, Owner: p.order.Owner, Sum: p.digest, Entry: s.orderEntry(caller, joinery.AuditRekeyHandedOver, p.state.Device, p.order),
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
	case o.Thumbprint != "" && o.Thumbprint != kid(to) && o.Passage.State.Open(): // it has what it needs to answer the device
		stays := *o.Passage
		stays.Said = "what is new of it does not go there: that Join Server has another transport key than the order names"
		return p, false, s.move(ctx, to, state.Device, o, stays)
	case o.Thumbprint != "" && o.Thumbprint != kid(to):
		why = "that Join Server has another transport key than the order names: cancel the order and give it anew"
	case o.Sent == 0 && !o.StateAt(s.now()).Open():
		why = "the order ended, and the device was not told of it"
	}
	if why != "" {
		return p, false, s.move(ctx, to, state.Device, o, joinery.Passage{State: joinery.PassageRefused, Said: why})
	}
	if p, err = s.parting(ctx, state, o); err != nil {
		return p, false, err
	}
	if o.Passage.State != joinery.PassageWaiting && slices.Equal(p.digest, o.Passage.Offered) {
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
	if errors.Is(err, ErrAhead) && to.Cursor.N > 0 { // from the start on there is nothing to be ahead of
		return true, s.store.ReadReceiptsAgain(ctx, to.ID, 0, s.now())
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
	if r.Epoch != to.Cursor.Epoch { // what was offered it may have forgotten
		return true, s.store.ReadReceiptsAgain(ctx, to.ID, r.Epoch, s.now())
	}
	if r.Next == r.After {
		return false, nil
	}
	changes, err := s.changes(ctx, to, r)
	if err != nil {
		return false, err
	}
	return r.More, s.store.TakeReceipt(ctx, to.ID, to.Cursor, joinery.ReceiptPlace{Epoch: r.Epoch, N: r.Next}, changes)
}

// forUs refuses a page that is another's, another one than was asked for, or too
// long. The first page says of which epoch it is.
func (s *Service) forUs(ctx context.Context, r rekeyfile.Receipt, after joinery.ReceiptPlace) error {
	public, err := s.StatementKey(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	n := uint64(len(r.Told) + len(r.Joins))
	ours := slices.Equal(r.For, sum[:])
	follows := r.After == after.N && (after.N == 0 || r.Epoch == after.Epoch) && r.Epoch <= joinery.MaxReceiptEpoch
	whole := r.Next >= r.After && r.Next-r.After == n && n <= MaxBatch
	endless := r.More && n == 0
	if !ours || !follows || !whole || endless {
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
