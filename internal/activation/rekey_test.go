package activation_test

import (
	"crypto/aes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

var away = lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}

// wire is a device of the simulator that rekeys, whose memory fails when told to.
type wire struct {
	*device.Device
	h *house
	// made is what its element was made of, saved what its memory holds.
	nwk, app, rekey [16]byte
	saved           device.State
	saves, failAt   int // counted from 1; 0: never
}

var errPower = errors.New("power is gone")

func (d *wire) Save(s device.State) error {
	d.saves++
	if d.saves == d.failAt {
		return errPower
	}
	d.saved = s.Clone()
	return nil
}

// restart is the device after its power came back: an element as the factory made
// it, and what its memory holds.
func (d *wire) restart() {
	d.h.t.Helper()
	e, err := element.Provision(joinEUI, d.saved.DevEUI, d.nwk[:], d.app[:])
	ok(d.h.t, err)
	ok(d.h.t, e.SetRekeyKey(d.rekey[:]))
	d.saves, d.failAt = 0, 0
	d.Device, err = device.Restore(e, d.saved, device.Options{NVM: d})
	ok(d.h.t, err)
}

// addRekeying imports an element that rekeys by profile S, with an owner who says so.
func (h *house) addRekeying(version lorawan.MACVersion) *wire {
	h.t.Helper()
	first := h.add(version, binding())
	d := &wire{h: h, saved: first.State()}
	_, d.nwk, d.app = h.keys.DerivedKeySet(h.t, first.DevEUI(), 1)
	d.rekey = h.rekeyKey(first.DevEUI())
	d.restart()
	ok(h.t, h.store.SetRekeyProfile(h.t.Context(), h.state(d.Device).Device.ID, h.org, joinery.RekeyS, h.audit(joinery.AuditRekeyProfile)))
	return d
}

// rekeyKey is the rekeying key of a device: purpose 03 of profile ecb-v1.
func (h *house) rekeyKey(e lorawan.EUI64) [16]byte { return h.keyFor(3, e) }

// keyFor derives a key of a device by profile ecb-v1.
func (h *house) keyFor(purpose byte, e lorawan.EUI64) (key [16]byte) {
	h.t.Helper()
	c, err := aes.NewCipher(h.keys.MasterKey[:])
	ok(h.t, err)
	c.Encrypt(key[:], []byte{purpose, 1, 0, 0, 0, 1, 0, 0, e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]})
	return key
}

func (h *house) audit(e joinery.AuditEvent) joinery.AuditEntry {
	return joinery.AuditEntry{At: h.clock(), Event: e, Actor: "test", Org: h.org}
}

// server pins a Join Server, once.
func (h *house) server() joinery.JoinServerID {
	h.t.Helper()
	list, err := h.store.JoinServers(h.t.Context())
	ok(h.t, err)
	if len(list) > 0 {
		return list[0].ID
	}
	j := joinery.JoinServer{ID: joinery.NewJoinServerID(), Name: "there", TransportKey: []byte{1}, CreatedAt: noon}
	ok(h.t, h.store.AddJoinServer(h.t.Context(), j, h.audit(joinery.AuditJoinServerAdded)))
	return j.ID
}

// order is one that n tells from others.
func (h *house) order(d *wire, n byte) joinery.RekeyOrder {
	h.t.Helper()
	return joinery.RekeyOrder{
		ID: joinery.NewRekeyID(), Device: h.state(d.Device).Device.ID, State: joinery.RekeyArmed, Owner: h.org, By: "test",
		Rekey: lorawan.Rekey{JoinEUI: away, Cookie: lorawan.Cookie{n, n, n}}, At: h.clock(), ExpiresAt: h.clock().Add(time.Hour),
	}
}

func (h *house) arm(d *wire, n byte) joinery.RekeyOrder {
	h.t.Helper()
	o := h.order(d, n)
	ok(h.t, h.store.ArmRekey(h.t.Context(), o, h.server(), h.audit(joinery.AuditRekeyArmed)))
	return o
}

// join has the device join here, whatever it thinks of where it belongs.
func (d *wire) join() (device.Accepted, error) {
	d.h.t.Helper()
	req := d.h.joinRequest(d.Device)
	req.CFList = channels(d.h.t)
	answer, err := d.h.Join(d.h.t.Context(), req)
	if err != nil {
		return device.Accepted{}, err
	}
	return d.HandleAccept(answer.PHYPayload)
}

