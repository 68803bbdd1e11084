package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store/storetest"
	"joinery/internal/store/storetest/pgtest"
)

// emptyDatabase gives options for a database in which nothing is.
func emptyDatabase(t testing.TB) Options {
	t.Helper()
	return Options{URL: pgtest.Shared(t).Database(t), UnsafeNoSync: true}
}

// rawPostgres runs statements in a database as another program would.
func rawPostgres(t testing.TB, o Options, statements string) {
	t.Helper()
	if err := pgtest.Shared(t).ExecURL(o.URL, statements); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresOpenRefuses(t *testing.T) {
	missing := emptyDatabase(t)
	missing.URL = strings.Replace(missing.URL, "@/test", "@/none", 1)
	nobody := emptyDatabase(t)
	nobody.URL = strings.Replace(nobody.URL, "joinery@", "nobody@", 1)
	foreign, older, newer, noStore, noPath := emptyDatabase(t), newPostgres(t), newPostgres(t), newPostgres(t), emptyDatabase(t)
	rawPostgres(t, foreign, "CREATE TABLE t (a int)")
	rawPostgres(t, older, "UPDATE joinery_schema SET version = 0, serves_from = 0")
	rawPostgres(t, newer, "UPDATE joinery_schema SET version = 9999, serves_from = 9999")
	rawPostgres(t, noStore, "DELETE FROM store")
	noPath.URL += "&search_path=nowhere"
	unsynced := newPostgres(t)
	unsynced.UnsafeNoSync = false
	steps, err := postgresMigrations()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for those who get the databases next
		for _, o := range []Options{older, newer} {
			rawPostgres(t, o, fmt.Sprintf("UPDATE joinery_schema SET version = %d, serves_from = %d", len(steps), len(steps)))
		}
		rawPostgres(t, noStore, "INSERT INTO store SELECT 1, 0, id, 0 FROM organisation WHERE name = 'operator'")
	})
	for _, c := range []struct {
		name  string
		o     Options
		kind  error
		words []string
	}{
		{"no database", missing, ErrMissing, []string{"createdb", "migrate --create"}},
		{"no such user", nobody, ErrUnwritable, []string{"nobody", "password file"}},
		{"empty", emptyDatabase(t), ErrMissing, []string{"is empty", "migrate --create"}},
		{"no schema", noPath, ErrMissing, []string{"search_path"}},
		{"foreign", foreign, ErrForeign, []string{"holds tables", "configured URL"}},
		{"older schema", older, ErrOlderSchema, []string{"run joinery migrate"}},
		{"newer schema", newer, ErrNewerSchema, []string{"older than the database", "9999"}},
		{"no store row", noStore, ErrNotDatabase, []string{"restore a backup"}},
		{"not synced", unsynced, ErrNotDurable, []string{"fsync=off", "synchronous_commit=off", "full_page_writes=off"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(t.Context(), c.o)
			wants(t, err, c.kind, c.words...)
			_, err = OpenReadOnly(t.Context(), c.o)
			wants(t, err, c.kind, c.words...)
		})
	}
	wants(t, Create(t.Context(), foreign), ErrForeign)
	wants(t, Create(t.Context(), newPostgres(t)), ErrExists)
	_, _, err = Migrate(t.Context(), emptyDatabase(t))
	wants(t, err, ErrMissing)
	_, _, err = Migrate(t.Context(), newer)
	wants(t, err, ErrNewerSchema)
}

