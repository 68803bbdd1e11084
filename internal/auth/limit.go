package auth

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of tries to sign in: of one address, and of all together. What holds a
// secret of 256 bits cannot be guessed; these keep people from keeping the server
// busy, and from trying the short codes of programs.
const (
	perAddress      = 5 // a second, for long
	perAddressBurst = 60
	ofAll           = 50
	ofAllBurst      = 300
	maxAddresses    = 10000
)

// limiter counts tries by address. Behind a proxy on this machine whose word is not
// taken everybody has the same, loopback, for which only the bound of all together
// stands.
type limiter struct {
	now func() time.Time
	all *rate.Limiter

	mu    sync.Mutex
	addrs map[netip.Addr]*rate.Limiter
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, all: rate.NewLimiter(ofAll, ofAllBurst), addrs: map[netip.Addr]*rate.Limiter{}}
}

// allow counts a try, and tells whether it may go on.
func (l *limiter) allow(from netip.Addr) bool {
	now := l.now()
	if from = from.Unmap(); from.IsValid() && !from.IsLoopback() && !l.of(from, now).AllowN(now, 1) {
		return false
	}
	return l.all.AllowN(now, 1)
}

// of gives the bound of an address; in IPv6 of its network, all of which one
// machine may have.
func (l *limiter) of(from netip.Addr, now time.Time) *rate.Limiter {
	if from.Is6() {
		if p, err := from.Prefix(64); err == nil {
			from = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.addrs[from]
	if one == nil {
		l.makeRoom(now)
		one = rate.NewLimiter(perAddress, perAddressBurst)
		l.addrs[from] = one
	}
	return one
}

// makeRoom forgets addresses that have all their tries again, or else any.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.addrs) < maxAddresses {
		return
	}
	for from, one := range l.addrs {
		if one.TokensAt(now) >= perAddressBurst {
			delete(l.addrs, from)
		}
	}
	for from := range l.addrs {
		if len(l.addrs) < maxAddresses {
			return
		}
		delete(l.addrs, from)
	}
}
