package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
)

// Events is the feed of events.
type Events interface {
	BeginFeed(ctx context.Context) error
	EndFeed(ctx context.Context) error
	Sequence(ctx context.Context, touch bool) (more bool, err error)
	Events(ctx context.Context, q joinery.EventQuery) (joinery.EventPage, error)
	FeedEnd(ctx context.Context) (joinery.EventCursor, error)
	LateWebhooks(ctx context.Context, before time.Time) ([]joinery.Webhook, error)
	PruneEvents(ctx context.Context, before time.Time, limit int) (int, error)
	Sources(ctx context.Context) ([]joinery.EventSource, error)
	RecoverFeed(ctx context.Context, s joinery.EventSource, settle time.Duration) (int, error)
	ForgetSource(ctx context.Context, s joinery.EventSource) error
	Lead(ctx context.Context) (held func() error, release func(), err error)
}

func runEvents(t *testing.T, open func(testing.TB) Backend) {
	for name, test := range map[string]func(*world){
		"Order": feedOrder, "Cursor": feedCursor, "Crash": feedCrash, "Forgotten": feedForgotten, "Refusals": feedRefusals, "ManyRefusals": feedManyRefusals, "Prune": feedPrune, "Late": feedLate,
		"WhileJoining": feedWhileJoining, "Organisations": feedOrganisations, "Lead": feedLead,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, open)
			w.ok(w.BeginFeed(w.ctx))
			test(w)
			w.CheckInvariants(t)
		})
	}
}

// sequence names what was committed.
func (w *world) sequence() {
	w.t.Helper()
	_, err := w.Sequence(w.ctx, false)
	w.ok(err)
}

// feed reads all events that org may see, page by page of limit.
func (w *world) feed(org joinery.OrgID, limit int) (events []joinery.Event) {
	w.t.Helper()
	var at joinery.EventCursor
	for more := true; more; {
		p, err := w.Events(w.ctx, joinery.EventQuery{After: at, Org: org, Limit: limit})
		w.ok(err)
		events = append(events, p.Events...)
		if p.More && !at.Before(p.Next) {
			w.t.Fatalf("the feed does not go on behind %v", at)
		}
		at, more = p.Next, p.More
	}
	return events
}

func eventKinds(events []joinery.Event) (list []string) {
	for _, e := range events {
		list = append(list, string(e.Type))
	}
	return list
}

// Events come in the order of their commits, once, with the device's EUIs, and
// none before its commit.
func feedOrder(w *world) {
	s := w.add(derived(1))
	first := w.join(s)
	w.sequence()
	w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, true, w.about(joinery.AuditDeviceSuspended, s)))
	w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, false, w.about(joinery.AuditDeviceResumed, s)))
	w.sequence()
	second := w.join(s)
	w.sequence()
	got := w.feed(w.org, 100)
	w.equal(eventKinds(got), []string{"device.imported", "import.finished", "device.joined", "device.suspended", "device.resumed", "device.joined"})
	for _, e := range got {
		if e.Type != joinery.EventImportFinished && (e.Device != s.Device.ID || e.DevEUI != s.Device.DevEUI || e.JoinEUI != s.Device.JoinEUI) {
			w.t.Errorf("%s is about %v %v", e.Type, e.Device, e.DevEUI)
		}
	}
	w.equal(*got[2].Join, first)
	w.equal(*got[5].Join, second)
	if i := got[1].Import; i.Created != 1 || !i.Done {
		w.t.Errorf("%+v", i)
	}
	for n := range got { // the same events whatever the pages, with the same ids
		w.equal(w.feed(w.org, n+1), got)
	}
	more, err := w.Sequence(w.ctx, false)
	if w.ok(err); more {
		w.t.Error("there is more although nothing happened")
	}
	joined, err := w.Events(w.ctx, joinery.EventQuery{Limit: 10, Wants: func(t joinery.EventType) bool { return t == joinery.EventDeviceJoined }})
	w.ok(err)
	w.equal(joined.Events, []joinery.Event{got[2], got[5]})
}

// about is an audit entry about a device, of its owner.
func (w *world) about(event joinery.AuditEvent, s joinery.ActivationState) joinery.AuditEntry {
	a := w.audit(event)
	a.Org, a.Device = s.Device.Ownership.Org, s.Device.ID
	return a
}

