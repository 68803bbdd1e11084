package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"joinery"
	"joinery/lorawan"
)

// DirectorySource is what a Directory is read from.
type DirectorySource interface {
	Peers(ctx context.Context) ([]joinery.Peer, error)
	KEKs(ctx context.Context) ([]joinery.KEK, error)
	Ranges(ctx context.Context) ([]joinery.JoinEUIRange, error)
}

// Directory is the peers, KEKs and JoinEUI ranges as they are now, in memory.
// It is safe for concurrent use; readers never wait. What it gives shares its
// memory and must not be changed.
type Directory struct {
	source DirectorySource
	log    *slog.Logger

	current atomic.Pointer[snapshot]
	// doubts counts the reasons to think that what is in memory may lag behind
	// the store. A snapshot answers only those from before it was begun.
	doubts atomic.Uint64
	// asOf is the last time of which current is known to be right; nil where
	// nobody else changes the store.
	asOf atomic.Pointer[time.Time]
	// reloading is held from the read to the swap, so that an older state never
	// replaces a newer one.
	reloading sync.Mutex
}

func newDirectory(source DirectorySource, log *slog.Logger) *Directory {
	d := &Directory{source: source, log: log}
	d.current.Store(&snapshot{})
	return d
}

// Reload reads the store again. Until a failed reload is made good, Resolve
// refuses everybody.
func (d *Directory) Reload(ctx context.Context) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	return d.reload(ctx)
}

func (d *Directory) reload(ctx context.Context) error {
	doubts, began := d.doubts.Load(), time.Now()
	next, err := d.read(ctx)
	if err != nil {
		d.doubt()
		return fmt.Errorf("read peers, KEKs and ranges: %w", err)
	}
	next.generation, next.doubts = d.current.Load().generation+1, doubts
	d.current.Store(next)
	if d.asOf.Load() != nil {
		d.confirm(began)
	}
	return nil
}

// doubt says that what is in memory may lag behind the store.
func (d *Directory) doubt() { d.doubts.Add(1) }

// lease is how long what is in memory may be relied on without being confirmed.
const lease = 2 * time.Second

// confirm says that what is in memory was right at a time. From the first call
// on it must be said again within every lease.
func (d *Directory) confirm(at time.Time) {
	for {
		last := d.asOf.Load()
		if last != nil && !last.Before(at) || d.asOf.CompareAndSwap(last, &at) {
			return
		}
	}
}

// stale tells whether s may lag behind the store.
func (d *Directory) stale(s *snapshot) bool {
	if s.doubts != d.doubts.Load() {
		return true
	}
	at := d.asOf.Load()
	if at == nil {
		return false
	}
	now := time.Now()
	// Without its monotonic reading, too, which stands still in a machine that
	// sleeps.
	return now.Sub(*at) > lease || now.Round(0).Sub(at.Round(0)) > lease
}

// Generation rises with every reload. It is 0 before the first and while what is
// in memory may lag behind the store: then no earlier answer of Resolve may be
// used again.
func (d *Directory) Generation() uint64 {
	s := d.current.Load()
	if d.stale(s) {
		return 0
	}
	return s.generation
}

// Peer finds a peer, suspended or not.
func (d *Directory) Peer(id joinery.PeerID) (joinery.Peer, bool) {
	p, ok := d.current.Load().peers[id]
	return p, ok
}

// PeerByASID finds the peer to which an AS-ID belongs, suspended or not.
func (d *Directory) PeerByASID(asid string) (joinery.Peer, bool) {
	s := d.current.Load()
	id, ok := s.byASID[asid]
	if !ok {
		return joinery.Peer{}, false
	}
	return s.peers[id], true
}

// CurrentKEK is the KEK that wraps for (peer, role) now: the newest version
// that is not retired.
func (d *Directory) CurrentKEK(peer joinery.PeerID, role joinery.KEKRole) (joinery.KEK, bool) {
	k, ok := d.current.Load().wrapping[kekSlot{peer, role}]
	return k, ok
}

// KEK finds a KEK of any version that is not retired and whose peer is there.
func (d *Directory) KEK(id joinery.KEKID) (joinery.KEK, bool) {
	k, ok := d.current.Load().keks[id]
	return k, ok
}

// ServesJoinEUI tells whether some organisation holds joinEUI here.
func (d *Directory) ServesJoinEUI(joinEUI lorawan.EUI64) bool {
	_, ok := findRange(d.current.Load().ranges, joinEUI)
	return ok
}

// findRange looks joinEUI up in ranges sorted by First that do not overlap.
func findRange(ranges []joinery.JoinEUIRange, joinEUI lorawan.EUI64) (joinery.JoinEUIRange, bool) {
	above := sort.Search(len(ranges), func(i int) bool { return ranges[i].First.Uint64() > joinEUI.Uint64() })
	if above == 0 || !ranges[above-1].Contains(joinEUI) {
		return joinery.JoinEUIRange{}, false
	}
	return ranges[above-1], true
}

