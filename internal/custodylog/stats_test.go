package custodylog

import (
	"testing"
	"time"
)

// The log tells how far it is behind, whoever looks after it.
func TestStats(t *testing.T) {
	w := newWorld(t, Options{})
	look := func() Stats {
		t.Helper()
		s, err := w.Stats(w.ctx)
		w.ok(err)
		return s
	}
	if s := look(); s.Size != 0 || s.Waiting.IsZero() || !s.PublishedAt.IsZero() || len(s.Missed) > 0 {
		t.Errorf("before the first round: %+v", s)
	}
	w.publish()
	published := look()
	if published.Size == 0 || published.Published != published.Size || !published.Waiting.IsZero() || published.PublishedAt.IsZero() {
		t.Errorf("nothing waits: %+v", published)
	}
	w.suspend(w.devices[0]) // its time is long ago
	if s := look(); !s.Waiting.Equal(epoch) {
		t.Errorf("an audit row waits: %+v", s)
	}
	w.publish()
	w.join(w.devices[0])
	before := time.Now().Add(-time.Minute)
	_, err := w.db.Sequence(w.ctx, false)
	w.ok(err)
	if s := look(); s.Waiting.Before(before) {
		t.Errorf("a join waits: %+v", s)
	}
	w.ok(w.CatchUp(w.ctx))
	if s := look(); s.Size != s.Published+1 || !s.Waiting.IsZero() || s.Failed != 0 {
		t.Errorf("the tree is not signed yet: %+v", s)
	}
}