// A cursor goes on behind its event, and one of another feed is refused.
func feedCursor(w *world) {
	w.importAs(w.org, derived(1), derived(2), derived(3))
	all := w.feed(w.org, 100)
	for i, e := range all {
		at, err := joinery.ParseEventCursor(e.Cursor.String())
		w.ok(err)
		p, err := w.Events(w.ctx, joinery.EventQuery{After: at, Org: w.org, Limit: 100})
		w.ok(err)
		w.equal(p.Events, all[i+1:])
		at.Tag ^= 1
		at.Tag = max(1, at.Tag)
		_, err = w.Events(w.ctx, joinery.EventQuery{After: at, Org: w.org})
		w.refused(err, joinery.CodeNotFound)
	}
	end, err := w.FeedEnd(w.ctx)
	w.ok(err)
	p, err := w.Events(w.ctx, joinery.EventQuery{After: end, Org: w.org})
	if w.ok(err); len(p.Events) != 0 || p.More || p.Next != end {
		w.t.Errorf("behind the end: %+v", p)
	}
	w.importAs(w.org, derived(4))
	p, err = w.Events(w.ctx, joinery.EventQuery{After: end, Org: w.org})
	w.ok(err)
	w.equal(eventKinds(p.Events), []string{"device.imported", "import.finished"})
}

// A server that dies before it named its joins leaves nothing out: the next one
// finds them by its mark, once.
func feedCrash(w *world) {
	s := w.add(derived(1))
	w.join(s)
	w.sequence()
	var lost []joinery.ActivationID
	for range 3 {
		lost = append(lost, w.join(s).ID)
	}
	before := w.feed(w.org, 100)
	w.Backend = w.Reopen(w.t)
	w.ok(w.BeginFeed(w.ctx))
	w.join(s) // of the new server: not its predecessor's
	w.sequence()
	sources, err := w.Sources(w.ctx)
	if w.ok(err); len(sources) != 1 {
		w.t.Fatalf("%d sources, want that of the server before", len(sources))
	}
	n, err := w.RecoverFeed(w.ctx, sources[0], 0)
	if w.ok(err); n != len(lost) {
		w.t.Errorf("%d joins are found, want %d", n, len(lost))
	}
	n, err = w.RecoverFeed(w.ctx, sources[0], 0)
	if w.ok(err); n != 0 {
		w.t.Errorf("%d joins are found twice", n)
	}
	w.ok(w.ForgetSource(w.ctx, sources[0]))
	sources, err = w.Sources(w.ctx)
	if w.ok(err); len(sources) != 0 {
		w.t.Errorf("%d sources are left", len(sources))
	}
	after := w.feed(w.org, 100)
	w.equal(after[:len(before)], before)
	var joins []joinery.ActivationID
	for _, e := range after[len(before):] {
		joins = append(joins, e.Join.ID)
	}
	for _, id := range lost {
		if n := len(joins) - len(slices.DeleteFunc(slices.Clone(joins), func(j joinery.ActivationID) bool { return j == id })); n != 1 {
			w.t.Errorf("a join that a crash left out is in the feed %d times", n)
		}
	}
	// A server that ends in order leaves nothing to look for.
	w.join(s)
	w.ok(w.EndFeed(w.ctx))
	w.Backend = w.Reopen(w.t)
	sources, err = w.Sources(w.ctx)
	if w.ok(err); len(sources) != 0 {
		w.t.Errorf("%d sources after an orderly end", len(sources))
	}
	if got := len(w.feed(w.org, 100)); got != len(after)+1 {
		w.t.Errorf("%d events, want %d", got, len(after)+1)
	}
}

// A server that was forgotten, because it stood still for hours, stands among
// the sources again when it goes on: what a crash keeps it from naming later is
// found.
func feedForgotten(w *world) {
	s := w.add(derived(1))
	w.join(s)
	w.sequence()
	w.Backend = w.Reopen(w.t)
	w.ok(w.BeginFeed(w.ctx))
	sources, err := w.Sources(w.ctx)
	if w.ok(err); len(sources) != 1 {
		w.t.Fatalf("%d sources, want that of the server before", len(sources))
	}
	gone := sources[0].Server
	w.ok(w.ForgetSource(w.ctx, sources[0]))
	w.join(s)
	w.sequence()
	for server := gone + 1; server < gone+10; server++ { // one of them is this server
		for beat := range int64(10) {
			w.ok(w.ForgetSource(w.ctx, joinery.EventSource{Server: server, Beat: beat}))
		}
	}
	w.join(s)
	w.sequence()
	w.join(s) // and it crashes
	before := len(w.feed(w.org, 100))
	w.Backend = w.Reopen(w.t)
	w.ok(w.BeginFeed(w.ctx))
	sources, err = w.Sources(w.ctx)
	if w.ok(err); len(sources) != 1 {
		w.t.Fatalf("%d sources, want that of the server which was forgotten once", len(sources))
	}
	n, err := w.RecoverFeed(w.ctx, sources[0], 0)
	if w.ok(err); n != 1 || len(w.feed(w.org, 100)) != before+1 {
		w.t.Errorf("%d joins are found, want 1", n)
	}
}

