package secret

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// ErrClosed says that a Memory was closed.
var ErrClosed = errors.New("secret: the memory for keys was closed")

// Protection says how well a Memory keeps keys from leaving the process by
// other ways than its own code. The order is from weak to strong.
type Protection uint8

// Protections.
const (
	// Plain: ordinary memory; the platform offers nothing, or refused it.
	Plain Protection = iota
	// Undumped: outside of core dumps and gone after a fork, but it may be
	// swapped out: the limit of locked memory (RLIMIT_MEMLOCK) is too low.
	Undumped
	// Locked: Undumped, and never swapped out.
	Locked
	// Hidden: Locked, and not in the kernel's own map of memory: neither a
	// debugger nor /proc/PID/mem can read it (memfd_secret).
	Hidden
)

// String says it for people.
func (p Protection) String() string {
	switch p {
	case Hidden:
		return "locked, outside of core dumps, hidden from the kernel (memfd_secret)"
	case Locked:
		return "locked, outside of core dumps"
	case Undumped:
		return "outside of core dumps, not locked (raise RLIMIT_MEMLOCK)"
	default:
		return "ordinary memory"
	}
}

// Sizes of slots: powers of two from smallestSlot to largestSlot, cut from
// regions of regionSize bytes.
const (
	smallestSlot = 32
	largestSlot  = 4096
	regionSize   = 64 << 10
)

// MaxKeyLen is the length of the longest key that a Memory takes, in bytes: the
// private key of RSA-4096 in PKCS #8 fits.
const MaxKeyLen = largestSlot

// Memory holds keys in pages that are kept out of core dumps and swap as well
// as the platform can (see Protection). It grows as needed and never moves a
// key. Safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	closed  bool
	regions []region
	fresh   []byte           // the part of the newest region that was never used
	free    map[int][][]byte // by size
	holders map[any]func()   // what lives here, and how to wipe it
}

// region is pages from the operating system.
type region struct {
	pages      []byte
	protection Protection
	unmap      func() error
}

// NewMemory gives an empty Memory with its first pages, so that a platform that
// refuses them does so at start.
func NewMemory() (*Memory, error) {
	m := &Memory{free: map[int][][]byte{}, holders: map[any]func(){}}
	if err := m.grow(); err != nil {
		return nil, err
	}
	return m, nil
}

// Format implements fmt.Formatter, so that no verb prints what is in m.
func (m *Memory) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// Protection gives the weakest protection of all pages in use.
func (m *Memory) Protection() Protection {
	m.mu.Lock()
	defer m.mu.Unlock()
	weakest := Hidden
	for _, r := range m.regions {
		weakest = min(weakest, r.protection)
	}
	return weakest
}

// Len is how many keys live in m, and whatever else does.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.holders)
}

// Key moves key into m: the bytes given are cleared, also on failure.
func (m *Memory) Key(key []byte) (Key, error) {
	defer clear(key)
	return m.newKey(len(key), func(slot []byte) { copy(slot, key) })
}

// RandomKey draws a key of n bytes.
func (m *Memory) RandomKey(n int) (Key, error) {
	return m.newKey(n, func(slot []byte) { rand.Read(slot) }) // never fails
}

func (m *Memory) newKey(n int, fill func([]byte)) (Key, error) {
	if n < 1 || n > MaxKeyLen {
		return Key{}, fmt.Errorf("secret: a key has 1 to %d bytes, not %d", MaxKeyLen, n)
	}
	s := &keyState{home: m}
	err := m.place(s, Key{s}.Wipe, n, func(slot []byte) {
		s.held = &heldKey{bytes: slot[:n:n], slot: slot}
		fill(s.held.bytes)
	})
	if err != nil {
		return Key{}, err
	}
	return Key{s}, nil
}

// Close wipes every key, waiting for their users, and gives the pages back.
func (m *Memory) Close() error {
	m.mu.Lock()
	m.closed = true
	var wipes []func()
	for _, wipe := range m.holders {
		wipes = append(wipes, wipe)
	}
	m.mu.Unlock()
	for _, wipe := range wipes {
		wipe() // calls release, which takes the lock
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, r := range m.regions {
		clear(r.pages)
		errs = append(errs, r.unmap())
	}
	m.regions, m.fresh, m.free = nil, nil, nil
	return errors.Join(errs...)
}

// place takes a slot of at least size bytes (none for 0), lets fill use it, and
// remembers that holder lives there. All of it happens before Close or after.
func (m *Memory) place(holder any, wipe func(), size int, fill func(slot []byte)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	var slot []byte
	if size > 0 {
		var err error
		if slot, err = m.slot(size); err != nil {
			return err
		}
	}
	fill(slot)
	m.holders[holder] = wipe
	return nil
}

// slot finds cleared memory of at least size bytes, aligned for any plain data.
func (m *Memory) slot(size int) ([]byte, error) {
	if size > largestSlot {
		return nil, fmt.Errorf("secret: no slot of %d bytes", size)
	}
	size = max(smallestSlot, 1<<bits.Len(uint(size-1)))
	if free := m.free[size]; len(free) > 0 {
		m.free[size] = free[:len(free)-1]
		return free[len(free)-1], nil
	}
	if len(m.fresh) < size {
		if err := m.grow(); err != nil {
			return nil, err
		}
	}
	slot := m.fresh[:size:size]
	m.fresh = m.fresh[size:]
	return slot, nil
}

// grow adds a region. What is left of the last one stays unused: less than the
// largest slot.
func (m *Memory) grow() error {
	r, err := newRegion(regionSize)
	if err != nil {
		return fmt.Errorf("secret: no memory for keys: %w", err)
	}
	m.regions = append(m.regions, r)
	m.fresh = r.pages
	return nil
}

// release clears the slot of a holder and takes it back.
func (m *Memory) release(holder any, slot []byte) {
	clear(slot)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.holders, holder)
	if len(slot) > 0 && m.free != nil {
		m.free[len(slot)] = append(m.free[len(slot)], slot)
	}
}
