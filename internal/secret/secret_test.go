package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func newMemory(t testing.TB) *Memory {
	t.Helper()
	m, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func newKey(t testing.TB, m *Memory, b []byte) Key {
	t.Helper()
	k, err := m.Key(bytes.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyIsMovedUsedAndWiped(t *testing.T) {
	m := newMemory(t)
	want := randomBytes(32)
	given := bytes.Clone(want)
	k, err := m.Key(given)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(given, make([]byte, 32)) {
		t.Error("the bytes given were not cleared")
	}
	var slot []byte
	if err := k.Use(func(b []byte) error {
		if !bytes.Equal(b, want) {
			t.Error("another key")
		}
		slot = b
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failed")
	if err := k.Use(func([]byte) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Use hides the callback's error: %v", err)
	}

	k.Wipe()
	k.Wipe()
	if !bytes.Equal(slot, make([]byte, 32)) {
		t.Error("wiped, and the bytes are still there")
	}
	if err := k.Use(func([]byte) error { return nil }); !errors.Is(err, ErrWiped) {
		t.Errorf("use of a wiped key: %v", err)
	}
	if err := (Key{}).Use(nil); !errors.Is(err, ErrWiped) {
		t.Errorf("use of no key: %v", err)
	}
	Key{}.Wipe()
}

func TestKeyLengths(t *testing.T) {
	m := newMemory(t)
	for _, n := range []int{0, MaxKeyLen + 1} {
		b := randomBytes(n)
		if _, err := m.Key(b); err == nil {
			t.Errorf("took a key of %d bytes", n)
		}
		if !bytes.Equal(b, make([]byte, n)) {
			t.Errorf("a refused key of %d bytes was not cleared", n)
		}
	}
	for _, n := range []int{1, 16, 31, 32, 33, 511, 512, 513, MaxKeyLen} {
		want := randomBytes(n)
		err := newKey(t, m, want).Use(func(b []byte) error {
			if !bytes.Equal(b, want) {
				t.Errorf("%d bytes came back changed", n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestEqual(t *testing.T) {
	m := newMemory(t)
	b := randomBytes(16)
	k := newKey(t, m, b)
	other := bytes.Clone(b)
	other[15] ^= 1
	for _, c := range []struct {
		name string
		with Key
		want bool
	}{
		{"itself", k, true},
		{"same bytes", newKey(t, m, b), true},
		{"one bit", newKey(t, m, other), false},
		{"longer", newKey(t, m, append(bytes.Clone(b), 0)), false},
		{"none", Key{}, false},
	} {
		if got := k.Equal(c.with); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := c.with.Equal(k); got != c.want {
			t.Errorf("%s, turned round: %v", c.name, got)
		}
	}
	k.Wipe()
	if k.Equal(k) {
		t.Error("a wiped key equals itself")
	}
}

func TestRandomKeysDiffer(t *testing.T) {
	m := newMemory(t)
	a, err := m.RandomKey(32)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.RandomKey(32)
	if err != nil {
		t.Fatal(err)
	}
	if a.Equal(b) || a.Equal(newKey(t, m, make([]byte, 32))) {
		t.Error("random keys are not random")
	}
}

func TestCipherComputesAESAndIsWiped(t *testing.T) {
	m := newMemory(t)
	for _, n := range []int{16, 24, 32} {
		key, in := randomBytes(n), randomBytes(16)
		c, err := m.Cipher(key)
		if err != nil {
			t.Fatal(err)
		}
		reference, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		want, got, back := make([]byte, 16), make([]byte, 16), make([]byte, 16)
		reference.Encrypt(want, in)
		if err := c.Use(func(b cipher.Block) error {
			b.Encrypt(got, in)
			b.Decrypt(back, got)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || !bytes.Equal(back, in) {
			t.Errorf("AES-%d computes something else", 8*n)
		}
		slot := c.s.held.slot
		if !bytes.Contains(slot, key) {
			t.Errorf("AES-%d: the expanded key does not lie in the Memory", 8*n)
		}
		c.Wipe()
		c.Wipe()
		if !bytes.Equal(slot, make([]byte, len(slot))) {
			t.Errorf("AES-%d: wiped, and the expanded key is still there", 8*n)
		}
		if err := c.Use(func(cipher.Block) error { return nil }); !errors.Is(err, ErrWiped) {
			t.Errorf("use of a wiped cipher: %v", err)
		}
	}
	if _, err := m.Cipher(randomBytes(17)); err == nil {
		t.Error("took an AES key of 17 bytes")
	}
}

func TestWipeBlock(t *testing.T) {
	key := randomBytes(16)
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprintf("%#v", b), "enc") {
		t.Fatal("this test no longer sees into crypto/aes")
	}
	before := fmt.Sprintf("%v", b)
	WipeBlock(b)
	after := fmt.Sprintf("%v", b)
	if before == after || strings.Trim(after, "&{}[] 0") != "" {
		t.Errorf("the expanded key is still there: %s", after)
	}
	WipeBlock(behindPointer{&before}) // no effect, no panic
}

type behindPointer struct{ p *string }

func (behindPointer) BlockSize() int      { return 16 }
func (behindPointer) Encrypt(_, _ []byte) {}
func (behindPointer) Decrypt(_, _ []byte) {}

func TestSlotsAreUsedAgainAndNeverOverlap(t *testing.T) {
	m := newMemory(t)
	keys := map[int]Key{}
	contents := map[int][]byte{}
	for i := range 4000 { // several regions
		b := randomBytes(1 + i%600)
		keys[i], contents[i] = newKey(t, m, b), b
		if i%3 == 0 {
			keys[i/2].Wipe()
			delete(keys, i/2)
		}
	}
	for i, k := range keys {
		if err := k.Use(func(b []byte) error {
			if !bytes.Equal(b, contents[i]) {
				t.Errorf("key %d changed", i)
			}
			return nil
		}); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
	before := len(m.regions)
	for range 10_000 {
		newKey(t, m, []byte{1}).Wipe()
	}
	if len(m.regions) != before {
		t.Errorf("grew from %d to %d regions by one key at a time", before, len(m.regions))
	}
}

func TestClose(t *testing.T) {
	m, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t, m, randomBytes(16))
	c, err := m.Cipher(randomBytes(16))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Use(nil); !errors.Is(err, ErrWiped) {
		t.Errorf("key after Close: %v", err)
	}
	if err := c.Use(nil); !errors.Is(err, ErrWiped) {
		t.Errorf("cipher after Close: %v", err)
	}
	if _, err := m.RandomKey(16); !errors.Is(err, ErrClosed) {
		t.Errorf("new key after Close: %v", err)
	}
	if _, err := m.Cipher(randomBytes(16)); !errors.Is(err, ErrClosed) {
		t.Errorf("new cipher after Close: %v", err)
	}
	k.Wipe()
	if err := m.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Users, wipes, new keys and Close at once: for the race detector, and no use
// may touch memory that is gone.
func TestConcurrentUse(t *testing.T) {
	m, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	want := randomBytes(16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				k, err := m.Key(bytes.Clone(want))
				if errors.Is(err, ErrClosed) {
					return
				}
				c, err := m.Cipher(want)
				if errors.Is(err, ErrClosed) {
					return
				}
				wg.Go(func() {
					_ = k.Use(func(b []byte) error {
						if !bytes.Equal(b, want) {
							t.Error("key changed under its user")
						}
						return nil
					})
					_ = c.Use(func(b cipher.Block) error { b.Encrypt(make([]byte, 16), want); return nil })
				})
				k.Equal(k)
				k.Wipe()
				c.Wipe()
			}
		})
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestDoCalls(t *testing.T) {
	called := false
	Do(func() { called = true })
	if !called {
		t.Error("Do does not call its function")
	}
}

func BenchmarkCipherUse(b *testing.B) {
	m := newMemory(b)
	c, err := m.Cipher(randomBytes(16))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Use(func(block cipher.Block) error { block.Encrypt(buf, buf); return nil })
	}
}

func BenchmarkNewAndWipeBlock(b *testing.B) {
	key := randomBytes(16)
	b.ReportAllocs()
	for b.Loop() {
		block, err := aes.NewCipher(key)
		if err != nil {
			b.Fatal(err)
		}
		WipeBlock(block)
	}
}