func channels(t testing.TB) lorawan.CFList {
	t.Helper()
	list, err := lorawan.ParseCFList(make([]byte, 16))
	ok(t, err)
	return list
}

// wantAt checks which JoinEUI the device asks for.
func (d *wire) wantAt(eui lorawan.EUI64) {
	d.h.t.Helper()
	if d.JoinEUI() != eui {
		d.h.t.Fatalf("the device asks for %v, want %v", d.JoinEUI(), eui)
	}
}

// A device that is armed gets the instruction in the place of the network's list,
// in each version; it derives, and asks elsewhere from then on.
func TestRekeyInstruction(t *testing.T) {
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_0_4, lorawan.MAC1_1} {
		t.Run(version.String(), func(t *testing.T) {
			h := newHouse(t)
			d := h.addRekeying(version)
			if a, err := d.join(); err != nil || a.Rekeyed || a.CFList != channels(t) {
				t.Fatalf("before: %+v, %v", a, err)
			}
			before := h.state(d.Device)
			o := h.arm(d, 1)
			a, err := d.join()
			ok(t, err)
			if got, is := a.CFList.Rekey(); !is || got != o.Rekey || !a.Rekeyed {
				t.Fatalf("got %+v", a)
			}
			d.wantAt(away)
			after, err := h.store.LoadActivation(t.Context(), joinEUI, d.DevEUI())
			ok(t, err)
			if r := after.Rekeying; r.Order.State != joinery.RekeySent || r.Order.Sent != 1 || len(r.Candidates) != 1 {
				t.Errorf("got %+v", r)
			}
			if after.KeySet.Nonces.JoinNonce != before.KeySet.Nonces.JoinNonce+1 {
				t.Error("the instruction cost more than a JoinNonce")
			}
			wantClean(t, h)
		})
	}
}

// A chip of profile M ignores the instruction in an accept until it has its
// authorising MAC; it obeys the next accept then, and derives what this server does.
func TestRekeyProfileM(t *testing.T) {
	h := newHouse(t)
	h.serial = "0123114e171b98b427"
	first := h.add(lorawan.MAC1_1, binding())
	devEUI := first.DevEUI()
	_, nwk, app := h.keys.DerivedKeySet(t, devEUI, 1)
	e, err := element.Provision(joinEUI, devEUI, nwk[:], app[:])
	ok(t, err)
	low, high := h.keyFor(4, devEUI), h.keyFor(5, devEUI)
	ok(t, e.SetSlotKey(slices.Concat(low[:], high[:]), []byte{1, 0x23, 0x11, 0x4e, 0x17, 0x1b, 0x98, 0xb4, 0x27}))
	d := &wire{h: h}
	d.Device, err = device.Restore(e, first.State(), device.Options{})
	ok(t, err)
	id := h.state(d.Device).Device.ID
	ok(t, h.store.SetRekeyProfile(t.Context(), id, h.org, joinery.RekeyM, h.audit(joinery.AuditRekeyProfile)))
	o := h.arm(d, 1)
	a, err := d.join()
	ok(t, err)
	if got, is := a.CFList.Rekey(); !is || got != o.Rekey || a.Rekeyed {
		t.Fatalf("without its MAC: %+v", a)
	}
	d.wantAt(joinEUI)

	state, err := h.store.RekeyingDevice(t.Context(), id)
	ok(t, err)
	mac, err := h.keys.Keyring.AuthMAC(t.Context(), state.KeySet)
	ok(t, err)
	ok(t, d.SetAuthMAC(mac[:]))
	if a, err = d.join(); err != nil || !a.Rekeyed {
		t.Fatalf("with its MAC: %+v, %v", a, err)
	}
	d.wantAt(away)
	frame, err := d.JoinRequest()
	ok(t, err)
	state, err = h.store.RekeyingDevice(t.Context(), id)
	ok(t, err)
	if c := state.Rekeying.Candidates; len(c) != 1 || h.keys.Keyring.VerifyJoin(t.Context(), c[0], frame) != nil {
		t.Errorf("the chip derived other root keys than this server: %+v", c)
	}
	wantClean(t, h)
}

