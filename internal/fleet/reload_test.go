package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/lorawan"
)

var errBroken = errors.New("disk is gone")

// forgetfulStore cannot be read after a peer was removed.
type forgetfulStore struct {
	*store.DB
	away bool
}

func (s *forgetfulStore) RemovePeer(ctx context.Context, id joinery.PeerID, entry joinery.AuditEntry) error {
	s.away = true
	return s.DB.RemovePeer(ctx, id, entry)
}

func (s *forgetfulStore) Peers(ctx context.Context) ([]joinery.Peer, error) {
	if s.away {
		return nil, errBroken
	}
	return s.DB.Peers(ctx)
}

// TestChangeThatCannotBeReadBack: a removed peer is not served from memory
// because the store fails; nobody is, until it can be read.
func TestChangeThatCannotBeReadBack(t *testing.T) {
	f := newFixture(t)
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	removed := f.mustAdd(t, f.networkServer("removed", 1, byCA(ca)), joinery.KEKForNS)
	f.mustAdd(t, f.networkServer("stays", 2, byCA(other)), joinery.KEKForNS)
	behind := &forgetfulStore{DB: f.db}
	s := New(behind, f.keys, Options{})
	if err := s.Directory().Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	resolve := func(a authority) joinery.Code {
		_, err := s.Directory().Resolve([]*x509.Certificate{a.leaf(t)}, time.Now())
		return joinery.CodeOf(err)
	}
	if a, b := resolve(ca), resolve(other); a != "" || b != "" {
		t.Fatalf("before: %q, %q", a, b)
	}
	wantCode(t, s.RemovePeer(t.Context(), operator, removed.ID), joinery.CodeUnavailable)
	if a, b := resolve(ca), resolve(other); a != joinery.CodeUnavailable || b != joinery.CodeUnavailable {
		t.Errorf("store away: %q, %q", a, b)
	}
	behind.away = false
	if a, b := resolve(ca), resolve(other); a != joinery.CodeUnauthenticated || b != "" {
		t.Errorf("store back: %q, %q", a, b)
	}
}

// TestChangeOfSomebodyWhoLeft: a change that is stored takes effect, also where
// nobody waits for the answer any more.
func TestChangeOfSomebodyWhoLeft(t *testing.T) {
	f := newFixture(t)
	before := f.Directory().Generation()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.reload(ctx); err != nil || f.Directory().Generation() != before+1 {
		t.Errorf("generation %d after %d, %v", f.Directory().Generation(), before, err)
	}
}

func TestWarningsAreLogged(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, f.networkServer("good", 1, byCA(newCA(t, "CA"))), joinery.KEKForNS)
	if f.log.Len() != 0 {
		t.Errorf("logged without need: %s", f.log)
	}
	f.mustAdd(t, f.networkServer("old one", 2, byCA(newCA(t, "Old", expired))), joinery.KEKForNS)
	if text := f.log.String(); !strings.Contains(text, `peer="old one"`) || !strings.Contains(text, "expired at") {
		t.Errorf("logged: %s", text)
	}
}

// brokenCommit is a store whose COMMITs fail although the change is on disk,
// and which gives up, as the real one, on a caller whose context ends.
type brokenCommit struct{ *store.DB }

func commitBreaks(ctx context.Context, err error) error {
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = joinery.WrapError(joinery.CodeUnavailable, errBroken, "the database is not available")
	}
	return err
}

func (s brokenCommit) ChangePeer(ctx context.Context, p joinery.Peer, entries ...joinery.AuditEntry) error {
	return commitBreaks(ctx, s.DB.ChangePeer(ctx, p, entries...))
}

func (s brokenCommit) RemovePeer(ctx context.Context, id joinery.PeerID, entry joinery.AuditEntry) error {
	return commitBreaks(ctx, s.DB.RemovePeer(ctx, id, entry))
}

func (s brokenCommit) RetireKEK(ctx context.Context, id joinery.KEKID, entry joinery.AuditEntry) error {
	return commitBreaks(ctx, s.DB.RetireKEK(ctx, id, entry))
}

func (s brokenCommit) ReleaseRange(ctx context.Context, r joinery.JoinEUIRange, entry joinery.AuditEntry) error {
	return commitBreaks(ctx, s.DB.ReleaseRange(ctx, r, entry))
}

