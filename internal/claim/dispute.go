package claim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"sync"
	"time"
	"unicode/utf8"

	"joinery"
	"joinery/lorawan"
)

// challengeFor is how long an element has to sign.
const challengeFor = 15 * time.Minute

// maxWords bounds what people write about a dispute, in bytes.
const maxWords = 2000

// challengeDomain stands in front of what an element signs, so that the signature
// means nothing anywhere else.
const challengeDomain = "joinery possession of device key 1\x00"

// ChallengeDigest is what an element signs: SHA-256 over domain ‖ organisation 8 ‖
// JoinEUI 8 ‖ DevEUI 8 ‖ random 32, big-endian.
func ChallengeDigest(c joinery.Challenge) [sha256.Size]byte {
	b := append(make([]byte, 0, 96), challengeDomain...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Org))
	b = append(b, c.JoinEUI[:]...)
	b = append(b, c.DevEUI[:]...)
	return sha256.Sum256(append(b, c.Random[:]...))
}

// Challenge makes a challenge for whoever says that the device is at hand. It is
// made for unknown devices, too.
func (s *Service) Challenge(ctx context.Context, caller joinery.Caller, joinEUI, devEUI lorawan.EUI64) (joinery.Challenge, error) {
	org, err := s.actingFor(ctx, caller)
	if err != nil {
		return joinery.Challenge{}, err
	}
	now := s.time()
	c := joinery.Challenge{Org: org, JoinEUI: joinEUI, DevEUI: devEUI, ExpiresAt: now.Add(challengeFor)}
	rand.Read(c.Random[:]) // never fails (crypto/rand)
	if err := s.store.AddChallenge(ctx, c, now); err != nil {
		return joinery.Challenge{}, err
	}
	return c, nil
}

func (s *Service) actingFor(ctx context.Context, caller joinery.Caller) (joinery.OrgID, error) {
	orgs, err := s.registry.Orgs(ctx)
	if err != nil {
		return 0, err
	}
	return caller.ActingFor(0, orgs)
}

// Case is what stands behind a dispute: the signature of an element over a
// challenge, or the owner token, or nothing, which will do for the lock of a
// binding of the claimant's own device.
type Case struct {
	JoinEUI    lorawan.EUI64
	DevEUI     lorawan.EUI64
	Challenge  []byte // its Random, 32 bytes
	Signature  []byte // ECDSA over P-256, r ‖ s of 32 bytes each
	OwnerToken string
	Statement  string // to the operator
}

// String keeps the token out of logs.
func (c Case) String() string { return "dispute of " + c.JoinEUI.String() + "/" + c.DevEUI.String() }

// GoString is String, for %#v.
func (c Case) GoString() string { return c.String() }

// Disputed is what became of a case.
type Disputed struct {
	Device joinery.DeviceID
	// Unlocked: the owner has shown the device, so the binding that its network
	// locked is gone. Else the operator decides about Dispute.
	Unlocked bool
	Dispute  joinery.Dispute
}

// Dispute ends the lock of a binding of the claimant's own device, or brings it
// before the operator where the device key does not speak for the claimant; and it
// brings before the operator who should hold a device that another holds. An
// unknown device, one that has no device key and a wrong signature are one
// CodeForbidden, after the same time; so are an unknown device and a wrong token.
func (s *Service) Dispute(ctx context.Context, caller joinery.Caller, c Case) (Disputed, error) {
	begun := time.Now()
	d, err := s.dispute(ctx, caller, c)
	if code := joinery.CodeOf(err); code == joinery.CodeForbidden || code == joinery.CodeNotFound {
		wait(ctx, time.Until(begun.Add(s.hold)))
	}
	return d, err
}

