package events

import (
	"sync/atomic"

	"joinery/internal/webhook"
)

// stats are numbers since the start.
type stats struct {
	taken, failed, gone, disabled atomic.Uint64
	found                         atomic.Uint64
	leads                         atomic.Bool
	behind                        atomic.Int64
}

func (s *stats) count(a webhook.Answer) {
	switch {
	case a.Err == nil:
		s.taken.Add(1)
	case a.Gone():
		s.gone.Add(1)
	default:
		s.failed.Add(1)
	}
}

// Stats are numbers since the server started.
type Stats struct {
	// Taken, Failed and Gone are attempts to deliver, by what became of them.
	Taken, Failed, Gone uint64
	// Disabled is webhooks that were switched off because they failed for long.
	Disabled uint64
	// Recovered is joins that a crash had kept out of the feed.
	Recovered uint64
	// Leads tells whether this server delivers.
	Leads bool
	// Failing is webhooks that are on and whose deliveries fail.
	Failing int64
}

// Stats gives numbers since the start.
func (s *Service) Stats() Stats {
	return Stats{
		Taken: s.stats.taken.Load(), Failed: s.stats.failed.Load(), Gone: s.stats.gone.Load(), Disabled: s.stats.disabled.Load(),
		Recovered: s.stats.found.Load(), Leads: s.stats.leads.Load(), Failing: s.stats.behind.Load(),
	}
}
