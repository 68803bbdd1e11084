package claim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/store"
	"joinery/lorawan"
)

// fixture is a Service over a database file and a software keyring, with one
// maker and two customers.
type fixture struct {
	*Service
	db                  *store.DB
	keys                *keyring.Keyring
	clock               *clock
	maker, acme, others joinery.Caller
}

// clock is set by tests; the limits are seen without waiting for them.
type clock struct{ atomic.Pointer[time.Time] }

func (c *clock) now() time.Time { return *c.Load() }

func (c *clock) add(d time.Duration) {
	t := c.now().Add(d)
	c.Store(&t)
}

const joinEUI = 0x70B3D57ED0000000

func newFixture(t testing.TB, opt Options) fixture {
	t.Helper()
	f := fixture{db: newStore(t), keys: keys, clock: new(clock)}
	start := time.Now()
	f.clock.Store(&start)
	opt.Now = f.clock.now
	if opt.AnswerAfter == 0 {
		opt.AnswerAfter = -1
	}
	f.Service = New(f.db, f.db, f.keys, opt)
	for _, c := range []struct {
		name   string
		caller *joinery.Caller
	}{{"Maker", &f.maker}, {"Acme", &f.acme}, {"Else", &f.others}} {
		*c.caller = f.newOrg(t, c.name)
	}
	span := joinery.EUIRange{First: lorawan.EUI64FromUint64(joinEUI), Last: lorawan.EUI64FromUint64(joinEUI + 9)}
	err := f.db.AssignRange(t.Context(), joinery.JoinEUIRange{EUIRange: span, Org: f.maker.Org}, joinery.AuditEntry{At: start})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f fixture) newOrg(t testing.TB, name string) joinery.Caller {
	t.Helper()
	o := joinery.Organisation{ID: joinery.NewOrgID(), Name: name, CreatedAt: f.clock.now()}
	if err := f.db.AddOrg(t.Context(), o, joinery.AuditEntry{At: o.CreatedAt}); err != nil {
		t.Fatal(err)
	}
	return joinery.Caller{Org: o.ID, Name: "key of " + name}
}

// devices imports n devices of the maker, and gives them with their tokens.
func (f fixture) devices(t testing.TB, n int, bind *joinery.Binding) (devices []joinery.Device, tokens []string) {
	t.Helper()
	return f.importAll(t, n, bind, func(int, *joinery.NewDevice) {})
}

