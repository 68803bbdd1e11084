package refusal

import (
	"slices"

	"joinery"
	"joinery/lorawan"
)

// shares is counts of what is alike, of which each peer has a share, so that
// none crowds out another.
type shares struct {
	alike func(*joinery.RefusalCount) rowKey
	// most bounds all rows, each those of one peer. Over it, the peer's oldest row
	// gives way if newest is set; else the new one is refused.
	most, each int
	newest     bool

	rows   map[rowKey]*joinery.RefusalCount
	ofPeer map[joinery.PeerID][]rowKey // the oldest first
	turns  []joinery.PeerID            // who has rows, in the order in which take asks them
}

// rowKey is what the refusals of one count have in common; members that make no
// difference are zero.
type rowKey struct {
	peer            joinery.PeerID
	reason          joinery.RefusalReason
	device          joinery.DeviceID
	owner           joinery.OrgID
	joinEUI, devEUI lorawan.EUI64
}

func newShares(alike func(*joinery.RefusalCount) rowKey, most, each int) shares {
	return shares{alike: alike, most: most, each: each, rows: map[rowKey]*joinery.RefusalCount{}, ofPeer: map[joinery.PeerID][]rowKey{}}
}

func (s *shares) len() int { return len(s.rows) }

// add adds c, which came last, and tells whether nothing was lost by that.
func (s *shares) add(c joinery.RefusalCount) bool {
	key := s.alike(&c)
	if old := s.rows[key]; old != nil {
		*old = old.With(c)
		return true
	}
	room, kept := s.makeRoom(c.Peer)
	if !room && s.newest && len(s.ofPeer[c.Peer]) > 0 {
		s.pop(c.Peer)
		room, kept = true, false
	}
	if !room {
		return false
	}
	s.insert(key, c, len(s.ofPeer[c.Peer]))
	return kept
}

// giveBack adds c, which came before all that is here, and tells whether nothing
// was lost by that.
func (s *shares) giveBack(c joinery.RefusalCount) bool {
	key := s.alike(&c)
	if later := s.rows[key]; later != nil {
		*later = c.With(*later)
		return true
	}
	room, kept := s.makeRoom(c.Peer)
	if room {
		s.insert(key, c, 0)
	}
	return room && kept
}

// makeRoom tells whether there is room for one row more of a peer. Where all is
// full, a peer that has less than its part of all gets room from the one that
// has most, whose oldest row is not kept.
func (s *shares) makeRoom(peer joinery.PeerID) (room, kept bool) {
	mine := len(s.ofPeer[peer])
	switch {
	case mine >= s.each:
		return false, false
	case len(s.rows) < s.most:
		return true, true
	}
	peers := len(s.ofPeer)
	if mine == 0 {
		peers++
	}
	if mine >= s.most/peers {
		return false, false
	}
	var largest joinery.PeerID
	for p, keys := range s.ofPeer {
		if len(keys) > len(s.ofPeer[largest]) {
			largest = p
		}
	}
	s.pop(largest)
	return true, false
}

func (s *shares) insert(key rowKey, c joinery.RefusalCount, place int) {
	keys := s.ofPeer[c.Peer]
	if len(keys) == 0 {
		s.turns = append(s.turns, c.Peer)
	}
	s.ofPeer[c.Peer] = slices.Insert(keys, place, key)
	s.rows[key] = &c
}

// pop takes out the oldest row of a peer that has one.
func (s *shares) pop(peer joinery.PeerID) joinery.RefusalCount {
	key := s.ofPeer[peer][0]
	if s.ofPeer[peer] = s.ofPeer[peer][1:]; len(s.ofPeer[peer]) == 0 {
		delete(s.ofPeer, peer)
		s.turns = slices.DeleteFunc(s.turns, func(p joinery.PeerID) bool { return p == peer })
	}
	c := s.rows[key]
	delete(s.rows, key)
	return *c
}

// turn is how many rows of one peer are taken before the next peer has its turn.
// The store looks at the bounds of each peer that a batch is of.
const turn = 8

// take appends up to n rows to list, the peers' oldest by turns.
func (s *shares) take(n int, list []joinery.RefusalCount) []joinery.RefusalCount {
	for n > 0 && len(s.turns) > 0 {
		peer := s.turns[0]
		if len(s.turns) > 1 {
			s.turns = append(s.turns[1:], peer)
		}
		for range min(n, turn, len(s.ofPeer[peer])) {
			list = append(list, s.pop(peer))
			n--
		}
	}
	return list
}
