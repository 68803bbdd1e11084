package activation

import (
	"sync"

	"joinery/lorawan"
)

// deviceLocks serialises the requests of one device, so that of many copies of
// a request one is served and the others find its result, instead of all
// computing and one winning the swap. The swap in the store is what makes it
// right; this makes it cheap. The zero value is ready.
type deviceLocks struct {
	mu   sync.Mutex
	held map[deviceKey]*deviceLock
}

type deviceKey struct{ joinEUI, devEUI lorawan.EUI64 }

type deviceLock struct {
	mu    sync.Mutex
	users int // holders and waiters, under deviceLocks.mu
}

// lock waits for the device and returns what releases it.
func (l *deviceLocks) lock(joinEUI, devEUI lorawan.EUI64) (unlock func()) {
	key := deviceKey{joinEUI, devEUI}
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[deviceKey]*deviceLock)
	}
	d := l.held[key]
	if d == nil {
		d = new(deviceLock)
		l.held[key] = d
	}
	d.users++
	l.mu.Unlock()

	d.mu.Lock()
	return func() {
		d.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if d.users--; d.users == 0 {
			delete(l.held, key)
		}
	}
}