// importAll is devices that adorn makes different.
func (f fixture) importAll(t testing.TB, n int, bind *joinery.Binding, adorn func(k int, d *joinery.NewDevice)) (devices []joinery.Device, tokens []string) {
	t.Helper()
	ctx := t.Context()
	i, err := f.db.BeginImport(ctx, joinery.Import{
		Org: f.maker.Org, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte("manifest")), MACVersion: lorawan.MAC1_0_4, CreatedAt: f.clock.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for first := 0; first < n; first += joinery.MaxImportRows {
		last := min(n, first+joinery.MaxImportRows)
		rows := joinery.ImportRows{Import: i.ID, From: uint64(first), Count: uint64(last - first), Last: last == n}
		for k := first; k < last; k++ {
			made := f.newDevice(uint64(k), bind)
			adorn(k, &made)
			rows.Devices = append(rows.Devices, made)
			token, err := f.keys.OwnerToken(ctx, made.Device.ID, 0)
			if err != nil {
				t.Fatal(err)
			}
			devices, tokens = append(devices, made.Device), append(tokens, token)
		}
		results, err := f.db.CommitRows(ctx, rows, joinery.AuditEntry{At: f.clock.now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Status != joinery.RowCreated {
				t.Fatal(r.Reason)
			}
		}
	}
	return devices, tokens
}

func (f fixture) newDevice(k uint64, bind *joinery.Binding) joinery.NewDevice {
	d := joinery.Device{
		ID: joinery.NewDeviceID(), JoinEUI: lorawan.EUI64FromUint64(joinEUI), DevEUI: lorawan.EUI64FromUint64(k + 1),
		MACVersion: lorawan.MAC1_0_4, Maker: f.maker.Org, Ownership: joinery.Ownership{Org: f.maker.Org}, CreatedAt: f.clock.now(),
	}
	return joinery.NewDevice{Index: k, Device: d, Binding: bind, KeySet: joinery.KeySet{
		ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginDerived, Master: master, Root10: joinery.NwkKey,
	}}
}

func (f fixture) state(t testing.TB, id joinery.DeviceID) joinery.ActivationState {
	t.Helper()
	s, err := f.db.Device(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f fixture) audited(t testing.TB, event joinery.AuditEvent) (found []joinery.AuditEntry) {
	t.Helper()
	list, err := f.db.AuditEntries(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(e joinery.AuditEntry) bool { return e.Event != event })
}

func request(d joinery.Device, token string) Request {
	return Request{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OwnerToken: token}
}

func wantCode(t testing.TB, err error, want joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != want {
		t.Errorf("got %v; want code %q", err, want)
	}
}

var home = joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", Policy: joinery.AppSKeyWrapped}

func TestClaim(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 3, nil)

	got, err := f.Claim(ctx, f.acme, request(devices[0], tokens[0]))
	if err != nil || got.Ownership.Org != f.acme.Org || got.Ownership.Epoch != 1 {
		t.Fatalf("%+v, %v", got.Ownership, err)
	}
	if s := f.state(t, devices[0].ID); s.Binding != nil {
		t.Errorf("bound without being asked: %+v", s.Binding)
	}

	withBinding := request(devices[1], strings.ToLower(tokens[1]))
	withBinding.Binding = &home
	if _, err := f.Claim(ctx, f.acme, withBinding); err != nil {
		t.Fatal(err)
	}
	s := f.state(t, devices[1].ID)
	if s.Binding == nil || s.Binding.NetID != home.NetID || s.Binding.Source != "owner" || s.Binding.Epoch != 1 {
		t.Errorf("binding %+v", s.Binding)
	}

	// The same claim again is no error; with other terms, or by another, it is.
	if again, err := f.Claim(ctx, f.acme, withBinding); err != nil || again.Ownership.Epoch != 1 {
		t.Errorf("again: %+v, %v", again.Ownership, err)
	}
	other := home
	other.ASID = "other.example.com"
	rebinding := withBinding
	rebinding.Binding = &other
	_, err = f.Claim(ctx, f.acme, rebinding)
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.Claim(ctx, f.others, withBinding)
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.Claim(ctx, f.others, request(devices[1], tokens[0]))
	wantCode(t, err, joinery.CodeForbidden)

	entries := f.audited(t, joinery.AuditDeviceClaimed)
	if len(entries) != 2 || entries[1].Actor != f.acme.Name || entries[1].Org != f.acme.Org || entries[1].Device != devices[1].ID || entries[1].Detail["asID"] != home.ASID {
		t.Errorf("audit: %+v", entries)
	}
	for _, e := range entries {
		for _, v := range e.Detail {
			if slices.Contains(tokens, v) {
				t.Error("a token is in the audit log")
			}
		}
	}
}

// TestClaimEndsTheMakersBinding: what the maker bound for its tests does not
// stay with the new owner.
func TestClaimEndsTheMakersBinding(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 1, &home)
	if _, err := f.Claim(t.Context(), f.acme, request(devices[0], tokens[0])); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t, devices[0].ID); s.Binding != nil {
		t.Errorf("binding %+v", s.Binding)
	}
}

func TestClaimRefusesRequests(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 1, nil)
	for name, c := range map[string]struct {
		caller joinery.Caller
		bind   joinery.Binding
		want   joinery.Code
	}{
		"wrapped for nobody": {f.acme, joinery.Binding{Policy: joinery.AppSKeyWrapped}, joinery.CodeInvalid},
		"unknown policy":     {f.acme, joinery.Binding{ASID: "as", Policy: 9}, joinery.CodeInvalid},
		"malformed AS-ID":    {f.acme, joinery.Binding{ASID: "a\ns"}, joinery.CodeInvalid},
		"as a network":       {f.acme, joinery.Binding{Source: "network"}, joinery.CodeInvalid},
		"for nobody":         {joinery.Caller{Operator: true, Name: "socket uid 0"}, home, joinery.CodeInvalid},
		"for an org gone":    {joinery.Caller{Org: joinery.NewOrgID()}, home, joinery.CodeNotFound},
	} {
		r := request(devices[0], tokens[0])
		r.Binding = &c.bind
		if _, err := f.Claim(t.Context(), c.caller, r); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.state(t, devices[0].ID).Device.Ownership.Claimed() {
		t.Error("claimed by a refused request")
	}
}

