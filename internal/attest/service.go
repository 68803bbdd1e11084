package attest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/internal/evidence"
)

// Store is the state behind this package. Changes write their audit entries in the
// same transaction.
type Store interface {
	Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error)
	// AddAttestChallenge is CodeConflict where four bytes do not tell it from another
	// of the device.
	AddAttestChallenge(ctx context.Context, c joinery.AttestChallenge) error
	// TakeAttestChallenge gives the challenge of a device that begins so, and makes an
	// end of it; CodeNotFound.
	TakeAttestChallenge(ctx context.Context, device joinery.DeviceID, begins []byte) (joinery.AttestChallenge, error)
	Results
	Fragments
	Wants
	Products
}

// Results is what evidence is held against, and what became of it.
type Results interface {
	Appraise(ctx context.Context, id joinery.DeviceID) (joinery.Appraisal, error)
	// ReleasesByDigest gives the withdrawn ones, too.
	ReleasesByDigest(ctx context.Context, maker joinery.OrgID, digests [][32]byte) ([]joinery.Release, error)
	// PutAttestation is CodeConflict unless r.Owner holds the device still, and the maker
	// stands by what the result rests on.
	PutAttestation(ctx context.Context, r joinery.AttestResult, a joinery.AuditEntry) (joinery.Attested, error)
	Attestations(ctx context.Context, device joinery.DeviceID) ([]joinery.Attestation, error)
	// Record writes audit entries that belong to no change.
	Record(ctx context.Context, entries ...joinery.AuditEntry) error
	// EndAttestations tells owners what ended by a time, each once; it gives of how
	// many devices.
	EndAttestations(ctx context.Context, now time.Time, limit int) (int, error)
	// Signers gives the signers of manifests that are pinned, of all organisations.
	Signers(ctx context.Context) ([]joinery.Signer, error)
	// EndUnvouched has what was shown rest no more on pins that went, so many results; it
	// gives how many there were.
	EndUnvouched(ctx context.Context, now time.Time, limit int) (int, error)
	// EndWithdrawn ends what rests on what makers took back, of so many devices; it gives
	// how many there were.
	EndWithdrawn(ctx context.Context, now time.Time, limit int) (int, error)
}

// Fragments keeps parts of evidence, few and not for long.
type Fragments interface {
	// AddEvidenceFragment gives the parts of the message that are there.
	AddEvidenceFragment(ctx context.Context, f joinery.EvidenceFragment, owner joinery.OrgID, since time.Time) ([]joinery.EvidenceFragment, error)
	// DropEvidenceFragments tells whether there were any.
	DropEvidenceFragments(ctx context.Context, device joinery.DeviceID, message uint32) (bool, error)
}

// Wants is what owners want of their devices.
type Wants interface {
	Orgs(ctx context.Context) ([]joinery.Organisation, error)
	AttestPolicies(ctx context.Context) ([]joinery.AttestPolicy, error)
	SetAttestPolicy(ctx context.Context, p joinery.AttestPolicy, a joinery.AuditEntry) error
	SetAttestRule(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, rule *joinery.AttestRule, a joinery.AuditEntry) error
}

// Options are what a Service may be given besides its store.
type Options struct {
	Now func() time.Time // nil: the system's clock
	Log *slog.Logger
	// Verifier is what results call this server.
	Verifier string
	// Hold is why nobody is told now that a level ended, nil for no reason: a copy of
	// a database must not speak for the one that it was copied from, nor a clock that
	// is in doubt for the time.
	Hold func() error
}

// Service is the rules of this package. It is safe for concurrent use.
type Service struct {
	store    Store
	now      func() time.Time
	log      *slog.Logger
	verifier string
	hold     func() error

	policies atomic.Pointer[map[joinery.OrgID]joinery.AttestPolicy]
}

// Start makes a Service that knows what owners want. It comes before the first join.
func Start(ctx context.Context, store Store, opt Options) (*Service, error) {
	s := &Service{store: store, now: opt.Now, log: opt.Log, verifier: opt.Verifier, hold: opt.Hold}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.verifier == "" {
		s.verifier = "joinery"
	}
	if s.hold == nil {
		s.hold = func() error { return nil }
	}
	if err := s.reload(ctx); err != nil {
		return nil, fmt.Errorf("read what owners want of their devices: %w", err)
	}
	return s, nil
}

func (s *Service) time() time.Time { return s.now().UTC().Truncate(time.Millisecond) }

func (s *Service) entry(caller joinery.Caller, event joinery.AuditEvent, org joinery.OrgID, d joinery.DeviceID, detail map[string]string) joinery.AuditEntry {
	return joinery.AuditEntry{At: s.time(), Event: event, Actor: caller.Name, Org: org, Device: d, Detail: detail}
}

func notFound(what string) error { return joinery.Errorf(joinery.CodeNotFound, "no such %s", what) }

