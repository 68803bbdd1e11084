package claim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"joinery"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// networks is the rules of networks over a fixture, with three Application
// Servers.
type networks struct {
	fixture
	net              *Networks
	keks             *heldKEKs
	here, there, shy joinery.Peer
}

// heldKEKs takes every KEK, once for each label.
type heldKEKs struct {
	ids     map[string]joinery.KEKID
	refusal error
	wraps   bool
}

func (k *heldKEKs) ClaimKEK(_ context.Context, _ joinery.PeerID, _ seal.Header, in seal.SealedKEK) (joinery.KEKID, error) {
	if k.refusal != nil {
		return 0, k.refusal
	}
	return k.ids[in.Label], nil
}

func (k *heldKEKs) WrapsAppSKey(joinery.PeerID) bool { return k.wraps }

func newNetworks(t testing.TB, opt NetworkOptions) networks {
	t.Helper()
	n := networks{fixture: newFixture(t, Options{}), keks: &heldKEKs{wraps: true, ids: map[string]joinery.KEKID{}}}
	opt.Now = n.clock.now
	if opt.AnswerAfter == 0 {
		opt.AnswerAfter = -1
	}
	n.net = NewNetworks(n.db, n.keys, n.keks, opt)
	for name, p := range map[string]*joinery.Peer{"here": &n.here, "there": &n.there, "shy": &n.shy} {
		*p = joinery.Peer{ID: joinery.NewPeerID(), Org: n.maker.Org, Name: name, ASIDs: []string{name + ".example.com"}, CreatedAt: n.clock.now()}
		p.HideExistence = name == "shy"
		if err := n.db.AddPeer(t.Context(), *p, nil, joinery.AuditEntry{At: n.clock.now()}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func claimOf(d joinery.Device, token string) NetworkClaim {
	return NetworkClaim{
		NetworkDevice: NetworkDevice{DevEUI: d.DevEUI}, OwnerToken: token,
		NetID: lorawan.NetID{0, 0, 0x13}, NSID: lorawan.EUI64{0xEC, 0x65, 0x6E, 0, 0, 0, 1, 1}, Lock: true,
	}
}

// try gives the word for how a claim ended.
func (n networks) try(t testing.TB, p joinery.Peer, c NetworkClaim) string {
	t.Helper()
	return word(n.net.Claim(t.Context(), p, c))
}

func word(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, ErrNotProvisioned):
		return "not provisioned"
	case errors.Is(err, ErrNotClaimed):
		return "not claimed"
	case errors.Is(err, ErrHeldByOther):
		return "held by another"
	case errors.Is(err, ErrOwnerToken):
		return "token"
	}
	return string(joinery.CodeOf(err))
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q; want %q", what, got, want)
	}
}

