package claim

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"joinery"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// Refusals of a network's claim, status and unclaim. Doors tell them apart, since
// clients do.
var (
	// ErrNotProvisioned: there is no such device.
	ErrNotProvisioned = joinery.Errorf(joinery.CodeUnknownDevice, "no device with this DevEUI is known here")
	// ErrNotClaimed: no binding of the device names anybody's Application Server.
	ErrNotClaimed = joinery.Errorf(joinery.CodeNotFound, "the device is not claimed")
	// ErrHeldByOther: the device's binding is another's, or its owner's.
	ErrHeldByOther = joinery.Errorf(joinery.CodeForbidden, "the device is bound otherwise, and that is not this client's to change")
	// ErrOwnerToken: the owner token is not the device's.
	ErrOwnerToken = joinery.Errorf(joinery.CodeForbidden, "claim failed with given owner token")
)

// NetworkStore is the state that the claims of networks need.
type NetworkStore interface {
	// FindDevices finds every device with a DevEUI, one for each JoinEUI.
	FindDevices(ctx context.Context, devEUI lorawan.EUI64) ([]joinery.ActivationState, error)
	// SetBinding replaces or (nil) removes the binding, with its audit entry;
	// CodeConflict where owner does not hold the device any more, or the binding's
	// epoch is not expectedEpoch, 0 for none.
	SetBinding(ctx context.Context, device joinery.DeviceID, owner joinery.OrgID, expectedEpoch uint32, binding *joinery.Binding, entry joinery.AuditEntry) error
	Failures
}

// NetworkKEKs is the KEKs that Application Servers bring with their claims.
type NetworkKEKs interface {
	// ClaimKEK finds the KEK of that label among the peer's own, or adds it;
	// CodeInvalid where none is taken from this peer, or the label has another key.
	ClaimKEK(ctx context.Context, peer joinery.PeerID, h seal.Header, in seal.SealedKEK) (joinery.KEKID, error)
	// WrapsAppSKey tells whether AppSKeys are wrapped for the peer where a claim
	// brings no KEK.
	WrapsAppSKey(peer joinery.PeerID) bool
}

// NetworkOptions bound guessing. The zero value of each field is its default.
type NetworkOptions struct {
	Now func() time.Time
	// Window is how long a failed claim counts: 15 minutes.
	Window time.Duration
	// PerDevice, PerPeer and PerDeviceOfAll are how many claims may fail within it:
	// 5 of one peer for one DevEUI, 1,000 of one peer, for it claims in the name of
	// many people, and 100 for one DevEUI of all peers together.
	PerDevice      int
	PerPeer        int
	PerDeviceOfAll int
	// AnswerAfter is that of Options.
	AnswerAfter time.Duration
}

// Networks is the rules of claims by networks: an Application Server that shows a
// device's owner token binds the device to itself and its home network. It makes
// bindings and never an owner. Safe for concurrent use.
type Networks struct {
	store  NetworkStore
	tokens Tokens
	keks   NetworkKEKs
	now    func() time.Time
	hold   time.Duration

	turns turns
	guard *guard
}

// NewNetworks makes the rules.
func NewNetworks(store NetworkStore, tokens Tokens, keks NetworkKEKs, opt NetworkOptions) *Networks {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Networks{
		store: store, tokens: tokens, keks: keks, now: opt.Now,
		hold:  max(0, orDefault(opt.AnswerAfter, answerAfter)),
		turns: turns{seed: maphash.MakeSeed()},
		guard: newGuard(Options{
			Window: opt.Window, PerDevice: opt.PerDevice, PerCaller: orDefault(opt.PerPeer, 1000), PerDeviceOfAll: opt.PerDeviceOfAll,
		}),
	}
}

// Recall is that of Service.
func (n *Networks) Recall(ctx context.Context) error { return n.guard.recall(ctx, n.store, n.now()) }

// NetworkDevice names a device as networks do, which do not always say a JoinEUI;
// nil is any.
type NetworkDevice struct {
	DevEUI  lorawan.EUI64
	JoinEUI *lorawan.EUI64
}

