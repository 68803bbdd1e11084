package keyring

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"joinery"
)

// countingToken opens KEKs that count how many of them there are.
type countingToken struct {
	Token
	open, opened atomic.Int64
}

func (c *countingToken) OpenKEK(context.Context, []byte) (WrappingKey, error) {
	c.open.Add(1)
	c.opened.Add(1)
	return &countingKEK{token: c}, nil
}

func (c *countingToken) MAC(context.Context, MACKey, []byte) ([32]byte, error) {
	return [32]byte{}, nil
}

func (c *countingToken) Close() error { return nil }

type countingKEK struct {
	WrappingKey
	token *countingToken
	gone  atomic.Bool
}

func (k *countingKEK) Destroy() {
	if k.gone.Swap(true) {
		panic("destroyed twice")
	}
	k.token.open.Add(-1)
}

// row is a KEK as the store gives it; the counting token's MACs are zero.
func row(id int, content byte) joinery.KEK {
	return joinery.KEK{ID: joinery.KEKID(id), Role: joinery.KEKForNS, Label: "x", Version: 1, Sealed: append([]byte{content}, make([]byte, macLen)...)}
}

func use(t *testing.T, k *Keyring, kek joinery.KEK) *openKEK {
	t.Helper()
	o, err := k.openKEK(context.Background(), kek)
	if err != nil {
		t.Fatal(err)
	}
	if o.key.(*countingKEK).gone.Load() {
		t.Error("a destroyed KEK was given")
	}
	return o
}

func TestKEKCacheOpensOnce(t *testing.T) {
	token := &countingToken{}
	k := New(token)
	for range 10 {
		use(t, k, row(1, 1)).release()
	}
	if n := token.opened.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
	// Another row of the same id takes its place; who uses the old one keeps it.
	old := use(t, k, row(1, 1))
	use(t, k, row(1, 2)).release()
	if token.open.Load() != 2 || old.key.(*countingKEK).gone.Load() {
		t.Error("a KEK in use was destroyed")
	}
	old.release()
	if n := token.open.Load(); n != 1 {
		t.Errorf("%d are open after the last use", n)
	}
	for name, change := range map[string]func(*joinery.KEK){
		"version": func(r *joinery.KEK) { r.Version++ },
		"role":    func(r *joinery.KEK) { r.Role = joinery.KEKForAS },
		"content": func(r *joinery.KEK) { r.Sealed = append([]byte(nil), r.Sealed...); r.Sealed[0]++ },
	} {
		before := token.opened.Load()
		base := row(9, 9)
		use(t, k, base).release()
		change(&base)
		use(t, k, base).release()
		if token.opened.Load() != before+2 {
			t.Errorf("another %s found the same open KEK", name)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if n := token.open.Load(); n != 0 {
		t.Errorf("%d are open after Close", n)
	}
}

func TestKEKCacheIsBounded(t *testing.T) {
	token := &countingToken{}
	k := New(token)
	var held []*openKEK
	for i := range 3 * maxOpenKEKs {
		o := use(t, k, row(i+1, 1))
		if i%100 == 0 {
			held = append(held, o)
		} else {
			o.release()
		}
	}
	if n := int(token.open.Load()); n > maxOpenKEKs+len(held) {
		t.Errorf("%d are open", n)
	}
	for _, o := range held {
		if o.key.(*countingKEK).gone.Load() {
			t.Error("a KEK in use was destroyed")
		}
		o.release()
	}
	if n := token.open.Load(); n > maxOpenKEKs {
		t.Errorf("%d are open after the last use", n)
	}
	if err := k.Close(); err != nil || token.open.Load() != 0 {
		t.Errorf("%d are open after Close: %v", token.open.Load(), err)
	}
}

func TestKEKCacheConcurrently(t *testing.T) {
	token := &countingToken{}
	k := New(token)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				o := use(t, k, row(1+(i*7+g)%1100, byte(i%2)))
				if o.key.(*countingKEK).gone.Load() {
					t.Error("a KEK in use was destroyed")
				}
				o.release()
			}
		})
	}
	wg.Wait()
	if err := k.Close(); err != nil || token.open.Load() != 0 {
		t.Errorf("%d are open after Close: %v", token.open.Load(), err)
	}
}