func (s *Service) dispute(ctx context.Context, caller joinery.Caller, c Case) (Disputed, error) {
	if len(c.Statement) > maxWords || !utf8.ValidString(c.Statement) {
		return Disputed{}, joinery.Errorf(joinery.CodeInvalid, "statement: at most %d bytes of text", maxWords)
	}
	org, err := s.actingFor(ctx, caller)
	if err != nil {
		return Disputed{}, err
	}
	state, evidence, err := s.weigh(ctx, caller, org, c)
	if err != nil {
		return Disputed{}, err
	}
	p := joinery.Dispute{
		ID: joinery.NewDisputeID(), Device: state.Device.ID, JoinEUI: state.Device.JoinEUI, DevEUI: state.Device.DevEUI,
		Claimant: org, Holder: state.Device.Ownership.Org, Evidence: evidence, Statement: c.Statement,
		State: joinery.DisputeOpen, OpenedAt: s.time(),
	}
	if p.Holder == org {
		return s.disputeLock(ctx, caller, state, p)
	}
	if !state.Device.Ownership.Claimed() && evidence == joinery.EvidenceOwnerToken {
		return Disputed{}, joinery.Errorf(joinery.CodeConflict, "nobody holds the device: claim it with this owner token")
	}
	return s.open(ctx, caller, p)
}

// weigh looks at the evidence and finds the device for which it speaks.
func (s *Service) weigh(ctx context.Context, caller joinery.Caller, org joinery.OrgID, c Case) (joinery.ActivationState, joinery.Evidence, error) {
	switch {
	case len(c.Signature) > 0 && c.OwnerToken != "":
		return joinery.ActivationState{}, "", joinery.Errorf(joinery.CodeInvalid, "give a signature or an owner token, not both")
	case len(c.Signature) > 0:
		state, err := s.possession(ctx, caller, org, c)
		return state, joinery.EvidenceDeviceKey, err
	case c.OwnerToken != "":
		state, failure, err := s.prove(ctx, caller, Act{JoinEUI: c.JoinEUI, DevEUI: c.DevEUI, OwnerToken: c.OwnerToken})
		if failure.Count > 0 {
			if err := s.store.NoteClaimFailures(context.WithoutCancel(ctx), []joinery.ClaimFailure{failure}, s.now().Add(-s.guard.window)); err != nil {
				return joinery.ActivationState{}, "", err
			}
		}
		return state, joinery.EvidenceOwnerToken, err
	}
	state, err := s.store.LoadActivation(ctx, c.JoinEUI, c.DevEUI)
	if joinery.CodeOf(err) == joinery.CodeUnknownDevice || err == nil && state.Device.Ownership.Org != org {
		err = noDevice()
	}
	return state, joinery.EvidenceNone, err
}

// possession verifies that an element has signed a challenge of ours.
func (s *Service) possession(ctx context.Context, caller joinery.Caller, org joinery.OrgID, c Case) (joinery.ActivationState, error) {
	var random [32]byte
	if len(c.Challenge) != len(random) || len(c.Signature) != sizeSignature {
		return joinery.ActivationState{}, joinery.Errorf(joinery.CodeInvalid, "want a challenge of 32 bytes and a signature of 64, r and s of 32 bytes each")
	}
	forgive, err := s.guard.reserve(c.DevEUI, whoIs(caller), s.now())
	if err != nil {
		return joinery.ActivationState{}, err
	}
	copy(random[:], c.Challenge)
	challenge, err := s.store.TakeChallenge(ctx, random, org)
	if err != nil || !s.answers(challenge, c) {
		forgive() // this says nothing about the device
	}
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !s.answers(challenge, c) {
		return joinery.ActivationState{}, joinery.Errorf(joinery.CodeConflict, "the challenge is not one for this device, was used, or has ended; ask for another")
	}
	if err != nil {
		return joinery.ActivationState{}, err
	}
	state, known, err := s.signed(ctx, challenge, c.Signature)
	if err != nil || known {
		forgive()
		return state, err
	}
	return joinery.ActivationState{}, joinery.Errorf(joinery.CodeForbidden,
		"the signature is not one of the device key that the manifest of this device names")
}

// answers tells whether a case is about the device of a challenge, and in time.
func (s *Service) answers(challenge joinery.Challenge, c Case) bool {
	return s.now().Before(challenge.ExpiresAt) && challenge.JoinEUI == c.JoinEUI && challenge.DevEUI == c.DevEUI
}

