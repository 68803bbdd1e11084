package custodylog

import (
	"context"
	"sync/atomic"
	"time"

	"joinery"
)

// Stats is how the log fares.
type Stats struct {
	joinery.LogLag
	// PublishedAt is when this server signed a checkpoint last; zero where it has
	// not since it started.
	PublishedAt time.Time
	// Failed is rounds of this server that failed since it started.
	Failed uint64
	// Missed is, by witness of the configuration, checkpoints that it has not signed.
	Missed map[string]uint64
}

// stats are numbers since the start.
type stats struct {
	failed      atomic.Uint64
	publishedAt atomic.Int64              // milliseconds since 1970
	misses      map[string]*atomic.Uint64 // fixed set of keys
}

// witness adds a witness, before the first round.
func (s *stats) witness(name string) {
	if s.misses == nil {
		s.misses = map[string]*atomic.Uint64{}
	}
	s.misses[name] = new(atomic.Uint64)
}

func (s *stats) missed(name string) { s.misses[name].Add(1) }

// Stats gives how the log fares, whichever server looks after it.
func (s *Service) Stats(ctx context.Context) (out Stats, err error) {
	out = Stats{Failed: s.stats.failed.Load(), Missed: map[string]uint64{}}
	if at := s.stats.publishedAt.Load(); at > 0 {
		out.PublishedAt = time.UnixMilli(at).UTC()
	}
	for name, n := range s.stats.misses {
		out.Missed[name] = n.Load()
	}
	out.LogLag, err = s.store.LogLag(ctx)
	return out, err
}