// NetworkClaim is what an Application Server asks for.
type NetworkClaim struct {
	NetworkDevice
	OwnerToken string
	NetID      lorawan.NetID
	NSID       lorawan.EUI64 // zero: any
	// ASID is one of the peer's; "" is its only one.
	ASID string
	// Lock lets nobody else claim the device until this network lets go.
	Lock bool
	// KEK wraps the AppSKeys of this binding; nil for the peer's current KEK.
	KEK *NetworkKEK
}

// NetworkKEK is a KEK of role as, sealed to the server's transport key.
type NetworkKEK struct {
	Header seal.Header
	Sealed seal.SealedKEK
}

// String keeps the token out of logs.
func (c NetworkClaim) String() string { return fmt.Sprintf("claim of %s for %s", c.DevEUI, c.NetID) }

// GoString is String, for %#v.
func (c NetworkClaim) GoString() string { return c.String() }

// Claim binds a device to a network and to the Application Server that asks,
// which must show the owner token. It takes effect with the next join. The same
// claim again changes nothing.
//
// Refusals, in the order in which they are looked for: CodeInvalid for what is
// wrong in itself, CodeForbidden for an AS-ID that is not the peer's;
// CodeRateLimited; ErrNotProvisioned; ErrHeldByOther where another's binding is
// locked; ErrOwnerToken. A peer from which devices are hidden gets ErrOwnerToken
// for the last three, after the same time.
func (n *Networks) Claim(ctx context.Context, peer joinery.Peer, c NetworkClaim) error {
	begun := time.Now()
	terms, err := networkTerms(peer, c)
	if err != nil {
		return err
	}
	err = n.settle(ctx, peer, c, terms)
	if !isRefusal(err) {
		return err
	}
	wait(ctx, time.Until(begun.Add(n.hold)))
	if peer.HideExistence {
		return ErrOwnerToken
	}
	return err
}

// settle does what Claim says. Claims of one DevEUI take turns, so that guesses at
// once are counted one by one, and of several networks at once the second finds
// the binding of the first.
func (n *Networks) settle(ctx context.Context, peer joinery.Peer, c NetworkClaim, terms joinery.Binding) error {
	defer n.turns.take(c.DevEUI)()
	state, err := n.prove(ctx, peer, c)
	if err != nil {
		return err
	}
	if c.KEK != nil {
		if terms.KEK, err = n.keks.ClaimKEK(ctx, peer.ID, c.KEK.Header, c.KEK.Sealed); err != nil {
			return err
		}
	}
	terms.Policy = n.policy(peer.ID, terms.KEK)
	return n.bind(ctx, peer, state, &terms)
}

// networkTerms makes a claim's binding, but for its KEK and policy.
func networkTerms(peer joinery.Peer, c NetworkClaim) (joinery.Binding, error) {
	asid := c.ASID
	switch {
	case len(peer.ASIDs) == 0:
		return joinery.Binding{}, joinery.Errorf(joinery.CodeForbidden, "this client is no Application Server")
	case asid == "" && len(peer.ASIDs) > 1:
		return joinery.Binding{}, joinery.Errorf(joinery.CodeInvalid, "asID is missing, and this client has several")
	case asid == "":
		asid = peer.ASIDs[0]
	case !slices.Contains(peer.ASIDs, asid):
		return joinery.Binding{}, joinery.Errorf(joinery.CodeForbidden, "asID is not an AS-ID of this client")
	}
	return joinery.Binding{NetID: c.NetID, NSID: c.NSID, ASID: asid, Source: "network", Locked: c.Lock}, nil
}

// policy says how AppSKey travels: with the join's answer where it can be
// wrapped; else the Application Server asks for it, and gets it once it has a KEK.
func (n *Networks) policy(peer joinery.PeerID, kek joinery.KEKID) joinery.AppSKeyPolicy {
	if kek != 0 || n.keks.WrapsAppSKey(peer) {
		return joinery.AppSKeyWrapped
	}
	return joinery.AppSKeyByID
}

func isRefusal(err error) bool {
	return errors.Is(err, ErrNotProvisioned) || errors.Is(err, ErrNotClaimed) || errors.Is(err, ErrHeldByOther) || errors.Is(err, ErrOwnerToken)
}

