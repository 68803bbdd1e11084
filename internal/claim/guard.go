package claim

import (
	"context"
	"time"

	"joinery"
	"joinery/lorawan"
)

// guard counts wrong owner tokens within a window: of one caller for a DevEUI,
// of one caller, and for a DevEUI by all callers. It judges in memory. Failures
// are on disk, too, before they are answered, so that a restart forgets none.
type guard struct {
	window  time.Duration
	tries   *failures[try]
	callers *failures[string]
	devices *failures[lorawan.EUI64]
}

// try is one caller's claims of a DevEUI, under whatever JoinEUI: without one, a
// claim tries them all.
type try struct {
	devEUI lorawan.EUI64
	who    string
}

// Bounds of the memory of failures. A caller can fill one of the first
// two for each of its own failures.
const (
	maxTries   = 1 << 16
	maxDevices = 1 << 16
	maxCallers = 1 << 14
)

func newGuard(opt Options) *guard {
	window := orDefault(opt.Window, 15*time.Minute)
	return &guard{
		window:  window,
		tries:   newFailures[try](window, orDefault(opt.PerDevice, 5), maxTries),
		callers: newFailures[string](window, orDefault(opt.PerCaller, 100), maxCallers),
		devices: newFailures[lorawan.EUI64](window, orDefault(opt.PerDeviceOfAll, 100), maxDevices),
	}
}

// whoIs names a caller for the counts: its organisation, with however many keys.
func whoIs(caller joinery.Caller) string {
	if caller.Org != 0 {
		return caller.Org.String()
	}
	return caller.Name
}

// reserve counts a failure, and gives what takes it back.
func (g *guard) reserve(devEUI lorawan.EUI64, who string, now time.Time) (forgive func(), err error) {
	forgiveTry, again := g.tries.reserve(try{devEUI, who}, now)
	if again > 0 {
		return nil, tooMany("of this device by this caller", again)
	}
	forgiveCaller, again := g.callers.reserve(who, now)
	if again > 0 {
		forgiveTry()
		return nil, tooMany("by this caller", again)
	}
	forgiveDevice, again := g.devices.reserve(devEUI, now)
	if again > 0 {
		forgiveTry()
		forgiveCaller()
		return nil, tooMany("of this device", again)
	}
	return func() { forgiveTry(); forgiveCaller(); forgiveDevice() }, nil
}

func tooMany(whose string, again time.Duration) error {
	err := joinery.Errorf(joinery.CodeRateLimited, "too many failed claims %s; try again in %d minutes", whose, (again+time.Minute-1)/time.Minute)
	return joinery.Later(err, again)
}

// Recall counts the failures that are on disk, from before a restart. Of several
// servers on one database each counts for itself after that.
func (s *Service) Recall(ctx context.Context) error { return s.guard.recall(ctx, s.store, s.now()) }

func (g *guard) recall(ctx context.Context, store Failures, now time.Time) error {
	past, err := store.ClaimFailures(ctx, now.Add(-g.window), maxTries)
	if err != nil {
		return err
	}
	for _, f := range past {
		for range f.Count {
			// What is over a limit by now is limited already.
			_, _ = g.reserve(f.DevEUI, f.Caller, f.At)
		}
	}
	return nil
}
