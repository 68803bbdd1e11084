package api

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joinery"
)

func (s *slots) mustEnter(t *testing.T, org joinery.OrgID) *slot {
	t.Helper()
	began := time.Now()
	w, err := s.enter(t.Context(), org)
	if err != nil || time.Since(began) != 0 {
		t.Fatalf("no slot at once: %v", err)
	}
	return w
}

// One organisation has no more than its part, whatever it does with that, and waits,
// until some of its own are through, the request ends, or importWait is over.
func TestSlotsOfOneOrganisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		var own []*slot
		for range importsOfOrg {
			own = append(own, s.mustEnter(t, 1))
		}
		began := time.Now()
		_, err := s.enter(t.Context(), 1)
		if joinery.CodeOf(err) != joinery.CodeRateLimited || time.Since(began) != importWait {
			t.Errorf("without room: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.enter(ctx, 1); joinery.CodeOf(err) != joinery.CodeRateLimited {
			t.Errorf("a request that ended: %v", err)
		}
		for range importsOfOrg {
			s.mustEnter(t, 2)
		}
		go func() {
			time.Sleep(time.Second)
			own[0].leave()
		}()
		began = time.Now()
		if _, err := s.enter(t.Context(), 1); err != nil || time.Since(began) != time.Second {
			t.Errorf("with room after a second: %v after %v", err, time.Since(began))
		}
	})
}

// What becomes free goes to the organisation that has the least, however many requests
// of others waited before.
func TestSlotsAreSharedFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		var busy []*slot
		for n := range importsAtOnce {
			busy = append(busy, s.mustEnter(t, joinery.OrgID(1+n/importsOfOrg)))
		}
		var mu sync.Mutex
		var order []joinery.OrgID
		var wait sync.WaitGroup
		for _, org := range []joinery.OrgID{3, 3, 7, 7, 8} { // 3 has two slots already
			wait.Go(func() {
				_, err := s.enter(t.Context(), org)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					order = append(order, org)
				} else if org != 3 || joinery.CodeOf(err) != joinery.CodeRateLimited {
					t.Errorf("%d: %v", org, err)
				}
			})
			synctest.Wait()
		}
		for k := range 5 {
			busy[k].leave()
			synctest.Wait()
		}
		wait.Wait()
		if want := []joinery.OrgID{7, 8, 7, 3}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v: who has three gets no fourth", order, want)
		}
	})
}

// Who has nothing waits for a slot until all that were uploaded are through, and is
// told so where that takes too long.
func TestSlotsOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		for n := range importsAtOnce {
			s.mustEnter(t, joinery.OrgID(n+1))
		}
		if _, err := s.enter(t.Context(), 99); joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Error(err)
		}
	})
}

// A parked request leaves its slot to others, of its organisation too, as long as that
// has not too many in memory.
func TestParkedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		var parked []*slot
		for range importsHeld {
			w := s.mustEnter(t, 1)
			w.park()
			w.park() // twice is once
			parked = append(parked, w)
		}
		if _, err := s.enter(t.Context(), 1); joinery.CodeOf(err) != joinery.CodeRateLimited {
			t.Errorf("more in memory than it may have: %v", err)
		}
		for n := range importsAtOnce {
			s.mustEnter(t, joinery.OrgID(n+2)).leave()
		}
		parked[0].leave()
		s.mustEnter(t, 1).leave()
		for _, w := range parked[1:] {
			w.leave()
		}
		if s.active != 0 || len(s.orgs) != 0 || len(s.queue) != 0 {
			t.Errorf("left behind: %+v", &s)
		}
	})
}
