package handover

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Gate is where each request learns who answers it: this server, or another in
// its place. Shut, it keeps requests waiting until that is known.
type Gate struct {
	patience time.Duration

	mu        sync.Mutex
	inside    int
	empty     chan struct{} // while somebody waits for the last to leave
	shut      chan struct{} // not nil while shut; closed when it opens
	elsewhere http.Handler
}

// NewGate makes a gate that is open, for this server. A request waits no longer
// than patience before it.
func NewGate(patience time.Duration) *Gate { return &Gate{patience: patience} }

// Enter gives nil where the request is for this server, and counts it until
// Leave. Otherwise it gives who answers, and nothing is counted. It waits while
// the gate is shut, and fails when that takes too long or ctx ends.
func (g *Gate) Enter(ctx context.Context) (elsewhere http.Handler, err error) {
	elsewhere, shut := g.try()
	if shut == nil {
		return elsewhere, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.patience)
	defer cancel()
	for shut != nil {
		select {
		case <-shut:
			elsewhere, shut = g.try()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return elsewhere, nil
}

// try enters, or gives what to wait for.
func (g *Gate) try() (elsewhere http.Handler, shut <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		return nil, g.shut
	}
	if g.elsewhere == nil {
		g.inside++
	}
	return g.elsewhere, nil
}

// Leave counts a request out that Enter let in.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// Shut keeps new requests waiting and returns when the last one inside has left,
// or with an error when ctx ends first. Open must follow either way. One
// goroutine at a time.
func (g *Gate) Shut(ctx context.Context) error {
	g.mu.Lock()
	g.shut = make(chan struct{})
	g.mu.Unlock()
	return g.Emptied(ctx)
}

// Emptied returns when nobody is inside, or with an error when ctx ends first. It
// is of use where nobody enters any more: the gate is shut, or all are answered
// elsewhere. One goroutine at a time.
func (g *Gate) Emptied(ctx context.Context) error {
	g.mu.Lock()
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	g.empty = empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Open lets all that wait and all that come be answered elsewhere, or here if
// that is nil.
func (g *Gate) Open(elsewhere http.Handler) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.elsewhere, g.empty = elsewhere, nil
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}