// TestFailuresLookAlike: who holds no token learns nothing.
func TestFailuresLookAlike(t *testing.T) {
	f := newFixture(t, Options{PerDevice: 100})
	devices, tokens := f.devices(t, 3, nil)
	if _, err := f.Claim(t.Context(), f.acme, request(devices[1], tokens[1])); err != nil {
		t.Fatal(err)
	}
	decoyToken, err := f.keys.OwnerToken(t.Context(), decoy, 0)
	if err != nil {
		t.Fatal(err)
	}
	absent := joinery.Device{JoinEUI: devices[0].JoinEUI, DevEUI: lorawan.EUI64FromUint64(0xABCDEF)}
	for name, r := range map[string]Request{
		"wrong token":             request(devices[0], tokens[2]),
		"token cut":               request(devices[0], tokens[0][:12]),
		"token longer":            request(devices[0], tokens[0]+"A"),
		"no token":                request(devices[0], ""),
		"huge token":              request(devices[0], strings.Repeat("A", 1<<16)),
		"claimed, wrong token":    request(devices[1], tokens[2]),
		"unknown device":          request(absent, tokens[0]),
		"unknown, decoy's token":  request(absent, decoyToken),
		"known under another EUI": {JoinEUI: lorawan.EUI64FromUint64(joinEUI + 1), DevEUI: devices[0].DevEUI, OwnerToken: tokens[0]},
	} {
		_, err := f.Claim(t.Context(), f.others, r)
		want := "claim failed: no device with this JoinEUI and DevEUI has this owner token"
		if joinery.CodeOf(err) != joinery.CodeForbidden || joinery.MessageOf(err) != want || err.Error() != "forbidden: "+want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuessesAreLimited(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 2, nil)
	unknown := joinery.Device{JoinEUI: devices[0].JoinEUI, DevEUI: lorawan.EUI64FromUint64(0xABCDEF)}
	for name, d := range map[string]joinery.Device{"known": devices[0], "unknown": unknown} {
		for range 5 {
			_, err := f.Claim(ctx, f.others, request(d, tokens[1]))
			wantCode(t, err, joinery.CodeForbidden)
		}
		_, err := f.Claim(ctx, f.others, request(d, tokens[1]))
		if joinery.CodeOf(err) != joinery.CodeRateLimited || !strings.Contains(joinery.MessageOf(err), "15 minutes") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := f.Claim(ctx, f.others, request(devices[0], tokens[0]))
	wantCode(t, err, joinery.CodeRateLimited) // also with the right token
	if _, err := f.Claim(ctx, f.others, request(devices[1], tokens[1])); err != nil {
		t.Errorf("another device: %v", err)
	}
	f.clock.add(15*time.Minute - time.Second)
	_, err = f.Claim(ctx, f.others, request(devices[0], tokens[0]))
	wantCode(t, err, joinery.CodeRateLimited)
	f.clock.add(time.Second)
	if _, err := f.Claim(ctx, f.others, request(devices[0], tokens[0])); err != nil {
		t.Errorf("the limit does not end: %v", err)
	}
}

// TestNobodyBlocksAnothersClaim: all the failures that one caller may make do
// not keep the owner from its device.
func TestNobodyBlocksAnothersClaim(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 2, nil)
	for range 150 {
		if _, err := f.Claim(t.Context(), f.others, request(devices[0], tokens[1])); err == nil {
			t.Fatal("claimed with a wrong token")
		}
	}
	if _, err := f.Claim(t.Context(), f.acme, request(devices[0], tokens[0])); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

// TestGuessesOfAllAreLimited: many callers together cannot guess without end.
func TestGuessesOfAllAreLimited(t *testing.T) {
	f := newFixture(t, Options{PerDeviceOfAll: 2})
	devices, tokens := f.devices(t, 2, nil)
	for _, caller := range []joinery.Caller{f.maker, f.others} {
		_, err := f.Claim(t.Context(), caller, request(devices[0], tokens[1]))
		wantCode(t, err, joinery.CodeForbidden)
	}
	_, err := f.Claim(t.Context(), f.acme, request(devices[0], tokens[0]))
	wantCode(t, err, joinery.CodeRateLimited)
	if _, err := f.Claim(t.Context(), f.acme, request(devices[1], tokens[1])); err != nil {
		t.Errorf("another device: %v", err)
	}
	f.clock.add(15 * time.Minute)
	if _, err := f.Claim(t.Context(), f.acme, request(devices[0], tokens[0])); err != nil {
		t.Errorf("the limit does not end: %v", err)
	}
}

func TestGuessesOfACallerAreLimited(t *testing.T) {
	f := newFixture(t, Options{PerCaller: 7})
	ctx := t.Context()
	devices, tokens := f.devices(t, 20, nil)
	for i := range 7 {
		_, err := f.Claim(ctx, f.others, request(devices[i], tokens[19]))
		wantCode(t, err, joinery.CodeForbidden)
		if _, err := f.Claim(ctx, f.acme, request(devices[i], tokens[i])); err != nil {
			t.Fatalf("successes count: %v", err)
		}
	}
	_, err := f.Claim(ctx, f.others, request(devices[18], tokens[18]))
	wantCode(t, err, joinery.CodeRateLimited)
	secondKey := f.others
	secondKey.Name = "another key"
	_, err = f.Claim(ctx, secondKey, request(devices[18], tokens[18]))
	wantCode(t, err, joinery.CodeRateLimited)
	for i := 7; i < 19; i++ {
		if _, err := f.Claim(ctx, f.acme, request(devices[i], tokens[i])); err != nil {
			t.Fatalf("another caller: %v", err)
		}
	}
}

// TestFiftyGuessesAtOnce: they are counted one by one.
func TestFiftyGuessesAtOnce(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 2, nil)
	codes := atOnce(50, func(int) error {
		_, err := f.Claim(t.Context(), f.others, request(devices[0], tokens[1]))
		return err
	})
	if codes[joinery.CodeForbidden] != 5 || codes[joinery.CodeRateLimited] != 45 {
		t.Errorf("%v", codes)
	}
}

// atOnce runs n calls behind a barrier and counts their codes.
func atOnce(n int, call func(i int) error) map[joinery.Code]int {
	var wait sync.WaitGroup
	start := make(chan struct{})
	codes := make([]joinery.Code, n)
	for i := range n {
		wait.Go(func() {
			<-start
			codes[i] = joinery.CodeOf(call(i))
		})
	}
	close(start)
	wait.Wait()
	count := make(map[joinery.Code]int)
	for _, c := range codes {
		count[c]++
	}
	return count
}

// TestRace holds fifty claims of fifty organisations against each other: one
// wins, the store names it, and the others are told (promise P19).
func TestRace(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 5, nil)
	var callers []joinery.Caller
	for i := range 50 {
		callers = append(callers, f.newOrg(t, fmt.Sprint("org ", i)))
	}
	for k, d := range devices {
		var winner atomic.Int64
		codes := atOnce(len(callers), func(i int) error {
			r := request(d, tokens[k])
			r.Binding = &joinery.Binding{NetID: lorawan.NetID{byte(i)}}
			got, err := f.Claim(t.Context(), callers[i], r)
			if err == nil {
				winner.Store(int64(i))
				if got.Ownership.Org != callers[i].Org {
					return errors.New("the winner is told another owner")
				}
			}
			return err
		})
		if codes[""] != 1 || codes[joinery.CodeConflict] != len(callers)-1 {
			t.Fatalf("device %d: %v", k, codes)
		}
		s := f.state(t, d.ID)
		if w := callers[winner.Load()]; s.Device.Ownership.Org != w.Org || s.Device.Ownership.Epoch != 1 || s.Binding.NetID != (lorawan.NetID{byte(winner.Load())}) {
			t.Errorf("device %d: %+v, bound to %v", k, s.Device.Ownership, s.Binding.NetID)
		}
	}
	if n := len(f.audited(t, joinery.AuditDeviceClaimed)); n != len(devices) {
		t.Errorf("%d claims in the audit log", n)
	}
}

