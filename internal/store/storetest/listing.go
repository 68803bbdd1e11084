package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

func runListing(t *testing.T, open func(testing.TB) Backend) {
	t.Run("listing", listing(open))
	t.Run("listing by last join", listingByJoin(open))
	t.Run("listing what is rare", listingRare(open))
	t.Run("activations before one", activationsBefore(open))
}

// numbers gives which devices of derived and sealed a page holds.
func numbers(items []joinery.ActivationState) (list []int) {
	for _, s := range items {
		list = append(list, int(s.Device.DevEUI.Uint64()-devEUI(0).Uint64()))
	}
	return list
}

// all lists what q selects, in pages of size.
func (w *world) all(q joinery.DeviceQuery, size int) (list []int) {
	w.t.Helper()
	for q.Limit = size; ; {
		page, err := w.Devices(w.ctx, q)
		w.ok(err)
		if len(page.Items) > size {
			w.t.Fatalf("%d devices on a page of %d", len(page.Items), size)
		}
		list = append(list, numbers(page.Items)...)
		if q.After = page.Next; q.After.Device == 0 {
			return list
		}
	}
}

// count counts from first to last, without skipped ones.
func count(first, last int, keep func(int) bool) (list []int) {
	for n := first; n <= last; n++ {
		if keep(n) {
			list = append(list, n)
		}
	}
	return list
}

func listing(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		rival := w.addOrg("rival")
		w.assign(rival, 0x10, 0x1F)
		two := joinEUI
		two[7] = 2
		// Every fifth has another JoinEUI, every third a binding, every fourth is
		// suspended, every sixth joined.
		for n := range 25 {
			d := derived(n)
			if n%5 == 0 {
				d.Device.JoinEUI = two
			}
			if n%3 == 0 {
				d.Binding = binding()
			}
			s := w.add(d)
			if n%4 == 0 {
				w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, true, w.audit(joinery.AuditDeviceSuspended)))
			}
			if n%6 == 0 {
				w.join(s)
			}
		}
		theirs := derived(100)
		theirs.Device.JoinEUI[7] = 0x10
		w.importAs(rival, theirs)
		taken := w.load(joinEUI, devEUI(7))
		w.ok(w.Claim(w.ctx, taken.Device.ID, 0, w.org, nil, w.audit(joinery.AuditDeviceClaimed)))

		netID, yes, no := binding().NetID, true, false
		other := lorawan.NetID{9, 9, 9}
		every := func(of int) func(int) bool { return func(n int) bool { return n%of == 0 } }
		for _, c := range []struct {
			name string
			q    joinery.DeviceQuery
			want []int
		}{
			{"of all", joinery.DeviceQuery{}, append(count(0, 24, every(1)), 100)},
			{"owner", joinery.DeviceQuery{Org: w.org}, count(0, 24, every(1))},
			{"other owner", joinery.DeviceQuery{Org: rival}, []int{100}},
			{"JoinEUI", joinery.DeviceQuery{JoinEUI: two}, count(0, 24, every(5))},
			{"JoinEUI and owner", joinery.DeviceQuery{Org: w.org, JoinEUI: two}, count(0, 24, every(5))},
			{"one DevEUI", joinery.DeviceQuery{DevEUIPrefix: devEUI(3).String()}, []int{3}},
			{"prefix", joinery.DeviceQuery{DevEUIPrefix: devEUI(3).String()[:15]}, count(0, 15, every(1))},
			{"lower case", joinery.DeviceQuery{DevEUIPrefix: "0004a30b"}, append(count(0, 24, every(1)), 100)},
			{"other prefix", joinery.DeviceQuery{DevEUIPrefix: "FF"}, nil},
			{"network", joinery.DeviceQuery{NetID: &netID}, count(0, 24, every(3))},
			{"other network", joinery.DeviceQuery{NetID: &other}, nil},
			{"NSID", joinery.DeviceQuery{NSID: eightBytes(7)}, nil},
			{"suspended", joinery.DeviceQuery{Status: joinery.DeviceSuspended}, count(0, 24, every(4))},
			{"suspended, of an owner", joinery.DeviceQuery{Org: w.org, Status: joinery.DeviceSuspended}, count(0, 24, every(4))},
			{"active", joinery.DeviceQuery{Status: joinery.DeviceActive}, count(0, 24, func(n int) bool { return n%3 == 0 && n%4 != 0 })},
			{"unbound", joinery.DeviceQuery{Org: w.org, Status: joinery.DeviceUnbound}, count(0, 24, func(n int) bool { return n%3 != 0 && n%4 != 0 })},
			{"claimed", joinery.DeviceQuery{Claimed: &yes}, []int{7}},
			{"not claimed", joinery.DeviceQuery{Org: w.org, Claimed: &no}, count(0, 24, func(n int) bool { return n != 7 })},
			{"disclosed", joinery.DeviceQuery{Org: w.org, Disclosed: &yes}, nil},
			{"not disclosed", joinery.DeviceQuery{Org: w.org, Disclosed: &no}, count(0, 24, every(1))},
			{"never joined", joinery.DeviceQuery{Org: w.org, NeverJoined: true}, count(0, 24, func(n int) bool { return n%6 != 0 })},
			{"joined after", joinery.DeviceQuery{JoinedAfter: epoch.Add(-time.Hour)}, count(0, 24, every(6))},
			{"joined before", joinery.DeviceQuery{JoinedBefore: epoch.Add(-time.Hour)}, nil},
			{"much at once", joinery.DeviceQuery{Org: w.org, JoinEUI: two, NetID: &netID, Status: joinery.DeviceSuspended}, []int{0}},
		} {
			t.Run(c.name, func(t *testing.T) {
				w := *w
				w.t = t
				for _, size := range []int{1, 7, 1000} {
					w.equal(w.all(c.q, size), c.want)
				}
				down := c.q
				down.Descending = true
				slices.Reverse(c.want)
				w.equal(w.all(down, 4), c.want)
			})
		}
		for _, prefix := range []string{"xyz", "0004A30B000000000"} {
			_, err := w.Devices(w.ctx, joinery.DeviceQuery{DevEUIPrefix: prefix})
			w.refused(err, joinery.CodeInvalid)
		}
		_, err := w.Devices(w.ctx, joinery.DeviceQuery{Status: "asleep"})
		w.refused(err, joinery.CodeInvalid)
	}
}