// signed does the same work for a known and an unknown device.
func (s *Service) signed(ctx context.Context, c joinery.Challenge, signature []byte) (joinery.ActivationState, bool, error) {
	id := decoy
	state, err := s.store.LoadActivation(ctx, c.JoinEUI, c.DevEUI)
	switch {
	case err == nil:
		id = state.Device.ID
	case joinery.CodeOf(err) != joinery.CodeUnknownDevice:
		return joinery.ActivationState{}, false, err
	}
	key, err := s.store.DeviceKey(ctx, id)
	if err != nil && joinery.CodeOf(err) != joinery.CodeNotFound {
		return joinery.ActivationState{}, false, err
	}
	has := key != nil
	if !has {
		key = nobodysKey()
	}
	digest := ChallengeDigest(c)
	r, v := new(big.Int).SetBytes(signature[:sizeSignature/2]), new(big.Int).SetBytes(signature[sizeSignature/2:])
	right := ecdsa.Verify(key, digest[:], r, v)
	return state, right && has, nil
}

// sizeSignature is the length of r ‖ s of P-256, in bytes.
const sizeSignature = 64

// nobodysKey stands for the key of a device that has none.
var nobodysKey = sync.OnceValue(func() *ecdsa.PublicKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return &key.PublicKey
})

// disputeLock is about the claimant's own device.
func (s *Service) disputeLock(ctx context.Context, caller joinery.Caller, state joinery.ActivationState, p joinery.Dispute) (Disputed, error) {
	if !lockedByNetwork(state.Binding) {
		return Disputed{}, joinery.Errorf(joinery.CodeConflict, "the organisation holds the device, and no network has locked its binding")
	}
	p.AboutLock = true
	if p.Evidence != joinery.EvidenceDeviceKey {
		return s.open(ctx, caller, p)
	}
	detail := map[string]string{"removed": "true", "overridden": "true", "evidence": string(p.Evidence)}
	describe(detail, *state.Binding)
	refused, err := s.store.ChangeOwners(ctx, []joinery.OwnerChange{{
		Act: joinery.ActBind, Device: p.Device, Seen: state.Device.Ownership, BindingEpoch: state.Binding.Epoch,
		Audit: []joinery.AuditEntry{s.entry(caller, joinery.AuditDeviceBound, p.Claimant, p.Device, detail)},
	}})
	if err == nil {
		err = refused[0]
	}
	return Disputed{Device: p.Device, Unlocked: err == nil}, err
}

// open brings a dispute before the operator. Who holds the device learns that it
// is disputed, and not by whom.
func (s *Service) open(ctx context.Context, caller joinery.Caller, p joinery.Dispute) (Disputed, error) {
	about := "ownership"
	if p.AboutLock {
		about = "lock"
	}
	entry := s.entry(caller, joinery.AuditDisputeOpened, p.Claimant, p.Device,
		map[string]string{"dispute": p.ID.String(), "about": about, "evidence": string(p.Evidence)})
	entries := []joinery.AuditEntry{entry}
	if p.Holder != p.Claimant {
		entries = append(entries, forOther(entry, p.Holder, entry.Detail))
	}
	if err := s.store.OpenDispute(ctx, p, entries...); err != nil {
		return Disputed{}, err
	}
	return Disputed{Device: p.Device, Dispute: seenBy(caller, p)}, nil
}