func TestNetworkClaim(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 1, nil)
	d, c := devices[0], claimOf(devices[0], strings.ToLower(tokens[0]))
	want(t, "claim", n.try(t, n.here, c), "done")
	s := n.state(t, d.ID)
	got := *s.Binding
	got.Since = time.Time{}
	if got != (joinery.Binding{Epoch: 1, NetID: c.NetID, NSID: c.NSID, ASID: "here.example.com", Policy: joinery.AppSKeyWrapped, Source: "network", Locked: true}) {
		t.Errorf("bound to %+v", got)
	}
	if s.Device.Ownership.Claimed() || s.Device.Ownership.Org != n.maker.Org {
		t.Errorf("a network's claim made an owner: %+v", s.Device.Ownership)
	}
	// The same again keeps the binding, and with it its sessions.
	want(t, "again", n.try(t, n.here, c), "done")
	if e := n.state(t, d.ID).Binding.Epoch; e != 1 {
		t.Errorf("epoch %d after the same claim", e)
	}
	// Other terms replace it; what is left out is not kept.
	c.NSID, c.Lock = lorawan.EUI64{}, false
	want(t, "other terms", n.try(t, n.here, c), "done")
	if b := n.state(t, d.ID).Binding; b.Epoch != 2 || !b.NSID.IsZero() || b.Locked {
		t.Errorf("bound to %+v", b)
	}
	// What is not locked may be taken by who has the token.
	want(t, "wrong token", n.try(t, n.there, claimOf(d, tokens[0][1:])), "token")
	want(t, "no token", n.try(t, n.there, claimOf(d, "")), "token")
	want(t, "taken over", n.try(t, n.there, claimOf(d, tokens[0])), "done")
	want(t, "locked", n.try(t, n.here, c), "held by another")
	want(t, "locked, wrong token", n.try(t, n.here, claimOf(d, "A")), "held by another")
	want(t, "own, wrong token", n.try(t, n.there, claimOf(d, "A")), "token")

	entries := n.audited(t, joinery.AuditDeviceBound)
	if len(entries) != 3 {
		t.Fatalf("%d audit entries", len(entries))
	}
	e := entries[2]
	if e.Actor != "peer "+n.there.ID.String() || e.Peer != n.there.ID || e.Org != n.maker.Org || e.Detail["asID"] != "there.example.com" || e.Detail["locked"] != "true" || e.Detail["source"] != "network" {
		t.Errorf("audit entry %+v", e)
	}
	if strings.Contains(strings.ToUpper(fmt.Sprint(entries)), tokens[0]) {
		t.Error("the token is in the audit log")
	}
}

func TestNetworkClaimNamesItsAS(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 1, nil)
	c := claimOf(devices[0], tokens[0])
	several, none := n.here, n.here
	several.ASIDs, none.ASIDs = []string{"a", "b"}, nil
	for _, tc := range []struct {
		name string
		peer joinery.Peer
		asid string
		want string
	}{
		{"another's", n.here, "there.example.com", "forbidden"},
		{"which", several, "", "invalid"},
		{"no AS", none, "here.example.com", "forbidden"},
		{"its only one", n.here, "", "done"},
		{"its own", n.here, "here.example.com", "done"},
		{"one of several", several, "b", "held by another"},
	} {
		c.ASID = tc.asid
		want(t, tc.name, n.try(t, tc.peer, c), tc.want)
	}
}

func TestNetworkClaimPolicy(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 3, nil)
	n.keks.wraps = false
	want(t, "without a KEK", n.try(t, n.here, claimOf(devices[0], tokens[0])), "done")
	if b := n.state(t, devices[0].ID).Binding; b.Policy != joinery.AppSKeyByID {
		t.Errorf("policy %s", b.Policy)
	}
	kek := joinery.KEK{ID: joinery.NewKEKID(), Peer: n.here.ID, Role: joinery.KEKForAS, Label: "as", Version: 1, Sealed: joinery.Sealed("x"), Claimed: true, CreatedAt: n.clock.now()}
	if err := n.db.AddKEK(t.Context(), kek, joinery.AuditEntry{At: n.clock.now()}); err != nil {
		t.Fatal(err)
	}
	n.keks.ids["as"] = kek.ID
	c := claimOf(devices[1], tokens[1])
	c.KEK = &NetworkKEK{Sealed: seal.SealedKEK{Role: "as", Label: "as"}}
	want(t, "with a KEK", n.try(t, n.here, c), "done")
	if b := n.state(t, devices[1].ID).Binding; b.Policy != joinery.AppSKeyWrapped || b.KEK != kek.ID {
		t.Errorf("bound to %+v", b)
	}
	n.keks.refusal = joinery.Errorf(joinery.CodeInvalid, "another key")
	c = claimOf(devices[2], tokens[2])
	c.KEK = &NetworkKEK{Sealed: seal.SealedKEK{Role: "as", Label: "as"}}
	want(t, "another key", n.try(t, n.here, c), "invalid")
	if b := n.state(t, devices[2].ID).Binding; b != nil {
		t.Errorf("bound to %+v", b)
	}
	// Who has no token learns nothing about KEKs.
	c.OwnerToken = "A"
	want(t, "another key, wrong token", n.try(t, n.here, c), "token")
}