func eightBytes(b byte) (e lorawan.EUI64) {
	e[7] = b
	return e
}

// listingByJoin: the order follows joins when it is told to, what is said of a
// device is always as it is, and a device that changed hands is the new owner's.
func listingByJoin(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		states := make([]joinery.ActivationState, 6)
		for n := range states {
			states[n] = w.add(derived(n))
		}
		at := epoch
		join := func(n int) {
			at = at.Add(time.Minute)
			c := NextCommit(w.again(states[n]))
			c.Activation.At = at
			w.ok(w.CommitActivation(w.ctx, c))
		}
		note := func() {
			more, err := w.NoteJoins(w.ctx, joinery.ActivationID(1<<62))
			w.ok(err)
			w.equal(more, false)
		}
		byJoin := joinery.DeviceQuery{Org: w.org, Sort: joinery.ByLastJoin}
		for _, n := range []int{3, 1, 4, 1, 5} {
			join(n)
		}
		w.equal(w.all(byJoin, 2), []int(nil))
		note()
		w.equal(w.all(byJoin, 2), []int{3, 4, 1, 5})
		newest := byJoin
		newest.Descending = true
		w.equal(w.all(newest, 3), []int{5, 1, 4, 3})
		note() // nothing new
		before := byJoin
		before.JoinedBefore = at.Add(-2 * time.Minute)
		w.equal(w.all(before, 1), []int{3})
		after := newest
		after.JoinedAfter = at.Add(-2 * time.Minute)
		w.equal(w.all(after, 1), []int{5, 1})

		join(3) // which the order does not know yet
		w.equal(w.all(before, 1), []int(nil))
		note()
		w.equal(w.all(byJoin, 2), []int{4, 1, 5, 3})

		owner := w.addOrg("owner")
		w.ok(w.Claim(w.ctx, states[4].Device.ID, 0, owner, nil, w.audit(joinery.AuditDeviceClaimed)))
		w.ok(w.DeleteDevice(w.ctx, states[1].Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		w.equal(w.all(byJoin, 2), []int{5, 3})
		w.equal(w.all(joinery.DeviceQuery{Org: owner, Sort: joinery.ByLastJoin}, 2), []int{4})
		w.equal(w.all(joinery.DeviceQuery{Sort: joinery.ByLastJoin}, 2), []int{4, 5, 3})
		w.CheckInvariants(t)
	}
}

// listingRare: a page that finds nothing ends all the same, and says where to go
// on.
func listingRare(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		const many = 250
		var devices []joinery.NewDevice
		for n := range many {
			d := derived(n)
			if n == many-1 {
				d.Binding = binding()
			}
			devices = append(devices, d)
		}
		w.importAs(w.org, devices...)
		netID := binding().NetID
		q := joinery.DeviceQuery{Org: w.org, NetID: &netID, Looks: 200}
		page, err := w.Devices(w.ctx, q)
		w.ok(err)
		if len(page.Items) != 0 || page.Next.Device == 0 {
			t.Fatalf("%d devices, next %+v", len(page.Items), page.Next)
		}
		q.After = page.Next
		page, err = w.Devices(w.ctx, q)
		w.ok(err)
		w.equal(numbers(page.Items), []int{many - 1})
		w.equal(page.Next, joinery.DevicePlace{})
	}
}

func activationsBefore(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s, other := w.add(derived(1)), w.add(derived(2))
		var made []joinery.ActivationID
		for range 7 {
			made = append(made, w.join(s).ID)
		}
		foreign := w.join(other).ID
		slices.Reverse(made)
		var got []joinery.ActivationID
		for before := joinery.ActivationID(0); ; {
			page, err := w.ActivationsBefore(w.ctx, s.Device.ID, before, 3)
			w.ok(err)
			if len(page) == 0 {
				break
			}
			for _, a := range page {
				got = append(got, a.ID)
			}
			before = got[len(got)-1]
		}
		w.equal(fmt.Sprint(got), fmt.Sprint(made))
		page, err := w.ActivationsBefore(w.ctx, s.Device.ID, foreign, 3)
		w.ok(err)
		w.equal(len(page), 0)
		_, err = w.ActivationsBefore(w.ctx, joinery.NewDeviceID(), foreign, 3)
		w.refused(err, joinery.CodeNotFound)
	}
}
