package refusal

import (
	"joinery"
	"joinery/lorawan"
)

// Bounds of the counts that wait to be written.
const (
	maxTotals  = 4096 // counts by peer and reason
	maxDevices = 4096 // counts of devices, of which one peer may have:
	maxOfPeer  = 1024
	maxNamed   = 1024 // counts of devices that nobody looked up, of which one peer may have:
	maxNames   = 256
	maxUnknown = 4096 // devices that are not here, of which one peer may have joinery.MaxUnknownDevices
)

// tally counts what is alike. One goroutine uses it.
type tally struct {
	totals  map[totalKey]*joinery.RefusalCount
	devices shares
	named   shares
	unknown map[unknownKey]*joinery.RefusalCount
	strange map[joinery.PeerID][]unknownKey // by peer, the oldest first
}

// shares is counts of devices, of which each peer has a share.
type shares struct {
	counts     map[deviceCount]*joinery.RefusalCount
	ofPeer     map[joinery.PeerID]int
	most, each int
}

func newShares(most, each int) shares {
	return shares{map[deviceCount]*joinery.RefusalCount{}, map[joinery.PeerID]int{}, most, each}
}

func (s *shares) add(c joinery.RefusalCount) bool {
	key := deviceKey(&c)
	before := len(s.counts)
	if s.counts[key] == nil && s.ofPeer[c.Peer] >= s.each || !put(s.counts, key, c, s.most) {
		return false
	}
	s.ofPeer[c.Peer] += len(s.counts) - before
	return true
}

// take appends up to n counts to list.
func (s *shares) take(n int, list []joinery.RefusalCount) []joinery.RefusalCount {
	for key, c := range s.counts {
		if n == 0 {
			break
		}
		n--
		delete(s.counts, key)
		if s.ofPeer[key.peer]--; s.ofPeer[key.peer] == 0 {
			delete(s.ofPeer, key.peer)
		}
		list = append(list, *c)
	}
	return list
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
	// Of a device that was not looked up; else zero.
	joinEUI, devEUI lorawan.EUI64
}

func deviceKey(c *joinery.RefusalCount) deviceCount {
	key := deviceCount{device: c.Device, owner: c.Owner, peer: c.Peer, reason: c.Reason}
	if c.Device == 0 {
		key.joinEUI, key.devEUI = c.Received.JoinEUI, c.Received.DevEUI
	}
	return key
}

type unknownKey struct {
	peer    joinery.PeerID
	joinEUI lorawan.EUI64
	devEUI  lorawan.EUI64
}

func newTally() tally {
	return tally{
		totals: map[totalKey]*joinery.RefusalCount{}, devices: newShares(maxDevices, maxOfPeer), named: newShares(maxNamed, maxNames),
		unknown: map[unknownKey]*joinery.RefusalCount{}, strange: map[joinery.PeerID][]unknownKey{},
	}
}

func (t *tally) len() int {
	return len(t.totals) + len(t.devices.counts) + len(t.named.counts) + len(t.unknown)
}

// add counts one refusal, and tells whether all of it could be kept.
func (t *tally) add(x *joinery.Refusal) bool {
	one := joinery.RefusalCount{Refusal: *x, Count: 1, First: x.At}
	return t.merge(one)
}

func (t *tally) merge(c joinery.RefusalCount) bool {
	kept := t.addTotal(c)
	switch {
	case c.Device != 0:
		return t.devices.add(c) && kept
	case c.Received.DevEUI.IsZero():
		return kept
	case c.Reason == joinery.RefusedUnknownDevice, c.Reason == joinery.RefusedJoinEUI:
		// Worth a row of its own: it was forgotten at import, or has a wrong EUI.
		return t.addUnknown(c) && kept
	case c.Reason == joinery.RefusedNoRoaming:
		// Networks ask this about every foreign device that they hear.
		return kept
	}
	// Refused before anybody looked whether the device is here: its owner should
	// know all the same.
	return t.named.add(c) && kept
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

// take takes up to limit counts out: totals first, which are few and complete,
// then of each other kind so many that none waits for ever behind another.
func (t *tally) take(limit int) (b joinery.RefusalBatch) {
	for key, c := range t.totals {
		if limit == 0 {
			return b
		}
		limit--
		delete(t.totals, key)
		b.Peers = append(b.Peers, *c)
	}
	b.Devices = t.devices.take(max(limit/2, limit-len(t.unknown)-len(t.named.counts)), nil)
	limit -= len(b.Devices)
	b.Unknown = t.takeUnknown(max(limit/2, limit-len(t.named.counts)))
	limit -= len(b.Unknown)
	b.Devices = t.named.take(limit, b.Devices)
	return b
}

func (t *tally) takeUnknown(limit int) (list []joinery.RefusalCount) {
	for peer, ring := range t.strange {
		n := min(limit, len(ring))
		for _, key := range ring[:n] {
			list = append(list, *t.unknown[key])
			delete(t.unknown, key)
		}
		if limit -= n; n == len(ring) {
			delete(t.strange, peer)
		} else {
			t.strange[peer] = ring[n:]
		}
		if limit == 0 {
			break
		}
	}
	return list
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
			kind := &t.devices
			if c.Device == 0 {
				kind = &t.named
			}
			lost += t.putBack(c, kind.counts[deviceKey(&c)], kind.add)
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
