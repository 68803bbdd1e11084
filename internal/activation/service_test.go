package activation_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/seal"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/store"
	"joinery/lorawan"
)

var (
	joinEUI = lorawan.EUI64{0x70, 0xB3, 0xD5, 0x7E, 0xD0, 0, 0, 0}
	home    = lorawan.NetID{0, 0, 0x13}
	foreign = lorawan.NetID{0, 0, 0x42}
	noon    = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
)

const asID = "as.example.com"

// house is a Join Server without doors: the real store, the real keyring, the
// real rules, and devices of the simulator.
type house struct {
	*activation.Service
	t       testing.TB
	store   *store.DB
	keys    keyringtest.Fixture
	peers   *directory
	org     joinery.OrgID
	network joinery.Peer
	app     joinery.Peer
	alarms  []string

	mu     sync.Mutex
	now    time.Time
	serial string // of the chips of devices that are added; "" for none
}

func newHouse(t testing.TB) *house { return newHouseAt(t, joinEUI) }

// newHouseAt is newHouse for a Join Server of that JoinEUI.
func newHouseAt(t testing.TB, joinEUI lorawan.EUI64) *house {
	t.Helper()
	ctx := t.Context()
	opt := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db"), UnsafeNoSync: true}
	ok(t, store.Create(ctx, opt))
	db, err := store.Open(ctx, opt)
	ok(t, err)
	t.Cleanup(func() { ok(t, db.Close()) })

	h := &house{t: t, store: db, keys: keyringtest.Soft(t), now: noon, org: joinery.NewOrgID()}
	audit := joinery.AuditEntry{At: noon, Event: joinery.AuditOrgAdded, Actor: "test"}
	ok(t, db.AddOrg(ctx, joinery.Organisation{ID: h.org, Name: "maker", CreatedAt: noon}, audit))
	h.network = joinery.Peer{ID: joinery.NewPeerID(), Org: h.org, Name: "network", NetIDs: []lorawan.NetID{home}, CreatedAt: noon}
	h.app = joinery.Peer{ID: joinery.NewPeerID(), Org: h.org, Name: "app", ASIDs: []string{asID}, CreatedAt: noon}
	ok(t, db.AssignRange(ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: h.org, Elements: true}, audit))
	ok(t, db.AddPeer(ctx, h.network, nil, audit))
	ok(t, db.AddPeer(ctx, h.app, nil, audit))
	h.peers = &directory{serves: joinEUI, network: &h.network, as: h.app, keks: map[joinery.KEKID]joinery.KEK{}}
	h.addKEK(h.network.ID, joinery.KEKForNS, "ns-000013-v1", 1)
	h.addKEK(h.app.ID, joinery.KEKForAS, "as-v1", 1)

	h.Service = activation.New(db, h.keys.Keyring, h.peers, activation.Options{
		Now: h.clock, Log: slog.New(slog.DiscardHandler), Rekeying: db,
		Alarm: func(counter string) { h.alarms = append(h.alarms, counter) },
	})
	return h
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) sleep(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *house) addKEK(peer joinery.PeerID, role joinery.KEKRole, label string, version uint32) joinery.KEK {
	h.t.Helper()
	var key [16]byte
	rand.Read(key[:])
	header, in, err := seal.SealKEK(h.keys.Keyring.TransportKey(), string(role), label, key[:])
	ok(h.t, err)
	k := joinery.KEK{ID: joinery.NewKEKID(), Peer: peer, Role: role, Label: label, Version: version, CreatedAt: noon}
	k.Sealed, err = h.keys.Keyring.SealKEK(h.t.Context(), header, in, peer, version)
	ok(h.t, err)
	h.peers.put(k)
	return k
}

// directory is what fleet.Directory is in the server: who the peers are.
type directory struct {
	serves  lorawan.EUI64
	mu      sync.Mutex
	network *joinery.Peer // nil once it is removed
	as      joinery.Peer
	keks    map[joinery.KEKID]joinery.KEK
}

func (d *directory) Peer(id joinery.PeerID) (joinery.Peer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case id == d.as.ID:
		return d.as, true
	case d.network != nil && id == d.network.ID:
		return *d.network, true
	}
	return joinery.Peer{}, false
}

func (d *directory) put(k joinery.KEK) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keks[k.ID] = k
}

func (d *directory) drop(role joinery.KEKRole) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.keks {
		if k.Role == role {
			delete(d.keks, id)
		}
	}
}

func (d *directory) ServesJoinEUI(e lorawan.EUI64) bool { return e == d.serves }

func (d *directory) PeerByASID(asid string) (joinery.Peer, bool) { return d.as, asid == asID }