func TestNetworkStatusAndUnclaim(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	ctx := t.Context()
	devices, tokens := n.devices(t, 3, nil)
	status := func(p joinery.Peer, devEUI lorawan.EUI64) string {
		_, err := n.net.Status(ctx, p, NetworkDevice{DevEUI: devEUI})
		return word(err)
	}
	unclaim := func(p joinery.Peer, devEUI lorawan.EUI64) string {
		return word(n.net.Unclaim(ctx, p, NetworkDevice{DevEUI: devEUI}))
	}
	d, unknown := devices[0].DevEUI, lorawan.EUI64{1, 2, 3}
	for _, ask := range []func(joinery.Peer, lorawan.EUI64) string{status, unclaim} {
		want(t, "unknown", ask(n.here, unknown), "not provisioned")
		want(t, "unclaimed", ask(n.here, d), "not claimed")
	}
	want(t, "claim", n.try(t, n.here, claimOf(devices[0], tokens[0])), "done")
	want(t, "status", status(n.here, d), "done")
	for _, ask := range []func(joinery.Peer, lorawan.EUI64) string{status, unclaim} {
		want(t, "another's", ask(n.there, d), "held by another")
		for _, devEUI := range []lorawan.EUI64{unknown, devices[1].DevEUI, d} {
			want(t, "hidden", ask(n.shy, devEUI), "held by another")
		}
	}
	want(t, "unclaim", unclaim(n.here, d), "done")
	want(t, "unclaimed again", unclaim(n.here, d), "not claimed")
	if b := n.state(t, devices[0].ID).Binding; b != nil {
		t.Errorf("bound to %+v", b)
	}

	// The owner's binding is the owner's.
	own := joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "here.example.com", Policy: joinery.AppSKeyWrapped}
	if err := n.Bind(ctx, n.maker, devices[1].ID, own); err != nil {
		t.Fatal(err)
	}
	want(t, "status of the owner's", status(n.here, devices[1].DevEUI), "done")
	want(t, "unclaim of the owner's", unclaim(n.here, devices[1].DevEUI), "held by another")
	want(t, "claim over the owner's", n.try(t, n.here, claimOf(devices[1], tokens[1])), "done")
	want(t, "unclaim", unclaim(n.here, devices[1].DevEUI), "done")

	// A batch does what it can.
	want(t, "claim", n.try(t, n.here, claimOf(devices[0], tokens[0])), "done")
	want(t, "claim", n.try(t, n.there, claimOf(devices[1], tokens[1])), "done")
	failed := n.net.UnclaimAll(ctx, n.here, []lorawan.EUI64{d, devices[1].DevEUI, devices[2].DevEUI, unknown, d})
	got := map[lorawan.EUI64]string{}
	for devEUI, err := range failed {
		got[devEUI] = word(err)
	}
	wanted := map[lorawan.EUI64]string{devices[1].DevEUI: "held by another", devices[2].DevEUI: "not claimed", unknown: "not provisioned"}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("failed: %v; want %v", got, wanted)
	}
	want(t, "after the batch", status(n.here, d), "not claimed")
}

// To a network from which devices are hidden, all refusals of a claim are one.
func TestNetworkClaimHides(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 2, nil)
	want(t, "claim", n.try(t, n.here, claimOf(devices[0], tokens[0])), "done")
	unknown := joinery.Device{DevEUI: lorawan.EUI64{1, 2, 3}}
	for _, d := range []joinery.Device{devices[0], devices[1], unknown} {
		want(t, "hidden", n.try(t, n.shy, claimOf(d, "WRONG")), "token")
	}
	want(t, "locked, right token", n.try(t, n.shy, claimOf(devices[0], tokens[0])), "token")
	want(t, "right token", n.try(t, n.shy, claimOf(devices[1], tokens[1])), "done")
}

