package interop

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// held is the set of connections of a Server.
type held struct {
	mu    sync.Mutex
	conns map[*heldConn]struct{}
}

func (h *held) add(c *heldConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns == nil {
		h.conns = make(map[*heldConn]struct{})
	}
	h.conns[c] = struct{}{}
}

func (h *held) remove(c *heldConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// silent gives the connections on which nothing was under way at a time and
// nothing has been since.
func (h *held) silent(since time.Time) (list []*heldConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if c.quiet.since(since) {
			list = append(list, c)
		}
	}
	return list
}

// quiet is when a connection was last left without a request, in nanoseconds
// since 1970; 0 while its handshake or a request is under way.
type quiet struct{ from atomic.Int64 }

func (q *quiet) since(t time.Time) bool {
	from := q.from.Load()
	return from != 0 && from <= t.UnixNano()
}

// followState is http.Server.ConnState.
func followState(c net.Conn, state http.ConnState) {
	conn, ok := c.(*clientConn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		conn.held.quiet.from.Store(time.Now().UnixNano())
	default:
		conn.held.quiet.from.Store(0)
	}
}

// drainPoll is how often Drain looks.
const drainPoll = 10 * time.Millisecond

// Drain returns when no connection is left, or when ctx ends. Each ends with its
// next answer, or when it has had none to give for as long as idle: handshakes
// under way, and clients that have just finished one, get what they came for.
// Nothing must be accepted any more.
func (s *Server) Drain(ctx context.Context, idle time.Duration) {
	s.Retire(true)
	began := time.Now()
	look := time.NewTicker(drainPoll)
	defer look.Stop()
	for s.held.count() > 0 {
		if now := time.Now(); now.Sub(began) >= idle {
			for _, c := range s.held.silent(now.Add(-idle)) {
				_ = c.secure.Close()
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}
