package store

import (
	"context"
	"runtime"
	"sync"

	"joinery"
	"joinery/lorawan"
)

// load is one join's question for the state of its device. Goroutines of the
// database answer those that wait, one after another: SQLite needs a deep stack,
// which the goroutine of each connection would keep, and runs faster through many
// look-ups in a row.
type load struct {
	joinEUI, devEUI lorawan.EUI64
	state           joinery.ActivationState
	err             error
	done            chan struct{} // takes one token, after which the load is its caller's
}

var loads = sync.Pool{New: func() any { return &load{done: make(chan struct{}, 1)} }}

// loadsAtOnce bounds what one reader answers before the next checkpoint may have it.
const loadsAtOnce = 64

// loadActivation implements engine.
func (e *sqliteDB) loadActivation(ctx context.Context, joinEUI, devEUI lorawan.EUI64) (s joinery.ActivationState, err error) {
	l := loads.Get().(*load) //nolint:forcetypeassert // there is nothing else in it
	l.joinEUI, l.devEUI = joinEUI, devEUI
	select {
	case e.loads <- l:
	case <-ctx.Done():
		return s, ctx.Err()
	case <-e.closed:
		return s, storeError(ErrClosed)
	}
	select {
	case <-l.done:
		s, err = l.state, l.err
		l.state, l.err = joinery.ActivationState{}, nil
		loads.Put(l)
		return s, err
	case <-ctx.Done(): // and l is still the database's
		return s, ctx.Err()
	case <-e.closed:
		return s, storeError(ErrClosed)
	}
}

// answerLoads answers loads until the database is closed.
func (e *sqliteDB) answerLoads() {
	var group []*load
	for {
		select {
		case l := <-e.loads:
			// As the writer does: on one processor others ask only if we step aside.
			runtime.Gosched()
			group = e.waitingLoads(append(group[:0], l))
		case <-e.closed:
			return
		}
		answered := 0
		err := e.borrow(context.Background(), e.joins, func(r *reader) error {
			for ; answered < len(group); answered++ {
				l := group[answered]
				l.err = storeError(e.answer(r, l))
				l.done <- struct{}{}
			}
			return nil
		})
		for _, l := range group[answered:] {
			l.err = err
			l.done <- struct{}{}
		}
	}
}

// waitingLoads adds what waits to a group.
func (e *sqliteDB) waitingLoads(group []*load) []*load {
	for len(group) < loadsAtOnce {
		select {
		case l := <-e.loads:
			group = append(group, l)
		default:
			return group
		}
	}
	return group
}

// answer reads a state that is as new as the last commit.
func (e *sqliteDB) answer(r *reader, l *load) error {
	for {
		if err := r.hold(e.news.current()); err != nil {
			return err
		}
		var err error
		if l.state, err = r.load(l.joinEUI, l.devEUI); err != nil {
			return err
		}
		if fresh, err := e.news.update(&l.state, r.snapshot); fresh || err != nil {
			return err
		}
	}
}
