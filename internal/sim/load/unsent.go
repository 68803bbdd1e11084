package load

import (
	"fmt"
	"time"
)

// due is the instant of a request of an open loop.
func (r *run) due(ticket int64) time.Time {
	return r.began.Add(time.Duration(float64(ticket) / r.Rate * float64(time.Second)))
}

// addUnsent counts the requests of an open loop that were due before time ended
// it and found no connection: else a server that stalls towards the end would
// hide what it kept waiting. They waited from their instant to the end at least,
// which is their latency; those that waited longer than a client would are
// errors. Of the requests that count it gives how many were due, and how many of
// these were sent.
func (r *run) addUnsent(total *count) (offered, sent uint64) {
	if r.Rate == 0 {
		return 0, 0
	}
	drawn := r.ticket.Load()
	for ticket := int64(0); r.due(ticket).Before(r.cut); ticket++ {
		due := r.due(ticket)
		counts := !due.Before(r.counting)
		if counts {
			offered++
		}
		switch waited := r.cut.Sub(due); {
		case ticket < drawn && counts:
			sent++
		case ticket < drawn:
		case waited > r.Timeout:
			total.fail("not sent: no connection in time", fmt.Errorf("no connection was free for %v", waited.Round(time.Millisecond)))
		case counts:
			total.latency[join].Add(waited)
			total.late.Add(waited)
		}
	}
	return offered, sent
}