// A repeat of the request gets the same bytes, instruction and all, and is not
// counted.
func TestRekeyRepeated(t *testing.T) {
	h := newHouse(t)
	d := h.addRekeying(lorawan.MAC1_1)
	h.arm(d, 1)
	req := h.joinRequest(d.Device)
	first, err := h.Join(t.Context(), req)
	ok(t, err)
	again, err := h.Join(t.Context(), req)
	ok(t, err)
	if !slices.Equal(first.PHYPayload, again.PHYPayload) {
		t.Error("a repeat gets other bytes")
	}
	if n := h.state(d.Device).Rekeying.Order.Sent; n != 1 {
		t.Errorf("sent %d times", n)
	}
	// A frame that the device did not make is told nothing and moves nothing.
	req = h.joinRequest(d.Device)
	req.PHYPayload[len(req.PHYPayload)-1] ^= 1
	_, err = h.Join(t.Context(), req)
	wantCode(t, err, joinery.CodeMIC)
	if n := h.state(d.Device).Rekeying.Order.Sent; n != 1 {
		t.Errorf("a wrong MIC: sent %d times", n)
	}
}

// The device loses power between any two steps, and is deaf in between: it always
// ends where it was sent, with keys that this server knows, and never derives
// twice by one cookie.
func TestRekeyInterrupted(t *testing.T) {
	for failAt := 1; failAt <= 4; failAt++ {
		h := newHouse(t)
		d := h.addRekeying(lorawan.MAC1_1)
		_, err := d.join()
		ok(t, err)
		h.arm(d, 1)
		_, err = h.Join(t.Context(), h.joinRequest(d.Device)) // it does not hear this one
		ok(t, err)
		d.saves, d.failAt = 0, failAt // 1: DevNonce, 2: derived, 3: JoinEUI, 4: none
		_, err = d.tryJoin()
		if (failAt < 4) != errors.Is(err, errPower) {
			t.Fatalf("step %d: %v", failAt, err)
		}
		d.restart()
		if d.JoinEUI() == joinEUI {
			h.sleep(time.Minute)
			a, err := d.join()
			ok(t, err)
			if !a.Rekeyed {
				t.Fatalf("step %d: not told again", failAt)
			}
		}
		d.wantAt(away)
		if n := len(d.State().Rekeyed); n != 1 {
			t.Errorf("step %d: derived %d times", failAt, n)
		}
		d.wantKnown(t)
		wantClean(t, h)
	}
}

// What happens before a device is told changes nothing of its joins: an order that
// waits for another person, its approval, and new root keys that were disclosed to a
// recipient before it heard of them. Then it is told, whatever was in between.
func TestRekeyApproved(t *testing.T) {
	h := newHouse(t)
	d := h.addRekeying(lorawan.MAC1_1)
	ordinary := func(what string) {
		t.Helper()
		h.sleep(time.Minute)
		if a, err := d.join(); err != nil || a.Rekeyed || a.CFList != channels(t) {
			t.Fatalf("%s: %+v, %v", what, a, err)
		}
	}
	r := joinery.Recipient{ID: joinery.NewRecipientID(), Org: h.org, Name: "safe", Kind: joinery.RecipientFile, Thumbprint: strings.Repeat("t", 43), Key: "k", CreatedAt: noon}
	ok(t, h.store.AddRecipient(t.Context(), r, 9, h.audit(joinery.AuditRecipientAdded)))
	o := h.order(d, 1)
	o.State, o.Recipient, o.Thumbprint = joinery.RekeyRequested, r.ID, r.Thumbprint
	ok(t, h.store.ArmRekey(t.Context(), o, 0, h.audit(joinery.AuditRekeyRequested)))
	ordinary("while it waits")
	ok(t, h.store.EndRekey(t.Context(), o.ID, h.org, joinery.RekeyRejected, h.audit(joinery.AuditRekeyRejected)))
	ordinary("rejected")
	o.ID, o.At, o.Rekey.Cookie = joinery.NewRekeyID(), h.clock(), lorawan.Cookie{2}
	ok(t, h.store.ArmRekey(t.Context(), o, 0, h.audit(joinery.AuditRekeyRequested)))
	approved := h.audit(joinery.AuditRekeyApproved)
	approved.Actor = "another"
	ok(t, h.store.ApproveRekeys(t.Context(), []joinery.RekeyOrder{o}, nil, []joinery.AuditEntry{approved}))
	state := h.state(d.Device)
	ok(t, h.store.DiscloseRekey(t.Context(), state, o, joinery.NewKeySetID(), h.audit(joinery.AuditRekeyHandedOver), h.audit(joinery.AuditKeysExposed)))
	ok(t, h.store.EndRekey(t.Context(), o.ID, h.org, joinery.RekeyCancelled, h.audit(joinery.AuditRekeyCancelled)))
	ordinary("disclosed, and cancelled before it was sent")
	h.arm(d, 3)
	h.sleep(time.Minute)
	if a, err := d.join(); err != nil || !a.Rekeyed {
		t.Fatalf("got %+v, %v", a, err)
	}
	d.wantAt(away)
	d.wantKnown(t)
	wantClean(t, h)
}