// prove finds the device whose token was shown, and counts the failure where
// there is none: on disk, too, before it is answered.
func (n *Networks) prove(ctx context.Context, peer joinery.Peer, c NetworkClaim) (joinery.ActivationState, error) {
	who, at := nameOf(peer), n.now()
	forgive, err := n.guard.reserve(c.DevEUI, who, at)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	state, err := n.match(ctx, peer, c)
	if !isRefusal(err) {
		forgive()
		return state, err
	}
	failure := joinery.ClaimFailure{DevEUI: c.DevEUI, Caller: who, At: at, Count: 1}
	// Who hangs up has guessed as well.
	if err := n.store.NoteClaimFailures(context.WithoutCancel(ctx), []joinery.ClaimFailure{failure}, at.Add(-n.guard.window)); err != nil {
		return joinery.ActivationState{}, err
	}
	return state, err
}

// nameOf names a peer where callers are named: in counts and in the audit log.
func nameOf(p joinery.Peer) string { return "peer " + p.ID.String() }

// match finds, among the devices of one DevEUI, the one whose token was shown. It
// checks the token also where that decides nothing, and against a decoy where
// there is no device.
func (n *Networks) match(ctx context.Context, peer joinery.Peer, c NetworkClaim) (joinery.ActivationState, error) {
	states, err := n.find(ctx, c.NetworkDevice)
	if err != nil {
		return joinery.ActivationState{}, err
	}
	if len(states) == 0 {
		if _, err := n.tokens.CheckOwnerToken(ctx, decoy, 0, c.OwnerToken); err != nil {
			return joinery.ActivationState{}, err
		}
		return joinery.ActivationState{}, ErrNotProvisioned
	}
	refusal := ErrHeldByOther
	var found *joinery.ActivationState
	for i, s := range states {
		right, err := n.tokens.CheckOwnerToken(ctx, s.Device.ID, s.Device.Ownership.TokenGeneration, c.OwnerToken)
		switch {
		case err != nil:
			return joinery.ActivationState{}, err
		case lockedFor(s.Binding, peer):
		case right:
			found = &states[i]
		default:
			refusal = ErrOwnerToken
		}
	}
	if found == nil {
		return joinery.ActivationState{}, refusal
	}
	return *found, nil
}

// find gives the devices that d may mean.
func (n *Networks) find(ctx context.Context, d NetworkDevice) ([]joinery.ActivationState, error) {
	states, err := n.store.FindDevices(ctx, d.DevEUI)
	return slices.DeleteFunc(states, func(s joinery.ActivationState) bool {
		return d.JoinEUI != nil && s.Device.JoinEUI != *d.JoinEUI
	}), err
}

// holds tells whether b names an Application Server of peer.
func holds(b *joinery.Binding, peer joinery.Peer) bool {
	return b != nil && b.ASID != "" && slices.Contains(peer.ASIDs, b.ASID)
}

// lockedFor tells whether b stands against a claim of peer's.
func lockedFor(b *joinery.Binding, peer joinery.Peer) bool {
	return b != nil && b.Locked && (b.Source != "network" || !holds(b, peer))
}

// bind makes or, with nil, ends a network's binding.
func (n *Networks) bind(ctx context.Context, peer joinery.Peer, state joinery.ActivationState, b *joinery.Binding) error {
	var epoch uint32
	if old := state.Binding; old != nil {
		if b != nil && b.SameTerms(*old) {
			return nil // its sessions go on
		}
		epoch = old.Epoch
	}
	owner := state.Device.Ownership.Org
	entry := joinery.AuditEntry{
		At: n.now().UTC().Truncate(time.Millisecond), Event: joinery.AuditDeviceBound, Actor: nameOf(peer),
		Org: owner, Device: state.Device.ID, Peer: peer.ID, Detail: map[string]string{"source": "network"},
	}
	if b == nil {
		entry.Detail["removed"] = "true"
	} else {
		describe(entry.Detail, *b)
		if b.KEK != 0 {
			entry.Detail["kek"] = b.KEK.String()
		}
	}
	return n.store.SetBinding(ctx, state.Device.ID, owner, epoch, b, entry)
}