func (d *directory) CurrentKEK(peer joinery.PeerID, role joinery.KEKRole) (best joinery.KEK, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.keks {
		if k.Peer == peer && k.Role == role && !k.Claimed && k.Version > best.Version {
			best, found = k, true
		}
	}
	return best, found
}

func (d *directory) KEK(id joinery.KEKID) (joinery.KEK, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.keks[id]
	return k, ok
}

// binding is the one that devices of these tests get.
func binding() *joinery.Binding {
	return &joinery.Binding{Epoch: 1, NetID: home, ASID: asID, Policy: joinery.AppSKeyWrapped, Source: "owner", Since: noon}
}

// add imports an element whose roots derive from the fixture's master key, and
// gives the device that the simulator makes of it.
func (h *house) add(version lorawan.MACVersion, b *joinery.Binding) *device.Device {
	return h.addAged(version, b, joinery.Nonces{}, func(*device.State) {})
}

// addAged is add for a device that has a past: nonces is the server's side of
// it, age the device's.
func (h *house) addAged(version lorawan.MACVersion, b *joinery.Binding, nonces joinery.Nonces, age func(*device.State)) *device.Device {
	h.t.Helper()
	var devEUI lorawan.EUI64
	rand.Read(devEUI[:])
	return h.addAs(devEUI, version, b, nonces, age)
}

// addAs is addAged for a device with a DevEUI.
func (h *house) addAs(devEUI lorawan.EUI64, version lorawan.MACVersion, b *joinery.Binding, nonces joinery.Nonces, age func(*device.State)) *device.Device {
	h.t.Helper()
	ctx := h.t.Context()
	ks, nwk, app := h.keys.DerivedKeySet(h.t, devEUI, 1)
	id := joinery.NewDeviceID()
	ks.DeviceID, ks.Nonces = id, nonces
	d := joinery.Device{ID: id, JoinEUI: joinEUI, DevEUI: devEUI, MACVersion: version, Maker: h.org,
		Ownership: joinery.Ownership{Org: h.org}, CreatedAt: noon}
	imp := joinery.Import{ID: joinery.NewImportID(), Org: h.org, Kind: joinery.ImportManifest, MACVersion: version, CreatedAt: noon}
	rand.Read(imp.SHA256[:])
	imp, err := h.store.BeginImport(ctx, imp)
	ok(h.t, err)
	rows, err := h.store.CommitRows(ctx, joinery.ImportRows{
		Import: imp.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Line: 1, Device: d, KeySet: ks, Binding: b, Serial: h.serial}},
	}, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceImported, Actor: "test", Org: h.org})
	ok(h.t, err)
	if rows[0].Status != joinery.RowCreated {
		h.t.Fatalf("import: %+v", rows[0])
	}
	e, err := element.Provision(joinEUI, devEUI, nwk[:], app[:])
	ok(h.t, err)
	dev, err := device.New(e, version, device.Options{})
	ok(h.t, err)
	state := dev.State()
	age(&state)
	dev, err = device.Restore(e, state, device.Options{})
	ok(h.t, err)
	return dev
}

func (h *house) requester() activation.Requester {
	return activation.Requester{Peer: h.network, NetID: home}
}

// request is what the home network makes of a device's frame.
func (h *house) request(d *device.Device, frame []byte) activation.JoinRequest {
	req := activation.JoinRequest{
		Requester: h.requester(), JoinEUI: h.peers.serves, DevEUI: d.DevEUI(), MACVersion: d.MACVersion(),
		PHYPayload: frame, DevAddr: lorawan.DevAddr{0x26, 1, 0x1B, 0xDA}, DLSettings: 3, RxDelay: 1,
	}
	if d.MACVersion().NegotiatesOptions() {
		req.DLSettings |= 0x80
	}
	return req
}

func (h *house) joinRequest(d *device.Device) activation.JoinRequest {
	h.t.Helper()
	frame, err := d.JoinRequest()
	ok(h.t, err)
	return h.request(d, frame)
}

// joined has a device join and checks the accept as the device does.
func (h *house) joined(d *device.Device) activation.JoinAnswer {
	h.t.Helper()
	answer, err := h.Join(h.t.Context(), h.joinRequest(d))
	ok(h.t, err)
	_, err = d.HandleAccept(answer.PHYPayload)
	ok(h.t, err)
	return answer
}

func (h *house) state(d *device.Device) joinery.ActivationState {
	h.t.Helper()
	s, err := h.store.LoadActivation(h.t.Context(), h.peers.serves, d.DevEUI())
	ok(h.t, err)
	return s
}

func wantCode(t testing.TB, err error, want joinery.Code) {
	t.Helper()
	if got := joinery.CodeOf(err); got != want {
		t.Errorf("code %q, want %q: %v", got, want, err)
	}
}

