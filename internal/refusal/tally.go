package refusal

import (
	"time"

	"joinery"
)

// Bounds of the counts that wait to be written.
const (
	maxTotals  = 4096 // counts by peer and reason
	maxDevices = 4096 // counts of devices, of which one peer may have:
	maxOfPeer  = 1024
	maxNamed   = 1024 // counts of devices that nobody looked up, of which one peer may have:
	maxNames   = 256
	maxUnknown = 4096 // devices that are not here, of which one peer may have joinery.MaxUnknownDevices

	maxAttempts   = 2048 // counts of attempts, of which one organisation may have made:
	maxOfAttempts = 512
)

// tally counts what is alike. One goroutine uses it.
type tally struct {
	totals, devices, named, unknown ofPeers
	attempts                        shares[attempter, joinery.Attempt, joinery.AttemptCount]
}

// attempter is whose credential an attempt was made with: an organisation's, the
// operator's, or none.
type attempter struct {
	org      joinery.OrgID
	operator bool
}

func newTally() tally {
	t := tally{
		totals:  newShares(peerOf, byReason, maxTotals, len(joinery.RefusalReasons)),
		devices: newShares(peerOf, byDevice, maxDevices, maxOfPeer),
		named:   newShares(peerOf, byName, maxNamed, maxNames),
		unknown: newShares(peerOf, byEUIs, maxUnknown, joinery.MaxUnknownDevices),
		attempts: newShares(
			attempterOf,
			func(c *joinery.AttemptCount) joinery.Attempt { a := c.Attempt; a.At = time.Time{}; return a },
			maxAttempts, maxOfAttempts),
	}
	// What the store would let go of at once needs no writing.
	t.unknown.newest = true
	return t
}

// attempterOf takes who has another secret than the key's for nobody: whoever knows a
// key's id could use up its organisation's share.
func attempterOf(c *joinery.AttemptCount) attempter {
	if c.Reason == joinery.AttemptKeyWrong {
		return attempter{}
	}
	return attempter{c.Org, c.Operator}
}

func peerOf(c *joinery.RefusalCount) joinery.PeerID { return c.Peer }

func byReason(c *joinery.RefusalCount) rowKey { return rowKey{peer: c.Peer, reason: c.Reason} }

func byDevice(c *joinery.RefusalCount) rowKey {
	return rowKey{peer: c.Peer, reason: c.Reason, device: c.Device, owner: c.Owner}
}

func byName(c *joinery.RefusalCount) rowKey {
	return rowKey{peer: c.Peer, reason: c.Reason, joinEUI: c.Received.JoinEUI, devEUI: c.Received.DevEUI}
}

func byEUIs(c *joinery.RefusalCount) rowKey {
	return rowKey{peer: c.Peer, joinEUI: c.Received.JoinEUI, devEUI: c.Received.DevEUI}
}

func (t *tally) len() int {
	return t.totals.len() + t.devices.len() + t.named.len() + t.unknown.len() + t.attempts.len()
}

// add counts one refusal, and tells whether all that is counted could be kept.
func (t *tally) add(x *joinery.Refusal) bool {
	c := joinery.RefusalCount{Refusal: *x, Count: 1, First: x.At}
	total := c
	total.Device, total.Owner, total.Decided = 0, 0, joinery.Decided{}
	kept := t.totals.add(total)
	switch {
	case c.Device != 0:
		return t.devices.add(c) && kept
	case c.Received.DevEUI.IsZero():
		return kept
	case c.Reason == joinery.RefusedUnknownDevice, c.Reason == joinery.RefusedJoinEUI:
		// Worth a row of its own: it was forgotten at import, or has a wrong EUI. It
		// is no device of ours whose counts could lack something.
		t.unknown.add(c)
		return kept
	case c.Reason == joinery.RefusedNoRoaming:
		// Networks ask this about every foreign device that they hear.
		return kept
	}
	// Refused before anybody looked whether the device is here: its owner should
	// know all the same.
	return t.named.add(c) && kept
}

// take takes up to limit counts out, of each kind so many that none waits for
// ever behind another.
func (t *tally) take(limit int) (b joinery.RefusalBatch) {
	waiting := t.len()
	part := func(s *ofPeers, list []joinery.RefusalCount) []joinery.RefusalCount {
		waiting -= s.len()
		before := len(list)
		list = s.take(max(limit/2, limit-waiting), list)
		limit -= len(list) - before
		return list
	}
	// Of attempts each has its turn with refused requests, which come faster.
	waiting -= t.attempts.len()
	b.Attempts = t.attempts.take(max(limit/4, limit-waiting), nil)
	limit -= len(b.Attempts)
	b.Peers = part(&t.totals, nil)
	b.Devices = part(&t.devices, nil)
	b.Unknown = part(&t.unknown, nil)
	b.Devices = part(&t.named, b.Devices)
	return b
}

// giveBack puts a batch that was not written back before what came since, which
// stays where there is not room for both. It gives how many counts were lost by
// that.
func (t *tally) giveBack(b joinery.RefusalBatch) (lost, attempts int) {
	for _, c := range b.Attempts {
		if !t.attempts.giveBack(c) {
			attempts++
		}
	}
	for _, c := range b.Peers {
		if !t.totals.giveBack(c) {
			lost++
		}
	}
	for _, c := range b.Devices {
		kind := &t.devices
		if c.Device == 0 {
			kind = &t.named
		}
		if !kind.giveBack(c) {
			lost++
		}
	}
	for _, c := range b.Unknown {
		t.unknown.giveBack(c)
	}
	return lost, attempts
}
