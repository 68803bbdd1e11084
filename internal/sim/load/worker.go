package load

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"joinery/internal/sim"
	"joinery/internal/sim/device"
)

// kind is what a request is.
type kind uint8

const (
	join kind = iota
	replay
	wrongMIC
	fetch
	kinds
)

var kindNames = [kinds]string{join: "join", replay: "replay", wrongMIC: "wrong MIC", fetch: "AppSKey fetch"}

// worker sends requests on one connection, for the devices of which it is the
// only user: every one whose place, counted in connections, is its own.
type worker struct {
	*run
	place int
	ns    *sim.NS
	as    *sim.AS
	toNS  *Conn
	toAS  *Conn
	past  past
	// request and answer are the sizes of the bodies of the last join.
	request, answer int

	mu     sync.Mutex // for who looks at the count meanwhile
	count  count
	second Histogram
}

// count is what came of a worker's requests, of those that count.
type count struct {
	ok      [kinds]uint64
	latency [kinds]Histogram
	late    Histogram // how long after its instant a request of an open loop left
	errors  map[string]*Failure
	failed  uint64
}

// Failure is one kind of error: how often it happened, and what was said the
// first time.
type Failure struct {
	Kind    string `json:"kind"`
	Count   uint64 `json:"count"`
	Example string `json:"example"`
}

func (c *count) fail(kind string, err error) {
	f := c.errors[kind]
	if f == nil {
		f = &Failure{Kind: kind, Example: err.Error()}
		c.errors[kind] = f
	}
	f.Count++
	c.failed++
}

func newWorker(r *run, place int) (*worker, error) {
	w := &worker{run: r, place: place}
	w.count.errors = map[string]*Failure{}
	// Peers asks for the Network Server's way first.
	var err error
	w.ns, w.as, err = r.Peers(func(url string, conf *tls.Config) (sim.Way, error) {
		c, err := NewConn(url, conf, r.Timeout)
		if err != nil {
			return nil, err
		}
		if w.toNS == nil {
			w.toNS = c
		} else {
			w.toAS = c
		}
		return c, nil
	})
	return w, err
}

// work sends until the end.
func (w *worker) work() {
	ctx := context.Background() // every exchange has its own end
	for {
		due, ok := w.next()
		if !ok {
			return
		}
		w.send(ctx, due)
	}
}

// next waits for the next instant at which a request is due; false at the end.
// In a closed loop that is now.
func (w *worker) next() (due time.Time, ok bool) {
	select {
	case <-w.stop:
		return due, false
	default:
	}
	if w.Rate == 0 {
		return time.Now(), true
	}
	due = w.due(w.ticket.Add(1) - 1)
	if !waitUntil(due, w.stop) {
		return due, false
	}
	return due, true
}

// send sends one request, checks what comes back, and counts it.
func (w *worker) send(ctx context.Context, due time.Time) {
	g, place := w.pick()
	what := w.choose()
	d, err := w.Fleet.device(place, g.Version)
	if err != nil {
		w.fail(what, err)
		return
	}
	switch what {
	case replay:
		if w.replay(ctx, due) {
			return
		}
	case wrongMIC:
		w.wrongMIC(ctx, due, d)
		return
	}
	w.join(ctx, due, d)
}

// pick draws a device among those of the worker.
func (w *worker) pick() (Group, int) {
	i, x := 0, rand.Float64()
	for i < len(w.shares)-1 && x >= w.shares[i].upTo {
		i++
	}
	g := w.shares[i].Group
	mine := (g.Count - w.place + w.Connections - 1) / w.Connections
	return g, g.First + w.place + rand.IntN(mine)*w.Connections
}

// choose draws what the next request is.
func (w *worker) choose() kind {
	if w.Replays == 0 && w.WrongMICs == 0 {
		return join
	}
	switch x := rand.Float64(); {
	case x < w.Replays:
		return replay
	case x < w.Replays+w.WrongMICs:
		return wrongMIC
	}
	return join
}