// By its owner's word alone a device is told a few times: one that cannot obey has the
// network's channels back then. One that showed that it can is told for as long as it
// takes.
func TestRekeyByOwnersWord(t *testing.T) {
	h := newHouse(t)
	d := h.addRekeying(lorawan.MAC1_1)
	h.arm(d, 1)
	sent := func(want uint32) {
		t.Helper()
		if n := h.state(d.Device).Rekeying.Order.Sent; n != want {
			t.Fatalf("sent %d times, want %d", n, want)
		}
	}
	deaf := func(n int) {
		t.Helper()
		for range n {
			h.sleep(time.Minute)
			_, err := h.Join(t.Context(), h.joinRequest(d.Device))
			ok(t, err)
		}
	}
	deaf(joinery.RekeyTries + 2)
	sent(joinery.RekeyTries)
	if a, err := d.join(); err != nil || a.CFList != channels(t) {
		t.Fatalf("after %d tries: %+v, %v", joinery.RekeyTries, a, err)
	}
	orders, err := h.store.RekeyOrders(t.Context(), h.state(d.Device).Device.ID)
	ok(t, err)
	ok(t, h.store.EndRekey(t.Context(), orders[0].ID, h.org, joinery.RekeyCancelled, h.audit(joinery.AuditRekeyCancelled)))

	h.arm(d, 2)
	d.saves, d.failAt = 0, 3
	if _, err := d.tryJoin(); !errors.Is(err, errPower) { // derived, and does not know where to go
		t.Fatal(err)
	}
	d.restart()
	deaf(joinery.RekeyTries + 2)
	sent(joinery.RekeyTries + 3)
	if w := h.state(d.Device).Device.RekeyWord; w != joinery.RekeyByDevice {
		t.Errorf("by the word of its %s", w)
	}
	h.sleep(time.Minute)
	if _, err := d.join(); err != nil {
		t.Fatal(err)
	}
	d.wantAt(away)
	wantClean(t, h)
}

// tryJoin is join for a device whose power may go at once.
func (d *wire) tryJoin() (device.Accepted, error) {
	frame, err := d.JoinRequest()
	if err != nil {
		return device.Accepted{}, err
	}
	answer, err := d.h.Join(d.h.t.Context(), d.h.request(d.Device, frame))
	ok(d.h.t, err)
	return d.HandleAccept(answer.PHYPayload)
}

// wantKnown checks that a key set which this server knows made the device's next
// join-request.
func (d *wire) wantKnown(t *testing.T) {
	t.Helper()
	frame, err := d.JoinRequest()
	ok(t, err)
	s := d.h.state(d.Device)
	for _, k := range append([]joinery.KeySet{s.KeySet}, s.Rekeying.Candidates...) {
		if d.h.keys.Keyring.VerifyJoin(t.Context(), k, frame) == nil {
			return
		}
	}
	t.Error("no key set that is known made the frame")
}

