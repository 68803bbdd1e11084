package service

import (
	"fmt"
	"sync"
	"time"

	"joinery"
)

// began is what elapsed time is counted from: only its monotonic reading matters.
var began = time.Now()

// guard finds steps of the wall clock by a clock that cannot be set. It counts
// from when the wall clock was believed last, so that many small steps are found
// like one. It is safe for concurrent use.
type guard struct {
	wall    func() time.Time
	elapsed func() time.Duration

	mu        sync.Mutex
	wallAt    time.Time
	elapsedAt time.Duration
	why       string // the clock is in doubt; "" for not
}

func newGuard(wall func() time.Time, elapsed func() time.Duration) *guard {
	if elapsed == nil {
		elapsed = func() time.Duration { return time.Since(began) }
	}
	g := &guard{wall: wall, elapsed: elapsed}
	g.believe()
	return g
}

// believe takes the wall clock as right from now on.
func (g *guard) believe() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wallAt, g.elapsedAt, g.why = g.wall().Round(0), g.elapsed(), ""
}

// doubt holds the clock in doubt until it is believed.
func (g *guard) doubt(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = why
}

// look tells why the clock is in doubt, "" for not. It is asked at the moment
// when something is decided by the clock: no step is too late to be found.
func (g *guard) look() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why == "" {
		now := g.wall().Round(0)
		passed := g.elapsed() - g.elapsedAt
		if step := now.Sub(g.wallAt) - passed; step.Abs() > joinery.MaxClockStep {
			g.why = fmt.Sprintf("it went from %s to %s within %s", g.wallAt.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), passed.Round(time.Second))
		}
	}
	return g.why
}
