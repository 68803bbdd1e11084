package claim

import (
	"context"
	"fmt"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Kind is what an Act does.
type Kind string

// Kinds of acts.
const (
	Claiming     Kind = "claim"
	Releasing    Kind = "release"
	Offering     Kind = "offer"
	Cancelling   Kind = "cancel" // an offer: by its owner, or by the recipient, who declines
	Accepting    Kind = "accept"
	Regenerating Kind = "regenerate-token"
	Binding      Kind = "bind"
	Unbinding    Kind = "unbind"
)

// Act is one thing that a caller asks for, about one device.
type Act struct {
	Kind Kind
	// Device is the device, or else DevEUI, with JoinEUI where several devices of
	// the caller have that DevEUI. A claim goes by what stands on the label: the
	// owner token selects the device, so it seldom needs the JoinEUI.
	Device     joinery.DeviceID
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64
	OwnerToken string           // of a claim
	Binding    *joinery.Binding // of a claim, an acceptance or a binding
	To         joinery.OrgID    // of an offer
	ExpiresAt  time.Time        // of an offer; zero: two weeks from now
}

// String keeps the token out of logs.
func (a Act) String() string {
	if a.Device != 0 {
		return fmt.Sprintf("%s %s", a.Kind, a.Device)
	}
	return fmt.Sprintf("%s %s/%s", a.Kind, a.JoinEUI, a.DevEUI)
}

// GoString is String, for %#v.
func (a Act) GoString() string { return a.String() }

// Outcome is what became of an Act.
type Outcome struct {
	// Device is zero where the act failed before the caller was found to have
	// anything to do with it.
	Device joinery.Device
	// OwnerToken is the new token, where the act issues one. It is nowhere else.
	OwnerToken string
	// Unchanged: it was so already.
	Unchanged bool
	Err       error
}

// String keeps the token out of logs.
func (o Outcome) String() string { return fmt.Sprintf("%s: %v", o.Device.ID, o.Err) }

// GoString is String, for %#v.
func (o Outcome) GoString() string { return o.String() }

// Do does one act.
func (s *Service) Do(ctx context.Context, caller joinery.Caller, a Act) Outcome {
	return s.Batch(ctx, caller, []Act{a}, false)[0]
}

// MaxBatch is the most acts that one batch takes.
const MaxBatch = 10_000

// together is how many changes share a transaction: few enough that joins, which
// wait behind it, hardly notice.
const together = 25

// Batch does acts in their order and gives their outcomes in the same. One that
// fails spoils no other. With dryRun nothing is changed, and an outcome without
// an error says that it would be; wrong owner tokens count all the same. Where
// ctx ends, or the database goes away, the rest fails.
func (s *Service) Batch(ctx context.Context, caller joinery.Caller, acts []Act, dryRun bool) []Outcome {
	begun := time.Now()
	b := &batch{
		Service: s, caller: caller, dryRun: dryRun, outcomes: make([]Outcome, len(acts)),
		touched: map[joinery.DeviceID]bool{}, touchedEUI: map[lorawan.EUI64]bool{},
	}
	if err := b.begin(ctx, len(acts)); err != nil {
		for i := range b.outcomes {
			b.outcomes[i].Err = err
		}
		return b.outcomes
	}
	for i, a := range acts {
		b.add(ctx, i, a)
	}
	b.commit(ctx)
	b.note(ctx)
	if n := b.secret(); n > 0 {
		wait(ctx, time.Until(begun.Add(s.hold+time.Duration(n-1)*s.hold/50)))
	}
	return b.outcomes
}

// batch is the work of one request.
type batch struct {
	*Service
	caller   joinery.Caller
	orgs     []joinery.Organisation
	dryRun   bool
	outcomes []Outcome

	// What waits for its transaction: changes, of which outcomes, of which devices.
	changes    []joinery.OwnerChange
	tokens     []string // that the changes issue
	index      []int
	touched    map[joinery.DeviceID]bool
	touchedEUI map[lorawan.EUI64]bool
	// Failed claims that are not on disk yet, and their outcomes.
	wrong   []joinery.ClaimFailure
	wrongOf []int
}

func (b *batch) begin(ctx context.Context, n int) (err error) {
	if n > MaxBatch {
		return joinery.Errorf(joinery.CodeTooLarge, "at most %d items in one batch", MaxBatch)
	}
	b.orgs, err = b.registry.Orgs(ctx)
	return err
}

// plan is an act that was judged.
type plan struct {
	device joinery.Device
	change joinery.OwnerChange // of no device where there is nothing to change
	token  string              // that the change issues
}

// add judges an act, after those that wait where it is about a device of theirs,
// and lets it wait for its transaction.
func (b *batch) add(ctx context.Context, i int, a Act) {
	if b.touched[a.Device] || b.touchedEUI[a.DevEUI] {
		b.commit(ctx)
	}
	p, err := b.judge(ctx, i, a)
	if err == nil {
		err = ctx.Err()
	}
	b.outcomes[i] = Outcome{Device: p.device, Err: err, Unchanged: err == nil && p.change.Device == 0}
	if err != nil || p.change.Device == 0 || b.dryRun {
		return
	}
	b.changes, b.tokens, b.index = append(b.changes, p.change), append(b.tokens, p.token), append(b.index, i)
	b.touched[p.device.ID], b.touchedEUI[p.device.DevEUI] = true, true
	if len(b.changes) == together {
		b.commit(ctx)
	}
}

// commit makes the changes that wait.
func (b *batch) commit(ctx context.Context) {
	if len(b.changes) == 0 {
		return
	}
	refused, err := b.store.ChangeOwners(ctx, b.changes)
	for k, i := range b.index {
		o := &b.outcomes[i]
		switch {
		case err != nil:
			o.Err = err
		case refused[k] != nil:
			o.Err = refused[k]
		default:
			o.OwnerToken = b.tokens[k]
			o.Device.Ownership = after(b.changes[k])
		}
	}
	b.changes, b.tokens, b.index = b.changes[:0], b.tokens[:0], b.index[:0]
	clear(b.touched)
	clear(b.touchedEUI)
	b.note(ctx)
}

// after is the ownership that a change makes.
func after(c joinery.OwnerChange) joinery.Ownership {
	o, at := c.Seen, c.Audit[0].At
	switch c.Act {
	case joinery.ActClaim:
		o = joinery.Ownership{Org: c.To, Epoch: o.Epoch + 1, TokenGeneration: o.TokenGeneration, Since: at}
	case joinery.ActAccept:
		o = joinery.Ownership{Org: c.To, Epoch: o.Epoch + 1, TokenGeneration: o.TokenGeneration + 1, Since: at}
	case joinery.ActRelease:
		o = joinery.Ownership{Epoch: o.Epoch + 1, TokenGeneration: o.TokenGeneration + 1, Since: at, Released: true}
	case joinery.ActRegenerateToken:
		o.TokenGeneration++
	case joinery.ActOffer, joinery.ActCancel, joinery.ActBind:
	}
	return o
}

// note writes down the failed claims before they are answered.
func (b *batch) note(ctx context.Context) {
	if len(b.wrong) == 0 {
		return
	}
	// Who hangs up has guessed as well.
	err := b.store.NoteClaimFailures(context.WithoutCancel(ctx), b.wrong, b.now().Add(-b.guard.window))
	if err != nil {
		for _, i := range b.wrongOf {
			b.outcomes[i].Err = err
		}
	}
	b.wrong, b.wrongOf = b.wrong[:0], b.wrongOf[:0]
}

// secret counts the outcomes whose reason the clock must not tell.
func (b *batch) secret() (n int) {
	for _, o := range b.outcomes {
		if code := joinery.CodeOf(o.Err); o.Device.ID == 0 && (code == joinery.CodeForbidden || code == joinery.CodeNotFound) {
			n++
		}
	}
	return n
}

// judge tells whether an act may be, and what it changes. The device of the plan
// is there, also with an error, from where the caller may know of it.
func (b *batch) judge(ctx context.Context, i int, a Act) (plan, error) {
	if a.Binding != nil {
		own, err := ownersBinding(*a.Binding)
		if err != nil {
			return plan{}, err
		}
		a.Binding = &own
	}
	if a.Device == 0 && a.DevEUI.IsZero() {
		return plan{}, joinery.Errorf(joinery.CodeInvalid, "say which device: by its id, or by its DevEUI")
	}
	switch a.Kind {
	case Claiming:
		return b.claim(ctx, i, a)
	case Cancelling:
		return b.cancel(ctx, a)
	case Accepting:
		return b.accept(ctx, a)
	case Releasing, Offering, Regenerating, Binding, Unbinding:
	default:
		return plan{}, joinery.Errorf(joinery.CodeInvalid, "no such action")
	}
	state, err := b.own(ctx, a)
	if err != nil {
		return plan{}, err
	}
	p := plan{device: state.Device}
	switch a.Kind {
	case Releasing:
		err = b.release(ctx, &p)
	case Offering:
		err = b.offer(ctx, &p, a)
	case Regenerating:
		err = b.regenerate(ctx, &p)
	case Binding:
		if a.Binding == nil {
			return p, joinery.Errorf(joinery.CodeInvalid, "say what to bind the device to")
		}
		err = b.bind(&p, state, a.Binding)
	case Unbinding:
		err = b.bind(&p, state, nil)
	}
	return p, err
}

// own finds the caller's device that an act names.
func (b *batch) own(ctx context.Context, a Act) (joinery.ActivationState, error) {
	if a.Device != 0 {
		return b.ownDevice(ctx, b.caller, a.Device)
	}
	return b.labelled(ctx, a, func(s joinery.ActivationState) bool { return b.caller.Owns(s.Device.Ownership.Org) })
}

// labelled finds the one device with the act's DevEUI, and JoinEUI where there is
// one, that the caller may know of.
func (b *batch) labelled(ctx context.Context, a Act, mine func(joinery.ActivationState) bool) (found joinery.ActivationState, err error) {
	list, err := b.store.FindDevices(ctx, a.DevEUI)
	if err != nil {
		return found, err
	}
	n := 0
	for _, s := range list {
		if (a.JoinEUI.IsZero() || a.JoinEUI == s.Device.JoinEUI) && mine(s) {
			found = s
			n++
		}
	}
	switch n {
	case 0:
		return found, noDevice()
	case 1:
		return found, nil
	}
	return joinery.ActivationState{}, joinery.Errorf(joinery.CodeInvalid, "several devices have this DevEUI; give the JoinEUI, too")
}

// makes fills in the change of a plan.
func (b *batch) makes(p *plan, act joinery.OwnerAct, entries ...joinery.AuditEntry) {
	p.change = joinery.OwnerChange{Act: act, Device: p.device.ID, Seen: p.device.Ownership, Audit: entries}
}

// issue makes the token of the generation after the present one.
func (b *batch) issue(ctx context.Context, p *plan) (err error) {
	p.token, err = b.Service.tokens.OwnerToken(ctx, p.device.ID, p.device.Ownership.TokenGeneration+1)
	return err
}