// Orders are cancelled, expire and are given anew while the device may have obeyed
// any: whatever it did, it is served and led on.
func TestRekeyAgain(t *testing.T) {
	h := newHouse(t)
	d := h.addRekeying(lorawan.MAC1_0_4)
	first := h.arm(d, 1)
	d.saves, d.failAt = 0, 3
	_, err := d.tryJoin() // derived by the first, and does not know where to go
	if !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	d.restart()
	ok(t, h.store.EndRekey(t.Context(), first.ID, h.org, joinery.RekeyCancelled, h.audit(joinery.AuditRekeyCancelled)))
	before := h.state(d.Device).KeySet
	h.sleep(time.Minute)
	a, err := d.join() // nothing is ordered: an ordinary join, with the new keys
	ok(t, err)
	s := h.state(d.Device)
	if a.Rekeyed || s.KeySet.Origin != joinery.OriginRekeyed || s.KeySet.ID == before.ID || len(s.Rekeying.Candidates) != 0 {
		t.Fatalf("got %+v, %+v", a, s.Rekeying)
	}
	if s.KeySet.Nonces.JoinNonce != before.Nonces.JoinNonce+1 {
		t.Errorf("JoinNonce %d follows %d", s.KeySet.Nonces.JoinNonce, before.Nonces.JoinNonce)
	}
	second := h.arm(d, 2)
	h.sleep(2 * time.Hour) // it expires unsent
	if a, err = d.join(); err != nil || a.Rekeyed {
		t.Fatalf("after its time: %+v, %v", a, err)
	}
	third := h.arm(d, 3)
	if a, err = d.join(); err != nil || !a.Rekeyed {
		t.Fatalf("the third: %+v, %v", a, err)
	}
	d.wantAt(away)
	if got := d.State().Rekeyed; len(got) != 2 || lorawan.Rekey(got[1]) != third.Rekey {
		t.Errorf("the device derived by %v", got)
	}
	d.wantKnown(t)
	orders, err := h.store.RekeyOrders(t.Context(), s.Device.ID)
	ok(t, err)
	if orders[1].ID != second.ID || orders[1].State != joinery.RekeyExpired || orders[1].Sent != 0 {
		t.Errorf("the second: %+v", orders[1])
	}

	// Once it is confirmed, nothing is answered under the old JoinEUI, until it is
	// armed again.
	ok(t, h.store.EndRekey(t.Context(), third.ID, h.org, joinery.RekeyConfirmed, h.audit(joinery.AuditRekeyConfirmed)))
	_, err = h.Join(t.Context(), h.oldJoinEUI(d))
	wantCode(t, err, joinery.CodeJoinRefused)
	if r := joinery.RefusedOf(err); r.Reason != joinery.RefusedMoved {
		t.Errorf("reason %s", r.Reason)
	}
	wantClean(t, h)
}

// A device that was rekeyed to another Join Server comes back from there: the former one
// takes it in as new, once what it had of it is deleted, and its JoinNonces go on.
func TestRekeyAwayAndBack(t *testing.T) {
	for _, version := range []lorawan.MACVersion{lorawan.MAC1_0_4, lorawan.MAC1_1} {
		a, b := newHouse(t), newHouseAt(t, away)
		d := a.addRekeying(version)
		told := func(o joinery.RekeyOrder) {
			t.Helper()
			if r, err := d.join(); err != nil || !r.Rekeyed {
				t.Fatalf("%s: %+v, %v", version, r, err)
			}
			d.wantAt(o.Rekey.JoinEUI)
		}
		out := a.arm(d, 1)
		told(out)
		there, err := a.store.LoadActivation(t.Context(), joinEUI, d.DevEUI())
		ok(t, err)
		row := seal.SealedRow{JoinEUI: away, DevEUI: d.DevEUI(), MACVersion: version, Root10: seal.RootNwkKey, JoinNonceFloor: 1 << 16}
		header, rows, err := a.keys.Keyring.Handover(t.Context(), b.keys.Keyring.TransportKey(), []keyring.HandoverIn{{KeySet: there.Rekeying.Candidates[0], Row: row}})
		ok(t, err)
		b.take(header, rows[0])
		d.h = b
		joined, err := d.join()
		ok(t, err)
		ok(t, a.store.EndRekey(t.Context(), out.ID, a.org, joinery.RekeyConfirmed, a.audit(joinery.AuditRekeyConfirmed)))

		// The other Join Server tells it to come back.
		ok(t, b.store.SetRekeyProfile(t.Context(), b.state(d.Device).Device.ID, b.org, joinery.RekeyS, b.audit(joinery.AuditRekeyProfile)))
		back := b.order(d, 2)
		back.Rekey.JoinEUI = joinEUI
		ok(t, b.store.ArmRekey(t.Context(), back, b.server(), b.audit(joinery.AuditRekeyArmed)))
		b.sleep(time.Minute)
		told(back)
		d.h = a
		_, err = d.join()
		wantCode(t, err, joinery.CodeJoinRefused)

		s, err := seal.NewSealer(a.keys.Keyring.TransportKey())
		ok(t, err)
		row = seal.SealedRow{JoinEUI: joinEUI, DevEUI: d.DevEUI(), MACVersion: version, Root10: seal.RootNwkKey, JoinNonceFloor: joined.JoinNonce + 1<<16}
		rekey := encrypted(t, d.rekey, 0x23, out.Rekey)
		nwk, app := encrypted(t, rekey, 0x21, back.Rekey), encrypted(t, rekey, 0x22, back.Rekey)
		if !version.HasTwoRootKeys() {
			ok(t, s.SealRow(&row, nwk[:], nil))
		} else {
			ok(t, s.SealRow(&row, nwk[:], app[:]))
		}
		ok(t, a.store.DeleteDevice(t.Context(), there.Device.ID, a.org, a.audit(joinery.AuditDeviceDeleted)))
		a.take(s.Header(), row)
		a.sleep(time.Minute)
		again, err := d.join()
		ok(t, err)
		if again.JoinNonce <= joined.JoinNonce {
			t.Errorf("%s: JoinNonce %d after %d", version, again.JoinNonce, joined.JoinNonce)
		}
		wantClean(t, a)
		wantClean(t, b)
	}
}