type kekSlot struct {
	peer joinery.PeerID
	role joinery.KEKRole
}

// snapshot is one state of the directory. All but seen is immutable.
type snapshot struct {
	generation uint64
	doubts     uint64 // Directory.doubts when its reading began
	peers      map[joinery.PeerID]joinery.Peer
	byASID     map[string]joinery.PeerID
	keks       map[joinery.KEKID]joinery.KEK
	wrapping   map[kekSlot]joinery.KEK
	ranges     []joinery.JoinEUIRange
	pins       map[[sha256.Size]byte][]joinery.PeerID
	cas        map[string][]*trustedCA // by RawSubject
	seen       seenChains
}

// trustedCA is a CA certificate by which peers are recognised: by it alone where
// it is dedicated to one, by a subject alternative name as well where it is
// shared.
type trustedCA struct {
	cert  *x509.Certificate
	pool  *x509.CertPool
	peers []namedPeer
}

// namedPeer is a peer under a CA; san is empty where the CA is dedicated to it.
type namedPeer struct {
	peer joinery.PeerID
	san  string
}

func (d *Directory) read(ctx context.Context) (*snapshot, error) {
	peers, err := d.source.Peers(ctx)
	if err != nil {
		return nil, err
	}
	keks, err := d.source.KEKs(ctx)
	if err != nil {
		return nil, err
	}
	ranges, err := d.source.Ranges(ctx)
	if err != nil {
		return nil, err
	}
	s := &snapshot{
		peers:    make(map[joinery.PeerID]joinery.Peer, len(peers)),
		byASID:   make(map[string]joinery.PeerID),
		keks:     make(map[joinery.KEKID]joinery.KEK, len(keks)),
		wrapping: make(map[kekSlot]joinery.KEK),
		pins:     make(map[[sha256.Size]byte][]joinery.PeerID),
		cas:      make(map[string][]*trustedCA),
		ranges:   slices.Clone(ranges),
	}
	slices.SortFunc(s.ranges, func(a, b joinery.JoinEUIRange) int {
		return slices.Compare(a.First[:], b.First[:])
	})
	for _, p := range peers {
		d.addPeer(s, p)
	}
	for _, k := range keks {
		s.addKEK(k)
	}
	return s, nil
}

func (d *Directory) addPeer(s *snapshot, p joinery.Peer) {
	s.peers[p.ID] = p
	for _, asid := range p.ASIDs {
		s.byASID[asid] = p.ID
	}
	for _, c := range p.Credentials {
		if c.Kind == joinery.CredentialSPKI {
			s.pins[c.SPKI] = append(s.pins[c.SPKI], p.ID)
			continue
		}
		cert, err := x509.ParseCertificate(c.CA)
		if err != nil {
			// It parsed when it was added; a newer crypto/x509 may be stricter.
			// This peer is not recognised by it; the others are not held up.
			d.log.Error("the CA certificate of a peer does not parse; the peer is not recognised by it",
				slog.String("peer", p.Name), slog.Any("error", err))
			continue
		}
		ca := s.trust(cert)
		ca.peers = append(ca.peers, namedPeer{p.ID, c.SAN})
	}
}

// trust gives the trustedCA of a certificate, a new one for the first peer.
func (s *snapshot) trust(cert *x509.Certificate) *trustedCA {
	name := string(cert.RawSubject)
	for _, ca := range s.cas[name] {
		if ca.cert.Equal(cert) {
			return ca
		}
	}
	ca := &trustedCA{cert: cert, pool: x509.NewCertPool()}
	ca.pool.AddCert(cert)
	s.cas[name] = append(s.cas[name], ca)
	return ca
}

func (s *snapshot) addKEK(k joinery.KEK) {
	if _, ok := s.peers[k.Peer]; !ok || k.Retired {
		return
	}
	s.keks[k.ID] = k
	if k.Claimed { // wraps for the bindings that name it
		return
	}
	slot := kekSlot{k.Peer, k.Role}
	if k.Version > s.wrapping[slot].Version {
		s.wrapping[slot] = k
	}
}

// staleTimeout bounds how long a request waits for a reload that is overdue.
// What comes of it is younger than a lease.
const staleTimeout = 1500 * time.Millisecond

// fresh gives the current snapshot, after making good a reload that failed or
// is overdue. One request at a time tries that; the others are refused
// meanwhile.
func (d *Directory) fresh() (*snapshot, error) {
	if s := d.current.Load(); !d.stale(s) {
		return s, nil
	}
	const message = "the server cannot read its peers; try again later"
	if !d.reloading.TryLock() {
		return nil, joinery.Errorf(joinery.CodeUnavailable, message)
	}
	defer d.reloading.Unlock()
	if d.stale(d.current.Load()) {
		ctx, cancel := context.WithTimeout(context.Background(), staleTimeout)
		defer cancel()
		if err := d.reload(ctx); err != nil {
			return nil, joinery.WrapError(joinery.CodeUnavailable, err, message)
		}
	}
	return d.current.Load(), nil
}