// join has a device join, and its Application Server fetch the AppSKey where it
// did not come with the answer.
func (w *worker) join(ctx context.Context, due time.Time, d *member) {
	o := w.Join
	o.AS = w.as
	result, err := w.ns.Join(ctx, d.Device, o)
	if err == nil {
		err = result.Err()
	}
	if err == nil && len(result.SessionKeyID) > 0 && !d.record.takeSession(result.SessionKeyID) {
		err = errSession
	}
	if !w.done(due, join, w.toNS, err) {
		return
	}
	w.request, w.answer = len(result.Request), len(result.Reply.Body)
	if w.Replays > 0 {
		w.past.remember(result, d, w.toNS)
	}
	if result.AppSKey == sim.AppSKeyByID && w.as != nil {
		w.fetch(ctx, d, result)
	}
}

var errSession = errors.New("NS: " + sim.CheckSessionKeyID)

func (w *worker) fetch(ctx context.Context, d *member, joined *sim.Result) {
	f, err := w.as.FetchAppSKey(ctx, sim.FetchOptions{
		JoinEUI: d.JoinEUI(), DevEUI: d.DevEUI(), SessionKeyID: joined.SessionKeyID, Device: d.Device,
		ClearKey: w.Join.AppSKey == sim.AppSKeyClear,
	})
	if err == nil {
		err = f.Checks.Err()
	}
	w.done(w.toAS.sentAt, fetch, w.toAS, err)
}

// wrongMIC sends a fresh join-request with one bit of its MIC flipped.
func (w *worker) wrongMIC(ctx context.Context, due time.Time, d *member) {
	frame, err := d.JoinRequest()
	if err != nil {
		w.fail(wrongMIC, err)
		return
	}
	frame[len(frame)-1] ^= 1
	o := w.Join
	o.Frame, o.Expect = frame, sim.ResultMICFailed
	result, err := w.ns.Join(ctx, d.Device, o)
	if err == nil {
		err = result.Err()
	}
	w.done(due, wrongMIC, w.toNS, err)
}

// done counts a request that was answered, or not.
func (w *worker) done(due time.Time, k kind, c *Conn, err error) bool {
	if err != nil {
		w.fail(k, err)
		return false
	}
	since := due
	if w.Rate == 0 {
		since = c.sentAt
	}
	latency := c.answeredAt.Sub(since)
	w.mu.Lock()
	defer w.mu.Unlock()
	if k == join {
		w.second.Add(latency)
	}
	if due.Before(w.counting) {
		return true
	}
	w.count.ok[k]++
	w.count.latency[k].Add(latency)
	if w.Rate > 0 && k != fetch {
		w.count.late.Add(c.sentAt.Sub(due))
	}
	if k == join && w.Joins > 0 && w.left.Add(-1) <= 0 {
		w.end()
	}
	return true
}

// fail counts an error by its kind. Errors of the warm-up count, too: they are
// errors.
func (w *worker) fail(k kind, err error) {
	w.mu.Lock()
	w.count.fail(kindNames[k]+": "+kindOf(err), err)
	w.mu.Unlock()
	if w.Duration <= 0 && w.patience.Add(-1) <= 0 {
		w.end()
	}
	if w.Rate == 0 && errors.Is(err, errNoAnswer) {
		// A server that is gone is not asked a million times a second.
		waitUntil(time.Now().Add(100*time.Millisecond), w.stop)
	}
}

// kindOf names an error without what differs from one to the next.
func kindOf(err error) string {
	if failed, ok := errors.AsType[*sim.ChecksError](err); ok {
		return failed.Kind()
	}
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, device.ErrExhausted):
		return "the device has used all its DevNonces"
	case errors.Is(err, ErrOtherFleet):
		return "state of another device"
	case isNet && ne.Timeout():
		return "no answer in time"
	case errors.Is(err, errNoAnswer):
		return "no answer"
	}
	return err.Error()
}

// tell adds what others may know of the worker.
func (w *worker) tell(p *Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Joins += w.count.ok[join]
	p.Errors += w.count.failed
	p.Second.Merge(&w.second)
	w.second = Histogram{}
}