func TestBind(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 1, nil)
	d := devices[0]
	if _, err := f.Claim(ctx, f.acme, request(d, tokens[0])); err != nil {
		t.Fatal(err)
	}
	version := f.state(t, d.ID).KeySet.Version
	if err := f.Bind(ctx, f.acme, d.ID, home); err != nil {
		t.Fatal(err)
	}
	s := f.state(t, d.ID)
	if s.Binding == nil || !s.Binding.SameTerms(joinery.Binding{NetID: home.NetID, ASID: home.ASID, Policy: home.Policy, Source: "owner"}) {
		t.Fatalf("%+v", s.Binding)
	}
	if s.KeySet.Version == version {
		t.Error("a join in flight would not think again")
	}
	epoch := s.Binding.Epoch
	if err := f.Bind(ctx, f.acme, d.ID, home); err != nil || f.state(t, d.ID).Binding.Epoch != epoch {
		t.Errorf("the same terms are a new binding: %v", err)
	}
	inClear := joinery.Binding{NetID: lorawan.NetID{0, 0, 0x42}, Policy: joinery.AppSKeyClear, ClearNwkKeys: true}
	if err := f.Bind(ctx, f.acme, d.ID, inClear); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t, d.ID); s.Binding.Epoch != epoch+1 || !s.Binding.ClearNwkKeys || s.Binding.ASID != "" {
		t.Errorf("%+v", s.Binding)
	}
	for range 2 {
		if err := f.Unbind(ctx, f.acme, d.ID); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.state(t, d.ID); s.Binding != nil {
		t.Errorf("%+v", s.Binding)
	}
	if n := len(f.audited(t, joinery.AuditDeviceBound)); n != 3 {
		t.Errorf("%d changes of the binding in the audit log", n)
	}
	wantCode(t, f.Bind(ctx, f.acme, d.ID, joinery.Binding{Policy: joinery.AppSKeyByID}), joinery.CodeInvalid)

	// Foreign and absent do not differ, also to the maker that once had it.
	absent := f.Bind(ctx, f.others, joinery.NewDeviceID(), home)
	for _, caller := range []joinery.Caller{f.others, f.maker, {}} {
		for _, err := range []error{f.Bind(ctx, caller, d.ID, home), f.Unbind(ctx, caller, d.ID)} {
			if joinery.CodeOf(err) != joinery.CodeNotFound || err.Error() != absent.Error() {
				t.Errorf("%s: %v", caller.Name, err)
			}
		}
	}
}