// A password is read from its file, and neither it nor a URL that cannot be
// understood is in an error.
func TestPostgresPassword(t *testing.T) {
	const secret = "hunter2"
	_, err := Open(t.Context(), Options{URL: "postgres://joinery:" + secret + "@localhost:port/joinery", UnsafeNoSync: true})
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
	o := newPostgres(t)
	o.PasswordFile = filepath.Join(t.TempDir(), "password")
	if _, err := Open(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(o.PasswordFile, []byte(secret+"\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, o)
	config, err := poolConfig(o)
	if err == nil {
		err = config.BeforeConnect(t.Context(), config.ConnConfig)
	}
	if err != nil || config.ConnConfig.Password != secret {
		t.Errorf("the password is not the file's first line: %v", err)
	}
	t.Setenv("PGPASSWORD", secret)
	if _, err := Open(t.Context(), o); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("with PGPASSWORD: %v", err)
	}
}

// A rolling upgrade: after a step that says so, servers of the schema before go
// on and start; before one that does not, all must stop.
func TestPostgresRollingUpgrade(t *testing.T) {
	o := emptyDatabase(t)
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	all, err := postgresMigrations()
	if err != nil {
		t.Fatal(err)
	}
	n := len(all)
	running, _ := withDevices(t, o, 2)
	follower := follow(running)
	follower.waitFor(t, 1)
	expand := migration{n + 1, "expand", fmt.Sprintf("-- Adds.\n-- serves-from: %d\nALTER TABLE device ADD COLUMN extra bigint; CREATE TABLE more (a bigint)", n)}
	contract := migration{n + 2, "contract", "ALTER TABLE device DROP COLUMN extra"}
	broken := migration{n + 2, "broken", "CREATE TABLE half (a bigint); INSERT INTO nowhere VALUES (1)"}

	if from, to, err := migratePostgres(t.Context(), o, append(all, expand)); err != nil || from != n || to != n+1 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	another := mustOpen(t, o)
	for _, d := range []*DB{running, another} {
		s := reload(t, d, 0)
		if err := d.SetSuspended(t.Context(), s.Device.ID, s.Device.Ownership.Org, true, joinery.AuditEntry{At: testTime}); err != nil {
			t.Error(err)
		}
		for _, c := range commitsOf([]joinery.ActivationState{reload(t, d, 1)}) {
			if err := d.CommitActivation(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
	}
	clean(t, running)

	// It waits for servers to be gone, and says so: until its patience ends, or they are.
	waits := 0
	o.Patience, o.Waiting = 3*pgAloneAgain, func() { waits++ }
	_, _, err = migratePostgres(t.Context(), o, append(all, expand, contract))
	wants(t, err, ErrLocked, "contract", "stop all of them")
	closed := make(chan error, 1)
	o.Patience, o.Waiting = time.Minute, func() {
		waits++
		closed <- firstError(running.Close(), another.Close())
	}
	from, to, err := migratePostgres(t.Context(), o, append(all, expand, broken))
	if wrong := <-closed; wrong != nil || waits != 2 {
		t.Fatalf("it waited %d times: %v", waits, wrong)
	}
	if err == nil || from != n+1 || to != n+1 {
		t.Errorf("a step that fails: from %d to %d, %v", from, to, err)
	}
	if from, to, err := migratePostgres(t.Context(), o, append(all, expand, contract)); err != nil || from != n+1 || to != n+2 {
		t.Fatalf("from %d to %d, %v", from, to, err)
	}
	_, err = Open(t.Context(), o)
	wants(t, err, ErrNewerSchema)
}

// A server whose schema was changed under it all the same serves nothing, until
// the schema is one that it may serve.
func TestPostgresSchemaUnderServer(t *testing.T) {
	o := newPostgres(t)
	d, states := withDevices(t, o, 2)
	all, err := postgresMigrations()
	if err != nil {
		t.Fatal(err)
	}
	n := len(all)
	// Known to run by any of its connections, one to follow or not.
	_, _, err = migratePostgres(t.Context(), o, append(all, migration{n + 1, "contract", "CREATE TABLE more (a bigint)"}))
	wants(t, err, ErrLocked, "contract", "stop all of them")

	f := follow(d)
	f.waitFor(t, 1)
	rawPostgres(t, o, "UPDATE joinery_schema SET serves_from = 9999")
	wants(t, <-f.losses, ErrNewerSchema)
	for _, c := range commitsOf(states) {
		if err := d.CommitActivation(t.Context(), c); joinery.CodeOf(err) != joinery.CodeUnavailable {
			t.Errorf("a join on a newer schema: %v", err)
		}
	}
	rawPostgres(t, o, fmt.Sprintf("UPDATE joinery_schema SET serves_from = %d", n))
	waitFor(t, func() bool { return d.Ping(t.Context()) == nil })
	for _, c := range commitsOf(states) {
		if err := d.CommitActivation(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
}

// followed is what Follow told.
type followed struct {
	changes chan struct{}
	asOf    *atomic.Pointer[time.Time] // of the last look
	losses  chan error
}

func follow(d *DB) followed {
	f := followed{changes: make(chan struct{}, 100), asOf: new(atomic.Pointer[time.Time]), losses: make(chan error, 100)}
	d.Follow(func() { f.changes <- struct{}{} }, func(at time.Time) { f.asOf.Store(&at) }, func(err error) { f.losses <- err })
	return f
}

// waitFor waits for n changes; each must come within the two seconds that are
// promised.
func (f followed) waitFor(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-f.changes:
		case <-time.After(2 * time.Second):
			t.Fatal("no change was told within two seconds")
		}
	}
}

// What one server changes is told to the others, also where the telling is lost,
// and so is that nothing can be told.
func TestPostgresFollow(t *testing.T) {
	o := newPostgres(t)
	a, b := mustOpen(t, o), mustOpen(t, o)
	f := follow(b)
	f.waitFor(t, 1) // the beginning
	entry := joinery.AuditEntry{At: testTime, Event: joinery.AuditPeerAdded, Actor: "test"}
	p := joinery.Peer{ID: joinery.NewPeerID(), Name: "ns", CreatedAt: testTime}
	kek := joinery.KEK{ID: joinery.NewKEKID(), Peer: p.ID, Role: joinery.KEKForNS, Label: "k", Version: 1, Sealed: []byte{1}, CreatedAt: testTime}
	org := joinery.Organisation{ID: joinery.NewOrgID(), Name: "o", CreatedAt: testTime}
	r := joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: testJoinEUI, Last: testJoinEUI}, Org: org.ID}
	if err := a.AddOrg(t.Context(), org, entry); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return a.AddPeer(t.Context(), p, nil, entry) },
		func() error { return a.AddKEK(t.Context(), kek, entry) },
		func() error { return a.RetireKEK(t.Context(), kek.ID, entry) },
		func() error { return a.AssignRange(t.Context(), r, entry) },
		func() error { return a.ReleaseRange(t.Context(), r, entry) },
		func() error { return a.RemovePeer(t.Context(), p.ID, entry) },
		func() error { rawPostgres(t, o, "UPDATE joinery_schema SET fleet = fleet + 1"); return nil }, // told to nobody
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		f.waitFor(t, 1)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	for from := time.Now(); f.asOf.Load().Before(from); time.Sleep(10 * time.Millisecond) {
		if time.Since(from) > 2*time.Second {
			t.Fatal("nothing changes, and nobody says so")
		}
	}
	rawPostgres(t, o, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	select {
	case err := <-f.losses:
		if err == nil {
			t.Error("lost, and nobody says why")
		}
	case <-time.After(2 * time.Second):
		t.Fatal("a lost connection was not told")
	}
	f.waitFor(t, 1)
	for end := time.Now().Add(5 * time.Second); b.Ping(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(b.Ping(t.Context()))
		}
	}
}

// In front of a PostgreSQL that hangs whoever waits for his turn is refused in
// time as well, whatever he wants.
func TestPostgresStalls(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Options{})
	o := Options{URL: pg.Database(t), UnsafeNoSync: true}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	d, states := withDevices(t, o, 4)
	resume := pg.Stall(t)
	began := time.Now()
	var asking sync.WaitGroup
	for what, ask := range map[string]func() error{
		"load":   func() error { _, err := d.LoadActivation(t.Context(), testJoinEUI, testDevEUI(0)); return err },
		"commit": func() error { return d.CommitActivation(t.Context(), storetest.NextCommit(states[1])) },
		"write": func() error {
			return d.SetSuspended(t.Context(), states[2].Device.ID, states[2].Device.Ownership.Org, true, joinery.AuditEntry{At: testTime})
		},
		"read": func() error { _, err := d.Orgs(t.Context()); return err },
		"ping": func() error { return d.Ping(t.Context()) },
	} {
		for range 20 {
			asking.Go(func() {
				err := ask()
				if code := joinery.CodeOf(err); code != joinery.CodeUnavailable {
					t.Errorf("%s: %v", what, err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("%s: refused after %s", what, took)
				}
			})
		}
	}
	asking.Wait()
	resume()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := d.CommitActivation(t.Context(), storetest.NextCommit(states[0]))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	clean(t, d)
}

// One server at a time checks and changes the fleet; what it does meanwhile by
// itself is not kept waiting by that.
func TestPostgresLockFleet(t *testing.T) {
	o := newPostgres(t)
	a, b := mustOpen(t, o), mustOpen(t, o)
	release, err := a.LockFleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.LockFleet(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the other server has it, too: %v", err)
	}
	org := joinery.Organisation{ID: joinery.NewOrgID(), Name: "o", CreatedAt: testTime}
	if err := a.AddOrg(t.Context(), org, joinery.AuditEntry{At: testTime, Event: joinery.AuditOrgAdded}); err != nil {
		t.Error(err)
	}
	release()
	release, err = b.LockFleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// A server that hangs while it changes the fleet keeps others from that for a
// bounded time, and changes nothing under a lock that it has lost.
func TestPostgresLockFleetHangs(t *testing.T) {
	o := newPostgres(t)
	a, b := mustOpen(t, o), mustOpen(t, o)
	release, err := a.LockFleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock := inPostgres(a).fleet.Load()
	lock.mu.Lock() // it shows no life any more
	releaseOther, err := b.LockFleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer releaseOther()
	lock.mu.Unlock()
	org := joinery.Organisation{ID: joinery.NewOrgID(), Name: "o", CreatedAt: testTime}
	entry := joinery.AuditEntry{At: testTime, Event: joinery.AuditOrgAdded}
	if err := a.AddOrg(t.Context(), org, entry); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("changed under a lock that was lost: %v", err)
	}
	release()
	err = a.AddOrg(t.Context(), org, entry)
	if joinery.CodeOf(err) == joinery.CodeUnavailable { // it finds its connections gone, and says to try again
		err = a.AddOrg(t.Context(), org, entry)
	}
	if err != nil {
		t.Error(err)
	}
}

// What PostgreSQL would enforce, and a superuser can break, is found.
func TestPostgresFsckFinds(t *testing.T) {
	for _, c := range []struct{ name, table, rule, damage string }{
		{"dangling reference", "device", "does not exist", "UPDATE device SET org = 5 WHERE id = (SELECT min(id) FROM device)"},
		{"audit row gone", "audit", "no row is missing", "DELETE FROM audit WHERE id = 2"},
		{"last audit row gone", "audit", "no row is missing", "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)"},
		{"activation gone", "activation", "must be there", "DELETE FROM activation"},
		{"JoinNonce back", "activation", "came later", "UPDATE key_set SET join_nonce = 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newPostgres(t)
			d, states := withDevices(t, o, 2)
			for _, commit := range commitsOf(states) {
				if err := d.CommitActivation(t.Context(), commit); err != nil {
					t.Fatal(err)
				}
			}
			clean(t, d)
			rawPostgres(t, o, "SET session_replication_role = replica; "+c.damage)
			found, err := d.Fsck(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range found {
				if v.Table == c.table && strings.Contains(v.Rule, c.rule) {
					return
				}
			}
			t.Errorf("not found; instead: %v", found)
		})
	}
}

// A checkup reads tables page by page, and other statements between.
func TestPostgresPages(t *testing.T) {
	d := mustOpen(t, newPostgres(t))
	var seen, between int64
	err := d.snapshot(t.Context(), func(c conn) error {
		c.session.(*pgSession).paged = true
		return c.each("SELECT n FROM generate_series(1, 1203) AS n", func(r *row) error {
			seen += r.int()
			n, err := c.integer("SELECT count(*) FROM organisation")
			between += n
			return err
		})
	})
	if err != nil || seen != 1203*1204/2 || between != 1203 {
		t.Errorf("sum %d, %d between, %v", seen, between, err)
	}
}

// A checkup may take its time, between its pages as well: keys are looked at
// there.
func TestPostgresFsckTakesTime(t *testing.T) {
	d := mustOpen(t, newPostgres(t))
	err := d.snapshot(t.Context(), func(c conn) error {
		if err := d.engine.checkEngine(&checkup{c: c}); err != nil {
			return err
		}
		for _, limit := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
			if n, err := c.integer("SELECT CAST(setting AS bigint) FROM pg_settings WHERE name = '" + limit + "'"); err != nil || n != 0 {
				t.Errorf("%s is %d, %v", limit, n, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A server that waits for another one's transaction closes without waiting on.
func TestPostgresCloseWhileWaiting(t *testing.T) {
	o := newPostgres(t)
	d := mustOpen(t, o)
	holder, err := pgConnect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Close(t.Context()) }()
	got, err := conn{&pgSession{ctx: t.Context(), conn: holder}}.integer("SELECT CASE WHEN " + strings.Replace(pgWriterLock, "_xact", "", 1) + " THEN 1 ELSE 0 END")
	if err != nil || got != 1 {
		t.Fatal(got, err)
	}
	written := make(chan error, 1)
	go func() {
		org := joinery.Organisation{ID: joinery.NewOrgID(), Name: "o", CreatedAt: testTime}
		written <- d.AddOrg(context.Background(), org, joinery.AuditEntry{At: testTime, Event: joinery.AuditOrgAdded})
	}()
	polls := `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE '%advisory%'`
	waitFor(t, func() bool {
		n, err := conn{&pgSession{ctx: t.Context(), conn: holder}}.integer(polls)
		return err == nil && n > 0
	})
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(writerWait / 2):
		t.Fatal("it waits on")
	}
	if err := <-written; !errors.Is(err, ErrClosed) {
		t.Errorf("who waited: %v", err)
	}
}

// Settings of a running PostgreSQL that begin to lose commits end the joins, and
// these go on when the settings are right again.
func TestPostgresStopsSyncing(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{Sync: true})
	o := Options{URL: server.Database(t)}
	if err := Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	d, states := withDevices(t, o, 3)
	f := follow(d)
	f.waitFor(t, 1)
	join := func(n int) error {
		return d.CommitActivation(t.Context(), storetest.NextCommit(states[n]))
	}
	if err := join(0); err != nil {
		t.Fatal(err)
	}
	set := func(to string) {
		rawPostgres(t, o, "ALTER SYSTEM SET synchronous_commit = "+to)
		rawPostgres(t, o, "SELECT pg_reload_conf()")
	}
	set("off")
	wants(t, <-f.losses, ErrNotDurable, "synchronous_commit=off")
	if err := join(1); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("a join that a crash could lose: %v", err)
	}
	set("on")
	waitFor(t, func() bool { return d.Ping(t.Context()) == nil })
	if err := join(1); err != nil {
		t.Error(err)
	}
}
