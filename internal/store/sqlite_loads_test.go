package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"joinery"
)

// Whoever asks for the state of a device gets it, or hears why not: more at once
// than one reader takes, callers that leave, and a database that is closed.
func TestEveryLoadEnds(t *testing.T) {
	const devices = 5
	d, states := withDevices(t, newOptions(t), devices)
	begun, rest := make(chan struct{}, 1), make(chan struct{})
	var asking sync.WaitGroup
	for n := range 3 * loadsAtOnce {
		asking.Go(func() {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if n%3 == 0 {
					cancel()
				}
				want := states[n%devices].Device
				s, err := d.LoadActivation(ctx, want.JoinEUI, want.DevEUI)
				cancel()
				switch {
				case err == nil && s.Device.ID != want.ID:
					t.Errorf("asked for device %s, got %s", want.ID, s.Device.ID)
				case err == nil:
					select {
					case begun <- struct{}{}:
					default:
					}
				case n%3 == 0 && errors.Is(err, context.Canceled):
				case joinery.CodeOf(err) == joinery.CodeUnavailable: // closed
				default:
					t.Errorf("%v", err)
				}
				select {
				case <-rest:
					return
				default:
				}
			}
		})
	}
	<-begun
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	close(rest)
	asking.Wait()
	if _, err := d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(0)); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("of a closed database: %v", err)
	}
}
