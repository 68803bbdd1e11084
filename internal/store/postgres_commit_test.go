package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
)

// commitTogetherPostgres sees to it that all commits wait before any is taken:
// a batch of the last state is held meanwhile. From the second batch on fault
// runs in place of sending; nil is none.
func commitTogetherPostgres(t testing.TB, d *DB, holder joinery.ActivationState, commits []joinery.ActivationCommit, fault func(call int, send func() error) error) (errs []error, calls int) {
	t.Helper()
	e := inPostgres(d)
	entered, leave := make(chan struct{}), make(chan struct{})
	e.commitFault = func(send func() error) error {
		calls++
		switch {
		case calls == 1:
			close(entered)
			<-leave
			return send()
		case fault != nil:
			return fault(calls-1, send)
		default:
			return send()
		}
	}
	errs = make([]error, len(commits))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.CommitActivation(context.Background(), storetest.NextCommit(holder)); err != nil {
			t.Error(err)
		}
	})
	<-entered
	for i, c := range commits {
		wg.Go(func() { errs[i] = d.CommitActivation(context.Background(), c) })
	}
	for waits := 0; waits < len(commits); time.Sleep(time.Millisecond) {
		e.commits.mu.Lock()
		waits = len(e.commits.joins)
		e.commits.mu.Unlock()
	}
	close(leave)
	wg.Wait()
	return errs, calls
}

// After a batch whose answer is lost the activations are looked for: whoever is
// there was committed, in whichever way the answer was lost.
func TestPostgresUnknownCommit(t *testing.T) {
	broken := fmt.Errorf("%w: wire cut", errNoContact)
	for _, c := range []struct {
		name      string
		fault     func(call int, send func() error) error
		committed bool
	}{
		{"persisted", func(_ int, send func() error) error { return firstError(send(), broken) }, true},
		{"not persisted, works again", func(call int, send func() error) error {
			if call == 1 {
				return broken
			}
			return send()
		}, true},
		{"never persisted", func(int, func() error) error { return broken }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, states := withDevices(t, newPostgres(t), 10)
			stale := storetest.NextCommit(states[8])
			if err := d.CommitActivation(t.Context(), storetest.NextCommit(states[8])); err != nil {
				t.Fatal(err)
			}
			commits := append(commitsOf(states[:8]), stale)
			errs, _ := commitTogetherPostgres(t, d, states[9], commits, c.fault)
			for i, err := range errs[:8] {
				if (err == nil) != c.committed {
					t.Errorf("commit %d: %v", i, err)
				}
				if err != nil && joinery.CodeOf(err) != joinery.CodeUnavailable {
					t.Errorf("commit %d: code %s", i, joinery.CodeOf(err))
				}
				_, err = d.Activation(t.Context(), commits[i].Activation.ID)
				if (err == nil) != c.committed {
					t.Errorf("activation %d: %v", i, err)
				}
			}
			if errs[8] == nil {
				t.Error("a stale commit was acknowledged")
			}
			clean(t, d)
		})
	}
}

// A batch that was still under way when it was sent once more wins over itself.
func TestPostgresCommitOvertaken(t *testing.T) {
	d, states := withDevices(t, newPostgres(t), 4)
	var late error
	errs, _ := commitTogetherPostgres(t, d, states[3], commitsOf(states[:3]), func(call int, send func() error) error {
		if call > 1 { // between the look and the second sending the first arrives
			late = send()
			return send()
		}
		return fmt.Errorf("%w: no answer yet", errNoContact)
	})
	for i, err := range append(errs, late) {
		if err != nil {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	clean(t, d)
}

// A batch that holds a row which cannot be written is tried again one by one.
func TestPostgresFailingBatch(t *testing.T) {
	d, states := withDevices(t, newPostgres(t), 9)
	taken := storetest.NextCommit(states[7])
	if err := d.CommitActivation(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	commits := commitsOf(states[:7])
	commits[3].Activation.ID, commits[3].Nonces.Recent[0].ID = taken.Activation.ID, taken.Activation.ID
	errs, calls := commitTogetherPostgres(t, d, states[8], commits, nil)
	for i, err := range errs {
		if (err != nil) != (i == 3) || errors.Is(err, ErrSwapLost) {
			t.Errorf("commit %d: %v", i, err)
		}
		if got, want := reload(t, d, i).KeySet.Version-states[i].KeySet.Version, uint64(1); (got == want) != (i != 3) {
			t.Errorf("key set %d moved by %d", i, got)
		}
	}
	if calls != 1+1+7 { // the holder's, all together, and each alone
		t.Errorf("%d statements", calls)
	}
	clean(t, d)
}

// What waits is one statement, in which a key set stands once: the others of it
// come after, and lose or win by themselves.
func TestPostgresOneStatementForAll(t *testing.T) {
	d, states := withDevices(t, newPostgres(t), 21)
	twice := commitsOf(states[:5])
	errs, calls := commitTogetherPostgres(t, d, states[20], append(commitsOf(states[:20]), twice...), nil)
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrSwapLost):
			t.Errorf("commit %d: %v", i, err)
		}
	}
	if won != 20 || calls != 3 { // the holder's, all once, and those that were there twice
		t.Errorf("%d won with %d statements", won, calls)
	}
	clean(t, d)
}

