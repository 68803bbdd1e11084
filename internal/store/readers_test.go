package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Listings that take every reader of theirs keep no join waiting.
func TestListingsStarveNoJoin(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	leave := make(chan struct{})
	var entered, left sync.WaitGroup
	for range cap(inFile(d).readers.free) {
		entered.Add(1)
		left.Go(func() {
			_ = d.read(context.Background(), func(conn) error { entered.Done(); <-leave; return nil })
		})
	}
	entered.Wait()
	defer left.Wait()
	defer close(leave)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := d.LoadActivation(ctx, testJoinEUI, testDevEUI(0)); err != nil {
		t.Errorf("LoadActivation: %v", err)
	}
	if _, err := d.Activation(ctx, joinery.NewActivationID()); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("Activation: %v", err)
	}
	if _, err := d.RoamingAllowed(ctx, states[0].Device.Ownership.Org, states[0].Device.ID, lorawan.NetID{}); err != nil {
		t.Errorf("RoamingAllowed: %v", err)
	}
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if _, err := d.Device(short, states[0].Device.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a listing beside them: %v", err)
	}
}

// endless is a statement that takes longer than any test.
const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

// A read whose caller is gone ends, and its connection is as good as before.
func TestReadIsInterrupted(t *testing.T) {
	d, states := withDevices(t, newOptions(t), 1)
	for name, read := range map[string]func(context.Context, func(conn) error) error{"read": d.read, "snapshot": d.snapshot} {
		t.Run(name, func(t *testing.T) {
			for range cap(inFile(d).readers.free) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				err := read(ctx, func(c conn) error { _, err := c.integer(endless); return err })
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v", err)
				}
			}
			// Each connection sees what is written from now on.
			now := reload(t, d, 0)
			err := d.SetSuspended(t.Context(), now.Device.ID, now.Device.Ownership.Org, !now.Device.Suspended, joinery.AuditEntry{At: testTime})
			if err != nil {
				t.Fatal(err)
			}
			for range cap(inFile(d).readers.free) {
				s, err := d.Device(t.Context(), states[0].Device.ID)
				if err != nil || s.Device.Suspended == now.Device.Suspended {
					t.Errorf("suspended %v, %v", s.Device.Suspended, err)
				}
			}
		})
	}
}
