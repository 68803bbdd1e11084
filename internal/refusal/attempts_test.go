package refusal

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"joinery"
)

// told gives what the custody log says of attempts: by event, to whom, and by whose
// word, the sum of its counts.
func (f *fixture) told() (entries int, sum map[string]int) {
	f.t.Helper()
	sum = map[string]int{}
	for after, more := int64(0), true; more; {
		list, err := f.db.AuditEntries(f.t.Context(), after, 1000)
		ok(f.t, err)
		for _, e := range list {
			after = e.ID
			if e.Event != joinery.AuditDeviceAttempt && e.Event != joinery.AuditOrgAttempt {
				continue
			}
			n, err := strconv.Atoi(e.Detail["count"])
			ok(f.t, err)
			sum[fmt.Sprintf("%s of %s by %s, %s", e.Event, map[joinery.OrgID]string{f.maker: "maker", f.buyer: "buyer"}[e.Org], e.Actor, e.Detail["reason"])] += n
			entries++
		}
		more = len(list) == 1000
	}
	return entries, sum
}

// A million refused attempts by somebody who is at it, of all kinds: memory and
// database stay within their bounds, and what is not counted is said.
func TestAttemptsStayWithinBounds(t *testing.T) {
	const n = 1_000_000
	f := newFixture(t, 300)
	before := heap()
	most := 0
	at := time.Now().UTC()
	for i := range n {
		a := joinery.Attempt{At: at, Act: "act" + strconv.Itoa(i%301), Reason: joinery.AttemptNotHeld, By: "key", Org: f.buyer}
		switch i % 4 {
		case 0: // devices of others
			a.Device = f.devices[i/4%len(f.devices)].Device.ID
		case 1: // and such as are not here
			a.Device = joinery.DeviceID(i + 2)
		case 2: // a right that the key lacks
			a.Reason = joinery.AttemptNoRight
		case 3: // who is nobody
			a.By, a.Org, a.Reason = "", 0, joinery.AttemptNoCredential
			a.DevEUI = f.devices[i/4%len(f.devices)].Device.DevEUI
		}
		f.Attempt(&a)
		if i%10_000 == 0 {
			f.attempts.mu.Lock()
			most = max(most, len(f.attempts.waiting))
			f.attempts.mu.Unlock()
			f.asked <- make(chan struct{}) // counts what waits
		}
	}
	f.Sync(t.Context())
	f.Close()
	grown := int64(heap()) - int64(before)
	if s := f.Stats(); s.Attempts+f.stats.attemptsHurried.Load() != n || s.AttemptsDropped == 0 {
		t.Errorf("%+v", s)
	}
	if limit := int64(16 << 20); grown > limit || most > maxPending {
		t.Errorf("memory grew by %d bytes, want at most %d; %d waited", grown, limit, most)
	}
	atOnce, _ := f.told()
	now := time.Now().UTC()
	for more := true; more; {
		var err error
		more, err = f.db.CloseAttempts(t.Context(), now.Add(2*time.Hour))
		ok(t, err)
	}
	closed, sum := f.told()
	// Of each of two organisations, what is told apart and the rest; all but the first
	// of each kind when the hour is over.
	if limit := 2 * 2 * (joinery.MaxOrgAttempts + 1); closed > limit || atOnce == 0 {
		t.Errorf("%d entries, want at most %d; %d of them at once", closed, limit, atOnce)
	}
	for _, kind := range []string{
		"device.attempt_refused of maker by another organisation, not-held", "device.attempt_refused of maker by no credential, no-credential",
		"org.attempt_refused of maker by joinery, other", "org.attempt_refused of buyer by key, no-right",
	} {
		if sum[kind] == 0 {
			t.Errorf("nobody is told of %s: %v", kind, sum)
		}
	}
	delete(sum, "org.attempt_refused of buyer by joinery, other") // where so many came through
	if len(sum) != 4 {
		t.Errorf("told: %v", sum)
	}
}

// Who has many kinds of attempts leaves room for what another is refused.
func TestAttemptersDoNotCrowdOutOthers(t *testing.T) {
	counts := newTally()
	try := func(org joinery.OrgID, n int) {
		counts.attempts.add(joinery.AttemptCount{Attempt: joinery.Attempt{Org: org, Device: joinery.DeviceID(n)}, Count: 1})
	}
	for n := range 10 * maxAttempts {
		for org := range joinery.OrgID(10) {
			try(org+1, n+1)
		}
	}
	for n := range 10 * maxAttempts { // in the name of an organisation, by who does not have its secret
		counts.attempts.add(joinery.AttemptCount{Attempt: joinery.Attempt{Org: 99, By: "key", Reason: joinery.AttemptKeyWrong, Device: joinery.DeviceID(n)}, Count: 1})
	}
	if n := len(counts.attempts.of[attempter{org: 99}]); n != 0 {
		t.Errorf("%d kinds of what others made up are in an organisation's share", n)
	}
	try(99, 1)
	found := false
	for range 1 + counts.len()/maxBatch {
		for _, c := range counts.take(maxBatch).Attempts {
			found = found || c.Org == 99 && c.Reason == ""
		}
	}
	if !found || counts.len() != 0 {
		t.Errorf("found %t, %d are left", found, counts.len())
	}
}
