package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"joinery"
)

// Whoever gives up a turn of the feed while it is written leaves it to the writer,
// which changes nothing of theirs: the error stays, and what was taken is looked for.
// The race detector sees the rest.
func TestSequenceGivenUp(t *testing.T) {
	d := mustOpen(t, newOptions(t))
	if err := d.BeginFeed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 50_000 {
		d.sequence.joins = append(d.sequence.joins, sequenced{joinery.ActivationID(i + 1), 1})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	more, err := d.Sequence(ctx, true)
	if err == nil {
		t.Skip("the turn was over before it was given up")
	}
	if more || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", more, err)
	}
	d.sequence.mu.Lock()
	defer d.sequence.mu.Unlock()
	if d.sequence.look == 0 {
		t.Error("what was taken is not looked for")
	}
}