// encrypted is one derivation of rekeying profile S.
func encrypted(t *testing.T, key [16]byte, purpose byte, r lorawan.Rekey) (out [16]byte) {
	t.Helper()
	c, err := aes.NewCipher(key[:])
	ok(t, err)
	block := append([]byte{purpose}, r.Cookie[:]...)
	for i := range r.JoinEUI {
		block = append(block, r.JoinEUI[7-i])
	}
	c.Encrypt(out[:], block)
	return out
}

// take imports a row that was sealed to this house.
func (h *house) take(header seal.Header, row seal.SealedRow) {
	h.t.Helper()
	k := joinery.KeySet{ID: joinery.NewKeySetID(), DevEUI: row.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nonces: joinery.Nonces{JoinNonce: row.JoinNonceFloor}}
	out, err := h.keys.Keyring.SealRoots(h.t.Context(), header, []keyring.RootsIn{{KeySet: k.ID, Row: row}})
	ok(h.t, err)
	ok(h.t, out[0].Err)
	k.Nwk, k.App = out[0].Nwk, out[0].App
	d := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: row.JoinEUI, DevEUI: row.DevEUI, MACVersion: row.MACVersion, CreatedAt: noon}
	k.DeviceID = d.ID
	i := joinery.Import{Org: h.org, Kind: joinery.ImportKeyList, CreatedAt: noon}
	copy(i.SHA256[:], header.Key)
	i, err = h.store.BeginImport(h.t.Context(), i)
	ok(h.t, err)
	rows, err := h.store.CommitRows(h.t.Context(), joinery.ImportRows{
		Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Line: 1, Device: d, KeySet: k, Binding: binding()}},
	}, h.audit(joinery.AuditDeviceImported))
	ok(h.t, err)
	if rows[0].Status != joinery.RowCreated {
		h.t.Fatalf("import: %+v", rows[0])
	}
}

// oldJoinEUI is the next join-request of a device that was brought back to its
// first JoinEUI by hand.
func (h *house) oldJoinEUI(d *wire) activation.JoinRequest {
	h.t.Helper()
	d.saved.JoinEUI = joinEUI
	d.restart()
	return h.joinRequest(d.Device)
}

// A list of that type is refused from a network, for every device, known or not.
func TestRekeyFromNetwork(t *testing.T) {
	h := newHouse(t)
	d := h.addRekeying(lorawan.MAC1_1)
	stranger := h.joinRequest(d.Device)
	stranger.DevEUI[0]++
	for _, req := range []activation.JoinRequest{h.joinRequest(d.Device), stranger} {
		req.CFList = lorawan.Rekey{JoinEUI: away}.CFList()
		frame, err := lorawan.ParseJoinRequest(req.PHYPayload)
		ok(t, err)
		frame.DevEUI = req.DevEUI
		req.PHYPayload = frame.Append(nil)
		_, err = h.Join(t.Context(), req)
		wantCode(t, err, joinery.CodeInvalid)
		if r := joinery.RefusedOf(err); r.Reason != joinery.RefusedCFList {
			t.Errorf("reason %s", r.Reason)
		}
	}
}

// A device of which nobody said that it rekeys costs nothing more than before.
func TestNoRekeying(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_1, binding())
	h.joined(d)
	if s := h.state(d); s.Rekeying != nil || s.Device.Rekeying {
		t.Errorf("got %+v", s.Rekeying)
	}
}

func wantClean(t *testing.T, h *house) {
	t.Helper()
	found, err := h.store.Fsck(t.Context(), h.keys.Keyring)
	ok(t, err)
	for _, v := range found {
		t.Error(v)
	}
}
