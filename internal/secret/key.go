package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"unsafe"
)

// ErrWiped says that a key is not there any more: it was wiped, its Memory was
// closed, or there never was one.
var ErrWiped = errors.New("secret: the key was wiped")

// ErrMarshal is what every attempt to turn a key into text or bytes fails with.
var ErrMarshal = errors.New("secret: a key is never marshalled")

// redacted stands for a key wherever one would be printed.
const redacted = "[secret]"

// Key is a handle of key bytes in a Memory. Handles may be copied; all copies
// mean the same key. The zero Key is no key. Safe for concurrent use.
type Key struct{ s *keyState }

// keyState holds the key behind one more pointer: package fmt follows one when
// it complains of a wrong verb, and never two.
type keyState struct {
	mu   sync.RWMutex
	held *heldKey // nil once wiped
	home *Memory
}

type heldKey struct {
	bytes []byte
	slot  []byte // where bytes lie
}

// Use calls f with the bytes of k and returns its error; ErrWiped if there are
// none. f must neither keep nor change them, nor wipe k, nor use k again.
func (k Key) Use(f func(key []byte) error) error {
	if k.s == nil {
		return ErrWiped
	}
	k.s.mu.RLock()
	defer k.s.mu.RUnlock()
	if k.s.held == nil {
		return ErrWiped
	}
	return f(k.s.held.bytes)
}

// Equal compares two keys in a time that depends on their lengths only. A key
// that was wiped equals nothing.
func (k Key) Equal(other Key) bool {
	if k.s == other.s {
		return k.Use(func([]byte) error { return nil }) == nil
	}
	// Always in the same order, so that two comparisons and two wipes cannot
	// wait for each other.
	if uintptr(unsafe.Pointer(k.s)) > uintptr(unsafe.Pointer(other.s)) {
		k, other = other, k
	}
	equal := false
	err := k.Use(func(a []byte) error {
		return other.Use(func(b []byte) error {
			equal = subtle.ConstantTimeCompare(a, b) == 1
			return nil
		})
	})
	return err == nil && equal
}

// Wipe overwrites the key, waiting for its users; every later use fails with
// ErrWiped.
func (k Key) Wipe() {
	if k.s == nil {
		return
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.s.held == nil {
		return
	}
	k.s.home.release(k.s, k.s.held.slot)
	k.s.held = nil
}

// Format implements fmt.Formatter, so that no verb prints a key.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer without the key.
func (k Key) String() string { return redacted }

// GoString implements fmt.GoStringer without the key.
func (k Key) GoString() string { return redacted }

// LogValue implements slog.LogValuer without the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (k Key) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalJSON refuses.
func (k Key) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary refuses, also for encoding/gob.
func (k Key) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }
