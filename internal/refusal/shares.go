package refusal

import (
	"slices"

	"joinery"
	"joinery/lorawan"
)

// counted is a count of what is alike. C is the type itself.
type counted[C any] interface {
	// With is the count and a later one of the same in one.
	With(later C) C
}

// shares is counts of what is alike, of which each party, such as a peer, has a
// share, so that none crowds out another.
type shares[P, K comparable, C counted[C]] struct {
	party func(*C) P
	alike func(*C) K
	// most bounds all rows, each those of one party. Over it, the party's oldest
	// row gives way if newest is set; else the new one is refused.
	most, each int
	newest     bool

	rows  map[K]*C
	of    map[P][]K // the oldest first
	turns []P       // who has rows, in the order in which take asks them
}

// ofPeers is shares of peers in refused requests.
type ofPeers = shares[joinery.PeerID, rowKey, joinery.RefusalCount]

// rowKey is what the refusals of one count have in common; members that make no
// difference are zero.
type rowKey struct {
	peer            joinery.PeerID
	reason          joinery.RefusalReason
	device          joinery.DeviceID
	owner           joinery.OrgID
	joinEUI, devEUI lorawan.EUI64
}

func newShares[P, K comparable, C counted[C]](party func(*C) P, alike func(*C) K, most, each int) shares[P, K, C] {
	return shares[P, K, C]{party: party, alike: alike, most: most, each: each, rows: map[K]*C{}, of: map[P][]K{}}
}

func (s *shares[P, K, C]) len() int { return len(s.rows) }

// add adds c, which came last, and tells whether nothing was lost by that.
func (s *shares[P, K, C]) add(c C) bool {
	key, party := s.alike(&c), s.party(&c)
	if old := s.rows[key]; old != nil {
		*old = (*old).With(c)
		return true
	}
	room, kept := s.makeRoom(party)
	if !room && s.newest && len(s.of[party]) > 0 {
		s.pop(party)
		room, kept = true, false
	}
	if !room {
		return false
	}
	s.insert(key, c, len(s.of[party]))
	return kept
}

// giveBack adds c, which came before all that is here, and tells whether nothing
// was lost by that.
func (s *shares[P, K, C]) giveBack(c C) bool {
	key := s.alike(&c)
	if later := s.rows[key]; later != nil {
		*later = c.With(*later)
		return true
	}
	room, kept := s.makeRoom(s.party(&c))
	if room {
		s.insert(key, c, 0)
	}
	return room && kept
}

// makeRoom tells whether there is room for one row more of a party. Where all is
// full, a party that has less than its part of all gets room from the one that
// has most, whose oldest row is not kept.
func (s *shares[P, K, C]) makeRoom(party P) (room, kept bool) {
	mine := len(s.of[party])
	switch {
	case mine >= s.each:
		return false, false
	case len(s.rows) < s.most:
		return true, true
	}
	parties := len(s.of)
	if mine == 0 {
		parties++
	}
	if mine >= s.most/parties {
		return false, false
	}
	var largest P
	for p, keys := range s.of {
		if len(keys) > len(s.of[largest]) {
			largest = p
		}
	}
	s.pop(largest)
	return true, false
}

func (s *shares[P, K, C]) insert(key K, c C, place int) {
	party := s.party(&c)
	keys := s.of[party]
	if len(keys) == 0 {
		s.turns = append(s.turns, party)
	}
	s.of[party] = slices.Insert(keys, place, key)
	s.rows[key] = &c
}

// pop takes out the oldest row of a party that has one.
func (s *shares[P, K, C]) pop(party P) C {
	key := s.of[party][0]
	if s.of[party] = s.of[party][1:]; len(s.of[party]) == 0 {
		delete(s.of, party)
		s.turns = slices.DeleteFunc(s.turns, func(p P) bool { return p == party })
	}
	c := s.rows[key]
	delete(s.rows, key)
	return *c
}

// turn is how many rows of one party are taken before the next has its turn. The
// store looks at the bounds of each peer that a batch is of.
const turn = 8

// take appends up to n rows to list, the parties' oldest by turns.
func (s *shares[P, K, C]) take(n int, list []C) []C {
	for n > 0 && len(s.turns) > 0 {
		party := s.turns[0]
		if len(s.turns) > 1 {
			s.turns = append(s.turns[1:], party)
		}
		for range min(n, turn, len(s.of[party])) {
			list = append(list, s.pop(party))
			n--
		}
	}
	return list
}
