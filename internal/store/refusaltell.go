package store

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"joinery"
)

// How often an event tells of refusals of one device, owner, peer and reason,
// and how many events one transaction adds. The others are told by the turns of
// Sequence that come, as many as are remembered; what is more than that, or was
// remembered when the server crashed, waits for the next refusal of its kind.
const (
	tellEvery  = time.Hour
	tellMost   = 16
	untoldMost = 1024
)

// refusalKey names one row of refusals of devices.
type refusalKey struct {
	device joinery.DeviceID
	owner  joinery.OrgID
	peer   joinery.PeerID
	reason joinery.RefusalReason
}

func keyOf(c joinery.RefusalCount) refusalKey {
	return refusalKey{c.Device, c.Owner, c.Peer, c.Reason}
}

// leave remembers refusals of which an event may be due.
func (s *sequence) leave(counts []joinery.RefusalCount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range counts {
		if len(s.untold) >= untoldMost {
			return
		}
		if s.untold == nil {
			s.untold = map[refusalKey]joinery.RefusalCount{}
		}
		s.untold[keyOf(c)] = c
	}
}

// takeUntold takes what leave remembered.
func (s *sequence) takeUntold() []joinery.RefusalCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	untold := slices.Collect(maps.Values(s.untold))
	s.untold = nil
	return untold
}

// tellRefusals puts into the feed what owners were not told for a while. It
// costs one look where all was told.
func (t *tx) tellRefusals(counts []joinery.RefusalCount) error {
	at := now()
	due, err := t.dueRefusals(counts, at)
	if err != nil || len(due) == 0 {
		return err
	}
	if len(due) == tellMost {
		t.leaveUntold(counts, due)
	}
	return t.tell(due, at)
}

// tell puts refusals into the feed and into the custody log.
func (t *tx) tell(due []joinery.RefusalCount, at time.Time) error {
	if len(due) == 0 {
		return nil
	}
	pages, entries := make([]eventPage, len(due)), make([]joinery.AuditEntry, len(due))
	for i, c := range due {
		note, err := json.Marshal(c)
		if err != nil {
			return err
		}
		pages[i] = eventPage{kind: pageRefusal, org: c.Owner, note: string(note)}
		entries[i] = refusedEntry(c, at)
	}
	return inOrder(
		func() error { return t.markTold(due, at) },
		func() error { return t.audit(entries...) },
		func() error { return t.addPages(pages...) },
	)
}

// markTold notes that nothing is left to be told of refusals.
func (t *tx) markTold(counts []joinery.RefusalCount, at time.Time) error {
	if len(counts) == 0 {
		return nil
	}
	v := valuesOf("device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
	for _, c := range counts {
		v.add(c.Device, c.Owner, c.Peer, c.Reason)
	}
	return t.exec(v.with(`UPDATE refusal_device SET told_at = ?, told = count
		WHERE (device, owner, peer, reason) IN (SELECT v.device, v.owner, v.peer, v.reason FROM v)`), append(v.args, at)...)
}

// refusedEntry is what the custody log says of refused requests: how many there
// were, all told, each hour that there are more.
func refusedEntry(c joinery.RefusalCount, at time.Time) joinery.AuditEntry {
	return joinery.AuditEntry{
		At: at, Event: joinery.AuditDeviceRefused, Actor: "joinery", Org: c.Owner, Device: c.Device, Peer: c.Peer,
		Detail: map[string]string{
			"reason": string(c.Reason), "count": strconv.FormatUint(c.Count, 10),
			"first": c.First.Format(time.RFC3339), "last": c.At.Format(time.RFC3339),
		},
	}
}

// leaveUntold leaves for later what was not told for want of room.
func (t *tx) leaveUntold(counts, told []joinery.RefusalCount) {
	gone := make(map[refusalKey]bool, len(told))
	for _, c := range told {
		gone[keyOf(c)] = true
	}
	t.sequence.leave(slices.DeleteFunc(slices.Clone(counts), func(c joinery.RefusalCount) bool { return gone[keyOf(c)] || ours(c) }))
}

// ours tells whether a refusal is our own trouble, and no news of the device.
func ours(c joinery.RefusalCount) bool {
	return c.Reason == joinery.RefusedUnavailable || c.Reason == joinery.RefusedInternal || c.Reason == joinery.RefusedFenced
}

// dueRefusals gives what is stored of those counts of which an event is due, at
// most tellMost. A
// clock that went back makes all due.
func (t *tx) dueRefusals(counts []joinery.RefusalCount, at time.Time) (due []joinery.RefusalCount, err error) {
	counts = slices.DeleteFunc(slices.Clone(counts), ours)
	err = inRuns(counts, func(run []joinery.RefusalCount) error {
		if len(due) >= tellMost {
			return nil
		}
		v := valuesOf("device INTEGER, owner INTEGER, peer INTEGER, reason TEXT")
		for _, c := range run {
			v.add(c.Device, c.Owner, c.Peer, c.Reason)
		}
		return t.each(v.with(`SELECT r.peer, r.reason, r.count, r.first_at, r.last_at, r.received, r.device, r.owner, r.decided
			FROM v JOIN refusal_device r ON r.device = v.device AND r.owner = v.owner AND r.peer = v.peer AND r.reason = v.reason
			WHERE r.told_at IS NULL OR r.told_at <= ? OR r.told_at > ? LIMIT ?`), func(r *row) error {
			c, err := scanDeviceRefusal(r)
			due = append(due, c)
			return err
		}, append(v.args, at.Add(-tellEvery), at, tellMost-len(due))...)
	})
	return due, err
}
