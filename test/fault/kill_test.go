package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/rig"
)

// How hard the server is hit. The long form is what is promised; set
// JOINERY_LONG for it.
type dose struct{ kills, acknowledged, devices, claims int }

func doseOf() dose {
	if os.Getenv("JOINERY_LONG") != "" {
		return dose{kills: 200, acknowledged: 10_000, devices: 240, claims: 1_000}
	}
	return dose{kills: 4, acknowledged: 200, devices: 48, claims: 40}
}

// P1: kill -9 at any instant. No JoinNonce repeats, no accepted DevNonce is
// accepted again, and no join, claim, export or order to rekey that was acknowledged
// is lost.
func TestKilledAtAnyInstant(t *testing.T) {
	d := doseOf()
	f := newFleet(t, d)
	f.leaver = newLeaver(f)
	for kill := range d.kills {
		f.live(time.Duration(100+rand.IntN(500)) * time.Millisecond)
		f.fsck()
		ok(t, f.server.Start(t.Context()))
		f.checkReplays()
		f.checkJoins()
		f.checkClaims()
		f.leaver.check()
		t.Logf("kill %d: %d joins, %d claims, %d exports and %d orders to rekey acknowledged so far",
			kill+1, f.acknowledged(), len(f.claimed), f.leaver.before.exports, f.leaver.before.orders)
	}
	if n := f.acknowledged(); n < d.acknowledged {
		t.Errorf("%d joins were acknowledged, want at least %d", n, d.acknowledged)
	}
	if len(f.claimed) == 0 {
		t.Error("no claim was acknowledged")
	}
	if f.leaver.before.exports == 0 || f.leaver.before.orders == 0 {
		t.Error("no export or order to rekey was acknowledged")
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fleet is a server, what joins it, and what it acknowledged.
type fleet struct {
	t       *testing.T
	server  *rig.Server
	api     *client.Client
	lab     *lab.Lab
	ns      *sim.NS
	members []*member
	count   atomic.Int64 // of acknowledged joins

	unclaimed []client.NewClaim
	claimed   []client.NewClaim
	ids       map[lorawan.EUI64]joinery.DeviceID

	leaver *leaver // nil: nobody has root keys leave
}

// member is one device and the joins that were acknowledged to it. One
// goroutine at a time.
type member struct {
	*device.Device
	last   []byte // frame of the last acknowledged join
	nonces map[lorawan.JoinNonce]bool
	fresh  []lorawan.JoinNonce // acknowledged since the last kill
}

const joiners = 16

func newFleet(t *testing.T, d dose) *fleet {
	t.Helper()
	return newFleetIn(t, d, t.TempDir(), func(*rig.Server) {})
}

// newFleetIn makes a server in dir and starts it after prepare had its way with
// its directory.
func newFleetIn(t *testing.T, d dose, dir string, prepare func(*rig.Server)) *fleet {
	t.Helper()
	server, err := built(t).Quickstart(t.Context(), filepath.Join(dir, "server"), "--elements", fmt.Sprint(max(d.claims, 1)))
	ok(t, err)
	f := &fleet{t: t, server: server, ids: map[lorawan.EUI64]joinery.DeviceID{}}
	prepare(server)
	ok(t, server.Start(t.Context()))
	t.Cleanup(func() { ok(t, server.Stop()) })
	f.api, err = client.New(client.Options{Socket: server.Path("joinery.sock")})
	ok(t, err)
	t.Cleanup(f.api.Close)
	l, err := lab.Open(server.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, l.Close()) })
	f.lab = l
	f.ns, err = l.NS("", lab.PeerOptions{})
	ok(t, err)
	f.importDevices(d.devices)
	if d.claims > 0 {
		f.importElements()
	}
	return f
}

