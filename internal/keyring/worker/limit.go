package worker

import (
	"log/slog"
	"sync"
	"time"
)

// owner is whose keys are counted.
type owner struct {
	kind   byte // of identifier
	master string
	id     uint64
}

// limit counts answers per owner: each may have perMinute at once, and gets that
// many back in a minute.
type limit struct {
	perMinute int
	log       *slog.Logger

	mu      sync.Mutex
	owners  map[owner]*allowance
	swept   time.Time
	refused uint64
}

type allowance struct {
	left float64
	at   time.Time // when that was so
	told time.Time
}

// maxOwners bounds the memory: more devices than a token can serve in a minute.
const maxOwners = 1 << 18

func newLimit(perMinute int, log *slog.Logger) *limit {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &limit{perMinute: perMinute, log: log, owners: map[owner]*allowance{}}
}

// take takes one of o's answers, if there is one left.
func (l *limit) take(o owner, now time.Time) bool {
	if l.perMinute <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(o, now)
	if a == nil {
		l.refused++
		return false
	}
	if a.left < 1 {
		l.refuse(o, a, now)
		return false
	}
	a.left--
	return true
}

// of gives what o has now; nil where more owners than can be told apart are busy.
func (l *limit) of(o owner, now time.Time) *allowance {
	if now.Sub(l.swept) > time.Minute || len(l.owners) >= maxOwners {
		l.sweep(now)
	}
	a := l.owners[o]
	switch {
	case a != nil:
		l.refill(a, now)
	case len(l.owners) < maxOwners:
		a = &allowance{left: float64(l.perMinute), at: now}
		l.owners[o] = a
	}
	return a
}

func (l *limit) refill(a *allowance, now time.Time) {
	if passed := now.Sub(a.at); passed > 0 {
		a.left = min(float64(l.perMinute), a.left+passed.Minutes()*float64(l.perMinute))
		a.at = now
	}
}

// sweep forgets who has everything back.
func (l *limit) sweep(now time.Time) {
	l.swept = now
	for o, a := range l.owners {
		if now.Sub(a.at) > time.Minute {
			delete(l.owners, o)
		}
	}
}

// refuse counts, and tells of each owner once a minute.
func (l *limit) refuse(o owner, a *allowance, now time.Time) {
	l.refused++
	if now.Sub(a.told) < time.Minute {
		return
	}
	a.told = now
	l.log.Warn("more answers with keys of one device were asked for than it may have; either it joins without end, or somebody uses the server",
		"kind", string(rune(o.kind)), "id", o.id, "per_minute", l.perMinute, "refused", l.refused)
}

// giveBack undoes take for what was not given out after all.
func (l *limit) giveBack(o owner) {
	if l.perMinute <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.owners[o]; a != nil {
		a.left = min(float64(l.perMinute), a.left+1)
	}
}