// TestChangeWithoutAnAnswer: what the store holds takes effect, also where it
// could not say so.
func TestChangeWithoutAnAnswer(t *testing.T) {
	f := newFixture(t)
	p := f.networkServer("peer", 1, byCA(newCA(t, "CA")))
	p.ClearKeys = true
	p, err := f.AddPeer(t.Context(), operator, p, []NewKEK{f.newKEK(t, joinery.KEKForNS, "label", 16)}, PeerConfirm{ClearKeysFor: p.Name})
	if err != nil {
		t.Fatal(err)
	}
	span := joinery.EUIRange{First: lorawan.EUI64FromUint64(1), Last: lorawan.EUI64FromUint64(9)}
	if _, err := f.AssignRange(t.Context(), operator, joinery.JoinEUIRange{Org: f.org, EUIRange: span}); err != nil {
		t.Fatal(err)
	}
	kek, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS)
	f.store = brokenCommit{f.db}

	p.ClearKeys = false
	_, err = f.ChangePeer(t.Context(), operator, p, PeerConfirm{})
	wantCode(t, err, joinery.CodeUnavailable)
	if served, _ := f.Directory().Peer(p.ID); served.ClearKeys {
		t.Error("a withdrawn consent holds")
	}
	wantCode(t, f.RetireKEK(t.Context(), operator, kek.ID), joinery.CodeUnavailable)
	if _, wraps := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); wraps {
		t.Error("a retired KEK wraps")
	}
	wantCode(t, f.ReleaseRange(t.Context(), operator, span), joinery.CodeUnavailable)
	if f.Directory().ServesJoinEUI(span.First) {
		t.Error("a released range is served")
	}
	wantCode(t, f.RemovePeer(t.Context(), operator, p.ID), joinery.CodeUnavailable)
	if _, served := f.Directory().Peer(p.ID); served {
		t.Error("a removed peer is served")
	}
}

// leaving is a store whose caller goes away while it writes.
type leaving struct {
	*store.DB
	leave context.CancelFunc
}

func (s leaving) RemovePeer(ctx context.Context, id joinery.PeerID, entry joinery.AuditEntry) error {
	s.leave()
	return s.DB.RemovePeer(ctx, id, entry)
}

func (s leaving) RetireKEK(ctx context.Context, id joinery.KEKID, entry joinery.AuditEntry) error {
	s.leave()
	return s.DB.RetireKEK(ctx, id, entry)
}

// TestCallerLeavesDuringChange: a change that the store was asked for is made,
// and what the caller hears is how it ended.
func TestCallerLeavesDuringChange(t *testing.T) {
	f := newFixture(t)
	p := f.mustAdd(t, f.networkServer("peer", 1, byCA(newCA(t, "CA"))), joinery.KEKForNS)
	kek, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS)
	for _, change := range []func(context.Context) error{
		func(ctx context.Context) error { return f.RetireKEK(ctx, operator, kek.ID) },
		func(ctx context.Context) error { return f.RemovePeer(ctx, operator, p.ID) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		f.store = leaving{f.db, cancel}
		if err := change(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, wraps := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); wraps {
		t.Error("a retired KEK wraps")
	}
	if _, served := f.Directory().Peer(p.ID); served {
		t.Error("a removed peer is served")
	}
}

// TestRepeatedChange: a directory that lags behind catches up when somebody
// asks once more for what is done already.
func TestRepeatedChange(t *testing.T) {
	f := newFixture(t)
	p := f.mustAdd(t, f.networkServer("peer", 1, byCA(newCA(t, "CA"))), joinery.KEKForNS)
	kek, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS)
	if err := f.db.RetireKEK(t.Context(), kek.ID, f.kekEntry(operator, joinery.AuditKEKRetired, p, kek)); err != nil {
		t.Fatal(err)
	}
	if err := f.RetireKEK(t.Context(), operator, kek.ID); err != nil {
		t.Error(err)
	}
	if _, wraps := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); wraps {
		t.Error("a retired KEK wraps")
	}
	if err := f.db.RemovePeer(t.Context(), p.ID, f.entry(operator, joinery.AuditPeerRemoved, p.Org, nil)); err != nil {
		t.Fatal(err)
	}
	wantCode(t, f.RemovePeer(t.Context(), operator, p.ID), joinery.CodeNotFound)
	if _, served := f.Directory().Peer(p.ID); served {
		t.Error("a removed peer is served")
	}
}