// One event an hour tells of refusals of one kind.
func feedRefusals(w *world) {
	s := w.add(derived(1))
	p := joinery.Peer{ID: joinery.NewPeerID(), Org: w.org, Name: "network", CreatedAt: epoch}
	w.ok(w.AddPeer(w.ctx, p, nil, w.audit(joinery.AuditPeerAdded)))
	refuse := func(reason joinery.RefusalReason) {
		c := joinery.RefusalCount{Count: 1, First: epoch, Refusal: joinery.Refusal{
			At: epoch, Peer: p.ID, Device: s.Device.ID, Owner: w.org, Reason: reason,
			Received: joinery.Received{Message: "JoinReq", NetID: netID, JoinEUI: s.Device.JoinEUI, DevEUI: s.Device.DevEUI},
		}}
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{c}}))
	}
	refuse(joinery.RefusedMIC)
	refuse(joinery.RefusedMIC)
	refuse(joinery.RefusedOtherNetwork)
	refuse(joinery.RefusedUnavailable) // ours
	var got []joinery.RefusalReason
	ids := map[joinery.EventID]bool{}
	for _, e := range w.feed(w.org, 100) {
		if e.Type == joinery.EventJoinRefused {
			got = append(got, e.Refusal.Reason)
			ids[e.ID] = true
			if e.DevEUI != s.Device.DevEUI || e.Refusal.Peer != p.ID || e.Refusal.Received.NetID != netID {
				w.t.Errorf("%+v", e)
			}
		}
	}
	w.equal(got, []joinery.RefusalReason{joinery.RefusedMIC, joinery.RefusedOtherNetwork})
	if len(ids) != 2 {
		w.t.Error("two events have one id")
	}
}

// Of many refusals at once, each that is new is told, though none comes after it.
func feedManyRefusals(w *world) {
	const devices = 50
	p := joinery.Peer{ID: joinery.NewPeerID(), Org: w.org, Name: "network", CreatedAt: epoch}
	w.ok(w.AddPeer(w.ctx, p, nil, w.audit(joinery.AuditPeerAdded)))
	var batch joinery.RefusalBatch
	for n := range devices {
		s := w.add(derived(n))
		for _, reason := range []joinery.RefusalReason{joinery.RefusedMIC, joinery.RefusedUnavailable} { // the second is ours
			batch.Devices = append(batch.Devices, joinery.RefusalCount{Count: 1, First: epoch, Refusal: joinery.Refusal{
				At: epoch, Peer: p.ID, Device: s.Device.ID, Owner: w.org, Reason: reason, Received: joinery.Received{Message: "JoinReq", NetID: netID},
			}})
		}
	}
	w.ok(w.RecordRefusals(w.ctx, batch))
	for range 10 {
		w.sequence()
	}
	told := map[joinery.DeviceID]int{}
	for _, e := range w.feed(w.org, 100) {
		if e.Type == joinery.EventJoinRefused {
			told[e.Device]++
		}
	}
	for device, n := range told {
		if n != 1 {
			w.t.Errorf("%s: told %d times", device, n)
		}
	}
	if len(told) != devices {
		w.t.Errorf("the refusals of %d devices are told, want %d", len(told), devices)
	}
	if more, err := w.Sequence(w.ctx, false); err != nil || more {
		w.t.Errorf("there is more: %v", err)
	}
}

