package custodylog

import (
	"context"
	"errors"
	"sync"
	"testing"

	"joinery"
)

// counted is a store that can fail.
type counted struct {
	Records
	mu    sync.Mutex
	calls int
	err   error
}

func (c *counted) Record(ctx context.Context, entries ...joinery.AuditEntry) error {
	c.mu.Lock()
	c.calls++
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.Records.Record(ctx, entries...)
}

// Entries of many callers are all on disk when Record returns, in fewer
// transactions, and whoever's is not gets an error.
func TestRecordedTogether(t *testing.T) {
	w := newWorld(t, Options{})
	store := &counted{Records: w.db}
	r := NewRecorder(store)
	const callers = 100
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if err := r.Record(w.ctx, w.about(joinery.AuditAppSKeyFetched, w.maker, w.devices[0])); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	entries, err := w.db.CustodyEntries(w.ctx, joinery.CustodyQuery{Device: w.devices[0], Limit: 1000})
	w.ok(err)
	if len(entries) != callers || store.calls >= callers {
		t.Errorf("%d entries in %d transactions", len(entries), store.calls)
	}
	store.err = errors.New("disk")
	if err := r.Record(w.ctx, w.entry(joinery.AuditAppSKeyFetched)); err == nil {
		t.Error("an entry that is not written is taken for written")
	}
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	if err := r.Record(ended, w.entry(joinery.AuditAppSKeyFetched)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.publish()
	w.good(w.bundle(operator, w.devices[0], 0), w.trust())
}
