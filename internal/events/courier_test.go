package events

import (
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
)

// What happened is delivered, in order, signed, to those it concerns.
func TestDelivers(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	f.happen(f.ours.Org, 1) // before the webhook
	c := f.add(r)
	f.rounds(c)
	var want []string
	for range 5 {
		want = append(want, f.happen(f.ours.Org, 1))
		f.happen(f.theirs.Org, 2)
	}
	f.rounds(c)
	if got := r.got(); !slices.Equal(got[1:], want) { // the first tells that the webhook was added
		t.Errorf("got %v, want %v behind the first", got, want)
	}
	before := f.stored(c).Cursor
	f.rounds(c)
	if got := len(r.got()); got != 6 || f.stored(c).Cursor != before {
		t.Errorf("%d deliveries, cursor %v and %v", got, before, f.stored(c).Cursor)
	}
	list, err := f.Deliveries(t.Context(), f.ours, c.w.ID)
	if ok(t, err); len(list) != 6 || !list[0].OK() || list[0].Status != http.StatusNoContent || list[0].Attempt != 1 {
		t.Errorf("%+v", list)
	}
	// A server that died before it noted that delivers again, with the same ids.
	again := newCourier(f.Service, c.w)
	again.cursor = joinery.EventCursor{}
	_, err = again.round(t.Context())
	ok(t, err)
	fresh := slices.DeleteFunc(slices.Clone(r.ids[6:]), func(id string) bool { return slices.Contains(r.ids[:6], id) })
	if len(r.ids) != 13 || len(fresh) != 1 { // what was before the webhook
		t.Errorf("%d events came again, %d of them under other ids", len(r.ids)-6, len(fresh))
	}
}

// A receiver that refuses gets the same event again, later and later, and what
// comes behind it after it.
func TestRetries(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	f.rounds(c)
	r.answers(always(http.StatusInternalServerError))
	want := []string{f.happen(f.ours.Org, 1), f.happen(f.ours.Org, 1)}
	var last time.Duration
	for n := uint32(1); n <= 6; n++ {
		f.rounds(c)
		w := f.stored(c)
		if w.Attempts != n || w.FailingSince.IsZero() || w.Disabled != "" {
			t.Fatalf("after %d failures: %+v", n, w)
		}
		wait := w.NextAt.Sub(f.timestamp())
		if base := firstWait << (n - 1); wait < base/2 || wait > base*3/2 {
			t.Errorf("after %d failures it waits %s", n, wait)
		}
		last = wait
		if due(w, f.now()) {
			t.Error("it is due at once")
		}
		f.clock.add(wait)
		if !due(w, f.now()) {
			t.Error("it is not due when its time has come")
		}
	}
	if r.refused != 6 {
		t.Errorf("%d attempts, want one a round: what is behind a failure waits", r.refused)
	}
	r.answers(always(http.StatusOK))
	f.rounds(c)
	if got := r.got(); !slices.Equal(got[1:], want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if w := f.stored(c); w.Attempts != 0 || !w.FailingSince.IsZero() || !w.NextAt.IsZero() {
		t.Errorf("all is well: %+v, last wait %s", w, last)
	}
	list, err := f.Deliveries(t.Context(), f.ours, c.w.ID)
	if ok(t, err); list[1].Attempt != 7 || list[2].Attempt != 6 || list[2].OK() {
		t.Errorf("%+v", list[:3])
	}
}

// An event of one device that is refused keeps back those of this device, and of
// no other.
func TestOneDeviceFails(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	f.rounds(c)
	bad := joinery.DeviceID(7)
	r.answers(func(body map[string]string) int {
		if body["device"] == bad.String() {
			return http.StatusBadRequest
		}
		return http.StatusOK
	})
	var good, late []string
	for n := range 20 {
		late = append(late, f.happen(f.ours.Org, bad))
		good = append(good, f.happen(f.ours.Org, joinery.DeviceID(10+n)))
	}
	f.rounds(c)
	got := r.got()[1:]
	slices.Sort(got)
	want := slices.Clone(good)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v in whatever order", got, want)
	}
	r.answers(always(http.StatusOK))
	f.rounds(c)
	if got := r.got()[21:]; !slices.Equal(got, late) { // and nothing of what was taken before
		t.Errorf("then got %v, want %v", got, late)
	}
}

