package keyring

import (
	"bytes"
	"context"
	"sync"

	"joinery"
)

// maxOpenKEKs bounds how many peers' KEKs stay open: a key schedule of 512 bytes
// each in the soft backend, a session object in a hardware token.
const maxOpenKEKs = 1024

// kekCache keeps peers' KEKs open, so that a join does not open two each time.
// The zero value is empty and ready.
type kekCache struct {
	mu   sync.Mutex
	open map[joinery.KEKID]*openKEK
}

// openKEK is an open KEK and what it was opened from: only exactly the same row
// finds it again.
type openKEK struct {
	cache   *kekCache
	key     WrappingKey
	binding binding
	sealed  joinery.Sealed
	users   int  // guarded by cache.mu
	dropped bool // no longer in the cache: the last user destroys it
}

// openKEK opens kek, or finds it open. The caller releases it.
func (k *Keyring) openKEK(ctx context.Context, kek joinery.KEK) (*openKEK, error) {
	b, err := kekBinding(kek.Peer, kek.Role, kek.Version)
	if err != nil {
		return nil, err
	}
	if found := k.keks.find(kek.ID, b, kek.Sealed); found != nil {
		return found, nil
	}
	blob, err := k.unbind(ctx, b, kek.Sealed)
	if err != nil {
		return nil, err
	}
	key, err := k.token.OpenKEK(ctx, blob)
	if err != nil {
		return nil, err
	}
	made := &openKEK{cache: &k.keks, key: key, binding: b, sealed: bytes.Clone(kek.Sealed), users: 1}
	k.keks.put(kek.ID, made)
	return made, nil
}

// find gives the open KEK of that row, with one user more; nil if there is none.
func (c *kekCache) find(id joinery.KEKID, b binding, sealed joinery.Sealed) *openKEK {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.open[id]
	if found == nil || found.binding != b || !bytes.Equal(found.sealed, sealed) {
		return nil
	}
	found.users++
	return found
}

// put keeps made for others, in place of what was kept for id.
func (c *kekCache) put(id joinery.KEKID, made *openKEK) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[joinery.KEKID]*openKEK{}
	}
	c.drop(id)
	if len(c.open) >= maxOpenKEKs {
		for any := range c.open { // in random order
			c.drop(any)
			break
		}
	}
	c.open[id] = made
}

// drop takes a KEK out of the cache; it ends with its last user.
func (c *kekCache) drop(id joinery.KEKID) {
	if old := c.open[id]; old != nil {
		delete(c.open, id)
		old.dropped = true
		if old.users == 0 {
			old.key.Destroy()
		}
	}
}

// release ends one use. A nil openKEK has no users.
func (o *openKEK) release() {
	if o == nil {
		return
	}
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	o.users--
	if o.dropped && o.users == 0 {
		o.key.Destroy()
	}
}

// close makes an end of every KEK. None is in use.
func (c *kekCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.open {
		c.drop(id)
	}
}
