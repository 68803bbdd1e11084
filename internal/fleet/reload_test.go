package fleet

import (
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
)

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
	s := New(behind, f.keys, slog.New(slog.DiscardHandler))
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
