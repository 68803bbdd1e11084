package rekey

import (
	"context"
	"sync"
	"time"

	"joinery"
)

// pinFresh is for how long what is remembered of pinned Join Servers tells who is a
// stranger; another server on the same database may have pinned one meanwhile.
const pinFresh = 2 * time.Second

// pins remembers who is pinned, or that it could not be read.
type pins struct {
	mu   sync.Mutex
	at   time.Time
	read bool
	list []joinery.JoinServer
	err  error
}

// forget has the next one who asks look again.
func (p *pins) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = false
}

// Known gives the pinned Join Servers as they were at most two seconds ago, so that
// any number of strangers cost one look at the database in that time. Who seems to be
// one of them is looked for in Servers.
func (s *Service) Known(ctx context.Context) ([]joinery.JoinServer, error) {
	p := &s.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	now := s.now()
	if age := now.Sub(p.at); p.read && age >= 0 && age < pinFresh {
		return p.list, p.err
	}
	// Nobody's giving up is remembered as the database's.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pinFresh)
	defer cancel()
	p.list, p.err = s.store.JoinServers(ctx)
	p.at, p.read = now, true
	if p.err != nil { // after a look that may have taken as long as it holds
		p.at = s.now()
	}
	return p.list, p.err
}