// Two servers on one database: of many commits from one reading one wins, and
// whoever loses wrote nothing.
func TestPostgresTwoServers(t *testing.T) {
	o := newPostgres(t)
	a, states := withDevices(t, o, 12)
	b := mustOpen(t, o)
	for range 10 {
		errs := make([]error, 2*len(states))
		var wg sync.WaitGroup
		for i := range errs {
			server, n := []*DB{a, b}[i%2], i/2
			wg.Go(func() {
				s, err := server.LoadActivation(context.Background(), testJoinEUI, testDevEUI(n))
				if err == nil {
					err = server.CommitActivation(context.Background(), storetest.NextCommit(s))
				}
				errs[i] = err
			})
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil && !errors.Is(err, ErrSwapLost) {
				t.Errorf("commit %d: %v", i, err)
			}
		}
	}
	clean(t, b)
}

// Rows are locked in the order of the arrays, whatever the planner thinks of the
// tables: two batches of different servers never wait for each other.
func TestPostgresBatchPlan(t *testing.T) {
	d, _ := withDevices(t, newPostgres(t), 300)
	for _, analysed := range []bool{false, true} {
		if analysed {
			err := d.do(t.Context(), func(t *tx) error { return t.exec("ANALYZE") })
			if err != nil {
				t.Fatal(err)
			}
		}
		e := inPostgres(d)
		for query, want := range map[string]string{pgBatch: "Function Scan on w", pgBatchBegin: "Function Scan on w", manyLoads: "Function Scan on w"} {
			var plan string
			err := e.using(t.Context(), e.joins, pgLimit, func(s *pgSession) error {
				var err error
				plan, err = explain(s, query)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if !outermost(plan, want) || strings.Contains(plan, "Materialize") || query == manyLoads && !strings.Contains(plan, "using device_euis") {
				t.Errorf("analysed %v:\n%s", analysed, plan)
			}
		}
	}
}

// explain gives the generic plan of a query.
func explain(s *pgSession, query string) (plan string, err error) {
	if err := s.script("PREPARE planned AS " + pgQuery(query)); err != nil {
		return "", err
	}
	nulls := "NULL"
	for range countPlaceholders(query) - 1 {
		nulls += ", NULL"
	}
	err = s.each("EXPLAIN (COSTS OFF) EXECUTE planned("+nulls+")", func(r *row) error { plan += r.text() + "\n"; return nil })
	return plan, firstError(err, s.script("DEALLOCATE planned"))
}

func countPlaceholders(query string) int { return strings.Count(query, "?") }

// outermost tells whether the first scan of a plan, which drives its nested
// loops, is want, and no other kind of join is in it. The store's one row is
// read once and counts for nothing.
func outermost(plan, want string) bool {
	for line := range strings.Lines(plan) {
		if strings.Contains(line, "Hash") || strings.Contains(line, "Merge") || strings.Contains(line, "Seq Scan") {
			return false
		}
	}
	for line := range strings.Lines(plan) {
		if strings.Contains(line, " Scan ") && !strings.Contains(line, "CTE Scan") && !strings.Contains(line, "store_pkey on store") {
			return strings.Contains(line, want)
		}
	}
	return false
}

// A server that hangs in a transaction holds a key set: that device waits, and
// is refused after a while, or served once the row is free. Nobody else waits.
func TestPostgresHeldRow(t *testing.T) {
	o := newPostgres(t)
	d, states := withDevices(t, o, 12)
	holder, err := pgConnect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(t.Context()) }()
	session := &pgSession{ctx: t.Context(), conn: holder, limit: pgLimit}
	hold := func(n int) {
		if err := session.script(fmt.Sprintf("BEGIN; UPDATE key_set SET version = version WHERE id = %d", states[n].KeySet.ID)); err != nil {
			t.Fatal(err)
		}
	}
	hold(0)
	var wg sync.WaitGroup
	held, others := make(chan error, 1), make([]error, 11)
	go func() { held <- d.CommitActivation(context.Background(), storetest.NextCommit(states[0])) }()
	for range 3 { // again and again, while the held one waits
		for i := range others {
			wg.Go(func() { others[i] = d.CommitActivation(context.Background(), storetest.NextCommit(reload(t, d, i+1))) })
		}
		wg.Wait()
		for i, err := range others {
			if err != nil {
				t.Errorf("device %d, which nobody holds: %v", i+1, err)
			}
		}
	}
	select {
	case err := <-held:
		t.Fatalf("the held one was answered at once, or kept the others waiting: %v", err)
	default:
	}
	if err := <-held; joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("the held one: %v", err)
	}
	go func() { held <- d.CommitActivation(context.Background(), storetest.NextCommit(states[0])) }()
	time.Sleep(3 * busyAgain)
	if err := session.script("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Errorf("after its row was free: %v", err)
	}
	clean(t, d)
}

// A table that is locked refuses those who asked, and not at the price of time
// for each of them.
func TestPostgresLockedTable(t *testing.T) {
	o := newPostgres(t)
	d, states := withDevices(t, o, 6)
	holder, err := pgConnect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(t.Context()) }()
	session := &pgSession{ctx: t.Context(), conn: holder, limit: pgLimit}
	errs, calls := commitTogetherPostgres(t, d, states[5], commitsOf(states[:5]), func(call int, send func() error) error {
		if call == 1 {
			if err := session.script("BEGIN; LOCK TABLE activation IN SHARE MODE"); err != nil {
				return err
			}
		}
		return send()
	})
	for i, err := range errs {
		if joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Errorf("commit %d: %v", i, err)
		}
	}
	if calls != 2 { // the holder's and all together
		t.Errorf("%d statements", calls)
	}
	if err := session.script("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	for _, c := range commitsOf(states[:5]) {
		if err := d.CommitActivation(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	clean(t, d)
}