// The owner overrides an unlocked claim of a network; a locked one stands until
// its network lets go.
func TestNetworkClaimAndOwner(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	ctx := t.Context()
	devices, tokens := n.devices(t, 1, nil)
	c := claimOf(devices[0], tokens[0])
	want(t, "claim", n.try(t, n.here, c), "done")
	// The token is the owner's, too, and makes an owner.
	if _, err := n.Claim(ctx, n.acme, request(devices[0], tokens[0])); err != nil {
		t.Fatal(err)
	}
	wantCode(t, n.Bind(ctx, n.acme, devices[0].ID, home), joinery.CodeConflict)
	if err := n.net.Unclaim(ctx, n.here, c.NetworkDevice); err != nil {
		t.Fatal(err)
	}
	if err := n.Bind(ctx, n.acme, devices[0].ID, home); err != nil {
		t.Fatal(err)
	}
}

// What the label still does once its device has an owner: a network binds the device
// with it, unless the owner locked their binding or had the token renewed.
func TestNetworkClaimOfAnOwnedDevice(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	ctx := t.Context()
	devices, tokens := n.devices(t, 1, nil)
	d, label := devices[0], claimOf(devices[0], tokens[0])
	owned, locked := request(d, tokens[0]), home
	locked.Locked = true
	owned.Binding = &locked
	if _, err := n.Claim(ctx, n.acme, owned); err != nil {
		t.Fatal(err)
	}
	want(t, "over the owner's lock", n.try(t, n.here, label), "held by another")
	if err := n.Bind(ctx, n.acme, d.ID, home); err != nil {
		t.Fatal(err)
	}
	want(t, "over no lock", n.try(t, n.here, label), "done")
	if s := n.state(t, d.ID); s.Binding.Source != "network" || s.Device.Ownership.Org != n.acme.Org {
		t.Errorf("bound to %+v, held by %+v", s.Binding, s.Device.Ownership)
	}
	if err := n.net.Unclaim(ctx, n.here, label.NetworkDevice); err != nil {
		t.Fatal(err)
	}
	renewed := n.do(t, n.acme, Act{Kind: Regenerating, Device: d.ID}).OwnerToken
	want(t, "with the old label", n.try(t, n.here, label), "token")
	want(t, "with the new token", n.try(t, n.here, claimOf(d, renewed)), "done")
}

// Devices with one DevEUI under several JoinEUIs: the token says which is meant,
// and where none is shown a JoinEUI has to.
func TestNetworkClaimOfOneDevEUITwice(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	ctx := t.Context()
	devices, tokens := n.devices(t, 1, nil)
	twin := devices[0]
	twin.ID, twin.JoinEUI = joinery.NewDeviceID(), lorawan.EUI64FromUint64(joinEUI+1)
	token := n.addDevice(t, twin)
	want(t, "first", n.try(t, n.here, claimOf(devices[0], tokens[0])), "done")
	if s := n.state(t, twin.ID); s.Binding != nil {
		t.Fatal("the other one was bound")
	}
	want(t, "second by another", n.try(t, n.there, claimOf(twin, token)), "done")
	want(t, "neither", n.try(t, n.shy, claimOf(twin, "WRONG")), "token")
	if err := n.net.Unclaim(ctx, n.there, NetworkDevice{DevEUI: twin.DevEUI}); err != nil {
		t.Fatal(err)
	}
	want(t, "second", n.try(t, n.here, claimOf(twin, token)), "done")
	_, err := n.net.Status(ctx, n.here, NetworkDevice{DevEUI: twin.DevEUI})
	wantCode(t, err, joinery.CodeInvalid)
	wantCode(t, n.net.Unclaim(ctx, n.here, NetworkDevice{DevEUI: twin.DevEUI}), joinery.CodeInvalid)
	if err := n.net.Unclaim(ctx, n.here, NetworkDevice{DevEUI: twin.DevEUI, JoinEUI: &twin.JoinEUI}); err != nil {
		t.Fatal(err)
	}
	if s := n.state(t, devices[0].ID); s.Binding == nil {
		t.Error("the other one was let go")
	}
}