func TestJoinEveryVersion(t *testing.T) {
	h := newHouse(t)
	for v := lorawan.MAC1_0_0; v <= lorawan.MAC1_1; v++ {
		t.Run(v.String(), func(t *testing.T) {
			d := h.add(v, binding())
			for n := range 3 {
				answer := h.joined(d)
				if got, want := d.JoinNonce(), lorawan.JoinNonce(n+1); got != want {
					t.Errorf("JoinNonce %d, want %d", got, want)
				}
				if v.NegotiatesOptions() != answer.NwkSKey.IsZero() || v.NegotiatesOptions() == answer.SNwkSIntKey.IsZero() {
					t.Errorf("keys of the wrong layout: %+v", answer)
				}
				if answer.AppSKey.KEKLabel != "as-v1" || len(answer.AppSKey.AESKey) != 24 || len(answer.SessionKeyID) != 16 {
					t.Errorf("AppSKey %v, SessionKeyID %d bytes", answer.AppSKey, len(answer.SessionKeyID))
				}
			}
		})
	}
}

// A 1.1 device falls back to a 1.0.x network; a 1.0.x device takes any 1.0.x,
// and never 1.1; OptNeg has to agree.
func TestVersionsOfNetworkAndDevice(t *testing.T) {
	h := newHouse(t)
	tests := []struct {
		device, asked lorawan.MACVersion
		optNeg        bool
		want          joinery.Code
	}{
		{lorawan.MAC1_1, lorawan.MAC1_0_3, false, ""},
		{lorawan.MAC1_1, lorawan.MAC1_0_4, false, ""},
		{lorawan.MAC1_1, lorawan.MAC1_1, true, ""},
		{lorawan.MAC1_0_3, lorawan.MAC1_0_0, false, ""},
		{lorawan.MAC1_0_0, lorawan.MAC1_0_4, false, ""},
		{lorawan.MAC1_0_4, lorawan.MAC1_1, true, joinery.CodeJoinRefused},
		{lorawan.MAC1_1, lorawan.MAC1_1, false, joinery.CodeInvalid},
		{lorawan.MAC1_1, lorawan.MAC1_0_4, true, joinery.CodeInvalid},
		{lorawan.MAC1_0_3, lorawan.MAC1_0_3, true, joinery.CodeInvalid},
	}
	for _, tt := range tests {
		d := h.add(tt.device, binding())
		req := h.joinRequest(d)
		req.MACVersion, req.DLSettings = tt.asked, 3
		if tt.optNeg {
			req.DLSettings |= 0x80
		}
		answer, err := h.Join(t.Context(), req)
		if got := joinery.CodeOf(err); got != tt.want {
			t.Errorf("device %s asked as %s, OptNeg %v: code %q, want %q", tt.device, tt.asked, tt.optNeg, got, tt.want)
			continue
		}
		if err == nil {
			if _, err := d.HandleAccept(answer.PHYPayload); err != nil {
				t.Errorf("device %s asked as %s: %v", tt.device, tt.asked, err)
			}
		}
	}
}

func TestRepeats(t *testing.T) {
	for _, v := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_0_4, lorawan.MAC1_1} {
		t.Run(v.String(), func(t *testing.T) {
			h := newHouse(t)
			d := h.add(v, binding())
			req := h.joinRequest(d)
			first, err := h.Join(t.Context(), req)
			ok(t, err)

			h.sleep(10 * time.Second)
			again, err := h.Join(t.Context(), req)
			ok(t, err)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("the repeat differs:\n%s", diff)
			}
			if n := h.state(d).KeySet.Nonces.JoinNonce; n != 1 {
				t.Errorf("the repeat spent a JoinNonce: %d", n)
			}

			other := req
			other.DevAddr[3]++
			_, err = h.Join(t.Context(), other)
			wantCode(t, err, joinery.CodeReplay)

			h.addKEK(h.network.ID, joinery.KEKForNS, "ns-000013-v2", 2)
			again, err = h.Join(t.Context(), req)
			ok(t, err)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("a new KEK version changes the repeat:\n%s", diff)
			}

			h.sleep(time.Millisecond)
			_, err = h.Join(t.Context(), req)
			wantCode(t, err, joinery.CodeReplay)
			h.sleep(-time.Hour)
			_, err = h.Join(t.Context(), req)
			wantCode(t, err, joinery.CodeReplay)
		})
	}
}

