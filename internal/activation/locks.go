package activation

import (
	"context"
	"sync"

	"joinery"
	"joinery/lorawan"
)

// deviceLocks serialises the requests of one device, so that of many copies of
// a request one is served and the others find its result, instead of all
// computing and one winning the swap. The swap in the store is what makes it
// right; this makes it cheap. The zero value is ready.
type deviceLocks struct {
	mu    sync.Mutex
	held  map[deviceKey]*deviceLock
	spare []*deviceLock // nobody's, at most maxSpare
}

const maxSpare = 64

type deviceKey struct{ joinEUI, devEUI lorawan.EUI64 }

type deviceLock struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int           // holders and waiters, under deviceLocks.mu
}

// enter joins those who use the lock of key.
func (l *deviceLocks) enter(key deviceKey) *deviceLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[deviceKey]*deviceLock)
	}
	d := l.held[key]
	if d == nil {
		if n := len(l.spare) - 1; n >= 0 {
			d, l.spare = l.spare[n], l.spare[:n]
		} else {
			d = &deviceLock{free: make(chan struct{}, 1)}
			d.free <- struct{}{}
		}
		l.held[key] = d
	}
	d.users++
	return d
}

func (l *deviceLocks) leave(key deviceKey, d *deviceLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.users--; d.users == 0 {
		delete(l.held, key)
		if len(l.spare) < maxSpare {
			l.spare = append(l.spare, d)
		}
	}
}

// lock takes the lock of a device and returns what releases it. Where somebody
// has it, mayWait decides first whether this caller may queue for it at all:
// otherwise a peer with no business here could keep a device's own network
// waiting. The wait ends with ctx.
func (l *deviceLocks) lock(ctx context.Context, key deviceKey, mayWait func(context.Context) error) (unlock func(), err error) {
	d := l.enter(key)
	unlock = func() {
		d.free <- struct{}{}
		l.leave(key, d)
	}
	select {
	case <-d.free:
		return unlock, nil
	default:
	}
	if err := mayWait(ctx); err != nil {
		l.leave(key, d)
		return nil, err
	}
	select {
	case <-d.free:
		return unlock, nil
	case <-ctx.Done():
		l.leave(key, d)
		return nil, joinery.WrapError(joinery.CodeUnavailable, ctx.Err(), "other requests of this device took too long")
	}
}
