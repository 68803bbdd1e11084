package claim

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"joinery/lorawan"
)

// failures counts failures by key over a sliding window. A failure is reserved
// before the try and forgiven after a success, so that tries at once cannot
// pass the limit together. The memory is bounded: where it is full, the keys
// whose window ended are dropped, then any other.
type failures[K comparable] struct {
	window time.Duration
	limit  int
	max    int

	mu   sync.Mutex
	seen map[K][]time.Time // within the window, oldest first, at most limit
}

func newFailures[K comparable](window time.Duration, limit, most int) *failures[K] {
	return &failures[K]{window: window, limit: limit, max: most, seen: make(map[K][]time.Time)}
}

// reserve counts a failure of k at now, and gives what takes it back. If k has
// reached its limit, nothing is counted and again is after how long the oldest
// failure stops counting, else 0.
func (f *failures[K]) reserve(k K, now time.Time) (forgive func(), again time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := f.live(f.seen[k], now)
	if len(times) >= f.limit {
		f.seen[k] = times
		return nil, max(1, f.window-now.Sub(times[0]))
	}
	if _, known := f.seen[k]; !known {
		f.makeRoom(now)
	}
	f.seen[k] = append(times, now)
	return func() { f.forgive(k, now) }, 0
}

func (f *failures[K]) forgive(k K, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := f.seen[k]
	if i := slices.Index(times, at); i >= 0 {
		times = slices.Delete(times, i, i+1)
	}
	if len(times) == 0 {
		delete(f.seen, k)
		return
	}
	f.seen[k] = times
}

// live leaves out what is older than the window, and what lies in the future
// after the clock was set back: a limit must end by itself.
func (f *failures[K]) live(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) >= f.window || t.After(now) })
}

func (f *failures[K]) makeRoom(now time.Time) {
	if len(f.seen) < f.max {
		return
	}
	for k, times := range f.seen {
		newest := times[len(times)-1]
		if now.Sub(newest) >= f.window || newest.After(now) {
			delete(f.seen, k)
		}
	}
	// More than one at once, so that not every key pays for a search.
	room := f.max - f.max/8 - 1
	for k := range f.seen {
		if len(f.seen) <= room {
			return
		}
		delete(f.seen, k)
	}
}

// turns lets one claim of a DevEUI at a time be judged; devices that share a
// turn wait for each other.
type turns struct {
	seed maphash.Seed
	turn [256]sync.Mutex
}

// take waits for the turn of which and gives what ends it.
func (t *turns) take(which lorawan.EUI64) (end func()) {
	m := &t.turn[maphash.Comparable(t.seed, which)%uint64(len(t.turn))]
	m.Lock()
	return m.Unlock
}
