package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
)

// attempts gives what the custody log says of refused attempts: event, to whom, by
// whom, act, reason and count.
func (w *world) attempts(orgs map[joinery.OrgID]string) (list []string) {
	w.t.Helper()
	entries, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	for _, e := range entries {
		if e.Event == joinery.AuditDeviceAttempt || e.Event == joinery.AuditOrgAttempt {
			list = append(list, fmt.Sprintf("%s of %s by %s: %s, %s, %s", e.Event, orgs[e.Org], e.Actor, e.Detail["act"], e.Detail["reason"], e.Detail["count"]))
		}
	}
	return list
}

func runAttempts(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s, gone := w.add(derived(1)), w.add(derived(2))
	other := w.addOrg("other")
	orgs := map[joinery.OrgID]string{w.org: "owner", other: "other"}
	at := time.Now().UTC().Truncate(time.Millisecond)
	seen := 0
	try := func(n int, as ...joinery.Attempt) {
		t.Helper()
		var b joinery.RefusalBatch
		for _, a := range as {
			a.At = at
			b.Attempts = append(b.Attempts, joinery.AttemptCount{Attempt: a, Count: uint64(n), First: at})
		}
		w.ok(w.RecordRefusals(w.ctx, b))
	}
	want := func(lines ...string) {
		t.Helper()
		all := w.attempts(orgs)
		got := append([]string(nil), all[seen:]...)
		seen = len(all)
		slices.Sort(got)
		slices.Sort(lines)
		w.equal(got, lines)
	}
	// Another's device: its holder is told, not who it was. Whoever tried is told
	// nothing, there being such a device or not.
	foreign := joinery.Attempt{Act: "getOwnerToken", Reason: joinery.AttemptNotHeld, By: "key key_x", Org: other, Device: s.Device.ID}
	absent := foreign
	absent.Device = 77
	try(1, foreign, absent)
	want("device.attempt_refused of owner by another organisation: getOwnerToken, not-held, 1")
	// A right that is lacking: told to whose credential it is, of its own device with
	// the device; and to the holder of a foreign one as before.
	lacks := joinery.Attempt{Act: "requestExport", Reason: joinery.AttemptNoRight, By: "key key_y", Org: w.org}
	about := lacks
	about.Device = s.Device.ID
	foreignLacks := foreign
	foreignLacks.Reason, foreignLacks.Act = joinery.AttemptNoRight, "armRekey"
	try(3, lacks, about, foreignLacks)
	want("org.attempt_refused of owner by key key_y: requestExport, no-right, 3",
		"device.attempt_refused of owner by another organisation: armRekey, not-held, 3",
		"device.attempt_refused of owner by key key_y: requestExport, no-right, 3",
		"org.attempt_refused of other by key key_x: armRekey, no-right, 3")
	// By what stands on the label; by nobody, and by a person of no organisation.
	try(1, joinery.Attempt{Act: "getDevice", Reason: joinery.AttemptNoCredential, DevEUI: s.Device.DevEUI},
		joinery.Attempt{Act: "claimDevice", Reason: joinery.AttemptOwned, By: "key key_x", Org: other, DevEUI: s.Device.DevEUI, JoinEUI: s.Device.JoinEUI},
		joinery.Attempt{Act: "claimDevice", Reason: joinery.AttemptOwned, By: "key key_x", Org: other, DevEUI: s.Device.DevEUI, JoinEUI: devEUI(9)},
		joinery.Attempt{Act: "release", Reason: joinery.AttemptNotHeld, By: "person per_x", Device: s.Device.ID})
	want("device.attempt_refused of owner by another organisation: claimDevice, owned, 1",
		"device.attempt_refused of owner by another organisation: release, not-held, 1",
		"device.attempt_refused of owner by no credential: getDevice, no-credential, 1")
	// With the id of a key and another secret: nobody, to who holds the device, whoever's
	// the id is, and to whose it is that this was tried.
	wrong := joinery.Attempt{Act: "getEvidence", Reason: joinery.AttemptKeyWrong, By: "key key_x", Org: other, Device: s.Device.ID}
	more, mine, operators := wrong, wrong, wrong
	more.Act = "armRekey"
	mine.Act, mine.By, mine.Org = "deleteDevice", "key key_y", w.org
	operators.Act, operators.By, operators.Org, operators.Operator = "requestExport", "key key_o", 0, true
	try(1, wrong, more, mine, operators)
	tried := w.attempts(orgs)[seen:]
	w.equal(slices.DeleteFunc(slices.Sorted(slices.Values(tried)), func(line string) bool { return strings.Contains(line, "key_o") }), []string{
		"device.attempt_refused of owner by no credential: armRekey, no-credential, 1",
		"device.attempt_refused of owner by no credential: deleteDevice, no-credential, 1",
		"device.attempt_refused of owner by no credential: getEvidence, no-credential, 1",
		"device.attempt_refused of owner by no credential: requestExport, no-credential, 1",
		"org.attempt_refused of other by key key_x: other, key-wrong, 2",
		"org.attempt_refused of owner by key key_y: other, key-wrong, 1",
	})
	seen += len(tried)
	// Before it had the device: not the present owner's.
	early := foreign
	early.Act = "early"
	w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Attempts: []joinery.AttemptCount{{Attempt: early, Count: 1, First: epoch.Add(-time.Hour)}}}))
	want()
	// What goes on is told when the hour is over, once, and is then forgotten.
	try(40, foreign)
	try(2, foreign)
	w.closeAll(at.Add(time.Minute))
	want()
	w.closeAll(at.Add(2 * time.Hour))
	want("device.attempt_refused of owner by another organisation: getOwnerToken, not-held, 42")
	w.closeAll(at.Add(4 * time.Hour))
	w.closeAll(at.Add(6 * time.Hour))
	want()
	// More kinds than are told apart are one kind more: of a device, and of all.
	for n := range joinery.MaxDeviceAttempts + 4 {
		a := foreign
		a.Act = fmt.Sprint("act ", n)
		try(1, a)
	}
	all := w.attempts(orgs)
	w.equal(all[len(all)-1], "device.attempt_refused of owner by joinery: other, other, 1")
	w.equal(len(all)-seen, joinery.MaxDeviceAttempts+1)
	for n := range joinery.MaxOrgAttempts {
		a := lacks
		a.Act = fmt.Sprint("act ", n)
		try(1, a)
	}
	all = w.attempts(orgs)
	w.equal(all[len(all)-1], "org.attempt_refused of owner by joinery: other, other, 1")
	w.equal(len(all)-seen, joinery.MaxOrgAttempts+1)
	w.CheckInvariants(t)
	seen = len(all)
	// So many are forgotten bit by bit.
	left, err := w.CloseAttempts(w.ctx, at.Add(8*time.Hour))
	w.ok(err)
	w.equal(left, true)
	w.closeAll(at.Add(8 * time.Hour))
	want("org.attempt_refused of owner by joinery: other, other, "+"16",
		"device.attempt_refused of owner by joinery: other, other, 3")
	// A device that goes has them told first.
	w.closeAll(at.Add(10 * time.Hour))
	last := foreign
	last.Device = gone.Device.ID
	try(1, last)
	try(4, last)
	want("device.attempt_refused of owner by another organisation: getOwnerToken, not-held, 1")
	w.ok(w.DeleteDevice(w.ctx, gone.Device.ID, w.org, w.about(joinery.AuditDeviceDeleted, gone)))
	want("device.attempt_refused of owner by another organisation: getOwnerToken, not-held, 4")
	try(1, last)
	want()
	// A clock that was set back holds up nothing.
	try(1, lacks)
	try(2, lacks)
	want("org.attempt_refused of owner by key key_y: requestExport, no-right, 1")
	w.closeAll(at.Add(-24 * time.Hour))
	want("org.attempt_refused of owner by key key_y: requestExport, no-right, 2")
	w.CheckInvariants(t)
}
