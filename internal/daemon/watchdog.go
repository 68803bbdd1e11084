package daemon

import (
	"context"
	"os"
	"strconv"
	"time"
)

// feedWatchdog tells the service manager, twice in the time that it allows, that
// this server works; where a restart could help, it does not tell (sd_watchdog_enabled(3)).
func (p *Program) feedWatchdog(ctx context.Context) {
	every := watchdogTime() / 2
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !p.works(ctx) {
			p.log.Error("a part does not answer: the service manager is not told that this server works")
			continue
		}
		if err := notify("WATCHDOG=1"); err != nil {
			p.log.Warn("watchdog", "error", err)
		}
	}
}

// lettingTimeout is how long a hand-over may leave the database with nobody: more
// than all its own bounds together, after which a restart is the only help.
const lettingTimeout = 90 * time.Second

// works tells whether the parts answer that a restart would mend.
func (p *Program) works(ctx context.Context) bool {
	health := p.health.Load()
	if health == nil {
		since := p.letting.Load()
		return since == nil || time.Since(*since) < lettingTimeout
	}
	failed := health.failed(ctx)
	if !exclusive(p.config.Database) {
		delete(failed, checkDatabase) // a database elsewhere is mended there
	}
	if inWorker(p.keys) != nil || sealed(p.keys) {
		delete(failed, checkKeyring) // it has a watch of its own, or an operator has to come
	}
	delete(failed, checkFence) // no restart takes a fence down
	return len(failed) == 0
}

// watchdogTime is how long the service manager waits for a sign of life; zero is
// for ever.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || micros <= 0 {
		return 0
	}
	return time.Duration(micros) * time.Microsecond
}