// A repeat that cannot be made again with the same bytes is a used nonce.
func TestRepeatWhoseGroundsAreGone(t *testing.T) {
	for name, change := range map[string]func(*house, *device.Device){
		"the KEK is retired": func(h *house, _ *device.Device) {
			h.peers.drop(joinery.KEKForAS)
			h.addKEK(h.app.ID, joinery.KEKForAS, "as-v2", 2)
		},
		"the binding changed": func(h *house, d *device.Device) {
			b := binding()
			b.ASID = ""
			b.Policy = joinery.AppSKeyByID
			s := h.state(d)
			ok(h.t, h.store.SetBinding(h.t.Context(), s.Device.ID, s.Device.Ownership.Org, s.Binding.Epoch, b, joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceBound, Actor: "test"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := h.add(lorawan.MAC1_0_4, binding())
			req := h.joinRequest(d)
			_, err := h.Join(t.Context(), req)
			ok(t, err)
			change(h, d)
			_, err = h.Join(t.Context(), req)
			wantCode(t, err, joinery.CodeReplay)
		})
	}
}

// Who cannot make a MIC learns nothing about nonces; who is not bound learns
// nothing at all.
func TestOrderOfRefusals(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	req := h.joinRequest(d)
	_, err := h.Join(t.Context(), req)
	ok(t, err)
	h.sleep(time.Minute)

	wrongMIC := req
	wrongMIC.PHYPayload = append([]byte(nil), req.PHYPayload...)
	wrongMIC.PHYPayload[22] ^= 1
	elsewhere := req
	elsewhere.NetID = foreign
	unknown := h.joinRequest(d)
	unknown.DevEUI[0] ^= 0xFF
	frame, err := lorawan.ParseJoinRequest(unknown.PHYPayload)
	ok(t, err)
	frame.DevEUI = unknown.DevEUI
	unknown.PHYPayload = frame.Append(nil)
	bodyDiffers := h.joinRequest(d)
	bodyDiffers.DevEUI[0] ^= 0xFF
	otherJoinEUI := h.joinRequest(d)
	otherJoinEUI.JoinEUI[7]++
	cut := h.joinRequest(d)
	cut.PHYPayload = cut.PHYPayload[:22]
	relayed := h.joinRequest(d)
	relayed.PHYPayload = append([]byte{0x40}, relayed.PHYPayload[1:]...)
	late := h.joinRequest(d)
	late.RxDelay = 16

	for _, tt := range []struct {
		name string
		req  activation.JoinRequest
		want joinery.Code
	}{
		{"replay", req, joinery.CodeReplay},
		{"replay with a wrong MIC", wrongMIC, joinery.CodeMIC},
		{"another network", elsewhere, joinery.CodeUnknownDevice},
		{"unknown device", unknown, joinery.CodeUnknownDevice},
		{"DevEUI of the body", bodyDiffers, joinery.CodeInvalid},
		{"JoinEUI that is not served", otherJoinEUI, joinery.CodeUnknownReceiver},
		{"frame cut short", cut, joinery.CodeInvalid},
		{"relayed frame", relayed, joinery.CodeInvalid},
		{"RxDelay", late, joinery.CodeInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := h.state(d)
			_, err := h.Join(t.Context(), tt.req)
			wantCode(t, err, tt.want)
			if diff := cmp.Diff(before.KeySet.Version, h.state(d).KeySet.Version); diff != "" {
				t.Errorf("a refusal wrote: %s", diff)
			}
		})
	}
	h.network.DiscloseDevices = true
	_, err = h.Join(t.Context(), elsewhere)
	wantCode(t, err, joinery.CodeForbidden)
	h.network.DiscloseDevices = false
	_, err = h.Join(t.Context(), elsewhere)
	_, err2 := h.Join(t.Context(), unknown)
	if joinery.MessageOf(err) != joinery.MessageOf(err2) {
		t.Errorf("an unbound device answers %q, an unknown one %q", joinery.MessageOf(err), joinery.MessageOf(err2))
	}
}

func TestSuspendedDevice(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_1, binding())
	answer := h.joined(d)
	audit := joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceSuspended, Actor: "test"}
	ok(t, h.store.SetSuspended(t.Context(), h.state(d).Device.ID, h.state(d).Device.Ownership.Org, true, audit))
	_, err := h.Join(t.Context(), h.joinRequest(d))
	wantCode(t, err, joinery.CodeSuspended)
	_, err = h.AppSKey(t.Context(), h.appSKeyRequest(d, answer.SessionKeyID))
	wantCode(t, err, joinery.CodeSuspended)
	ok(t, h.store.SetSuspended(t.Context(), h.state(d).Device.ID, h.state(d).Device.Ownership.Org, false, audit))
	h.joined(d)
}