// addDevice imports one more device of the maker, and gives its token.
func (n networks) addDevice(t testing.TB, d joinery.Device) string {
	t.Helper()
	i, err := n.db.BeginImport(t.Context(), joinery.Import{
		Org: n.maker.Org, Kind: joinery.ImportKeyList, SHA256: [32]byte{9}, CreatedAt: n.clock.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := n.db.CommitRows(t.Context(), joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Device: d, KeySet: joinery.KeySet{
		ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginSealed, Root10: joinery.NwkKey, Nwk: joinery.SealedRoot{Use: joinery.Sealed("x")},
	}}}}, joinery.AuditEntry{At: n.clock.now()})
	if err != nil || rows[0].Status != joinery.RowCreated {
		t.Fatalf("%+v, %v", rows, err)
	}
	token, err := n.keys.OwnerToken(t.Context(), d.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Of fifty networks at once one gets the device, and the others are told so.
func TestNetworkClaimRace(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 1, nil)
	codes := atOnce(50, func(i int) error {
		p := n.here
		p.ID, p.ASIDs = joinery.PeerID(int64(n.here.ID)+int64(i)), []string{fmt.Sprintf("as%d.example.com", i)}
		return n.net.Claim(t.Context(), p, claimOf(devices[0], tokens[0]))
	})
	if codes[""] != 1 || codes[joinery.CodeForbidden] != 49 {
		t.Errorf("outcomes %v", codes)
	}
	if e := n.state(t, devices[0].ID).Binding.Epoch; e != 1 {
		t.Errorf("bound %d times", e)
	}
}

func TestNetworkGuessesAreLimited(t *testing.T) {
	n := newNetworks(t, NetworkOptions{PerPeer: 20, PerDeviceOfAll: 8})
	devices, tokens := n.devices(t, 30, nil)
	wrong := func(p joinery.Peer, d joinery.Device) string { return n.try(t, p, claimOf(d, "WRONG")) }
	d := devices[0]
	for range 5 {
		want(t, "guess", wrong(n.here, d), "token")
	}
	want(t, "sixth guess", wrong(n.here, d), "rate_limited")
	want(t, "right token", n.try(t, n.here, claimOf(d, tokens[0])), "rate_limited")
	unknown := joinery.Device{DevEUI: lorawan.EUI64{7}}
	for range 5 {
		want(t, "unknown", wrong(n.here, unknown), "not provisioned")
	}
	want(t, "sixth unknown", wrong(n.here, unknown), "rate_limited")
	// Another network is not kept out, until all together are too many.
	for range 3 {
		want(t, "another's guess", wrong(n.there, d), "token")
	}
	want(t, "all together", wrong(n.there, d), "rate_limited")
	for i := 1; i <= 10; i++ {
		want(t, "guess", wrong(n.here, devices[i]), "token")
	}
	want(t, "of the network", n.try(t, n.here, claimOf(devices[20], tokens[20])), "rate_limited")
	want(t, "of another", n.try(t, n.there, claimOf(devices[20], tokens[20])), "done")
	n.clock.add(15 * time.Minute)
	want(t, "later", n.try(t, n.here, claimOf(d, tokens[0])), "done")
	// A success does not count.
	for range 30 {
		want(t, "right token", n.try(t, n.here, claimOf(d, tokens[0])), "done")
	}
}

// What was guessed before a restart is not forgotten.
func TestNetworkGuessesOutliveARestart(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, tokens := n.devices(t, 1, nil)
	for range 5 {
		want(t, "guess", n.try(t, n.here, claimOf(devices[0], "WRONG")), "token")
	}
	n.net = NewNetworks(n.db, n.keys, n.keks, NetworkOptions{Now: n.clock.now, AnswerAfter: -1})
	if err := n.net.Recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "after the restart", n.try(t, n.here, claimOf(devices[0], tokens[0])), "rate_limited")
	want(t, "another's", n.try(t, n.there, claimOf(devices[0], tokens[0])), "done")
}

