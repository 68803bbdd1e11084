package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"joinery/internal/sim"
	"joinery/lorawan"
)

// Config describes a run.
type Config struct {
	Fleet *Fleet
	// Peers makes the Network Server and the Application Server of one
	// connection; way makes their ways to the Join Server. The Application
	// Server may be nil.
	Peers func(way func(url string, conf *tls.Config) (sim.Way, error)) (*sim.NS, *sim.AS, error)
	// Connections is how many requests can be on their way at once, each on a
	// kept-alive connection of its own.
	Connections int
	// Rate is how many requests a second are sent, whatever becomes of them;
	// zero sends the next one when the answer to the last has come.
	Rate float64
	// Warmup is run before anything is counted; then Duration, or until Joins
	// joins were accepted, whichever is first. Zero is no such bound; one is
	// needed. A run without Duration ends, too, with as many errors as joins are
	// wanted, and 1000 at least.
	Warmup, Duration time.Duration
	Joins            uint64
	// Mix is which part of the joins devices of a version make. Empty: as many
	// as there are of them.
	Mix map[lorawan.MACVersion]float64
	// Replays and WrongMICs are which part of the requests repeats an earlier
	// one, or has a wrong MIC.
	Replays, WrongMICs float64
	// RepeatWindow is how long a Join Server takes the same request for a
	// repeat, and answers the same; zero: never.
	RepeatWindow time.Duration
	// Join says what the network asks for.
	Join sim.JoinOptions
	// Server are the server's processes; none: they are not measured.
	Server Processes
	// Timeout bounds one exchange; zero: 5 s, the shortest that a client in the
	// field has.
	Timeout time.Duration
	// Progress is told once a second how it stands; nil is nobody.
	Progress func(Progress)
}

// Progress is how a run stands.
type Progress struct {
	Warmup bool
	// Since is the time since the count began, or since the warm-up did.
	Since  time.Duration
	Joins  uint64
	Errors uint64
	// Second is what the last second brought.
	Second Histogram
}

// run is one run under way.
type run struct {
	Config
	shares  []share
	workers []*worker
	// began is when sending began; counting when what is sent counts.
	began, counting time.Time
	// ticket is the number of the next request of an open loop.
	ticket atomic.Int64
	// left is how many joins are still to be accepted, of Joins; patience is how
	// many errors may still come before a run without a Duration gives up.
	left, patience atomic.Int64
	stop           chan struct{}
	once           sync.Once
	// cut is when time, or somebody, ended the run; zero where it has all its joins.
	cut time.Time
}

// share is a group of devices and the part of the joins that it makes, added to
// those of the groups before.
type share struct {
	Group
	upTo float64
}

// Run does what c says, until ctx ends or all is done, and reports. An error
// means that it could not begin; what went wrong with requests is in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	r := &run{Config: c, stop: make(chan struct{})}
	if r.Timeout == 0 {
		r.Timeout = 5 * time.Second
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	defer r.disconnect()
	return r.measure(ctx)
}

func (r *run) check() (err error) {
	switch {
	case r.Connections < 1:
		return errors.New("connections: want 1 or more")
	case r.Duration <= 0 && r.Joins == 0:
		return errors.New("say how long: a duration, or a number of joins")
	case r.Rate < 0:
		return errors.New("rate: want requests a second, or 0 for a closed loop")
	case r.Replays < 0 || r.WrongMICs < 0 || r.Replays+r.WrongMICs > 1:
		return errors.New("replays, wrong MICs: want shares of 0 to 1, together 1 at most")
	}
	if r.shares, err = shares(r.Fleet.Groups, r.Mix); err != nil {
		return err
	}
	for _, s := range r.shares {
		if s.Count < r.Connections {
			return fmt.Errorf("%d devices of LoRaWAN %v cannot keep %d connections busy: each needs one of its own", s.Count, s.Version, r.Connections)
		}
	}
	return nil
}