// P16: one JoinReq sent 100 times at once is one activation, and everybody gets
// the same bytes.
func TestSameRequestInParallel(t *testing.T) {
	h := newHouse(t)
	for _, v := range []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_1} {
		d := h.add(v, binding())
		req := h.joinRequest(d)
		const copies = 100
		answers := make([]activation.JoinAnswer, copies)
		errs := make([]error, copies)
		var start, done sync.WaitGroup
		start.Add(1)
		for i := range copies {
			done.Go(func() {
				start.Wait()
				answers[i], errs[i] = h.Join(context.Background(), req)
			})
		}
		start.Done()
		done.Wait()
		for i := range copies {
			if errs[i] != nil {
				t.Fatalf("copy %d: %v", i, errs[i])
			}
			if diff := cmp.Diff(answers[0], answers[i]); diff != "" {
				t.Fatalf("copy %d differs:\n%s", i, diff)
			}
		}
		all, err := h.store.Activations(t.Context(), h.state(d).Device.ID, 1000)
		ok(t, err)
		if len(all) != 1 {
			t.Errorf("%d activations, want 1", len(all))
		}
	}
}

// Two services over one store, as two servers would be, without a lock between
// them: the swap alone keeps JoinNonces apart.
func TestTwoServicesOneStore(t *testing.T) {
	h := newHouse(t)
	second := activation.New(h.store, h.keys.Keyring, h.peers, activation.Options{Now: h.clock, Log: slog.New(slog.DiscardHandler)})
	d := h.add(lorawan.MAC1_0_3, binding())
	const each = 40
	reqs := make([]activation.JoinRequest, 2*each)
	for i := range reqs {
		reqs[i] = h.joinRequest(d)
	}
	var wg sync.WaitGroup
	for i, service := range []*activation.Service{h.Service, second} {
		wg.Go(func() {
			for _, req := range reqs[i*each : (i+1)*each] {
				_, err := service.Join(context.Background(), req)
				if err != nil && joinery.CodeOf(err) != joinery.CodeUnavailable {
					t.Errorf("join: %v", err)
				}
			}
		})
	}
	wg.Wait()
	all, err := h.store.Activations(t.Context(), h.state(d).Device.ID, 1000)
	ok(t, err)
	seen := map[lorawan.JoinNonce]bool{}
	for _, a := range all {
		if seen[a.JoinNonce] {
			t.Errorf("JoinNonce %d was issued twice", a.JoinNonce)
		}
		seen[a.JoinNonce] = true
	}
	if len(all) < each {
		t.Errorf("only %d of %d joins were accepted", len(all), len(reqs))
	}
	violations, err := h.store.Fsck(t.Context(), h.keys.Keyring)
	ok(t, err)
	if len(violations) != 0 {
		t.Errorf("fsck: %v", violations)
	}
}

func (h *house) appSKeyRequest(d *device.Device, id []byte) activation.AppSKeyRequest {
	return activation.AppSKeyRequest{Peer: h.app, ASID: asID, JoinEUI: joinEUI, DevEUI: d.DevEUI(), SessionKeyID: id}
}