// What is old is forgotten, but not what a webhook waits for, and not the end.
func feedPrune(w *world) {
	for n := range 5 {
		w.importAs(w.org, derived(n))
	}
	all := w.feed(w.org, 100)
	hook := w.addWebhook(w.org)
	w.importAs(w.org, derived(9))
	n, err := w.PruneEvents(w.ctx, time.Now().Add(-time.Hour), 100)
	if w.ok(err); n != 0 {
		w.t.Errorf("%d pages from this hour are forgotten", n)
	}
	n, err = w.PruneEvents(w.ctx, time.Now().Add(time.Hour), 3)
	if w.ok(err); n != 3 {
		w.t.Errorf("%d pages are forgotten, want 3", n)
	}
	_, err = w.Events(w.ctx, joinery.EventQuery{After: all[0].Cursor, Org: w.org})
	w.refused(err, joinery.CodeNotFound)
	_, err = w.PruneEvents(w.ctx, time.Now().Add(time.Hour), 100)
	w.ok(err)
	p, err := w.Events(w.ctx, joinery.EventQuery{After: hook.Cursor, Org: w.org})
	if w.ok(err); len(p.Events) != 2 {
		w.t.Errorf("%d events are left for the webhook, want 2", len(p.Events))
	}
	w.ok(w.RemoveWebhook(w.ctx, hook.ID, w.audit(joinery.AuditWebhookRemoved)))
	end, err := w.FeedEnd(w.ctx)
	w.ok(err)
	_, err = w.PruneEvents(w.ctx, time.Now().Add(time.Hour), 100)
	w.ok(err)
	again, err := w.FeedEnd(w.ctx)
	if w.ok(err); again != end {
		w.t.Errorf("the end was %v and is %v", end, again)
	}
}

// A webhook is late by the oldest page that it waits for; one that has all, or is
// off, is not.
func feedLate(w *world) {
	w.importAs(w.org, derived(1))
	hook, there, off := w.addWebhook(w.org), w.addWebhook(w.org), w.addWebhook(w.org)
	late := func(want ...joinery.WebhookID) {
		w.t.Helper()
		list, err := w.LateWebhooks(w.ctx, time.Now().Add(time.Hour))
		w.ok(err)
		var got []joinery.WebhookID
		for _, h := range list {
			got = append(got, h.ID)
		}
		slices.Sort(want)
		w.equal(got, want)
	}
	late()
	w.importAs(w.org, derived(2))
	late(hook.ID, there.ID, off.ID)
	list, err := w.LateWebhooks(w.ctx, time.Now().Add(-time.Hour))
	if w.ok(err); len(list) != 0 {
		w.t.Errorf("%d webhooks wait for what is from this hour", len(list))
	}
	end, err := w.FeedEnd(w.ctx)
	w.ok(err)
	w.ok(w.RecordDeliveries(w.ctx, there.ID, joinery.WebhookProgress{Cursor: end}, nil))
	w.ok(w.DisableWebhook(w.ctx, off.ID, "a test", w.audit(joinery.AuditWebhookDisabled)))
	w.ok(w.EnableWebhook(w.ctx, hook.ID, false, w.audit(joinery.AuditWebhookEnabled)))
	late(hook.ID)
}

