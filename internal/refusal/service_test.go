package refusal

import (
	"maps"
	"strings"
	"testing"

	"joinery"
)

func reasonsOf(list []Explained) string {
	var words []string
	for _, e := range list {
		words = append(words, string(e.Reason))
	}
	return strings.Join(words, " ")
}

func (f *fixture) record(refusals ...joinery.Refusal) {
	f.t.Helper()
	for _, x := range refusals {
		f.Record(&x)
	}
}

func TestOwnersSeeTheirOwnTime(t *testing.T) {
	f := newFixture(t, 1)
	ctx := t.Context()
	maker, buyer := joinery.Caller{Org: f.maker, Name: "maker"}, joinery.Caller{Org: f.buyer, Name: "buyer"}
	operator, stranger := joinery.Caller{Operator: true}, joinery.Caller{Org: joinery.NewOrgID()}
	id := f.devices[0].Device.ID
	f.record(about(f.peer, f.devices[0], joinery.RefusedMIC, 1))

	see := func(caller joinery.Caller, want string) Device {
		t.Helper()
		d, err := f.Device(ctx, caller, id)
		ok(t, err)
		if got := reasonsOf(d.Refusals); got != want {
			t.Errorf("%+v sees %q, want %q", caller, got, want)
		}
		if k := d.State.KeySet; k.Nwk.Use != nil || k.App.Use != nil || k.Nwk.Custody != nil || k.App.Custody != nil {
			t.Error("sealed roots went out")
		}
		return d
	}
	absent := func(caller joinery.Caller) {
		t.Helper()
		_, foreign := f.Device(ctx, caller, id)
		_, nobodys := f.Device(ctx, caller, joinery.NewDeviceID())
		if joinery.CodeOf(foreign) != joinery.CodeNotFound || foreign.Error() != nobodys.Error() {
			t.Errorf("%+v: %v, and for one that is not there %v", caller, foreign, nobodys)
		}
	}
	if d := see(maker, "mic"); !strings.Contains(d.Refusals[0].What, "your device") || len(d.Summary) == 0 {
		t.Errorf("%+v", d)
	}
	if d := see(operator, "mic"); !strings.Contains(d.Refusals[0].What, "the device") {
		t.Errorf("%+v", d)
	}
	absent(buyer)
	absent(stranger)

	ok(t, f.db.Claim(ctx, id, 0, f.buyer, nil, audit(joinery.AuditDeviceClaimed)))
	see(buyer, "")
	now, err := f.db.Device(ctx, id)
	ok(t, err)
	// One that was decided before the claim and recorded after it is the maker's.
	f.record(about(f.peer, now, joinery.RefusedOtherNetwork, 3), about(f.peer, f.devices[0], joinery.RefusedSuspended, 2))
	see(buyer, "other-network")
	see(operator, "other-network suspended mic")
	absent(maker)

	ok(t, f.db.Claim(ctx, id, 1, f.maker, nil, audit(joinery.AuditDeviceClaimed)))
	see(maker, "suspended mic")
	absent(buyer)
}

// What a peer's organisation reads is the same, whether a device is here and
// somebody else's, or not here at all.
func TestPeersLearnNoDevices(t *testing.T) {
	f := newFixture(t, 1)
	ctx := t.Context()
	mine, theirs := f.addPeer("known", f.buyer), f.addPeer("unknown", f.buyer)
	for n, reason := range []joinery.RefusalReason{joinery.RefusedOtherNetwork, joinery.RefusedNotBound, joinery.RefusedNSIDMissing, joinery.RefusedOtherNSID} {
		known := about(mine, f.devices[0], reason, n)
		not := unknown(theirs, 0, n)
		not.Received = known.Received
		f.record(known, not)
	}
	owner := joinery.Caller{Org: f.buyer}
	a, err := f.Peer(ctx, owner, mine.ID, 100)
	ok(t, err)
	b, err := f.Peer(ctx, owner, theirs.ID, 100)
	ok(t, err)
	if len(a.Totals) != 1 || len(b.Totals) != 1 || len(a.Devices)+len(a.Unknown)+len(b.Devices)+len(b.Unknown) != 0 {
		t.Fatalf("%+v\n%+v", a, b)
	}
	x, y := a.Totals[0], b.Totals[0]
	x.Peer, y.Peer = 0, 0
	if x != y || x.Count != 4 || x.Reason != joinery.RefusedUnknownDevice || x.Decided != (joinery.Decided{}) {
		t.Errorf("the two can be told apart:\n%+v\n%+v", x, y)
	}

	all, err := f.Peer(ctx, joinery.Caller{Operator: true}, mine.ID, 2)
	ok(t, err)
	if len(all.Totals) != 4 || len(all.Devices) != 2 || all.Devices[0].Device != f.devices[0].Device.ID {
		t.Errorf("the operator sees %+v", all)
	}
	for _, caller := range []joinery.Caller{{Org: f.maker}, {Org: joinery.NewOrgID()}} {
		_, foreign := f.Peer(ctx, caller, mine.ID, 100)
		_, nobodys := f.Peer(ctx, caller, joinery.NewPeerID(), 100)
		if joinery.CodeOf(foreign) != joinery.CodeNotFound || foreign.Error() != nobodys.Error() {
			t.Errorf("%+v: %v, %v", caller, foreign, nobodys)
		}
	}
}

// A peer reads in its totals what it was told, and not which of two states of a
// device it was told that for.
func TestPeersReadWhatTheyWereTold(t *testing.T) {
	f := newFixture(t, 1)
	peer := f.addPeer("another network", f.buyer)
	for n, reason := range []joinery.RefusalReason{
		joinery.RefusedMIC, joinery.RefusedNoSession, joinery.RefusedNoAS, joinery.RefusedASKEK,
		joinery.RefusedSessionUnknown, joinery.RefusedSessionEnded, joinery.RefusedOtherAS,
	} {
		f.record(about(peer, f.devices[0], reason, n))
	}
	seen, err := f.Peer(t.Context(), joinery.Caller{Org: f.buyer}, peer.ID, 100)
	ok(t, err)
	counts := map[joinery.RefusalReason]uint64{}
	for _, total := range seen.Totals {
		counts[total.Reason] = total.Count
	}
	want := map[joinery.RefusalReason]uint64{joinery.RefusedMIC: 2, joinery.RefusedASKEK: 2, joinery.RefusedSessionUnknown: 3}
	if !maps.Equal(counts, want) {
		t.Errorf("got %v, want %v", counts, want)
	}
}
