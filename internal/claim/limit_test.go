package claim

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestFailures(t *testing.T) {
	f := newFailures[string](15*time.Minute, 3, 100)
	start := time.Now()
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	must := func(minutes int, want bool) func() {
		t.Helper()
		forgive, again := f.reserve("k", at(minutes))
		if (again == 0) != want {
			t.Fatalf("minute %d: again after %v", minutes, again)
		}
		return forgive
	}
	must(0, true)
	must(1, true)()
	must(2, true)
	must(3, true)
	must(4, false)
	if _, again := f.reserve("k", at(4)); again != 11*time.Minute {
		t.Errorf("again after %v", again)
	}
	if _, again := f.reserve("other", at(4)); again != 0 {
		t.Error("another key is limited, too")
	}
	must(14, false)
	must(15, true) // the failure of minute 0 ended
	must(16, false)
	must(17, true)
	must(400, true)
	// The clock is set back: what lies ahead does not count.
	must(-1000, true)
}

func TestFailuresForgivenLeaveNothing(t *testing.T) {
	f := newFailures[int](time.Minute, 2, 10)
	forgive, _ := f.reserve(1, time.Now())
	forgive()
	if len(f.seen) != 0 {
		t.Errorf("%d keys kept", len(f.seen))
	}
}

func TestFailuresAtOnce(t *testing.T) {
	f := newFailures[int](time.Hour, 5, 10)
	var wait sync.WaitGroup
	var passed atomic.Int32
	for range 50 {
		wait.Go(func() {
			if _, again := f.reserve(1, time.Now()); again == 0 {
				passed.Add(1)
			}
		})
	}
	wait.Wait()
	if passed.Load() != 5 {
		t.Errorf("%d tries passed a limit of 5", passed.Load())
	}
}

func TestFailuresAreBounded(t *testing.T) {
	const most = 1000
	f := newFailures[string](time.Hour, 5, most)
	now := time.Now()
	for i := range 10 * most {
		if _, again := f.reserve(fmt.Sprint(i), now); again != 0 {
			t.Fatal("limited")
		}
		if len(f.seen) > most {
			t.Fatalf("%d keys", len(f.seen))
		}
	}
	// Ended windows go first.
	later := now.Add(2 * time.Hour)
	f.reserve("a", later)
	f.reserve("b", later)
	for i := range most {
		f.reserve(fmt.Sprint("c", i), later)
	}
	if len(f.seen) > most {
		t.Errorf("%d keys", len(f.seen))
	}
}
