package fleet

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// source is what a Directory reads, in memory: what the services could not have
// stored is tested here, too.
type source struct {
	mu     sync.Mutex
	peers  []joinery.Peer
	keks   []joinery.KEK
	ranges []joinery.JoinEUIRange
	err    error
	reads  int
}

func (s *source) Peers(context.Context) ([]joinery.Peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.peers, s.err
}

func (s *source) KEKs(context.Context) ([]joinery.KEK, error) { return s.keks, nil }

func (s *source) Ranges(context.Context) ([]joinery.JoinEUIRange, error) { return s.ranges, nil }

func (s *source) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func peer(name string, credentials ...joinery.Credential) joinery.Peer {
	return joinery.Peer{ID: joinery.NewPeerID(), Name: name, Credentials: credentials}
}

func directory(t testing.TB, peers ...joinery.Peer) (*Directory, *source) {
	t.Helper()
	s := &source{peers: peers}
	d := newDirectory(s, slog.New(slog.DiscardHandler))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, s
}

func TestResolve(t *testing.T) {
	dedicated, shared, foreign := newCA(t, "Dedicated"), newCA(t, "Shared"), newCA(t, "Foreign")
	old := newCA(t, "Old", expired)
	intermediate := dedicated.sub(t, "Intermediate")
	pinned, pinnedExpired, pinnedEarly := selfSigned(t), selfSigned(t, expired), selfSigned(t, notYet)
	underTwo := dedicated.leaf(t)
	d, _ := directory(t,
		peer("dedicated", byCA(dedicated)),
		peer("one", bySAN(shared, "one.example.com")),
		peer("two", bySAN(shared, "two.example.com")),
		peer("uri", bySAN(shared, "urn:example:ns:3")),
		peer("pinned", byPin(pinned), byPin(pinnedExpired), byPin(pinnedEarly)),
		peer("old", byCA(old)),
		peer("pins another's", byPin(underTwo)),
	)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		want  string // "" is refused
	}{
		"dedicated CA":                   {[]*x509.Certificate{dedicated.leaf(t)}, "dedicated"},
		"dedicated CA, any EKU":          {[]*x509.Certificate{dedicated.leaf(t, withEKU(x509.ExtKeyUsageAny))}, "dedicated"},
		"dedicated CA, no EKU":           {[]*x509.Certificate{dedicated.leaf(t, withEKU())}, "dedicated"},
		"dedicated CA, server only":      {[]*x509.Certificate{dedicated.leaf(t, withEKU(x509.ExtKeyUsageServerAuth))}, ""},
		"with intermediate":              {[]*x509.Certificate{intermediate.leaf(t), intermediate.cert}, "dedicated"},
		"intermediate not shown":         {[]*x509.Certificate{intermediate.leaf(t)}, ""},
		"CA shown, too":                  {[]*x509.Certificate{dedicated.leaf(t), dedicated.cert}, "dedicated"},
		"renewed CA":                     {[]*x509.Certificate{dedicated.renewed(t).leaf(t)}, "dedicated"},
		"expired leaf":                   {[]*x509.Certificate{dedicated.leaf(t, expired)}, ""},
		"leaf not valid yet":             {[]*x509.Certificate{dedicated.leaf(t, notYet)}, ""},
		"expired CA":                     {[]*x509.Certificate{old.leaf(t)}, ""},
		"foreign CA":                     {[]*x509.Certificate{foreign.leaf(t)}, ""},
		"foreign CA of the same name":    {[]*x509.Certificate{newCA(t, "Dedicated").leaf(t)}, ""},
		"foreign CA shown, too":          {[]*x509.Certificate{foreign.leaf(t), foreign.cert, dedicated.cert}, ""},
		"foreign leaf before a good one": {[]*x509.Certificate{foreign.leaf(t), dedicated.leaf(t), dedicated.cert}, ""},
		"self-signed":                    {[]*x509.Certificate{selfSigned(t)}, ""},
		"shared CA, first name":          {[]*x509.Certificate{shared.leaf(t, withDNS("one.example.com"))}, "one"},
		"shared CA, case":                {[]*x509.Certificate{shared.leaf(t, withDNS("TWO.example.COM"))}, "two"},
		"shared CA, URI":                 {[]*x509.Certificate{shared.leaf(t, withURI(t, "urn:example:ns:3"))}, "uri"},
		"shared CA, no name":             {[]*x509.Certificate{shared.leaf(t)}, ""},
		"shared CA, other name":          {[]*x509.Certificate{shared.leaf(t, withDNS("three.example.com"))}, ""},
		"shared CA, longer name":         {[]*x509.Certificate{shared.leaf(t, withDNS("a.one.example.com"))}, ""},
		"shared CA, wildcard":            {[]*x509.Certificate{shared.leaf(t, withDNS("*.example.com"))}, ""},
		"shared CA, names of two":        {[]*x509.Certificate{shared.leaf(t, withDNS("one.example.com", "two.example.com"))}, ""},
		"shared name under another CA":   {[]*x509.Certificate{foreign.leaf(t, withDNS("one.example.com"))}, ""},
		"name in CN only":                {[]*x509.Certificate{shared.leaf(t, func(c *x509.Certificate) { c.Subject.CommonName = "one.example.com" })}, ""},
		"pin":                            {[]*x509.Certificate{pinned}, "pinned"},
		"pin, with any chain":            {[]*x509.Certificate{pinned, foreign.cert}, "pinned"},
		"pin, expired":                   {[]*x509.Certificate{pinnedExpired}, ""},
		"pin, not valid yet":             {[]*x509.Certificate{pinnedEarly}, ""},
		"pinned by one, CA of another":   {[]*x509.Certificate{underTwo}, ""},
		"no certificate":                 {nil, ""},
		"too many":                       {append([]*x509.Certificate{pinned}, make([]*x509.Certificate, maxChain)...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, turn := range []string{"first", "remembered"} {
				got, err := d.Resolve(c.chain, time.Now())
				if c.want == "" && joinery.CodeOf(err) != joinery.CodeUnauthenticated {
					t.Errorf("%s: got peer %q, %v; want it refused", turn, got.Name, err)
				}
				if c.want != "" && (err != nil || got.Name != c.want) {
					t.Errorf("%s: got peer %q, %v; want %q", turn, got.Name, err, c.want)
				}
			}
		})
	}
}