// lockedStore is a store whose fleet another server changes without end.
type lockedStore struct{ *store.DB }

func (lockedStore) LockFleet(context.Context) (func(), error) {
	return nil, joinery.Errorf(joinery.CodeUnavailable, "another server writes")
}

// TestTakingAwayNeedsNoLock: another server that hangs in a change keeps nobody
// from suspending or removing a peer, or retiring a KEK.
func TestTakingAwayNeedsNoLock(t *testing.T) {
	f := newFixture(t)
	p := f.mustAdd(t, f.networkServer("peer", 1, byCA(newCA(t, "CA"))), joinery.KEKForNS)
	kek, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS)
	f.store = lockedStore{f.db}
	p.Suspended = true
	changed, err := f.ChangePeer(t.Context(), operator, p, PeerConfirm{})
	if err != nil || !changed.Suspended {
		t.Errorf("suspend: %v", err)
	}
	if served, _ := f.Directory().Peer(p.ID); !served.Suspended {
		t.Error("a suspended peer is served")
	}
	both := p
	both.Suspended, both.Name = false, "another name"
	_, err = f.ChangePeer(t.Context(), operator, both, PeerConfirm{})
	wantCode(t, err, joinery.CodeUnavailable) // a name is checked against others
	if err := f.RetireKEK(t.Context(), operator, kek.ID); err != nil {
		t.Error(err)
	}
	wantCode(t, f.RemoveSigner(t.Context(), operator, joinery.NewSignerID()), joinery.CodeNotFound)
	if err := f.RemovePeer(t.Context(), operator, p.ID); err != nil {
		t.Error(err)
	}
}

// TestLease: what is in memory is relied on for two seconds after it was known to
// be right, also where nobody says that it is not: a server that stood still
// says nothing.
func TestLease(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t, "CA")
	p := f.mustAdd(t, f.networkServer("peer", 1, byCA(ca)), joinery.KEKForNS)
	behind := &forgetfulStore{DB: f.db}
	s := New(behind, f.keys, Options{})
	d := s.Directory()
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	resolve := func() joinery.Code {
		_, err := d.Resolve([]*x509.Certificate{ca.leaf(t)}, time.Now())
		return joinery.CodeOf(err)
	}
	// As in a machine that sleeps, whose monotonic clock stands still.
	stoodStill := func() { long := time.Now().Round(0).Add(-lease - time.Second); d.asOf.Store(&long) }

	d.confirm(time.Now())
	d.confirm(time.Now().Add(-time.Minute)) // of a look that took long; it counts for nothing
	if g := d.Generation(); g == 0 || resolve() != "" {
		t.Fatalf("generation %d within the lease", g)
	}
	if err := f.db.RemovePeer(t.Context(), p.ID, f.entry(operator, joinery.AuditPeerRemoved, p.Org, nil)); err != nil {
		t.Fatal(err)
	}
	stoodStill()
	behind.away = true
	if g, code := d.Generation(), resolve(); g != 0 || code != joinery.CodeUnavailable {
		t.Errorf("generation %d, %q, while the store is away", g, code)
	}
	behind.away = false
	if code := resolve(); code != joinery.CodeUnauthenticated || d.Generation() == 0 {
		t.Errorf("removed elsewhere, and %q", code)
	}
}

// doubtful is a store about which doubts come up while it is read.
type doubtful struct {
	*store.DB
	doubt func()
}

func (s doubtful) KEKs(ctx context.Context) ([]joinery.KEK, error) {
	s.doubt()
	return s.DB.KEKs(ctx)
}

// TestDoubtDuringReload: what was read before a doubt does not answer it.
func TestDoubtDuringReload(t *testing.T) {
	f := newFixture(t)
	d := f.Directory()
	d.source = doubtful{f.db, d.doubt}
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := d.Generation(); g != 0 {
		t.Errorf("generation %d is relied on", g)
	}
	d.source = f.db
	if _, err := d.fresh(); err != nil || d.Generation() == 0 {
		t.Errorf("after another reading: generation %d, %v", d.Generation(), err)
	}
}