// 410 switches a webhook off at once, with notice; so does failing for days.
func TestSwitchesOff(t *testing.T) {
	f, gone, dead := newFixture(t), newReceiver(t), newReceiver(t)
	c, d := f.add(gone), f.add(dead)
	f.rounds(c)
	f.rounds(d)
	gone.answers(always(http.StatusGone))
	dead.server.Close()
	f.happen(f.ours.Org, 1)
	f.rounds(c)
	if w := f.stored(c); w.Disabled == "" {
		t.Error("410, and the webhook is on")
	}
	for f.stored(d).Disabled == "" {
		began := f.stored(d).FailingSince
		if !began.IsZero() && f.now().Sub(began) > 2*giveUpAfter {
			t.Fatal("it is never given up")
		}
		f.rounds(d)
		if w := f.stored(d); w.Disabled == "" {
			f.clock.add(w.NextAt.Sub(f.now()))
		}
	}
	if w := f.stored(d); w.Attempts < giveUpTries || f.now().Sub(w.FailingSince) < giveUpAfter {
		t.Errorf("given up after %d attempts and %s", w.Attempts, f.now().Sub(w.FailingSince))
	}
	_, err := f.db.Sequence(t.Context(), false)
	ok(t, err)
	p, err := f.Events(t.Context(), f.ours, joinery.EventCursor{}, false, []joinery.EventType{joinery.EventWebhookDisabled}, 0)
	if ok(t, err); len(p.Events) != 2 {
		t.Errorf("%d notices, want 2", len(p.Events))
	}
	// Switched on again it goes on where it stopped.
	missed := f.happen(f.ours.Org, 2)
	ok(t, f.Enable(t.Context(), f.ours, c.w.ID, false))
	gone.answers(always(http.StatusOK))
	f.rounds(c)
	if got := gone.got(); !slices.Contains(got, missed) {
		t.Errorf("got %v, without %s", got, missed)
	}
}

// A receiver that asks for long waits is given up, too.
func TestLongWaitsAreHopelessInTheEnd(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		tries uint32
		since time.Duration
		want  bool
	}{
		{giveUpTries, giveUpAfter, true},
		{giveUpTries, giveUpAfter - 1, false},
		{giveUpTries - 1, giveUpAfter, false},
		{8, giveUpAnyway - 1, false},
		{8, giveUpAnyway, true},
	} {
		if got := hopeless(joinery.WebhookProgress{Attempts: c.tries, FailingSince: now.Add(-c.since)}, now); got != c.want {
			t.Errorf("%d tries in %s: %v", c.tries, c.since, got)
		}
	}
	if hopeless(joinery.WebhookProgress{Attempts: giveUpTries}, now) {
		t.Error("one that does not fail")
	}
}

// deaf is a store in which progress cannot be written.
type deaf struct {
	Store
	deaf bool
}

func (d *deaf) RecordDeliveries(ctx context.Context, id joinery.WebhookID, p joinery.WebhookProgress, attempts []joinery.Delivery) error {
	if d.deaf {
		return joinery.Errorf(joinery.CodeUnavailable, "the disk is full")
	}
	return d.Store.RecordDeliveries(ctx, id, p, attempts)
}

// A receiver is not asked again and again because what it answered cannot be
// written down; nor is one that takes everything given more and more.
func TestBacksOffWithoutProgress(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	f.rounds(c)
	store := &deaf{f.store, true}
	f.store = store
	r.header.Set("Retry-After", "600")
	r.answers(always(http.StatusServiceUnavailable))
	want := f.happen(f.ours.Org, 1)
	for n := 1; n <= 3; n++ {
		c.take(f.stored(c))
		if !c.due(f.now()) {
			t.Fatalf("it is not due before round %d", n)
		}
		if _, err := c.round(t.Context()); err == nil {
			t.Fatal("progress was written")
		}
		c.take(f.stored(c))
		f.clock.add(9 * time.Minute)
		if c.due(f.now()) {
			t.Error("the receiver asked for 10 minutes and gets 9")
		}
		f.clock.add(time.Minute)
	}
	r.header.Del("Retry-After")
	r.answers(always(http.StatusOK))
	if _, err := c.round(t.Context()); err == nil || c.due(f.now()) {
		t.Errorf("it goes on while its place cannot be written: %v", err)
	}
	misses := c.misses
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := c.round(ended); err == nil || c.misses != misses {
		t.Errorf("a round that somebody ended counts as one that could not be read: %v", err)
	}
	store.deaf = false
	f.clock.add(2 * longMiss)
	f.happen(f.ours.Org, 1)
	if c.take(f.stored(c)); !c.due(f.now()) {
		t.Error("it is not due when the database is there again")
	}
	f.rounds(c)
	if got := r.got(); len(got) != 3 || got[1] != want || c.misses != 0 {
		t.Errorf("got %v, %d misses", got, c.misses)
	}
}

