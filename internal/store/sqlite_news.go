package store

import (
	"sync"
	"time"

	"joinery"
	"joinery/lorawan"
)

// news is what joins changed lately. Readers of joins keep one snapshot of the
// database for many loads: to begin one costs locks, and makes SQLite drop
// every page that the reader had in memory, which together is four times what
// the look-up itself costs. What joins have committed since is in here.
//
// Time is cut into generations. A reader whose snapshot is of an older
// generation takes a new one before it reads. A generation ends when
// something else than a join was committed, when news has become long, and at
// a checkpoint; so whoever was told that a change is made can rely on it that
// every load from then on sees it.
type news struct {
	mu         sync.Mutex
	generation uint64 // from 1 on
	// Key sets that moved in this generation, and in the one before, of which
	// snapshots may still be read.
	now, before map[joinery.KeySetID]moved
}

// moved is what a join changes of a key set.
type moved struct {
	version   uint64
	joinNonce lorawan.JoinNonce
	nonces    []byte
	at        time.Time
	service   *joinery.ServiceTerm // that began in this generation
}

// maxNews bounds a generation.
const maxNews = 2048

func newNews() *news {
	return &news{generation: 1, now: map[joinery.KeySetID]moved{}}
}

// current is the generation that a snapshot is of which begins now.
func (n *news) current() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.generation
}

// tell adds the joins of a batch that were committed.
func (n *news) tell(batch []*joinCommit, outcomes []error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, j := range batch {
		if outcomes[i] == nil {
			service := n.now[j.keySet].service
			if j.begin != nil {
				service = &j.begin.Term
			}
			n.now[j.keySet] = moved{j.version + 1, j.joinNonce, j.nonces, j.at, service}
		}
	}
	if len(n.now) >= maxNews {
		n.end()
	}
}

// next ends the generation: snapshots of it are too old from now on.
func (n *news) next() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end()
}

func (n *news) end() {
	n.generation++
	n.before, n.now = n.now, make(map[joinery.KeySetID]moved, len(n.now))
}

// update brings what was read from a snapshot up to date. ok is false where the
// snapshot is too old for that.
//
// Only joins of the snapshot's own generation are added: later ones may stand on
// something else that was changed, of which the snapshot knows nothing. With
// their version the old owner's binding would pass for the new one's. Without
// it, the commit of what was read loses its swap, and is done again.
func (n *news) update(s *joinery.ActivationState, snapshot uint64) (ok bool, err error) {
	n.mu.Lock()
	var m moved
	var found bool
	switch n.generation {
	case snapshot:
		m, found = n.now[s.KeySet.ID]
		ok = true
	case snapshot + 1:
		m, found = n.before[s.KeySet.ID]
		ok = true
	}
	n.mu.Unlock()
	if !found || m.version <= s.KeySet.Version {
		return ok, nil
	}
	s.KeySet.Version, s.Device.LastJoinAt = m.version, m.at
	if m.service != nil {
		s.Device.Service = *m.service
	}
	s.KeySet.Nonces, err = joinery.DecodeNonces(m.joinNonce, m.nonces)
	return ok, err
}