// TestBindAtOnce: of many changes at once each wins or is told.
func TestBindAtOnce(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 1, nil)
	codes := atOnce(20, func(i int) error {
		return f.Bind(t.Context(), f.maker, devices[0].ID, joinery.Binding{NetID: lorawan.NetID{byte(i)}})
	})
	if codes[""]+codes[joinery.CodeConflict] != 20 || codes[""] == 0 {
		t.Errorf("%v", codes)
	}
	if epoch := f.state(t, devices[0].ID).Binding.Epoch; int(epoch) != codes[""] {
		t.Errorf("epoch %d after %d changes", epoch, codes[""])
	}
}

// TestNetworksLock: a binding that its network locked stands, for its owner and
// for a claimant.
// claimedBetween is a store in which the device is claimed right after a caller
// was found to hold it.
type claimedBetween struct {
	*store.DB
	by joinery.OrgID
}

func (s claimedBetween) Device(ctx context.Context, id joinery.DeviceID) (joinery.ActivationState, error) {
	state, err := s.DB.Device(ctx, id)
	if err == nil {
		err = s.Claim(ctx, id, state.Device.Ownership.Epoch, s.by, nil, joinery.AuditEntry{At: time.Now()})
	}
	return state, err
}

// A former owner binds nothing that another claimed meanwhile.
func TestBindAfterAnothersClaim(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 1, nil)
	late := New(claimedBetween{f.db, f.acme.Org}, f.db, f.keys, Options{})
	wantCode(t, late.Bind(t.Context(), f.maker, devices[0].ID, home), joinery.CodeConflict)
	s := f.state(t, devices[0].ID)
	if s.Binding != nil || s.Device.Ownership.Org != f.acme.Org {
		t.Errorf("bound to %+v, held by %s", s.Binding, s.Device.Ownership.Org)
	}
	if entries := f.audited(t, joinery.AuditDeviceBound); len(entries) != 0 {
		t.Errorf("audit entries %+v", entries)
	}
}