func TestAppSKey(t *testing.T) {
	h := newHouse(t)
	for _, v := range []lorawan.MACVersion{lorawan.MAC1_0_2, lorawan.MAC1_1} {
		d := h.add(v, binding())
		answer := h.joined(d)
		got, err := h.AppSKey(t.Context(), h.appSKeyRequest(d, answer.SessionKeyID))
		ok(t, err)
		if diff := cmp.Diff(answer.AppSKey, got); diff != "" {
			t.Errorf("AppSKey differs from the JoinAns (%s)", v)
		}
	}

	d := h.add(lorawan.MAC1_0_4, binding())
	id := h.joined(d).SessionKeyID
	other := h.add(lorawan.MAC1_0_4, binding())
	for name, change := range map[string]func(*activation.AppSKeyRequest){
		"another AS":             func(r *activation.AppSKeyRequest) { r.ASID = "other.example.com" },
		"another device":         func(r *activation.AppSKeyRequest) { r.DevEUI = other.DevEUI() },
		"another id":             func(r *activation.AppSKeyRequest) { r.SessionKeyID = append([]byte{}, id...); r.SessionKeyID[15]++ },
		"an id of nothing":       func(r *activation.AppSKeyRequest) { r.SessionKeyID = make([]byte, 16) },
		"an id of another form":  func(r *activation.AppSKeyRequest) { r.SessionKeyID = id[:15] },
		"no id":                  func(r *activation.AppSKeyRequest) { r.SessionKeyID = nil },
		"no AS-ID on both sides": func(r *activation.AppSKeyRequest) { r.ASID = "" },
	} {
		req := h.appSKeyRequest(d, id)
		change(&req)
		if _, err := h.AppSKey(t.Context(), req); joinery.CodeOf(err) != joinery.CodeUnknownDevice {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Another binding ends it, even one with the same AS: its owner decides anew.
	s := h.state(d)
	ok(t, h.store.SetBinding(t.Context(), s.Device.ID, s.Device.Ownership.Org, s.Binding.Epoch, binding(), joinery.AuditEntry{At: noon, Event: joinery.AuditDeviceBound, Actor: "test"}))
	_, err := h.AppSKey(t.Context(), h.appSKeyRequest(d, id))
	wantCode(t, err, joinery.CodeUnknownDevice)
}

// No AppSKey leaves without an entry on disk that says to whom (P8).
func TestAppSKeyIsAudited(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	id := h.joined(d).SessionKeyID
	var entries []joinery.AuditEntry
	var fails error
	audited := activation.New(h.store, h.keys.Keyring, h.peers, activation.Options{
		Now: h.clock, Log: slog.New(slog.DiscardHandler),
		Fetched: func(_ context.Context, e joinery.AuditEntry) error { entries = append(entries, e); return fails },
	})
	req := h.appSKeyRequest(d, id)
	got, err := audited.AppSKey(t.Context(), req)
	ok(t, err)
	if len(entries) != 1 || got.IsZero() {
		t.Fatalf("%d entries", len(entries))
	}
	s, e := h.state(d), entries[0]
	if e.Event != joinery.AuditAppSKeyFetched || e.Device != s.Device.ID || e.Org != s.Device.Ownership.Org || e.Peer != h.app.ID ||
		e.Detail["asID"] != asID || e.Detail["kek"] != got.KEKLabel || e.Detail["activation"] != joinery.SessionKeyID(id).ActivationID().String() {
		t.Errorf("%+v", e)
	}
	fails = errors.New("disk")
	if got, err := audited.AppSKey(t.Context(), req); joinery.CodeOf(err) != joinery.CodeUnavailable || !got.IsZero() {
		t.Errorf("an AppSKey leaves although its entry is not written: %v", err)
	}
	req.ASID = "other.example.com"
	if _, err := audited.AppSKey(t.Context(), req); err == nil || len(entries) != 2 {
		t.Errorf("a fetch that is refused is told as one: %d entries, %v", len(entries), err)
	}
}

func TestHomeNS(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	unbound := h.add(lorawan.MAC1_0_4, nil)
	ask := func(d lorawan.EUI64, netID lorawan.NetID) (activation.HomeNSAnswer, error) {
		return h.HomeNS(t.Context(), activation.HomeNSRequest{
			Requester: activation.Requester{Peer: h.network, NetID: netID}, JoinEUI: joinEUI, DevEUI: d,
		})
	}
	if answer, err := ask(d.DevEUI(), home); err != nil || answer.HNetID != home {
		t.Errorf("the home network: %v, %v", answer, err)
	}
	_, err := ask(d.DevEUI(), foreign)
	wantCode(t, err, joinery.CodeNoRoaming)
	_, err = ask(lorawan.EUI64{9}, foreign)
	wantCode(t, err, joinery.CodeNoRoaming)
	_, err = ask(lorawan.EUI64{9}, home)
	wantCode(t, err, joinery.CodeNoRoaming)

	ok(t, h.store.SetRoaming(t.Context(), joinery.RoamingRule{Org: h.org, NetIDs: []lorawan.NetID{foreign}},
		joinery.AuditEntry{At: noon, Event: joinery.AuditRoamingChanged, Actor: "test"}))
	if answer, err := ask(d.DevEUI(), foreign); err != nil || answer.HNetID != home {
		t.Errorf("a network on the roaming list: %v, %v", answer, err)
	}
	_, err = ask(unbound.DevEUI(), foreign)
	wantCode(t, err, joinery.CodeUnknownDevice)
	_, err = h.HomeNS(t.Context(), activation.HomeNSRequest{Requester: h.requester(), DevEUI: d.DevEUI()})
	wantCode(t, err, joinery.CodeUnknownReceiver)
}

func TestKEKs(t *testing.T) {
	h := newHouse(t)
	inClear := binding()
	inClear.Policy, inClear.ClearNwkKeys = joinery.AppSKeyClear, true
	d := h.add(lorawan.MAC1_0_3, inClear)

	// The owner's consent alone: AppSKey is wrapped.
	if a := h.joined(d); a.AppSKey.KEKLabel == "" || a.NwkSKey.KEKLabel == "" {
		t.Errorf("a key travelled in the clear: %+v", a)
	}
	h.network.ClearKeys, h.network.OmitSessionKeyID = true, true
	a := h.joined(d)
	if a.AppSKey.KEKLabel != "" || len(a.AppSKey.AESKey) != 16 || a.SessionKeyID != nil {
		t.Errorf("both consented: %+v", a)
	}
	if !d.HoldsSessionKey(element.AppSKey, a.AppSKey.AESKey) {
		t.Error("AppSKey is not the device's")
	}
	if a.NwkSKey.KEKLabel == "" {
		t.Error("a consent took away a KEK that is there")
	}
	h.peers.drop(joinery.KEKForNS)
	if a := h.joined(d); a.NwkSKey.KEKLabel != "" || len(a.NwkSKey.AESKey) != 16 {
		t.Errorf("NwkSKey without a KEK, both consented: %+v", a)
	}
	// The operator's consent alone: refused.
	other := h.add(lorawan.MAC1_1, binding())
	_, err := h.Join(t.Context(), h.joinRequest(other))
	wantCode(t, err, joinery.CodeKEKMissing)
	h.network.ClearKeys = false
	_, err = h.Join(t.Context(), h.joinRequest(d))
	wantCode(t, err, joinery.CodeKEKMissing)

	h.addKEK(h.network.ID, joinery.KEKForNS, "ns-000013-v2", 2)
	h.peers.drop(joinery.KEKForAS)
	_, err = h.Join(t.Context(), h.joinRequest(other))
	wantCode(t, err, joinery.CodeKEKMissing)
	byID := binding()
	byID.Policy = joinery.AppSKeyByID
	third := h.add(lorawan.MAC1_1, byID)
	a = h.joined(third)
	if !a.AppSKey.IsZero() || len(a.SessionKeyID) != 16 {
		t.Errorf("session-key-id gives %+v", a)
	}
	_, err = h.AppSKey(t.Context(), h.appSKeyRequest(third, a.SessionKeyID))
	wantCode(t, err, joinery.CodeKEKMissing)
	if n := h.state(other).KeySet.Nonces.JoinNonce; n != 0 {
		t.Errorf("a join refused for its KEK spent a JoinNonce: %d", n)
	}
}

// P17: counters at their ends are refused with the right code, and raise an
// alarm from nine tenths on.
func TestCountersAtTheirEnds(t *testing.T) {
	h := newHouse(t)
	ends := joinery.JoinEUINonces{JoinEUI: joinEUI, Next: 65535, NextRJCount1: 65535}

	t.Run("JoinNonce", func(t *testing.T) {
		d := h.addAged(lorawan.MAC1_0_4, binding(), joinery.Nonces{JoinNonce: lorawan.MaxJoinNonce - 1}, func(*device.State) {})
		h.joined(d)
		if got := d.JoinNonce(); got != lorawan.MaxJoinNonce {
			t.Errorf("the last JoinNonce is %d", got)
		}
		_, err := h.Join(t.Context(), h.joinRequest(d))
		wantCode(t, err, joinery.CodeExhausted)
		h.wantAlarm("JoinNonce")
	})
	t.Run("DevNonce that counts", func(t *testing.T) {
		d := h.addAged(lorawan.MAC1_1, binding(), joinery.Nonces{}.With(ends), func(s *device.State) { s.NextDevNonce = 65535 })
		req := h.joinRequest(d)
		_, err := h.Join(t.Context(), req)
		ok(t, err)
		h.sleep(time.Minute)
		_, err = h.Join(t.Context(), req)
		wantCode(t, err, joinery.CodeExhausted)
		h.wantAlarm("DevNonce")
	})
	t.Run("DevNonce drawn at random", func(t *testing.T) {
		all := make([]lorawan.DevNonce, 1<<16)
		for v := range all {
			all[v] = lorawan.DevNonce(v)
		}
		full := joinery.JoinEUINonces{JoinEUI: joinEUI, Used: joinery.NewDevNonceSet(all)}
		d := h.addAged(lorawan.MAC1_0_2, binding(), joinery.Nonces{}.With(full), func(*device.State) {})
		_, err := h.Join(t.Context(), h.joinRequest(d))
		wantCode(t, err, joinery.CodeExhausted)
	})
	t.Run("RJcount1", func(t *testing.T) {
		d := h.addAged(lorawan.MAC1_1, binding(), joinery.Nonces{}.With(ends), func(s *device.State) { s.NextRJCount1 = 65535 })
		frame, err := d.RejoinRequest(lorawan.Rejoin1)
		ok(t, err)
		_, err = h.Rejoin(t.Context(), h.request(d, frame))
		ok(t, err)
		h.sleep(time.Minute)
		_, err = h.Rejoin(t.Context(), h.request(d, frame))
		wantCode(t, err, joinery.CodeExhausted)
		h.wantAlarm("RJcount1")
	})
	t.Run("below nine tenths", func(t *testing.T) {
		h.alarms = nil
		e := joinery.JoinEUINonces{JoinEUI: joinEUI, Next: 58981}
		d := h.addAged(lorawan.MAC1_0_4, binding(), joinery.Nonces{}.With(e), func(s *device.State) { s.NextDevNonce = 58981 })
		h.joined(d)
		if len(h.alarms) != 0 {
			t.Errorf("alarms %v at 58,982 of 65,536", h.alarms)
		}
		h.joined(d)
		h.wantAlarm("DevNonce")
	})
}

func (h *house) wantAlarm(counter string) {
	h.t.Helper()
	if len(h.alarms) == 0 || h.alarms[len(h.alarms)-1] != counter {
		h.t.Errorf("alarms %v, want the last to be %s", h.alarms, counter)
	}
}

func TestRejoins(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_1, binding())
	rejoin := func(typ lorawan.RejoinType) activation.JoinRequest {
		t.Helper()
		frame, err := d.RejoinRequest(typ)
		ok(t, err)
		return h.request(d, frame)
	}
	h.joined(d)
	for round := range 3 {
		for typ := lorawan.Rejoin0; typ <= lorawan.Rejoin2; typ++ {
			req := rejoin(typ)
			answer, err := h.Rejoin(t.Context(), req)
			ok(t, err)
			again, err := h.Rejoin(t.Context(), req)
			ok(t, err)
			if diff := cmp.Diff(answer, again); diff != "" {
				t.Errorf("type %d: the repeat differs", typ)
			}
			if _, err := d.HandleAccept(answer.PHYPayload); err != nil {
				t.Fatalf("round %d type %d: %v", round, typ, err)
			}
			h.sleep(11 * time.Second)
			_, err = h.Rejoin(t.Context(), req)
			wantCode(t, err, joinery.CodeReplay)
		}
	}

	// Accepts that were lost: the device goes on speaking from its session.
	for range 3 {
		_, err := h.Rejoin(t.Context(), rejoin(lorawan.Rejoin0))
		ok(t, err)
	}
	answer, err := h.Rejoin(t.Context(), rejoin(lorawan.Rejoin2))
	ok(t, err)
	_, err = d.HandleAccept(answer.PHYPayload)
	ok(t, err)

	// Even more of them: the session that the device speaks from stays known,
	// and a repeat is still a repeat.
	var last activation.JoinRequest
	var lost activation.JoinAnswer
	for range 3 * joinery.MaxRecent {
		last = rejoin(lorawan.Rejoin0)
		lost, err = h.Rejoin(t.Context(), last)
		ok(t, err)
	}
	again, err := h.Rejoin(t.Context(), last)
	ok(t, err)
	if diff := cmp.Diff(lost, again); diff != "" {
		t.Errorf("the repeat differs:\n%s", diff)
	}

	bad := rejoin(lorawan.Rejoin1)
	bad.PHYPayload[23] ^= 1
	_, err = h.Rejoin(t.Context(), bad)
	wantCode(t, err, joinery.CodeMIC)
	bad = rejoin(lorawan.Rejoin0)
	bad.PHYPayload[18] ^= 1
	_, err = h.Rejoin(t.Context(), bad)
	wantCode(t, err, joinery.CodeMIC)
	old := rejoin(lorawan.Rejoin0)
	old.MACVersion, old.DLSettings = lorawan.MAC1_0_4, 3
	_, err = h.Rejoin(t.Context(), old)
	wantCode(t, err, joinery.CodeInvalid)
	elsewhere := rejoin(lorawan.Rejoin1)
	elsewhere.NetID = foreign
	_, err = h.Rejoin(t.Context(), elsewhere)
	wantCode(t, err, joinery.CodeUnknownDevice)

	violations, err := h.store.Fsck(t.Context(), h.keys.Keyring)
	ok(t, err)
	if len(violations) != 0 {
		t.Errorf("fsck: %v", violations)
	}
}

// A peer that is removed while its request waits gets nothing, least of all
// keys in the clear because its KEK went with it.
func TestPeerRemovedMeanwhile(t *testing.T) {
	h := newHouse(t)
	h.network.ClearKeys = true
	inClear := binding()
	inClear.Policy, inClear.ClearNwkKeys = joinery.AppSKeyClear, true
	d := h.add(lorawan.MAC1_0_4, inClear)
	req := h.joinRequest(d)
	h.peers.drop(joinery.KEKForNS)
	h.peers.remove()
	_, err := h.Join(t.Context(), req)
	wantCode(t, err, joinery.CodeUnknownSender)
	if n := h.state(d).KeySet.Nonces.JoinNonce; n != 0 {
		t.Errorf("JoinNonce %d was spent on a removed peer", n)
	}
}

func (d *directory) remove() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.network = nil
}

// A request that waits for another one of its device gives up with its context.
func TestWaitEndsWithContext(t *testing.T) {
	h := newHouse(t)
	d := h.add(lorawan.MAC1_0_4, binding())
	release := h.Hold(joinEUI, d.DevEUI())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := h.Join(ctx, h.joinRequest(d))
	wantCode(t, err, joinery.CodeUnavailable)

	// Who has no business with the device does not even wait.
	elsewhere := h.joinRequest(d)
	elsewhere.NetID = foreign
	_, err = h.Join(t.Context(), elsewhere)
	wantCode(t, err, joinery.CodeUnknownDevice)
	release()
	h.joined(d)
}