// TestResolveForgets goes over the times at which a remembered answer must end.
func TestResolveForgets(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.leaf(t)
	pinnedLater := newCA(t, "Later", notYet)
	d, _ := directory(t, peer("peer", byCA(ca)), peer("later", byCA(pinnedLater)))
	chain := []*x509.Certificate{leaf}
	for _, c := range []struct {
		at   time.Time
		good bool
	}{
		{time.Now(), true},
		{leaf.NotBefore, true},
		{leaf.NotBefore.Add(-time.Second), false},
		{leaf.NotAfter, true},
		{leaf.NotAfter.Add(time.Second), false},
		{time.Now(), true},
	} {
		for range 2 {
			if _, err := d.Resolve(chain, c.at); (err == nil) != c.good {
				t.Errorf("at %v: %v", c.at, err)
			}
		}
	}
}

func TestResolveNames(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.leaf(t)
	d, _ := directory(t, peer("first", byCA(ca)), peer("second", byPin(leaf)))
	_, err := d.Resolve([]*x509.Certificate{leaf}, time.Now())
	if err == nil || !strings.Contains(err.Error(), "first, second") && !strings.Contains(err.Error(), "second, first") {
		t.Errorf("the log does not learn between which peers: %v", err)
	}
	if message := joinery.MessageOf(err); strings.Contains(message, "first") || strings.Contains(message, "second") {
		t.Errorf("the outside learns of peers: %s", message)
	}
}

func TestResolveSuspended(t *testing.T) {
	ca := newCA(t, "CA")
	p := peer("suspended", byCA(ca))
	p.Suspended = true
	d, _ := directory(t, p)
	if _, err := d.Resolve([]*x509.Certificate{ca.leaf(t)}, time.Now()); joinery.CodeOf(err) != joinery.CodeForbidden {
		t.Errorf("got %v", err)
	}
	if got, ok := d.Peer(p.ID); !ok || !got.Suspended {
		t.Error("a suspended peer is not to be found by its id")
	}
}

