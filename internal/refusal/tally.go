package refusal

import (
	"joinery"
	"joinery/lorawan"
)

// Bounds of the counts that wait to be written.
const (
	maxDevices = 4096 // counts of devices, of which one peer may have:
	maxOfPeer  = 1024
	maxUnknown = 4096 // devices that are not here, of which one peer may have joinery.MaxUnknownDevices
	maxTotals  = 4096 // counts by peer and reason
)

// tally counts what is alike. One goroutine uses it.
type tally struct {
	totals  map[totalKey]*joinery.RefusalCount
	devices map[deviceCount]*joinery.RefusalCount
	ofPeer  map[joinery.PeerID]int // rows of devices
	unknown map[unknownKey]*joinery.RefusalCount
	strange map[joinery.PeerID][]unknownKey // by peer, the oldest first
}

type totalKey struct {
	peer   joinery.PeerID
	reason joinery.RefusalReason
}

type deviceCount struct {
	device joinery.DeviceID
	owner  joinery.OrgID
	peer   joinery.PeerID
	reason joinery.RefusalReason
}

type unknownKey struct {
	peer    joinery.PeerID
	joinEUI lorawan.EUI64
	devEUI  lorawan.EUI64
}

func newTally() tally {
	return tally{
		totals: map[totalKey]*joinery.RefusalCount{}, devices: map[deviceCount]*joinery.RefusalCount{},
		ofPeer: map[joinery.PeerID]int{}, unknown: map[unknownKey]*joinery.RefusalCount{}, strange: map[joinery.PeerID][]unknownKey{},
	}
}

func (t *tally) len() int { return len(t.totals) + len(t.devices) + len(t.unknown) }

// add counts one refusal, and tells whether all of it could be kept.
func (t *tally) add(x *joinery.Refusal) bool {
	one := joinery.RefusalCount{Refusal: *x, Count: 1, First: x.At}
	return t.merge(one)
}

func (t *tally) merge(c joinery.RefusalCount) bool {
	kept := t.addTotal(c)
	switch {
	case c.Device != 0:
		return t.addDevice(c) && kept
	case namesDevice(c.Reason) && !c.Received.DevEUI.IsZero():
		return t.addUnknown(c) && kept
	}
	return kept
}

// namesDevice tells for which reasons the device that is not here is worth a row
// of its own: it was forgotten at import, or it has a wrong JoinEUI. HomeNSReq is
// not among them, because networks ask it about every foreign device they hear.
func namesDevice(reason joinery.RefusalReason) bool {
	return reason == joinery.RefusedUnknownDevice || reason == joinery.RefusedJoinEUI
}

// put adds c, which came last, to what is counted under key; false where that
// would be one count more than most.
func put[K comparable](counts map[K]*joinery.RefusalCount, key K, c joinery.RefusalCount, most int) bool {
	if old := counts[key]; old != nil {
		*old = together(*old, c)
		return true
	}
	if len(counts) >= most {
		return false
	}
	counts[key] = &c
	return true
}

func (t *tally) addTotal(c joinery.RefusalCount) bool {
	c.Device, c.Owner, c.Decided = 0, 0, joinery.Decided{}
	return put(t.totals, totalKey{c.Peer, c.Reason}, c, maxTotals)
}

func (t *tally) addDevice(c joinery.RefusalCount) bool {
	key := deviceCount{c.Device, c.Owner, c.Peer, c.Reason}
	before := len(t.devices)
	if t.devices[key] == nil && t.ofPeer[c.Peer] >= maxOfPeer || !put(t.devices, key, c, maxDevices) {
		return false
	}
	t.ofPeer[c.Peer] += len(t.devices) - before
	return true
}

// addUnknown keeps the newest devices of each peer: what the store would let go
// of at once needs no writing.
func (t *tally) addUnknown(c joinery.RefusalCount) bool {
	key := unknownKey{c.Peer, c.Received.JoinEUI, c.Received.DevEUI}
	ring := t.strange[c.Peer]
	if t.unknown[key] == nil {
		if len(ring) >= joinery.MaxUnknownDevices {
			delete(t.unknown, ring[0])
			ring = ring[:copy(ring, ring[1:])]
		}
		if len(t.unknown) >= maxUnknown {
			t.strange[c.Peer] = ring
			return false
		}
		t.strange[c.Peer] = append(ring, key)
	}
	return put(t.unknown, key, c, maxUnknown)
}

// take takes up to limit counts out, totals first: they are few, and complete.
func (t *tally) take(limit int) (b joinery.RefusalBatch) {
	for key, c := range t.totals {
		if limit == 0 {
			return b
		}
		limit--
		delete(t.totals, key)
		b.Peers = append(b.Peers, *c)
	}
	for key, c := range t.devices {
		if limit == 0 {
			return b
		}
		limit--
		delete(t.devices, key)
		if t.ofPeer[key.peer]--; t.ofPeer[key.peer] == 0 {
			delete(t.ofPeer, key.peer)
		}
		b.Devices = append(b.Devices, *c)
	}
	for peer, ring := range t.strange {
		n := min(limit, len(ring))
		for _, key := range ring[:n] {
			b.Unknown = append(b.Unknown, *t.unknown[key])
			delete(t.unknown, key)
		}
		if limit -= n; n == len(ring) {
			delete(t.strange, peer)
		} else {
			t.strange[peer] = ring[n:]
		}
		if limit == 0 {
			return b
		}
	}
	return b
}

// together is two counts in one, with the values of the later.
func together(earlier, later joinery.RefusalCount) joinery.RefusalCount {
	later.Count += earlier.Count
	if earlier.First.Before(later.First) {
		later.First = earlier.First
	}
	return later
}

// giveBack puts a batch that was not written back among what came since, which
// goes first where there is not room for both. It gives how many counts were
// lost by that.
func (t *tally) giveBack(b joinery.RefusalBatch) (lost int) {
	since := t.take(t.len())
	for _, batch := range []joinery.RefusalBatch{b, since} {
		for _, c := range batch.Unknown {
			t.addUnknown(c)
		}
	}
	for _, batch := range []joinery.RefusalBatch{since, b} {
		for _, c := range batch.Peers {
			lost += t.putBack(c, t.totals[totalKey{c.Peer, c.Reason}], t.addTotal)
		}
		for _, c := range batch.Devices {
			lost += t.putBack(c, t.devices[deviceCount{c.Device, c.Owner, c.Peer, c.Reason}], t.addDevice)
		}
	}
	return lost
}

// putBack adds c to a count that is later than it, or else as add does.
func (t *tally) putBack(c joinery.RefusalCount, later *joinery.RefusalCount, add func(joinery.RefusalCount) bool) (lost int) {
	switch {
	case later != nil:
		*later = together(c, *later)
	case !add(c):
		return 1
	}
	return 0
}