// Joins from many sides, named meanwhile: each comes once, none is left out.
func feedWhileJoining(w *world) {
	const devices, joins = 8, 20
	states := make([]joinery.ActivationState, devices)
	for n := range states {
		states[n] = w.add(derived(n))
	}
	var joining sync.WaitGroup
	var mu sync.Mutex
	committed := map[joinery.ActivationID]bool{}
	for _, s := range states {
		joining.Go(func() {
			for range joins {
				s, err := w.LoadActivation(w.ctx, s.Device.JoinEUI, s.Device.DevEUI)
				if err != nil {
					w.t.Error(err)
					return
				}
				c := NextCommit(s)
				if err := w.CommitActivation(w.ctx, c); err != nil {
					w.t.Error(err)
					return
				}
				mu.Lock()
				committed[c.Activation.ID] = true
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { joining.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(5 * time.Millisecond):
		}
		w.sequence()
	}
	w.sequence()
	named := map[joinery.ActivationID]int{}
	last := map[joinery.DeviceID]uint32{}
	for _, e := range w.feed(w.org, 64) {
		if e.Type != joinery.EventDeviceJoined {
			continue
		}
		named[e.Join.ID]++
		if n := uint32(e.Join.JoinNonce); n <= last[e.Device] {
			w.t.Errorf("the joins of a device do not come in their order: %d after %d", n, last[e.Device])
		} else {
			last[e.Device] = n
		}
	}
	for id := range committed {
		if named[id] != 1 {
			w.t.Errorf("a join is in the feed %d times", named[id])
		}
	}
	if len(named) != len(committed) {
		w.t.Errorf("%d joins are in the feed, %d were committed", len(named), len(committed))
	}
}

// Nobody reads another organisation's events.
func feedOrganisations(w *world) {
	other := w.addOrg("other")
	w.assign(other, 0x10, 0x1F)
	mine := w.add(derived(1))
	n := derived(2)
	n.Device.JoinEUI[7] = 0x10
	w.importAs(other, n)
	theirs := w.load(n.Device.JoinEUI, n.Device.DevEUI)
	w.join(mine)
	w.join(theirs)
	w.sequence()
	for org, device := range map[joinery.OrgID]joinery.DeviceID{w.org: mine.Device.ID, other: theirs.Device.ID} {
		for _, e := range w.feed(org, 3) {
			if e.Org != org || e.Device != 0 && e.Device != device {
				w.t.Errorf("%s of %s about %s", e.Type, e.Org, e.Device)
			}
		}
		w.equal(eventKinds(w.feed(org, 3)), []string{"device.imported", "import.finished", "device.joined"})
	}
	if got := len(w.feed(0, 100)); got != 6 {
		w.t.Errorf("the operator reads %d events, want 6", got)
	}
}

// One leads at a time.
func feedLead(w *world) {
	held, release, err := w.Lead(w.ctx)
	w.ok(err)
	if held == nil {
		w.t.Fatal("nobody leads, and yet it cannot be had")
	}
	w.ok(held())
	release()
	held, release, err = w.Lead(w.ctx)
	if w.ok(err); held == nil {
		w.t.Fatal("a lead that was given back cannot be had")
	}
	release()
}

// Webhooks is addresses to which events are sent.
type Webhooks interface {
	AddWebhook(ctx context.Context, h joinery.Webhook, most int, a joinery.AuditEntry) (joinery.Webhook, error)
	Webhook(ctx context.Context, id joinery.WebhookID) (joinery.Webhook, error)
	Webhooks(ctx context.Context, org joinery.OrgID) ([]joinery.Webhook, error)
	RotateWebhook(ctx context.Context, id joinery.WebhookID, expected uint32, at, overlapUntil time.Time, a joinery.AuditEntry) error
	EnableWebhook(ctx context.Context, id joinery.WebhookID, fromNow bool, a joinery.AuditEntry) error
	DisableWebhook(ctx context.Context, id joinery.WebhookID, why string, a joinery.AuditEntry) error
	RemoveWebhook(ctx context.Context, id joinery.WebhookID, a joinery.AuditEntry) error
	RecordDeliveries(ctx context.Context, id joinery.WebhookID, p joinery.WebhookProgress, attempts []joinery.Delivery) error
	Deliveries(ctx context.Context, id joinery.WebhookID) ([]joinery.Delivery, error)
}

// addWebhook adds a webhook for org.
func (w *world) addWebhook(org joinery.OrgID) joinery.Webhook {
	w.t.Helper()
	h, err := w.AddWebhook(w.ctx, joinery.Webhook{
		ID: joinery.NewWebhookID(), Org: org, URL: "https://example.com/joins", Description: "billing",
		Types: []joinery.EventType{joinery.EventDeviceJoined, joinery.EventJoinRefused}, Generation: 1, CreatedAt: epoch,
	}, 3, w.audit(joinery.AuditWebhookAdded))
	w.ok(err)
	return h
}

func runWebhooks(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	w.ok(w.BeginFeed(w.ctx))
	w.add(derived(1))
	other := w.addOrg("other")
	h, theirs := w.addWebhook(w.org), w.addWebhook(other)
	end, err := w.FeedEnd(w.ctx)
	w.ok(err)
	h.Cursor.Tag, end.Tag = 0, 0
	w.equal(h.Cursor, end)
	w.stored(h)
	list, err := w.Webhooks(w.ctx, w.org)
	w.ok(err)
	w.equal(list, []joinery.Webhook{h})
	list, err = w.Webhooks(w.ctx, 0)
	if w.ok(err); len(list) != 2 {
		t.Errorf("%d webhooks, want 2", len(list))
	}
	w.addWebhook(other)
	w.addWebhook(other)
	_, err = w.AddWebhook(w.ctx, theirs, 3, w.audit(joinery.AuditWebhookAdded))
	w.refused(err, joinery.CodeConflict)

	until := epoch.Add(time.Hour)
	w.ok(w.RotateWebhook(w.ctx, h.ID, 1, epoch, until, w.audit(joinery.AuditWebhookRotated)))
	w.refused(w.RotateWebhook(w.ctx, h.ID, 1, epoch, until, w.audit(joinery.AuditWebhookRotated)), joinery.CodeConflict)
	w.refused(w.RotateWebhook(w.ctx, joinery.NewWebhookID(), 1, epoch, until, w.audit(joinery.AuditWebhookRotated)), joinery.CodeNotFound)
	h.Generation, h.RotatedAt, h.OverlapUntil = 2, epoch, until
	w.stored(h)
	w.deliveries(h)

	w.ok(w.RemoveWebhook(w.ctx, h.ID, w.audit(joinery.AuditWebhookRemoved)))
	w.refused(w.RemoveWebhook(w.ctx, h.ID, w.audit(joinery.AuditWebhookRemoved)), joinery.CodeNotFound)
	_, err = w.Webhook(w.ctx, h.ID)
	w.refused(err, joinery.CodeNotFound)
	w.ok(w.RecordDeliveries(w.ctx, h.ID, h.WebhookProgress, []joinery.Delivery{{At: epoch}})) // a delivery that was under way
	w.CheckInvariants(t)
}

func (w *world) stored(want joinery.Webhook) {
	w.t.Helper()
	got, err := w.Webhook(w.ctx, want.ID)
	w.ok(err)
	w.equal(got, want)
}

// deliveries checks that progress never goes back, that attempts are kept within
// bounds, and what being off means.
func (w *world) deliveries(h joinery.Webhook) {
	w.t.Helper()
	attempt := func(n int) joinery.Delivery {
		return joinery.Delivery{
			Event: joinery.NewEventID("test", []byte(fmt.Sprint(n))), Type: joinery.EventDeviceJoined, At: epoch.Add(time.Duration(n) * time.Second),
			Took: 7 * time.Millisecond, Attempt: uint32(n + 1), Status: 500, Error: "the receiver answered 500",
		}
	}
	h.WebhookProgress = joinery.WebhookProgress{
		Cursor: joinery.EventCursor{Page: h.Cursor.Page + 2, Index: 7}, FailingSince: epoch, Attempts: 3, NextAt: epoch.Add(time.Minute),
	}
	w.ok(w.RecordDeliveries(w.ctx, h.ID, h.WebhookProgress, []joinery.Delivery{attempt(0), attempt(1)}))
	w.stored(h)
	got, err := w.Deliveries(w.ctx, h.ID)
	w.ok(err)
	first, second := attempt(0), attempt(1)
	first.N, second.N = 1, 2
	w.equal(got, []joinery.Delivery{second, first})

	back := h.WebhookProgress
	back.Cursor.Index--
	w.ok(w.RecordDeliveries(w.ctx, h.ID, back, nil))
	w.stored(h)
	var many []joinery.Delivery
	for n := range joinery.MaxDeliveries + 20 {
		many = append(many, attempt(n+2))
	}
	w.ok(w.RecordDeliveries(w.ctx, h.ID, h.WebhookProgress, many))
	got, err = w.Deliveries(w.ctx, h.ID)
	if w.ok(err); len(got) != joinery.MaxDeliveries || got[0].Event != many[len(many)-1].Event {
		w.t.Errorf("%d attempts are kept, newest %+v", len(got), got[0])
	}

	off := w.audit(joinery.AuditWebhookDisabled)
	off.Org = h.Org
	w.ok(w.DisableWebhook(w.ctx, h.ID, "gone", off))
	w.ok(w.DisableWebhook(w.ctx, h.ID, "again", off)) // it is off already, and nobody is told twice
	h.Disabled, h.NextAt = "gone", time.Time{}
	w.stored(h)
	w.sequence()
	if n := len(slices.DeleteFunc(w.feed(h.Org, 100), func(e joinery.Event) bool { return e.Type != joinery.EventWebhookDisabled })); n != 1 {
		w.t.Errorf("%d events tell that it is off, want 1", n)
	}
	w.ok(w.EnableWebhook(w.ctx, h.ID, false, w.audit(joinery.AuditWebhookEnabled)))
	h.Disabled, h.FailingSince, h.Attempts = "", time.Time{}, 0
	w.stored(h)
	w.ok(w.EnableWebhook(w.ctx, h.ID, true, w.audit(joinery.AuditWebhookEnabled)))
	end, err := w.FeedEnd(w.ctx)
	w.ok(err)
	end.Tag = 0
	h.Cursor = end
	w.stored(h)
}
