package custodylog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
)

// asServer has this test binary be a server of the PostgreSQL database whose URL
// it holds; see serveAndHang.
const asServer = "JOINERY_TEST_SERVER"

// What the other server does before it is killed: joins that it put into the log,
// and joins of which nobody knows but the database.
const (
	loggedJoins  = 20
	unnamedJoins = 7
)

// serveAndHang leads, takes joins of every device that there is, and puts a part
// of them into the log. Then it waits to be killed: it closes nothing and gives
// nothing back.
func serveAndHang(url string) int {
	ctx := context.Background()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	db, err := store.Open(ctx, store.Options{URL: url, UnsafeNoSync: true})
	if err != nil {
		return fail(err)
	}
	held, _, err := db.Lead(ctx)
	if err != nil || held == nil {
		return fail(errors.Join(err, errors.New("another server leads")))
	}
	if err := db.BeginFeed(ctx); err != nil {
		return fail(err)
	}
	s, err := New(db, keys, Options{Origin: "log.example"})
	if err != nil {
		return fail(err)
	}
	list := strings.Fields(os.Getenv(asServer + "_DEVICES"))
	join := func(n int) error {
		for i := range n {
			id, err := joinery.ParseDeviceID(list[i%len(list)])
			if err != nil {
				return err
			}
			state, err := db.Device(ctx, id)
			if err != nil {
				return err
			}
			if err := db.CommitActivation(ctx, storetest.NextCommit(state)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := join(loggedJoins); err != nil {
		return fail(err)
	}
	if _, err := db.Sequence(ctx, false); err != nil {
		return fail(err)
	}
	if err := s.CatchUp(ctx); err != nil {
		return fail(err)
	}
	if err := join(unnamedJoins); err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return 0
}

// Of two servers on one PostgreSQL one puts rows into the tree. When it is
// killed the other one gets the lease and goes on: what the dead one committed
// and told nobody of comes in, and so does a join whose id was drawn long before
// it was committed; nothing comes twice, and what was signed is continued.
func TestTwoServersOnPostgres(t *testing.T) {
	url := pgtest.Shared(t).Joinery(t, func(url string) error {
		return store.Create(context.Background(), store.Options{URL: url, UnsafeNoSync: true})
	})
	db, err := store.Open(t.Context(), store.Options{URL: url, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorldIn(t, db, Options{})
	late := storetest.NextCommit(w.state(w.devices[2])) // its id is below all that follow

	self, err := os.Executable()
	w.ok(err)
	other := exec.Command(self)
	other.Env = append(os.Environ(), asServer+"="+url, fmt.Sprintf("%s_DEVICES=%s %s", asServer, w.devices[0], w.devices[1]))
	other.Stderr = os.Stderr
	out, err := other.StdoutPipe()
	w.ok(err)
	w.ok(other.Start())
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = other.Process.Kill()
			_, _ = io.Copy(io.Discard, out)
			_ = other.Wait()
		}
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other server: %q, %v", line, err)
	}

	// It leads, and this one does not; the tree is one all the same.
	held, _, err := db.Lead(w.ctx)
	w.ok(err)
	if held != nil {
		t.Fatal("two servers lead")
	}
	_, err = db.Sequence(w.ctx, false)
	w.ok(err)
	w.ok(w.CatchUp(w.ctx))
	w.ok(w.Publish(w.ctx))
	before, err := w.db.LogCheckpoint(w.ctx)
	w.ok(err)
	if before.Size < loggedJoins {
		t.Fatalf("the log has %d entries", before.Size)
	}
	w.ok(db.CommitActivation(w.ctx, late))
	stale, err := db.LogState(w.ctx) // what the dead one would go on from
	w.ok(err)
	kill()

	var release func()
	for deadline := time.Now().Add(time.Minute); held == nil; time.Sleep(20 * time.Millisecond) {
		if held, release, err = db.Lead(w.ctx); err != nil || time.Now().After(deadline) {
			t.Fatal("the lease of the killed server is not free: ", err)
		}
	}
	defer release()
	sources, err := db.Sources(w.ctx)
	w.ok(err)
	found := 0
	for _, s := range sources {
		n, err := db.RecoverFeed(w.ctx, s, 0)
		w.ok(err)
		found += n
	}
	if found < unnamedJoins {
		t.Errorf("%d joins of the killed server were found, want %d", found, unnamedJoins)
	}
	w.publish()
	if err := db.AppendLog(w.ctx, stale, joinery.LogBatch{Next: stale}, joinery.LogGrowth{}); joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("the dead server goes on from where it was: %v", err)
	}
	w.ok(held())

	trust := w.trust()
	trust.Old = before.Note
	joins := 0
	for _, d := range w.devices {
		r := w.good(w.bundle(operator, d, before.Size), trust)
		joins += r.Entries - 1 // but the import
		if r.Waiting > 0 {
			t.Errorf("%d entries are not in the log", r.Waiting)
		}
	}
	if want := loggedJoins + unnamedJoins + 1; joins != want {
		t.Errorf("%d joins are in the log, want %d", joins, want)
	}
	w.onlyOnce("after the other server was killed")
	violations, err := db.Fsck(w.ctx, nil)
	w.ok(err)
	for _, v := range violations {
		t.Error(v)
	}
}