// DecideDispute is the operator's: to grant it makes the claimant the owner, with
// a new owner token, and unbinds the device; about a lock it only unbinds it.
func (s *Service) DecideDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID, grant bool, note string) (joinery.Dispute, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Dispute{}, err
	}
	if len(note) > maxWords || !utf8.ValidString(note) {
		return joinery.Dispute{}, joinery.Errorf(joinery.CodeInvalid, "note: at most %d bytes of text", maxWords)
	}
	p, err := s.store.Dispute(ctx, id)
	if err != nil {
		return joinery.Dispute{}, err
	}
	p.State, p.Note, p.DecidedAt = joinery.DisputeRejected, note, s.time()
	if grant {
		p.State = joinery.DisputeGranted
	}
	entry := s.entry(caller, joinery.AuditDisputeDecided, p.Claimant, p.Device, map[string]string{"dispute": p.ID.String(), "state": string(p.State)})
	entries := []joinery.AuditEntry{entry}
	if p.Holder != p.Claimant {
		entries = append(entries, forOther(entry, p.Holder, entry.Detail))
	}
	if grant && !p.AboutLock {
		moved := s.entry(caller, joinery.AuditDeviceTransferred, p.Claimant, p.Device, map[string]string{"dispute": p.ID.String()})
		entries = append(entries, moved, forOther(moved, p.Holder, moved.Detail))
	}
	if grant && p.AboutLock {
		unbound, err := s.unboundBy(ctx, caller, p)
		if err != nil {
			return joinery.Dispute{}, err
		}
		entries = append(entries, unbound...)
	}
	if err := s.store.CloseDispute(ctx, p, entries...); err != nil {
		return joinery.Dispute{}, err
	}
	if grant && !p.AboutLock {
		p.Holder = p.Claimant
	}
	return p, nil
}

// unboundBy tells of the binding that a granted dispute about its lock removes, as
// it is told where a signature does.
func (s *Service) unboundBy(ctx context.Context, caller joinery.Caller, p joinery.Dispute) ([]joinery.AuditEntry, error) {
	state, err := s.store.Device(ctx, p.Device)
	if err != nil || state.Binding == nil {
		return nil, err
	}
	detail := map[string]string{"removed": "true", "overridden": "true", "dispute": p.ID.String()}
	describe(detail, *state.Binding)
	return []joinery.AuditEntry{s.entry(caller, joinery.AuditDeviceBound, p.Claimant, p.Device, detail)}, nil
}

// WithdrawDispute ends a dispute of the caller's organisation.
func (s *Service) WithdrawDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID) error {
	p, err := s.store.Dispute(ctx, id)
	if err != nil {
		return err
	}
	if !caller.Owns(p.Claimant) {
		return joinery.Errorf(joinery.CodeNotFound, "no such dispute")
	}
	p.State, p.DecidedAt = joinery.DisputeWithdrawn, s.time()
	entry := s.entry(caller, joinery.AuditDisputeWithdrawn, p.Claimant, p.Device, map[string]string{"dispute": p.ID.String()})
	entries := []joinery.AuditEntry{entry}
	if p.Holder != p.Claimant {
		entries = append(entries, forOther(entry, p.Holder, entry.Detail))
	}
	return s.store.CloseDispute(ctx, p, entries...)
}

// OneDispute gives a dispute to its claimant, to the holder of its device, and to
// the operator.
func (s *Service) OneDispute(ctx context.Context, caller joinery.Caller, id joinery.DisputeID) (joinery.Dispute, error) {
	p, err := s.store.Dispute(ctx, id)
	if err == nil && !caller.Owns(p.Claimant) && !caller.Owns(p.Holder) {
		err = joinery.Errorf(joinery.CodeNotFound, "no such dispute")
	}
	if err != nil {
		return joinery.Dispute{}, err
	}
	return seenBy(caller, p), nil
}

// Disputes lists disputes as OneDispute gives them; to the operator, acting for no
// organisation, all.
func (s *Service) Disputes(ctx context.Context, caller joinery.Caller, onlyOpen bool, after joinery.DisputeID, limit int) ([]joinery.Dispute, error) {
	if !caller.Operator && caller.Org == 0 {
		return nil, joinery.Errorf(joinery.CodeNotFound, "no such organisation")
	}
	list, err := s.store.Disputes(ctx, joinery.DisputeQuery{Org: caller.Org, OnlyOpen: onlyOpen, After: after, Limit: page(limit)})
	for i := range list {
		list[i] = seenBy(caller, list[i])
	}
	return list, err
}

// seenBy hides each side from the other.
func seenBy(caller joinery.Caller, p joinery.Dispute) joinery.Dispute {
	if !caller.Owns(p.Claimant) {
		p.Claimant, p.Statement = 0, ""
	}
	if !caller.Owns(p.Holder) {
		p.Holder = 0
	}
	return p
}