func TestReload(t *testing.T) {
	ca := newCA(t, "CA")
	chain := []*x509.Certificate{ca.leaf(t)}
	d, s := directory(t, peer("peer", byCA(ca)))
	resolve := func() joinery.Code { _, err := d.Resolve(chain, time.Now()); return joinery.CodeOf(err) }
	if code := resolve(); code != "" || d.Generation() != 1 {
		t.Fatalf("code %q, generation %d", code, d.Generation())
	}

	// A removed peer is refused at once, though its chain is remembered.
	s.peers = nil
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := resolve(); code != joinery.CodeUnauthenticated || d.Generation() != 2 {
		t.Errorf("after removal: code %q, generation %d", code, d.Generation())
	}

	// After a reload that failed nobody is recognised, and the next request makes
	// it good as soon as the store answers.
	s.peers = []joinery.Peer{peer("peer", byCA(ca))}
	s.set(errors.New("disk is gone"))
	if err := d.Reload(t.Context()); err == nil {
		t.Fatal("no error of the reload")
	}
	if code := resolve(); code != joinery.CodeUnavailable {
		t.Errorf("store away: code %q", code)
	}
	s.set(nil)
	if code := resolve(); code != "" {
		t.Errorf("store back: code %q", code)
	}
	reads := s.reads
	if code := resolve(); code != "" || s.reads != reads {
		t.Errorf("code %q; read %d times without need", code, s.reads-reads)
	}
}

// TestResolveWhileReloading holds requests and changes against each other under
// the race detector.
func TestResolveWhileReloading(t *testing.T) {
	ca := newCA(t, "CA")
	chain := []*x509.Certificate{ca.leaf(t)}
	d, _ := directory(t, peer("peer", byCA(ca)))
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 200 {
				if _, err := d.Resolve(chain, time.Now()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		if err := d.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wait.Wait()
	if d.Generation() != 51 {
		t.Errorf("generation %d", d.Generation())
	}
}

func TestSeenIsBounded(t *testing.T) {
	var c seenChains
	now := time.Now()
	for i := range 2*maxSeen + 1 {
		c.add([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, 1, now, now.Add(time.Hour))
	}
	if len(c.m) > maxSeen {
		t.Errorf("%d chains remembered", len(c.m))
	}
}

func TestDirectoryKEKs(t *testing.T) {
	p, removed := peer("peer"), joinery.NewPeerID()
	kek := func(peer joinery.PeerID, role joinery.KEKRole, version uint32, retired bool) joinery.KEK {
		return joinery.KEK{ID: joinery.NewKEKID(), Peer: peer, Role: role, Version: version, Retired: retired, Label: fmt.Sprint(version)}
	}
	s := &source{peers: []joinery.Peer{p}, keks: []joinery.KEK{
		kek(p.ID, joinery.KEKForNS, 2, false), kek(p.ID, joinery.KEKForNS, 1, false), kek(p.ID, joinery.KEKForNS, 3, true),
		kek(p.ID, joinery.KEKForAS, 1, true), kek(removed, joinery.KEKForAS, 1, false),
	}}
	d := newDirectory(s, slog.New(slog.DiscardHandler))
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k, ok := d.CurrentKEK(p.ID, joinery.KEKForNS); !ok || k.Version != 2 {
		t.Errorf("current KEK: version %d, %v", k.Version, ok)
	}
	if _, ok := d.CurrentKEK(p.ID, joinery.KEKForAS); ok {
		t.Error("a retired KEK wraps")
	}
	if _, ok := d.CurrentKEK(removed, joinery.KEKForAS); ok {
		t.Error("the KEK of a removed peer wraps")
	}
	for i, want := range []bool{true, true, false, false, false} {
		if _, ok := d.KEK(s.keks[i].ID); ok != want {
			t.Errorf("KEK %d: found %v", i, ok)
		}
	}
}

func TestServesJoinEUI(t *testing.T) {
	eui := lorawan.EUI64FromUint64
	span := func(first, last uint64) joinery.JoinEUIRange {
		return joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: eui(first), Last: eui(last)}}
	}
	s := &source{ranges: []joinery.JoinEUIRange{span(1<<63, 1<<64-1), span(10, 20), span(21, 21)}}
	d := newDirectory(s, slog.New(slog.DiscardHandler))
	if d.ServesJoinEUI(eui(10)) {
		t.Error("serves before the first reload")
	}
	if err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for v, want := range map[uint64]bool{
		0: false, 9: false, 10: true, 15: true, 20: true, 21: true, 22: false, 1<<63 - 1: false, 1 << 63: true, 1<<64 - 1: true,
	} {
		if d.ServesJoinEUI(eui(v)) != want {
			t.Errorf("%d: %v", v, !want)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	ca := newCA(b, "CA")
	chain := []*x509.Certificate{ca.leaf(b)}
	d, _ := directory(b, peer("peer", byCA(ca)))
	for b.Loop() {
		if _, err := d.Resolve(chain, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