// own finds a device that the caller owns; another's is absent.
func (s *Service) own(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (joinery.Device, error) {
	state, err := s.store.Device(ctx, id)
	if joinery.CodeOf(err) == joinery.CodeNotFound || err == nil && !caller.Owns(state.Device.Ownership.Org) {
		return joinery.Device{}, notFound("device")
	}
	return state.Device, err
}

// How long a challenge may be waited for. A device with a small radio may take days.
const (
	DefaultChallengeLife = time.Hour
	MinChallengeLife     = time.Minute
	MaxChallengeLife     = 7 * 24 * time.Hour
)

// Asked is a challenge, and the device that it is about.
type Asked struct {
	joinery.AttestChallenge
	Device joinery.Device
}

// Challenge makes something for a device to answer, within life; 0 is an hour. A
// device has a few of them: the oldest gives way.
func (s *Service) Challenge(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, life time.Duration) (a Asked, err error) {
	if life == 0 {
		life = DefaultChallengeLife
	}
	if life < MinChallengeLife || life > MaxChallengeLife {
		return a, joinery.Errorf(joinery.CodeInvalid, "validSeconds: want %d to %d", MinChallengeLife/time.Second, MaxChallengeLife/time.Second)
	}
	if a.Device, err = s.own(ctx, caller, id); err != nil {
		return a, err
	}
	now := s.time()
	a.AttestChallenge = joinery.AttestChallenge{Device: id, Org: a.Device.Ownership.Org, MadeAt: now, ExpiresAt: now.Add(life)}
	for range 4 { // four bytes are seldom alike
		rand.Read(a.Random[:]) // never fails (crypto/rand)
		if err = s.store.AddAttestChallenge(ctx, a.AttestChallenge); joinery.CodeOf(err) != joinery.CodeConflict {
			break
		}
	}
	return a, err
}

// Standing is a device as it stands now.
type Standing struct {
	Device  joinery.Device
	Level   joinery.AttestLevel
	Until   time.Time // of that level; zero at L0
	Results []joinery.Attestation
	// Rule is what the owner wants of it, Own whether of this device alone, and Broken
	// whether it is below that.
	Rule   joinery.AttestRule
	Own    bool
	Broken bool
	// Counts is the level that rests on what is wanted.
	Counts joinery.AttestLevel
}

// Standing tells the owner of a device, or the operator, what it has shown.
func (s *Service) Standing(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (st Standing, err error) {
	if st.Device, err = s.own(ctx, caller, id); err != nil {
		return st, err
	}
	if st.Results, err = s.store.Attestations(ctx, id); err != nil {
		return st, err
	}
	now := s.now()
	st.Level, st.Until = st.Device.Attested.Level(now), st.Device.Attested.FallsAt(now)
	st.Rule, st.Own = s.PolicyOf(st.Device.Ownership.Org).Rule(st.Device), st.Device.Attested.Rule != nil
	st.Counts = st.Rule.Counts(st.Device.Attested, now)
	st.Broken = st.Rule.Broken(st.Counts)
	return st, nil
}

// Evidence judges what a device shows. What is accepted gives its level and no other,
// for as long as its owner's policy says. CodeAttestation says that it proves nothing,
// and why; its challenge is used up all the same. CodeConflict where it answers no
// challenge that waits for it.
func (s *Service) Evidence(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, kind joinery.EvidenceKind, b []byte) (Standing, error) {
	if _, err := s.own(ctx, caller, id); err != nil {
		return Standing{}, err
	}
	p, err := read(kind, b)
	if err != nil {
		return Standing{}, err
	}
	challenge, err := s.store.TakeAttestChallenge(ctx, id, p.tag)
	if joinery.CodeOf(err) == joinery.CodeNotFound {
		err = joinery.Errorf(joinery.CodeConflict, "the evidence answers no challenge that waits for this device: it was answered already, has given way to newer ones, or is another device's; ask for another")
	}
	if err != nil {
		return Standing{}, err
	}
	// The challenge is gone: who asked must not keep back what became of it.
	ctx = context.WithoutCancel(ctx)
	result, device, err := s.judge(ctx, challenge, p)
	if r, ok := errors.AsType[refusal](err); ok {
		sum := sha256.Sum256(b)
		entry := s.entry(caller, joinery.AuditAttestRefused, device.Ownership.Org, id, map[string]string{
			"kind": string(kind), "reason": r.word, "evidence": hex.EncodeToString(sum[:]),
		})
		if err := s.store.Record(ctx, entry); err != nil {
			return Standing{}, err
		}
		return Standing{}, joinery.Errorf(joinery.CodeAttestation, "%s", r.text)
	}
	if err != nil {
		return Standing{}, err
	}
	if _, err := s.store.PutAttestation(ctx, result, s.accepted(caller, result)); err != nil {
		return Standing{}, err
	}
	return s.Standing(ctx, caller, id)
}

// judge holds evidence against what is known of the device now.
func (s *Service) judge(ctx context.Context, challenge joinery.AttestChallenge, p presented) (r joinery.AttestResult, d joinery.Device, err error) {
	a, err := s.store.Appraise(ctx, challenge.Device)
	if err != nil {
		return r, d, err
	}
	d = a.State.Device
	now := s.time()
	switch {
	case challenge.Org != d.Ownership.Org:
		return r, d, no("stale", "the challenge was another owner's; ask for another")
	case !challenge.Open(now):
		return r, d, no("stale", "the challenge has ended; ask for another")
	}
	found, err := s.store.ReleasesByDigest(ctx, d.Maker, p.digests())
	if err != nil {
		return r, d, err
	}
	pins, err := s.store.Signers(ctx)
	if err != nil {
		return r, d, err
	}
	proved, err := p.appraise(challenge, a, found, pins, now)
	if err != nil {
		return r, d, err
	}
	level, _ := p.kind.Level() // read has taken it
	r = joinery.AttestResult{Owner: d.Ownership.Org, Attestation: joinery.Attestation{
		Device: d.ID, Level: level, Kind: p.kind, Verifier: s.verifier, At: now, Until: now.Add(s.PolicyOf(d.Ownership.Org).ValidFor()),
		Digest: proved.digest, Counter: proved.counter, Evidence: sha256.Sum256(p.bytes),
		Basis: proved.ground.basis, Ground: proved.ground.AttestGround,
	}}
	r.Components = proved.components
	if proved.release != nil {
		r.Release, r.Version = proved.release.ID, proved.release.Version
	}
	if !proved.expires.IsZero() && proved.expires.Before(r.Until) {
		r.Until = proved.expires.UTC().Truncate(time.Millisecond)
	}
	return r, d, nil
}

// accepted is the audit entry of a result; the store adds which level is valid.
func (s *Service) accepted(caller joinery.Caller, r joinery.AttestResult) joinery.AuditEntry {
	detail := map[string]string{
		"level": r.Level.String(), "kind": string(r.Kind), "verifier": r.Verifier, "until": r.Until.Format(time.RFC3339),
		"digest": hex.EncodeToString(r.Digest[:]), "counter": strconv.FormatUint(uint64(r.Counter), 10), "evidence": hex.EncodeToString(r.Evidence[:]),
	}
	detail["basis"] = r.Basis.String()
	switch g := r.Ground; {
	case g.Key != 0:
		detail["key"] = g.Key.String()
	default:
		detail["signer"], detail["pinned"] = g.SignerX5TS256, strconv.FormatBool(g.Pinned())
		if g.Chain != "" {
			detail["chain"] = string(g.Chain)
		}
	}
	if r.SelfReported() {
		detail["software"] = "self-reported"
	}
	if r.Release != 0 {
		detail["version"], detail["release"] = r.Version, r.Release.String()
	}
	return s.entry(caller, joinery.AuditDeviceAttested, r.Owner, r.Device, detail)
}

// keepFragments is how long parts of evidence are waited for.
const keepFragments = MaxChallengeLife

// Progress is how much of a message has come.
type Progress struct {
	Have, Total int
	// Standing is set once all has come and was accepted.
	Standing *Standing
}

// Fragment takes a part of compact evidence, in any order and as often as it comes.
// With the last one the whole is judged, as Evidence does it. A part that comes after
// that begins the message anew, and is forgotten.
func (s *Service) Fragment(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, b []byte) (p Progress, err error) {
	f, err := evidence.ParseFragment(b)
	if err != nil {
		return p, joinery.Errorf(joinery.CodeInvalid, "%s", err.Error())
	}
	d, err := s.own(ctx, caller, id)
	if err != nil {
		return p, err
	}
	now := s.time()
	held, err := s.store.AddEvidenceFragment(ctx, joinery.EvidenceFragment{
		Device: id, Message: f.Message, Index: f.Index, Total: f.Total, Payload: f.Payload, At: now,
	}, d.Ownership.Org, now.Add(-keepFragments))
	if err != nil {
		return p, err
	}
	p = Progress{Have: len(held), Total: int(f.Total)}
	if p.Have < p.Total {
		return p, nil
	}
	parts := make([]evidence.Fragment, len(held))
	for i, h := range held {
		parts[i] = evidence.Fragment{Index: h.Index, Total: h.Total, Message: h.Message, Payload: h.Payload}
	}
	whole, joined := evidence.Join(parts)
	mine, err := s.store.DropEvidenceFragments(ctx, id, f.Message)
	switch {
	case err != nil || !mine: // somebody else judges it
		return p, err
	case joined != nil:
		return p, joinery.Errorf(joinery.CodeInvalid, "%s; have the device send all of them again", joined.Error())
	}
	kind := joinery.EvidencePossession
	if evidence.IsBoot(whole) {
		kind = joinery.EvidenceBoot
	}
	st, err := s.Evidence(ctx, caller, id, kind, whole)
	if err == nil {
		p.Standing = &st
	}
	return p, err
}