// importDevices makes ordinary devices of every version and imports their key
// list, sealed on the way, bound to the home network.
func (f *fleet) importDevices(n int) {
	f.t.Helper()
	var list bytes.Buffer
	factory := element.NewFactory(&list)
	joinEUI := lorawan.EUI64FromUint64(0x0200000000000100)
	for i := range n {
		version := lorawan.MAC1_0_0 + lorawan.MACVersion(i%6)
		e, err := factory.Make(joinEUI, lorawan.EUI64FromUint64(0x0200_00FF_FF00_0000+uint64(i)), version)
		ok(f.t, err)
		d, err := device.New(e, version, device.Options{})
		ok(f.t, err)
		f.members = append(f.members, &member{Device: d, nonces: map[lorawan.JoinNonce]bool{}})
	}
	path := f.server.Path("devices.csv")
	ok(f.t, os.WriteFile(path, list.Bytes(), 0o600))
	_, err := f.server.Ctl(f.t.Context(), "", "import", "keys", path, "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	ok(f.t, err)
	for d, err := range f.api.Devices(f.t.Context(), client.DevicesQuery{}) {
		ok(f.t, err)
		f.ids[d.DevEUI] = d.ID
	}
}

// importElements imports elements that nobody owns yet, and reads their tokens.
func (f *fleet) importElements() {
	f.t.Helper()
	_, err := f.server.Ctl(f.t.Context(), "", "import", "manifest", f.server.Path("sim", "manifest.json"), "--mac-version", "1.0.4")
	ok(f.t, err)
	for d, err := range f.api.Devices(f.t.Context(), client.DevicesQuery{}) {
		ok(f.t, err)
		if f.ids[d.DevEUI] != 0 {
			continue
		}
		f.ids[d.DevEUI] = d.ID
		token, err := f.api.OwnerToken(f.t.Context(), d.ID)
		ok(f.t, err)
		f.unclaimed = append(f.unclaimed, client.NewClaim{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OwnerToken: token.OwnerToken})
	}
}

// live lets devices join and owners claim, kills the server after a while and
// waits until everybody noticed.
func (f *fleet) live(span time.Duration) {
	f.t.Helper()
	ctx, dead := context.WithCancel(f.t.Context())
	var busy sync.WaitGroup
	for i := range joiners {
		busy.Go(func() { f.join(ctx, i) })
	}
	busy.Go(func() { f.claim(ctx) })
	if f.leaver != nil {
		busy.Go(func() { f.leaver.leave(ctx) })
	}
	time.Sleep(span)
	err := f.server.Kill()
	dead()
	busy.Wait()
	ok(f.t, err)
}

// join joins every joiners-th device, in turns, until the server is dead.
func (f *fleet) join(ctx context.Context, first int) {
	for ctx.Err() == nil {
		for i := first; i < len(f.members) && ctx.Err() == nil; i += joiners {
			m := f.members[i]
			r, err := f.ns.Join(ctx, m.Device, sim.JoinOptions{})
			if err != nil {
				return // no whole answer came: nobody acknowledged anything
			}
			if err := r.Err(); err != nil {
				f.t.Errorf("device %s: %v", m.DevEUI(), err)
				return
			}
			m.acknowledge(f.t, r)
			f.count.Add(1)
		}
	}
}

func (m *member) acknowledge(t *testing.T, r *sim.Result) {
	t.Helper()
	n := r.Accepted.JoinNonce
	if m.nonces[n] {
		t.Errorf("device %s: JoinNonce %d was issued twice", m.DevEUI(), n)
	}
	m.nonces[n] = true
	m.fresh = append(m.fresh, n)
	m.last = r.Sent.PHYPayload
}

// claim claims one element after the other, until the server is dead. A claim
// without an answer stays to be tried again.
func (f *fleet) claim(ctx context.Context) {
	for ctx.Err() == nil && len(f.unclaimed) > 0 {
		next := f.unclaimed[0]
		_, err := f.api.Claim(ctx, next)
		var refused *client.Problem
		switch {
		case err == nil:
			f.claimed = append(f.claimed, next)
		case errors.As(err, &refused) && refused.Code == joinery.CodeConflict:
			// An earlier try counted, though its answer was lost.
		default:
			return
		}
		f.unclaimed = f.unclaimed[1:]
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *fleet) acknowledged() (n int) {
	for _, m := range f.members {
		n += len(m.nonces)
	}
	return n
}

// fsck judges the whole state of the dead server.
func (f *fleet) fsck() {
	f.t.Helper()
	if out, err := f.server.Run(f.t.Context(), "", "joinery", "fsck", "--config", f.server.Path("joinery.yaml")); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
}

// checkReplays sends every device's last accepted frame again, with other
// parameters: it must be refused as a replay.
func (f *fleet) checkReplays() {
	f.t.Helper()
	for _, m := range f.members {
		if m.last == nil {
			continue
		}
		r, err := f.ns.Join(f.t.Context(), m.Device, sim.JoinOptions{Frame: m.last, Expect: sim.ReplayCode(sim.Protocol10)})
		ok(f.t, err)
		if err := r.Err(); err != nil {
			f.t.Errorf("device %s: a DevNonce was accepted again after a kill: %v", m.DevEUI(), err)
		}
	}
}

// checkClaims looks for every acknowledged claim.
func (f *fleet) checkClaims() {
	f.t.Helper()
	for _, c := range f.claimed {
		d, err := f.api.Device(f.t.Context(), f.ids[c.DevEUI])
		ok(f.t, err)
		if d.OwnershipEpoch != 1 {
			f.t.Errorf("device %s: the acknowledged claim is lost", c.DevEUI)
		}
	}
}

// checkJoins looks for every join that was acknowledged in the life before,
// among the newest activations of its device.
func (f *fleet) checkJoins() {
	f.t.Helper()
	for _, m := range f.members {
		newest, err := f.api.ActivationsPage(f.t.Context(), f.ids[m.DevEUI()], client.ActivationsQuery{Limit: 500})
		ok(f.t, err)
		stored := map[lorawan.JoinNonce]bool{}
		for _, a := range newest.Items {
			if stored[a.JoinNonce] {
				f.t.Errorf("device %s: JoinNonce %d is stored twice", m.DevEUI(), a.JoinNonce)
			}
			stored[a.JoinNonce] = true
		}
		for _, n := range m.fresh {
			if !stored[n] {
				f.t.Errorf("device %s: the acknowledged join with JoinNonce %d is lost", m.DevEUI(), n)
			}
		}
		m.fresh = nil
	}
}
