package provisioning

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"joinery"
)

// A chunk is not kept waiting for ever by others that come, fail and leave.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all turns
		i := joinery.Import{ID: joinery.NewImportID()}
		waiting, err := all.enter(i.ID, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.leave()
		done := make(chan struct{})
		var decoys sync.WaitGroup
		decoys.Go(func() {
			for {
				other, err := all.enter(i.ID, 5)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(patience / 2)
				other.leave()
				select {
				case <-done:
					return
				default:
				}
			}
		})
		begun := time.Now()
		_, err = waiting.wait(t.Context(), func() (joinery.Import, error) {
			if time.Since(begun) > 10*parked {
				i.Next = 10 // or the test would not end
			}
			return i, nil
		})
		waited := time.Since(begun)
		close(done)
		decoys.Wait()
		wantCode(t, err, joinery.CodeConflict)
		if waited != parked {
			t.Errorf("the chunk waited %s", waited)
		}
	})
}
