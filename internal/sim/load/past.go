package load

import (
	"context"
	"math/rand/v2"
	"time"

	"joinery/internal/sim"
)

// past is the last joins of a worker, for who replays them.
type past struct {
	joins []joined
	next  int
}

// joined is a join that was accepted.
type joined struct {
	result           *sim.Result
	device           *member
	next             uint32 // what the device's memory said after it
	sentAt, answered time.Time
}

// keptJoins is how many a worker keeps: enough to find old ones and young ones.
const keptJoins = 512

// remember keeps a join in the place of the oldest.
func (p *past) remember(r *sim.Result, d *member, c *Conn) {
	j := joined{result: r, device: d, next: d.record.next(), sentAt: c.sentAt, answered: c.answeredAt}
	if len(p.joins) < keptJoins {
		p.joins = append(p.joins, j)
		return
	}
	p.joins[p.next] = j
	p.next = (p.next + 1) % keptJoins
}

// margin is kept from the ends of the repeat window, for clocks and for time on
// the way.
const margin = 500 * time.Millisecond

// replay sends an earlier request again, and wants what is right for its age. A
// Network Server that repeats itself gets the same answer within the window, and
// a refusal after it. Who recorded the frame on the air, and so asks with another
// address, is refused whenever. False if there is nothing yet to replay.
func (w *worker) replay(ctx context.Context, due time.Time) bool {
	if len(w.past.joins) == 0 {
		return false
	}
	j := w.past.joins[rand.IntN(len(w.past.joins))]
	refused := sim.ReplayCode(w.ns.Protocol())
	code := refused
	now := time.Now()
	young := now.Sub(j.sentAt) < w.RepeatWindow-margin && j.device.record.next() == j.next
	old := now.Sub(j.answered) > w.RepeatWindow+margin
	var result *sim.Result
	var err error
	switch {
	case (young || old) && rand.IntN(2) == 0:
		if young {
			code = sim.ResultSuccess
		}
		result, err = w.ns.RepeatExpecting(ctx, j.result, code)
		if young && err == nil && time.Since(j.sentAt) > w.RepeatWindow-margin/2 && result.ResultCode == refused {
			// It took so long that either is right.
			w.done(due, replay, w.toNS, nil)
			return true
		}
	default:
		o := w.Join
		o.Frame, o.Expect = j.result.Sent.PHYPayload, code
		result, err = w.ns.Join(ctx, j.device.Device, o)
	}
	if err == nil {
		err = result.Err()
	}
	w.done(due, replay, w.toNS, err)
	return true
}