// shares divides the joins among groups.
func shares(groups []Group, mix map[lorawan.MACVersion]float64) (list []share, err error) {
	devices := map[lorawan.MACVersion]float64{}
	for _, g := range groups {
		devices[g.Version] += float64(g.Count)
	}
	for v, part := range mix {
		if part < 0 {
			return nil, errors.New("mix: want shares above 0")
		}
		if part > 0 && devices[v] == 0 {
			return nil, fmt.Errorf("mix: the fleet has no device of LoRaWAN %v", v)
		}
	}
	total := 0.0
	for _, g := range groups {
		part := float64(g.Count)
		if len(mix) > 0 {
			part *= mix[g.Version] / devices[g.Version]
		}
		if part > 0 {
			total += part
			list = append(list, share{Group: g, upTo: total})
		}
	}
	if len(list) == 0 {
		return nil, errors.New("there is no device")
	}
	for i := range list {
		list[i].upTo /= total
	}
	return list, nil
}

// connect makes the workers and opens their connections one after the other, as
// a Join Server bounds handshakes.
func (r *run) connect(ctx context.Context) error {
	for i := range r.Connections {
		w, err := newWorker(r, i)
		if err != nil {
			return err
		}
		r.workers = append(r.workers, w)
		if err := w.toNS.Connect(ctx); err != nil {
			r.disconnect()
			return err
		}
	}
	return nil
}

func (r *run) disconnect() {
	for _, w := range r.workers {
		w.toNS.Close()
		if w.toAS != nil {
			w.toAS.Close()
		}
	}
}

// measure runs all workers and reports.
func (r *run) measure(ctx context.Context) (*Report, error) {
	r.began = time.Now()
	r.counting = r.began.Add(r.Warmup)
	r.left.Store(int64(r.Joins))
	r.patience.Store(max(int64(r.Joins), minPatience))
	var before, after sample
	if r.Warmup <= 0 {
		if err := before.take(r.Server); err != nil {
			return nil, err
		}
	}
	done := make(chan error, 1)
	go func() { done <- r.watch(ctx, &before) }()
	var working sync.WaitGroup
	for _, w := range r.workers {
		working.Go(w.work)
	}
	working.Wait()
	r.end()
	if err := <-done; err != nil {
		return nil, err
	}
	// A process that ended meanwhile, such as one that handed over to the next,
	// takes its processor time with it, but not what was counted here.
	gone := after.take(r.Server)
	report := r.report(before, after)
	if gone != nil {
		report.ServerUnknown = gone.Error()
	}
	return report, nil
}

// minPatience is how many errors at least a run bears that ends with its joins.
const minPatience = 1000

// end stops the workers after the request that each has on its way.
func (r *run) end() { r.once.Do(func() { close(r.stop) }) }

// cutOff is end for a run that has not got all that it wanted.
func (r *run) cutOff() {
	r.once.Do(func() {
		r.cut = time.Now()
		close(r.stop)
	})
}

// sample is what was used at an instant.
type sample struct {
	at             time.Time
	server         Usage
	client         time.Duration
	taken, trusted bool
}

func (s *sample) take(server Processes) (err error) {
	s.client, s.taken = own(), true
	if len(server) > 0 {
		s.server, err = server.Usage()
		s.trusted = err == nil
	}
	s.at = time.Now()
	return err
}

// watch takes a sample when counting begins, ends the run when its time is over
// or ctx ends, and tells how it stands.
func (r *run) watch(ctx context.Context, before *sample) error {
	warm := time.NewTimer(time.Until(r.counting))
	defer warm.Stop()
	var over <-chan time.Time
	if r.Duration > 0 {
		t := time.NewTimer(time.Until(r.counting.Add(r.Duration)))
		defer t.Stop()
		over = t.C
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-warm.C:
			if before.taken {
				continue
			}
			if err := before.take(r.Server); err != nil {
				r.end()
				return err
			}
		case <-over:
			r.cutOff()
		case <-ctx.Done():
			r.cutOff()
			ctx = context.WithoutCancel(ctx)
		case <-second.C:
			r.tell(before.taken)
		case <-r.stop:
			if !before.taken {
				return before.take(r.Server)
			}
			return nil
		}
	}
}

// tell tells how the run stands.
func (r *run) tell(counting bool) {
	if r.Progress == nil {
		return
	}
	p := Progress{Warmup: !counting, Since: time.Since(r.began)}
	if counting {
		p.Since = time.Since(r.counting)
	}
	for _, w := range r.workers {
		w.tell(&p)
	}
	r.Progress(p)
}
