package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"unsafe"
)

// Cipher is a handle of an AES key that is ready for use: its expanded form in
// a Memory. The expanded form contains the key itself, so leaving it on the heap
// would undo what a Memory is for. The zero Cipher is no key. Safe for
// concurrent use.
type Cipher struct{ s *cipherState }

type cipherState struct {
	mu   sync.RWMutex
	held *heldCipher // nil once wiped; a pointer as in keyState
	home *Memory
}

type heldCipher struct {
	block cipher.Block
	slot  []byte // where block lives; nil if it had to stay on the heap
}

// Use calls f with the block cipher; ErrWiped if it is gone. f must not keep it,
// nor wipe c, nor use c again.
func (c Cipher) Use(f func(cipher.Block) error) error {
	if c.s == nil {
		return ErrWiped
	}
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	if c.s.held == nil {
		return ErrWiped
	}
	return f(c.s.held.block)
}

// Wipe overwrites the key, waiting for its users; every later use fails with
// ErrWiped.
func (c Cipher) Wipe() {
	if c.s == nil {
		return
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.held == nil {
		return
	}
	WipeBlock(c.s.held.block)
	c.s.home.release(c.s, c.s.held.slot)
	c.s.held = nil
}

// Format implements fmt.Formatter, so that no verb prints a key.
func (c Cipher) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer without the key.
func (c Cipher) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses.
func (c Cipher) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// WipeBlock overwrites the expanded key of a block cipher made by crypto/aes,
// which clearing the key does not reach. Nothing may use b afterwards. It has
// no effect on an implementation that keeps its key behind pointers.
func WipeBlock(b cipher.Block) {
	if v := reflect.ValueOf(b); v.Type() == aesBlock || isFlat(v.Type()) {
		v.Elem().SetZero()
	}
}

// aesBlock is the type that crypto/aes gives, if it is flat; nil if not.
var aesBlock = func() reflect.Type {
	b, err := aes.NewCipher(make([]byte, 16))
	if t := reflect.TypeOf(b); err == nil && isFlat(t) {
		return t
	}
	return nil
}()

// isFlat tells whether t is a pointer to plain data, so that all there is to it
// lies in one piece.
func isFlat(t reflect.Type) bool { return t.Kind() == reflect.Pointer && isPlain(t.Elem()) }

func isPlain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if !isPlain(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Array:
		return isPlain(t.Elem())
	default:
		return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128 && t.Kind() != reflect.Uintptr
	}
}

// Cipher expands an AES key of 16, 24 or 32 bytes into m. It neither keeps nor
// clears key.
func (m *Memory) Cipher(key []byte) (Cipher, error) {
	made, err := aes.NewCipher(key)
	if err != nil {
		return Cipher{}, fmt.Errorf("secret: an AES key has 16, 24 or 32 bytes, not %d", len(key))
	}
	defer WipeBlock(made)
	s := &cipherState{home: m}
	size, move := 0, func([]byte) { s.held = &heldCipher{block: made} }
	if t := reflect.TypeOf(made); isFlat(t) {
		size = int(t.Elem().Size())
		move = func(slot []byte) { s.held = copyBlock(made, slot) }
	}
	if err := m.place(s, Cipher{s}.Wipe, size, move); err != nil {
		return Cipher{}, err
	}
	return Cipher{s}, nil
}

// copyBlock copies what b points to into slot. The garbage collector never
// looks into slot, which is right: b is plain data.
func copyBlock(b cipher.Block, slot []byte) *heldCipher {
	from := reflect.ValueOf(b)
	to := reflect.NewAt(from.Type().Elem(), unsafe.Pointer(unsafe.SliceData(slot)))
	to.Elem().Set(from.Elem())
	block, ok := to.Interface().(cipher.Block)
	if !ok { // impossible: it is of the type of b
		clear(slot)
		return nil // use fails with ErrWiped
	}
	return &heldCipher{block, slot}
}
