package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
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

// A join of which nobody knows whether it is on disk is found, though somebody
// forgot this server meanwhile and its mark with it.
func TestFindsItsOwnWithoutAMark(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	ctx := t.Context()
	if err := d.BeginFeed(ctx); err != nil {
		t.Fatal(err)
	}
	c := storetest.NextCommit(states[0])
	if err := d.CommitActivation(ctx, c); err != nil {
		t.Fatal(err)
	}
	d.sequence.joins = nil // as if the commit had failed
	d.sequence.look = d.sequence.turns + 1
	d.sequence.marks = []floor{{c.Activation.ID + 1, now(), 0}} // marks in memory have risen while nothing could be written
	if err := d.do(ctx, func(t *tx) error { return t.exec("DELETE FROM event_source WHERE server = ?", d.epoch) }); err != nil {
		t.Fatal(err)
	}
	if more, err := d.Sequence(ctx, false); err != nil || !more {
		t.Errorf("it named something: %v, %v", more, err)
	}
	p, err := d.Events(ctx, joinery.EventQuery{Limit: 10, Wants: func(t joinery.EventType) bool { return t == joinery.EventDeviceJoined }})
	if err != nil || len(p.Events) != 1 || p.Events[0].Join.ID != c.Activation.ID {
		t.Errorf("%d joins are in the feed, %v", len(p.Events), err)
	}
	if list, err := d.sources(ctx, "server = ?"); err != nil || len(list) != 1 {
		t.Errorf("this server is %d sources, %v", len(list), err)
	}
}