// What a receiver asks for with Retry-After is respected.
func TestRetryAfter(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	r.header.Set("Retry-After", "1800")
	r.answers(always(http.StatusServiceUnavailable))
	f.rounds(c)
	if wait := f.stored(c).NextAt.Sub(f.timestamp()); wait != 30*time.Minute {
		t.Errorf("it waits %s, not as it was asked to", wait)
	}
}

// A slow receiver keeps nobody waiting: a round ends, and what was taken is noted.
func TestSlowReceiver(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	f.rounds(c)
	for range 4 {
		f.happen(f.ours.Org, 1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	r.answers(func(map[string]string) int {
		if n.Add(1) == 3 {
			cancel() // the server is told to stop
			<-ctx.Done()
			time.Sleep(10 * time.Millisecond)
		}
		return http.StatusOK
	})
	_, err := c.round(ctx)
	ok(t, err)
	w := f.stored(c)
	if w.FailingSince.IsZero() == false || w.Attempts != 0 {
		t.Errorf("giving up counts as the receiver's failure: %+v", w)
	}
	rest, err := f.db.Events(t.Context(), joinery.EventQuery{After: w.Cursor, Org: f.ours.Org})
	if ok(t, err); len(rest.Events) != 2 {
		t.Errorf("%d events are left, want 2", len(rest.Events))
	}
}

// Both secrets sign while a rotation lasts, and then the new one alone.
func TestRotation(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	w, secret, err := f.Rotate(t.Context(), f.ours, c.w.ID, 0)
	ok(t, err)
	if w.Generation != 2 || w.OverlapUntil.Sub(w.RotatedAt) != defaultOverlap {
		t.Errorf("%+v", w)
	}
	r.knows(secret) // and the first one still: each delivery must pass both
	f.happen(f.ours.Org, 1)
	f.rounds(c)
	f.clock.add(defaultOverlap)
	r.verify = r.verify[1:]
	f.happen(f.ours.Org, 1)
	if c.w.Overlaps(f.now()) {
		t.Error("the overlap does not end")
	}
	f.rounds(c)
	if n := len(r.got()); n < 4 || r.refused > 0 {
		t.Errorf("%d taken, %d refused", n, r.refused)
	}
}

// Whoever is not the owner of a webhook is told that there is none.
func TestForeignWebhooks(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	ctx, id := t.Context(), c.w.ID
	_, rotate, _ := f.Rotate(ctx, f.theirs, id, 0)
	_, err := f.Get(ctx, f.theirs, id)
	_, tested := f.Test(ctx, f.theirs, id)
	_, listed := f.Deliveries(ctx, f.theirs, id)
	for _, err := range []error{err, tested, listed, f.Remove(ctx, f.theirs, id), f.Enable(ctx, f.theirs, id, true)} {
		if joinery.CodeOf(err) != joinery.CodeNotFound {
			t.Errorf("%v", err)
		}
	}
	if rotate != "" {
		t.Error("a foreign secret was shown")
	}
	if list, err := f.List(ctx, f.theirs); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, _, err := f.Add(ctx, f.theirs, joinery.Webhook{URL: r.url(), AllOrgs: true}); joinery.CodeOf(err) != joinery.CodeForbidden {
		t.Errorf("everything, for somebody: %v", err)
	}
	if _, _, err := f.Add(ctx, f.theirs, joinery.Webhook{URL: r.url(), Types: []joinery.EventType{"x"}}); joinery.CodeOf(err) != joinery.CodeInvalid {
		t.Errorf("an unknown type: %v", err)
	}
}

// A webhook for all organisations is the operator's, for whomever it is added,
// and absent for everybody else, also where an organisation holds it.
func TestWebhooksForAllAreTheOperators(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	ctx := t.Context()
	acting := f.boss
	acting.Org = f.ours.Org
	for _, boss := range []joinery.Caller{f.boss, acting} {
		w, _, err := f.Add(ctx, boss, joinery.Webhook{URL: r.url(), AllOrgs: true})
		if ok(t, err); w.Org == f.ours.Org || w.Org == f.theirs.Org || w.Org == 0 {
			t.Errorf("it is held by %s", w.Org)
		}
	}
	old, err := f.db.AddWebhook(ctx, joinery.Webhook{ID: joinery.NewWebhookID(), Org: f.ours.Org, URL: r.url(), AllOrgs: true, Generation: 1, CreatedAt: f.timestamp()},
		maxWebhooks, joinery.AuditEntry{At: f.timestamp(), Event: joinery.AuditWebhookAdded, Org: f.ours.Org})
	ok(t, err)
	if _, secret, err := f.Rotate(ctx, f.ours, old.ID, 0); joinery.CodeOf(err) != joinery.CodeNotFound || secret != "" {
		t.Errorf("a member gets its secret: %v", err)
	}
	if _, err := f.Get(ctx, f.ours, old.ID); joinery.CodeOf(err) != joinery.CodeNotFound {
		t.Errorf("a member reads it: %v", err)
	}
	if list, err := f.List(ctx, f.ours); err != nil || len(list) != 0 {
		t.Errorf("a member sees %v, %v", list, err)
	}
	if list, err := f.List(ctx, f.boss); err != nil || len(list) != 3 {
		t.Errorf("the operator sees %d, %v", len(list), err)
	}
	if _, err := f.Get(ctx, f.boss, old.ID); err != nil {
		t.Error(err)
	}
}

// A test event is sent now, whatever else waits, and some a minute at most.
func TestTest(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	c := f.add(r)
	for range testsPerMinute {
		d, err := f.Test(t.Context(), f.ours, c.w.ID)
		if ok(t, err); !d.OK() || d.Type != joinery.EventWebhookTest {
			t.Errorf("%+v", d)
		}
	}
	_, err := f.Test(t.Context(), f.ours, c.w.ID)
	if joinery.CodeOf(err) != joinery.CodeRateLimited {
		t.Errorf("%v", err)
	}
	f.clock.add(time.Minute)
	r.answers(always(http.StatusFound))
	d, err := f.Test(t.Context(), f.ours, c.w.ID)
	if ok(t, err); d.OK() || d.Status != http.StatusFound {
		t.Errorf("a redirect: %+v", d)
	}
}

// A Runner delivers by itself, also to webhooks that come later, and what was
// taken before it is closed is noted.
func TestRunner(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	run, err := Start(t.Context(), f.Service, f.db, f.db, RunOptions{Alone: true})
	ok(t, err)
	c := f.add(r)
	want := f.happen(f.ours.Org, 1)
	// Its own addition and that. A request whose answer Close cuts off is made again.
	for end := time.Now().Add(20 * time.Second); !slices.Contains(r.got(), want) || f.Stats().Taken < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %v", r.got())
		}
	}
	run.Close(true)
	run.Close(true)
	if s := f.Stats(); s.Leads || s.Taken < 2 {
		t.Errorf("%+v", s)
	}
	rest, err := f.db.Events(t.Context(), joinery.EventQuery{After: f.stored(c).Cursor, Org: f.ours.Org})
	if ok(t, err); len(rest.Events) != 0 {
		t.Errorf("%d events were delivered and not noted", len(rest.Events))
	}
	n := len(r.got())
	f.happen(f.ours.Org, 1)
	time.Sleep(20 * time.Millisecond)
	if len(r.got()) != n {
		t.Error("a closed Runner delivers")
	}
}

// A fenced database speaks for nobody.
func TestHeld(t *testing.T) {
	f, r := newFixture(t), newReceiver(t)
	var held atomic.Bool
	held.Store(true)
	f.hold = func() error {
		if held.Load() {
			return joinery.Errorf(joinery.CodeUnknownDevice, "fenced") // whatever the reason
		}
		return nil
	}
	run, err := Start(t.Context(), f.Service, f.db, f.db, RunOptions{Alone: true})
	ok(t, err)
	defer run.Close(true)
	c := f.add(r)
	run.hurry()
	if _, err := f.Test(t.Context(), f.ours, c.w.ID); joinery.CodeOf(err) != joinery.CodeUnavailable {
		t.Errorf("a test is sent: %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	if len(r.got()) != 0 {
		t.Error("it delivers all the same")
	}
	held.Store(false)
	for end := time.Now().Add(20 * time.Second); len(r.got()) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	if len(r.got()) == 0 {
		t.Error("and not when it may")
	}
}
