package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"joinery/internal/keyring"
)

// watcher is what the watch knows. It is used by one goroutine.
type watcher struct {
	*Keys
	failures int // starts that failed, or workers that ended young, one after the other
	misses   int // looks at the worker that went wrong, one after the other
	warned   bool
	due      time.Time // when the next start is, while no worker serves
	rest     time.Time // until when no replacement is tried but by order, since one failed
}

// watch keeps a worker serving until the end.
func (k *Keys) watch() {
	defer close(k.ended)
	w := &watcher{Keys: k}
	tick := time.NewTicker(k.opt.every)
	defer tick.Stop()
	for {
		p := k.current.Load()
		var lost <-chan struct{}
		var again <-chan time.Time
		switch {
		case p != nil:
			lost = p.Lost()
		case k.Refused() == nil:
			again = time.After(time.Until(w.due))
		}
		select {
		case o := <-k.orders:
			err := w.obey(o.what, p)
			if o.done != nil {
				o.done <- err
			}
			if o.what == toEnd {
				return
			}
		case <-lost:
			w.lost(p)
		case <-again:
			_ = w.restart() // told, and tried again
		case <-tick.C:
			if p != nil {
				w.look(p)
			}
		}
	}
}

// obey does what somebody ordered.
func (w *watcher) obey(what what, p *process) error {
	switch what {
	case toEnd:
		w.change(func() { w.current.Store(nil) })
		if p != nil {
			p.retire()
		}
	case toStop:
		if p != nil && w.Refused() == nil {
			w.stop(p, keyring.ErrPIN)
		}
	case toReopen:
		if w.Refused() != nil {
			w.change(func() { w.refused = nil })
		}
		if p == nil {
			return w.restart()
		}
		return w.replace(p, "ordered")
	case toReplace:
		return w.replace(p, "ordered")
	}
	return nil
}

// stop ends a worker that cannot help any more, and starts no other.
func (w *watcher) stop(p *process, reason error) {
	w.change(func() { w.current.Store(nil) })
	w.refuse(reason)
	w.leaving.Go(p.retire)
}

// pause is how long to wait before the next start: none at first.
func (w *watcher) pause() time.Duration {
	if w.failures == 0 {
		return 0
	}
	longest := longestWait
	if w.failure == nil {
		longest = longestOften
	}
	return min(shortestWait<<min(w.failures-1, 10), longest)
}

// lost clears away a worker that ended by itself.
func (w *watcher) lost(p *process) {
	w.change(func() { w.current.Store(nil) })
	p.kill() // where only its connection ended
	w.stats.restarts.Add(1)
	lived := time.Since(p.started)
	if lived > youngest {
		w.failures = 0
	} else {
		w.failures++
	}
	w.due = time.Now().Add(w.pause())
	w.log.Error("the keyring's process ended; another is started", "process", p.pid(), "how", p.cmd.ProcessState.String(), "lived", lived.Round(time.Millisecond).String())
}

// restart starts a worker where none serves.
func (w *watcher) restart() error {
	p, err := w.next()
	switch {
	case err == nil:
		w.misses, w.warned = 0, false
		w.install(p)
	case errors.Is(err, keyring.ErrPIN):
		w.refuse(err)
	default:
		w.failures++
		w.change(func() { w.failure = err })
		w.due = time.Now().Add(w.pause())
		w.log.Error("the keyring cannot be opened; it is tried again", "error", err, "after", w.pause().String())
	}
	return err
}

// next starts a worker and has it looked at before it serves.
func (w *watcher) next() (*process, error) {
	// Whoever closes the keys does not wait for a token that does not answer.
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	go w.untilClosed(ctx, cancel)
	p, err := start(ctx, &w.opt)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	admit := w.admit
	w.mu.Unlock()
	if admit == nil {
		return p, nil
	}
	if err := admit(ctx, p.Masters()); err != nil {
		p.end()
		return nil, fmt.Errorf("its master keys are not those of this server: %w", err)
	}
	return p, nil
}

// untilClosed cancels when the keys are being closed.
func (w *watcher) untilClosed(ctx context.Context, cancel func()) {
	for {
		w.mu.Lock()
		closed, changed := w.closed, w.changed
		w.mu.Unlock()
		if closed {
			cancel()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// replace puts another worker in the place of p, which finishes what it has.
func (w *watcher) replace(p *process, why string) error {
	if p == nil {
		return fmt.Errorf("%w: no process serves", keyring.ErrToken)
	}
	if refused := w.Refused(); refused != nil {
		return refused
	}
	next, err := w.next()
	if err != nil {
		w.rest = time.Now().Add(longestWait)
		w.log.Error("the keyring's process cannot be replaced; the old one goes on", "why", why, "error", err)
		if errors.Is(err, keyring.ErrPIN) {
			w.refuse(err)
		}
		return err
	}
	w.log.Info("the keyring's process is replaced", "why", why, "old", p.pid(), "new", next.pid())
	w.stats.replaced(why)
	w.misses, w.warned = 0, false
	w.install(next)
	w.leaving.Go(p.retire)
	return nil
}

// look asks a worker how it does.
func (w *watcher) look(p *process) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	resident, err := p.Resident(ctx)
	if err != nil {
		w.miss(p, err, true)
		return
	}
	w.stats.resident.Store(resident)
	if err := p.Ready(ctx); err != nil {
		if errors.Is(err, keyring.ErrPIN) {
			w.stop(p, err)
			return
		}
		w.miss(p, err, false)
		return
	}
	w.misses = 0
	if w.opt.MaxResident <= 0 || resident <= w.opt.MaxResident {
		return
	}
	if time.Since(p.started) < w.opt.every*(youngest/lookEvery) {
		if !w.warned {
			w.warned = true
			w.log.Warn("the keyring's process has more memory than it may right after its start; keys.pkcs11.recycle_rss is too low",
				"resident", resident, "limit", w.opt.MaxResident)
		}
		return
	}
	w.tryReplace(p, "memory")
}

// miss counts looks that went wrong. A worker that does not even say how large it
// is hangs as a whole, and is killed; one whose token does not answer is replaced.
func (w *watcher) miss(p *process, err error, hangs bool) {
	select {
	case <-p.Lost():
		return // it ended, which watch sees
	default:
	}
	w.misses++
	w.log.Warn("the keyring's process does not answer well", "process", p.pid(), "error", err, "times", w.misses)
	switch {
	case w.misses < maxMisses:
	case hangs:
		p.kill() // its connection ends with it
	default:
		w.misses = 0
		w.tryReplace(p, "token")
	}
}

// tryReplace replaces a worker that is better replaced, unless that failed a
// moment ago. Where it fails the old one goes on, which replace tells.
func (w *watcher) tryReplace(p *process, why string) {
	if time.Now().After(w.rest) {
		_ = w.replace(p, why)
	}
}
