package storetest

import (
	"fmt"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// addNetwork adds a Network Server of the world's organisation.
func (w *world) addNetwork(name string) joinery.PeerID {
	w.t.Helper()
	return w.addPeer(newPeer(name)).ID
}

// refusal is some requests that peer was refused, the last of them n seconds
// after the epoch.
func refusal(peer joinery.PeerID, reason joinery.RefusalReason, n int) joinery.RefusalCount {
	at := epoch.Add(time.Duration(n) * time.Second)
	return joinery.RefusalCount{Count: 1, First: at, Refusal: joinery.Refusal{
		At: at, Peer: peer, Reason: reason,
		Received: joinery.Received{
			Message: "JoinReq", ProtocolVersion: "1.0", TransactionID: 7, SenderID: "000042", ReceiverID: "70B3D57ED0000001",
			NetID: lorawan.NetID{0, 0, 0x42}, JoinEUI: joinEUI, DevEUI: devEUI(n), MACVersion: lorawan.MAC1_0_3, Frame: "join", Count: uint16(n),
		},
	}}
}

// about makes c one of a device, refused because of what its owner said.
func about(c joinery.RefusalCount, s joinery.ActivationState) joinery.RefusalCount {
	c.Device, c.Owner = s.Device.ID, s.Device.Ownership.Org
	c.Decided = joinery.Decided{Bound: true, NetID: netID, ASID: "as.example.com", MACVersion: s.Device.MACVersion, Root10: joinery.NwkKey, Next: 8}
	return c
}

// logged gives the counts that the custody log tells of an event about a device.
func (w *world) logged(s joinery.ActivationState, event joinery.AuditEvent) (counts []string) {
	w.t.Helper()
	entries, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	for _, e := range entries {
		if e.Event == event && e.Device == s.Device.ID {
			counts = append(counts, e.Detail["count"])
		}
	}
	return counts
}

// closeAll closes all that is over at a time.
func (w *world) closeAll(at time.Time) {
	w.t.Helper()
	for more := true; more; {
		var err error
		more, err = w.CloseAttempts(w.ctx, at)
		w.ok(err)
	}
}

func runRefusals(t *testing.T, open func(testing.TB) Backend) {
	t.Run("told in the custody log, the last ones too", func(t *testing.T) {
		w := newWorld(t, open)
		peer, s := w.addNetwork("network"), w.add(derived(1))
		refuse := func(reason joinery.RefusalReason, n int) {
			c := about(refusal(peer, reason, 1), s)
			c.Count = uint64(n)
			w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{c}}))
		}
		refuse(joinery.RefusedMIC, 1) // is told at once
		refuse(joinery.RefusedMIC, 41)
		refuse(joinery.RefusedUnavailable, 3) // ours
		now := time.Now().UTC()
		w.closeAll(now)
		w.equal(w.logged(s, joinery.AuditDeviceRefused), []string{"1"})
		w.closeAll(now.Add(2 * time.Hour))
		w.closeAll(now.Add(4 * time.Hour))
		w.equal(w.logged(s, joinery.AuditDeviceRefused), []string{"1", "42"})
		w.wantRefusals(s, func() joinery.RefusalCount {
			c := about(refusal(peer, joinery.RefusedMIC, 1), s)
			c.Count = 42
			return c
		}(),
			func() joinery.RefusalCount {
				c := about(refusal(peer, joinery.RefusedUnavailable, 1), s)
				c.Count = 3
				return c
			}())
		refuse(joinery.RefusedMIC, 8)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.about(joinery.AuditDeviceDeleted, s)))
		w.equal(w.logged(s, joinery.AuditDeviceRefused), []string{"1", "42", "50"})
		w.CheckInvariants(t)
	})
	t.Run("attempts are told in the custody log, to whom they concern", func(t *testing.T) { runAttempts(t, open) })
	t.Run("wrong owner tokens are told in the custody log", func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		try := func(caller string, after time.Duration, n int) {
			at := epoch.Add(after)
			w.ok(w.NoteClaimFailures(w.ctx, []joinery.ClaimFailure{{DevEUI: s.Device.DevEUI, Caller: caller, At: at, Count: n}}, at.Add(-15*time.Minute)))
		}
		try("a", 0, 5)
		try("b", time.Minute, 2)
		try("a", 20*time.Minute, 1) // they go on, and the hour is not over
		w.equal(w.logged(s, joinery.AuditClaimRefused), []string(nil))
		left, err := w.ClaimFailures(w.ctx, epoch, 10)
		w.ok(err)
		w.equal(len(left), 3)
		try("a", 65*time.Minute, 1)
		w.equal(w.logged(s, joinery.AuditClaimRefused), []string{"8"})
		w.closeAll(epoch.Add(70 * time.Minute))
		w.equal(w.logged(s, joinery.AuditClaimRefused), []string{"8"})
		w.closeAll(epoch.Add(3 * time.Hour))
		w.equal(w.logged(s, joinery.AuditClaimRefused), []string{"8", "1"})
		left, err = w.ClaimFailures(w.ctx, epoch, 10)
		w.ok(err)
		w.equal(len(left), 0)
	})
	t.Run("counted", func(t *testing.T) {
		w := newWorld(t, open)
		peer, s := w.addNetwork("network"), w.add(derived(1))
		first := about(refusal(peer, joinery.RefusedOtherNetwork, 1), s)
		unknown, total := refusal(peer, joinery.RefusedUnknownDevice, 2), refusal(peer, joinery.RefusedOtherNetwork, 1)
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{
			Devices: []joinery.RefusalCount{first}, Unknown: []joinery.RefusalCount{unknown}, Peers: []joinery.RefusalCount{total},
		}))
		w.wantRefusals(s, first)
		w.wantPeer(peer, joinery.PeerRefusals{
			Totals: []joinery.RefusalCount{total}, Devices: []joinery.RefusalCount{first}, Unknown: []joinery.RefusalCount{unknown},
		})

		// The same again, seen by a server whose clock is behind.
		again := about(refusal(peer, joinery.RefusedOtherNetwork, 9), s)
		again.Count, again.First, again.At = 40, epoch.Add(-time.Minute), epoch
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{again}}))
		again.Count, again.At = 41, first.At
		w.wantRefusals(s, again)

		// Another reason is another row, the newest first.
		mic := about(refusal(peer, joinery.RefusedMIC, 3), s)
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{mic}}))
		w.wantRefusals(s, mic, again)
		w.Backend = w.Reopen(t)
		w.wantRefusals(s, mic, again)
		w.CheckInvariants(t)
	})
	t.Run("an owner's rows stay apart from the next owner's", func(t *testing.T) {
		w := newWorld(t, open)
		peer, s, buyer := w.addNetwork("network"), w.add(derived(1)), w.addOrg("buyer")
		before := about(refusal(peer, joinery.RefusedMIC, 1), s)
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{before}}))
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, buyer, nil, w.audit(joinery.AuditDeviceClaimed)))
		after := about(refusal(peer, joinery.RefusedMIC, 2), w.again(s))
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{after}}))
		w.wantRefusals(s, after, before)
		w.equal([]joinery.OrgID{after.Owner, before.Owner}, []joinery.OrgID{buyer, w.org})
	})
	t.Run("about a device by its EUIs", func(t *testing.T) {
		w := newWorld(t, open)
		peer, s, buyer := w.addPeer(newPeer("network")).ID, w.add(derived(1)), w.addOrg("buyer")
		claimed := w.audit(joinery.AuditDeviceClaimed)
		claimed.At = epoch.Add(time.Minute)
		w.ok(w.Claim(w.ctx, s.Device.ID, 0, buyer, nil, claimed))
		// What was refused before it changed hands is not the buyer's to read.
		before, since := refusal(peer, joinery.RefusedMalformed, 1), refusal(peer, joinery.RefusedOptNeg, 1)
		since.At = epoch.Add(time.Hour)
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{before, since}}))
		w.wantRefusals(s)
		named, nobodys := refusal(peer, joinery.RefusedMalformed, 1), refusal(peer, joinery.RefusedMalformed, 2)
		named.First, named.At = claimed.At, claimed.At
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{named, nobodys}}))
		named.Device, named.Owner = s.Device.ID, buyer
		w.wantRefusals(s, named)
		w.wantPeer(peer, joinery.PeerRefusals{Devices: []joinery.RefusalCount{named}})
	})
	t.Run("bounded", func(t *testing.T) { runRefusalBounds(t, open) })
	t.Run("gone with device and peer", func(t *testing.T) {
		w := newWorld(t, open)
		peer, gone, stays := w.addNetwork("network"), w.add(derived(1)), w.add(derived(2))
		batch := joinery.RefusalBatch{
			Devices: []joinery.RefusalCount{about(refusal(peer, joinery.RefusedMIC, 1), gone), about(refusal(peer, joinery.RefusedMIC, 2), stays)},
			Unknown: []joinery.RefusalCount{refusal(peer, joinery.RefusedUnknownDevice, 3)},
			Peers:   []joinery.RefusalCount{refusal(peer, joinery.RefusedMIC, 4)},
		}
		w.ok(w.RecordRefusals(w.ctx, batch))
		w.ok(w.DeleteDevice(w.ctx, gone.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		w.ok(w.RemovePeer(w.ctx, peer, w.audit(joinery.AuditPeerRemoved)))
		// What was on its way when they went is left out, and keeps nothing else out.
		batch.Devices[1].Count = 5
		w.ok(w.RecordRefusals(w.ctx, batch))
		w.wantRefusals(gone)
		batch.Devices[1].Count = 6
		w.wantRefusals(stays, batch.Devices[1])
		w.wantPeer(peer, joinery.PeerRefusals{Devices: batch.Devices[1:]})
		w.CheckInvariants(t)
	})
}

func runRefusalBounds(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	peer, s := w.addNetwork("network"), w.add(derived(1))
	bystander := about(refusal(peer, joinery.RefusedMIC, 1), w.add(derived(2)))
	w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{bystander}}))
	reasons := joinery.RefusalReasons
	for n := range joinery.MaxDeviceRefusals + 20 {
		by := peer
		if n >= len(reasons) {
			by = w.addNetwork(fmt.Sprint("network ", n))
		}
		c := about(refusal(by, reasons[n%len(reasons)], n), s)
		w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Devices: []joinery.RefusalCount{c}}))
	}
	list, err := w.DeviceRefusals(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(len(list), joinery.MaxDeviceRefusals)
	oldest := list[len(list)-1]
	w.equal([]any{list[0].Received.Count, oldest.Received.Count}, []any{uint16(joinery.MaxDeviceRefusals + 19), uint16(20)})
	other, err := w.Device(w.ctx, bystander.Device)
	w.ok(err)
	w.wantRefusals(other, bystander)

	// Unknown devices: the newest, one by one and many at once.
	var batch joinery.RefusalBatch
	for n := range 3 * joinery.MaxUnknownDevices {
		batch.Unknown = append(batch.Unknown, refusal(peer, joinery.RefusedUnknownDevice, n))
	}
	w.ok(w.RecordRefusals(w.ctx, batch))
	w.ok(w.RecordRefusals(w.ctx, joinery.RefusalBatch{Unknown: []joinery.RefusalCount{refusal(peer, joinery.RefusedJoinEUI, 9_000)}}))
	got, err := w.PeerRefusals(w.ctx, peer, 5)
	w.ok(err)
	w.equal([]any{len(got.Unknown), len(got.Devices)}, []any{joinery.MaxUnknownDevices, 5})
	w.equal(got.Unknown[0].Received.DevEUI, devEUI(9_000))
	w.equal(got.Unknown[len(got.Unknown)-1].Received.DevEUI, devEUI(2*joinery.MaxUnknownDevices+1))
	w.CheckInvariants(t)
}

func (w *world) wantRefusals(s joinery.ActivationState, want ...joinery.RefusalCount) {
	w.t.Helper()
	got, err := w.DeviceRefusals(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(got, want)
}

func (w *world) wantPeer(peer joinery.PeerID, want joinery.PeerRefusals) {
	w.t.Helper()
	got, err := w.PeerRefusals(w.ctx, peer, 0)
	w.ok(err)
	w.equal(got, want)
}