func TestNetworksLock(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	locked := joinery.Binding{NetID: lorawan.NetID{0, 0, 0x13}, Source: "network", Locked: true}
	devices, tokens := f.devices(t, 1, &locked)
	d := devices[0]
	wantCode(t, f.Bind(ctx, f.maker, d.ID, home), joinery.CodeConflict)
	wantCode(t, f.Unbind(ctx, f.maker, d.ID), joinery.CodeConflict)
	r := request(d, tokens[0])
	r.Binding = &home
	_, err := f.Claim(ctx, f.acme, r)
	wantCode(t, err, joinery.CodeConflict)
	r.Binding = nil
	if _, err := f.Claim(ctx, f.acme, r); err != nil {
		t.Fatal(err)
	}
	if s := f.state(t, d.ID); s.Binding == nil || !s.Binding.Locked {
		t.Errorf("the network's binding is gone: %+v", s.Binding)
	}
}

func TestOwnerToken(t *testing.T) {
	f := newFixture(t, Options{})
	ctx := t.Context()
	devices, tokens := f.devices(t, 1, nil)
	id := devices[0].ID
	for _, caller := range []joinery.Caller{f.maker, {Operator: true, Name: "socket uid 0"}} {
		if token, err := f.OwnerToken(ctx, caller, id); err != nil || token != tokens[0] {
			t.Errorf("%s: %v", caller.Name, err)
		}
	}
	_, err := f.OwnerToken(ctx, f.acme, id)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.OwnerToken(ctx, f.maker, joinery.NewDeviceID())
	wantCode(t, err, joinery.CodeNotFound)
	if entries := f.audited(t, joinery.AuditOwnerTokenRead); len(entries) != 2 || entries[0].Actor != f.maker.Name || entries[0].Device != id {
		t.Errorf("audit: %+v", entries)
	}
	if _, err := f.Claim(ctx, f.acme, request(devices[0], tokens[0])); err != nil {
		t.Fatal(err)
	}
	_, err = f.OwnerToken(ctx, f.acme, id)
	wantCode(t, err, joinery.CodeForbidden)
	_, err = f.OwnerToken(ctx, f.maker, id)
	wantCode(t, err, joinery.CodeNotFound)
}

// silentLog cannot record.
type silentLog struct{ *store.DB }

func (silentLog) Record(context.Context, ...joinery.AuditEntry) error {
	return errors.New("disk is gone")
}

// TestOwnerTokenNeedsItsRecord: no token leaves unrecorded (promise P8).
func TestOwnerTokenNeedsItsRecord(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 1, nil)
	s := New(f.db, silentLog{f.db}, f.keys, Options{})
	if token, err := s.OwnerToken(t.Context(), f.maker, devices[0].ID); err == nil || token != "" {
		t.Errorf("the token left: %v", err)
	}
}

// lockedKeys fails as a keyring that is away.
type lockedKeys struct{ *keyring.Keyring }

func (lockedKeys) CheckOwnerToken(context.Context, joinery.DeviceID, uint32, string) (bool, error) {
	return false, errors.New("token is away")
}

// TestOurFailuresDoNotCount: what is wrong with us is not the caller's guess.
func TestOurFailuresDoNotCount(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 1, nil)
	s := New(f.db, f.db, lockedKeys{f.keys}, Options{})
	for range 10 {
		_, err := s.Claim(t.Context(), f.acme, request(devices[0], tokens[0]))
		wantCode(t, err, joinery.CodeInternal)
	}
	if len(s.guard.devices.seen)+len(s.guard.callers.seen) != 0 {
		t.Error("failures were counted")
	}
}

func TestRequestHidesItsToken(t *testing.T) {
	r := Request{OwnerToken: "SECRETSECRET2"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, r); strings.Contains(text, "SECRET") {
			t.Errorf("%s prints the token: %s", verb, text)
		}
	}
}
