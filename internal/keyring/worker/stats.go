package worker

import (
	"errors"
	"sync/atomic"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/remote"
)

// Bounds of the classes in which the times of verbs are counted.
var Bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

const verbCount = int(remote.Last) + 1

// stats counts what happens.
type stats struct {
	restarts atomic.Uint64
	memory   atomic.Uint64
	token    atomic.Uint64
	ordered  atomic.Uint64
	resident atomic.Int64
	verbs    [verbCount]verbStats
}

type verbStats struct {
	failed  atomic.Uint64 // for want of keys
	limited atomic.Uint64
	nanos   atomic.Int64
	times   [len(Bounds) + 1]atomic.Uint64
}

func (s *stats) replaced(why string) {
	switch why {
	case "memory":
		s.memory.Add(1)
	case "token":
		s.token.Add(1)
	default:
		s.ordered.Add(1)
	}
}

// note counts a verb.
func (s *stats) note(verb remote.Verb, took time.Duration, err error) {
	v := &s.verbs[verb]
	if err != nil && errors.Is(err, keyring.ErrToken) {
		v.failed.Add(1)
	}
	if err != nil && errors.Is(err, keyring.ErrLimit) {
		v.limited.Add(1)
	}
	v.nanos.Add(int64(took))
	class := 0
	for class < len(Bounds) && took > Bounds[class] {
		class++
	}
	v.times[class].Add(1)
}

// Stats is what has happened since Start.
type Stats struct {
	Serving  bool              // a worker serves now
	Refused  bool              // the token refused the PIN, and nothing is tried
	Restarts uint64            // workers that ended by themselves
	Replaced map[string]uint64 // workers that were replaced, by why: memory, token, ordered
	Resident int64             // memory of the worker at the last look, in bytes
	Verbs    map[string]VerbStats
}

// VerbStats tells of one verb, by its name.
type VerbStats struct {
	Count  uint64
	Failed uint64 // of Count, for want of keys
	// Limited is how many of Count a worker refused, since a device had all that it
	// may have.
	Limited uint64
	Sum     time.Duration
	// Within counts those that took no longer than each of Bounds.
	Within [len(Bounds)]uint64
}

// Stats gives the counts.
func (k *Keys) Stats() Stats {
	s := Stats{
		Serving: k.current.Load() != nil, Refused: k.Refused() != nil,
		Restarts: k.stats.restarts.Load(), Resident: k.stats.resident.Load(),
		Replaced: map[string]uint64{"memory": k.stats.memory.Load(), "token": k.stats.token.Load(), "ordered": k.stats.ordered.Load()},
		Verbs:    map[string]VerbStats{},
	}
	for _, verb := range remote.Verbs() {
		v := &k.stats.verbs[verb]
		out := VerbStats{Failed: v.failed.Load(), Limited: v.limited.Load(), Sum: time.Duration(v.nanos.Load())}
		for i := range v.times {
			out.Count += v.times[i].Load()
			if i < len(Bounds) {
				out.Within[i] = out.Count
			}
		}
		if out.Count > 0 {
			s.Verbs[verb.String()] = out
		}
	}
	return s
}
