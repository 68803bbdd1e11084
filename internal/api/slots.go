package api

import (
	"context"
	"slices"
	"sync"

	"joinery"
)

// slots is the room for large bodies. It is bounded for the server, and for each
// organisation below that, so that slow uploads of one leave room for all others;
// what becomes free goes to who has the least.
//
// A request has a slot while its body is read and checked. A run of rows that then
// merely waits for those before it is parked: it gives the slot up, and counts for its
// organisation alone.
type slots struct {
	mu     sync.Mutex
	active int
	orgs   map[joinery.OrgID]*share
	queue  []*slot // those that wait for room, in the order in which they came
}

// share is what one organisation has.
type share struct {
	active int // slots
	held   int // requests with a slot, and parked ones
}

// slot is one large request.
type slot struct {
	of    *slots
	org   joinery.OrgID
	ready chan struct{} // closed when it has its slot
	given bool          // it has a slot, or had one
	idle  bool          // it has none any more
}

// enter waits for a slot, for importWait at most. Call leave after the request.
func (s *slots) enter(ctx context.Context, org joinery.OrgID) (*slot, error) {
	ctx, cancel := context.WithTimeout(ctx, importWait)
	defer cancel()
	w := &slot{of: s, org: org, ready: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, w)
	s.grant()
	s.mu.Unlock()
	select {
	case <-w.ready:
		return w, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.given {
		return w, nil
	}
	s.queue = slices.DeleteFunc(s.queue, func(other *slot) bool { return other == w })
	if !s.of(org).room() {
		return nil, joinery.Errorf(joinery.CodeRateLimited, "as many large requests of this organisation run as it may have at once; send the same again later")
	}
	return nil, joinery.Errorf(joinery.CodeUnavailable, "as many large requests run as the server takes at once; send the same again later")
}

// of gives the share of an organisation. Take the lock before.
func (s *slots) of(org joinery.OrgID) share {
	if have := s.orgs[org]; have != nil {
		return *have
	}
	return share{}
}

func (h share) room() bool { return h.active < importsOfOrg && h.held < importsHeld }

// grant gives slots away as long as there are some, each to the first of those whose
// organisation has the fewest. Take the lock before.
func (s *slots) grant() {
	for s.active < importsAtOnce {
		best := -1
		for i, w := range s.queue {
			if h := s.of(w.org); h.room() && (best < 0 || h.active < s.of(s.queue[best].org).active) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		w := s.queue[best]
		s.queue = slices.Delete(s.queue, best, best+1)
		if s.orgs == nil {
			s.orgs = map[joinery.OrgID]*share{}
		}
		if s.orgs[w.org] == nil {
			s.orgs[w.org] = &share{}
		}
		s.active++
		s.orgs[w.org].active++
		s.orgs[w.org].held++
		w.given = true
		close(w.ready)
	}
}

// park gives the slot up, for good, while the request goes on.
func (w *slot) park() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.giveUp()
	w.of.grant()
}

// leave ends the request.
func (w *slot) leave() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.giveUp()
	h := w.of.orgs[w.org]
	if h.held--; h.held == 0 {
		delete(w.of.orgs, w.org)
	}
	w.of.grant()
}

func (w *slot) giveUp() {
	if w.idle {
		return
	}
	w.idle = true
	w.of.active--
	w.of.orgs[w.org].active--
}

type slotKey struct{}

// parkSlot parks the large request that ctx belongs to.
func parkSlot(ctx context.Context) {
	if w, ok := ctx.Value(slotKey{}).(*slot); ok {
		w.park()
	}
}
