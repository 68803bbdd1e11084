package events

import (
	"context"
	"slices"
	"sync"

	"joinery"
)

// Requests to receivers at once: of this server, and of one organisation. What
// is under way costs memory and connections, however many webhooks there are;
// and receivers that answer slowly must leave something to those of others.
const (
	allSlots = 128
	orgSlots = 32
)

// slots gives out the right to make one request at a time. Of those who wait,
// the organisation comes first that has the fewest, so that what is slow keeps
// nobody else waiting for long, also where all are taken.
type slots struct {
	mu      sync.Mutex
	free    int
	held    map[joinery.OrgID]int
	waiting []*waiter // who came first is first
}

type waiter struct {
	org   joinery.OrgID
	ready chan struct{}
}

func newSlots() *slots { return &slots{free: allSlots, held: map[joinery.OrgID]int{}} }

// take waits for a slot, or for the end of ctx.
func (s *slots) take(ctx context.Context, org joinery.OrgID) error {
	w := &waiter{org, make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	s.hand()
	s.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	} else {
		s.back(org) // it came meanwhile
	}
	return ctx.Err()
}

// try takes a slot where there is one for nobody else.
func (s *slots) try(org joinery.OrgID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 || s.held[org] >= orgSlots {
		return false
	}
	s.free--
	s.held[org]++
	return true
}

// give gives a slot back.
func (s *slots) give(org joinery.OrgID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back(org)
}

func (s *slots) back(org joinery.OrgID) {
	s.free++
	if s.held[org]--; s.held[org] == 0 {
		delete(s.held, org)
	}
	s.hand()
}

// hand gives what is free to those who wait and may have it. So whoever waits
// while something is free has all that its organisation may have.
func (s *slots) hand() {
	for s.free > 0 {
		best := -1
		for i, w := range s.waiting {
			if n := s.held[w.org]; n < orgSlots && (best < 0 || n < s.held[s.waiting[best].org]) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		w := s.waiting[best]
		s.waiting = slices.Delete(s.waiting, best, best+1)
		s.free--
		s.held[w.org]++
		close(w.ready)
	}
}