func TestFiftyNetworkGuessesAtOnce(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, _ := n.devices(t, 1, nil)
	codes := atOnce(50, func(int) error {
		return n.net.Claim(t.Context(), n.here, claimOf(devices[0], "WRONG"))
	})
	if codes[joinery.CodeForbidden] != 5 || codes[joinery.CodeRateLimited] != 45 {
		t.Errorf("outcomes %v", codes)
	}
}

// Every refusal of a claim takes the same time, and so does every one that must not
// tell a device from none.
func TestNetworkRefusalsTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetworks(noDevices{}, noTokens{}, nil, NetworkOptions{})
		shy := joinery.Peer{ID: 1, ASIDs: []string{"as"}, HideExistence: true}
		const each = 50 * time.Millisecond
		for name, call := range map[string]func() error{
			"claim":   func() error { return n.Claim(t.Context(), shy, NetworkClaim{}) },
			"status":  func() error { _, err := n.Status(t.Context(), shy, NetworkDevice{}); return err },
			"unclaim": func() error { return n.Unclaim(t.Context(), shy, NetworkDevice{}) },
			"batch": func() error {
				return n.UnclaimAll(t.Context(), shy, []lorawan.EUI64{{}, {1}})[lorawan.EUI64{}]
			},
		} {
			begun := time.Now()
			wantCode(t, call(), joinery.CodeForbidden)
			want := each
			if name == "batch" { // of two, which take longer than one
				want += each / 50
			}
			if took := time.Since(begun); took != want {
				t.Errorf("%s: refused after %v", name, took)
			}
		}
	})
}

type noDevices struct{ NetworkStore }

func (noDevices) NoteClaimFailures(context.Context, []joinery.ClaimFailure, time.Time) error {
	return nil
}

func (noDevices) FindDevices(context.Context, lorawan.EUI64) ([]joinery.ActivationState, error) {
	return nil, nil
}

type noTokens struct{ Tokens }

func (noTokens) CheckOwnerToken(context.Context, joinery.DeviceID, uint32, string) (bool, error) {
	return false, nil
}

// What fails for our reasons costs no guess.
func TestOurFailuresOfNetworkClaims(t *testing.T) {
	n := newNetworks(t, NetworkOptions{})
	devices, _ := n.devices(t, 1, nil)
	broken := NewNetworks(n.db, lockedKeys{}, n.keks, NetworkOptions{Now: n.clock.now, AnswerAfter: -1})
	for range 10 {
		err := broken.Claim(t.Context(), n.here, claimOf(devices[0], "A"))
		if joinery.CodeOf(err) == joinery.CodeRateLimited || isRefusal(err) || err == nil {
			t.Fatal(err)
		}
	}
}

func TestNetworkClaimHidesItsToken(t *testing.T) {
	c := claimOf(joinery.Device{}, "SECRETTOKEN")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(verb, c), "SECRETTOKEN") {
			t.Errorf("%s prints the token", verb)
		}
	}
}

// The time of a refusal does not tell a network an unknown device from a wrong
// token, where devices are hidden from it (promise P20).
func TestNetworkClaimTiming(t *testing.T) {
	n := newNetworks(t, NetworkOptions{PerDevice: math.MaxInt, PerPeer: math.MaxInt, PerDeviceOfAll: math.MaxInt, AnswerAfter: 2 * time.Millisecond})
	devices, _ := n.devices(t, 1, nil)
	classes := [2]NetworkClaim{claimOf(devices[0], "WRONG"), claimOf(joinery.Device{DevEUI: lorawan.EUI64{1}}, "WRONG")}
	var w welch
	for range samples() {
		class := rand.IntN(2)
		begun := time.Now()
		got := n.try(t, n.shy, classes[class])
		took := time.Since(begun)
		want(t, "guess", got, "token")
		w.add(class, min(took.Seconds(), 0.01)) // see TestTiming
	}
	if got := w.t(); math.Abs(got) > 4.5 {
		t.Errorf("Welch's t is %.1f over %d samples: means %.1f µs and %.1f µs", got, samples(), w.mean[0]*1e6, w.mean[1]*1e6)
	}
}
