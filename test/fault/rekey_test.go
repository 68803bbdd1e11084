package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/silicon"
	"joinery/lorawan"
	"joinery/test/rig"
)

// Ten thousand devices go from one Join Server to another, while the one that is at work
// is killed again and again and every third device is deaf at first: each has a key set
// that one of the two knows at any time, each joins at the new one, every order ends
// confirmed, and nothing is told or disclosed twice to the wrong. Long form only: the
// short ones are TestRekeyInterrupted, step by step, and TestRekeysIntoToken.
func TestRekeyingKilled(t *testing.T) {
	if !long() {
		t.Skip("JOINERY_LONG=1 runs it")
	}
	const devices = 10_000
	const newJoinEUI = "EC656EFFFE000001"
	a, b := newMover(t, "a", devices), newMover(t, "b", 1)
	list := a.elements(devices)
	a.ctl("import", "manifest", a.server.Path("sim", "manifest.json"), "--mac-version", "1.0.4", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	b.ctl("range", "assign", "EC656EFFFE000000/56")
	keys := filepath.Join(t.TempDir(), "keys")
	a.ctl("rekey", "server", "keys", "--out", keys+"-a")
	b.ctl("rekey", "server", "keys", "--out", keys+"-b")
	a.ctl("rekey", "server", "add", "there", "--transport-key", keys+"-b.transport.pub", "--statement-key", keys+"-b.statement.pub")
	ids := a.ids()
	var there client.JoinServer
	for j, err := range a.api.JoinServers(t.Context(), client.JoinServersQuery{}) {
		ok(t, err)
		there = j
	}
	to := lorawan.EUI64{0xEC, 0x65, 0x6E, 0xFF, 0xFE, 0, 0, 1}

	began := time.Now()
	a.whileKilled(list, func(ctx context.Context, d *device.Device) bool {
		_, err := a.api.ArmRekey(ctx, ids[d.DevEUI()], client.NewRekeyOrder{NewJoinEUI: to, To: there.ID})
		var refused *client.Problem
		return err == nil || errors.As(err, &refused) && refused.Code == joinery.CodeConflict // an earlier try counted
	})
	t.Logf("armed after %s", time.Since(began))

	var handovers []string
	for run := range slices.Chunk(list, 200) {
		in := client.NewHandover{To: there.ID}
		for _, d := range run {
			in.Devices = append(in.Devices, ids[d.DevEUI()])
		}
		file := fmt.Sprintf("%s-%d", keys, len(handovers))
		a.again(func(ctx context.Context) error {
			f, err := a.api.MakeHandover(ctx, in)
			return errors.Join(err, os.WriteFile(file+".json", f.File, 0o600))
		})
		b.ctl("rekey", "unpack", file+".json", "--key", keys+"-a.statement.pub", "--out", file+".sealed")
		if len(handovers)%10 == 5 {
			ok(t, b.kill())
			ok(t, b.server.Start(t.Context()))
		}
		b.ctl("import", "sealed", file+".sealed", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
		handovers = append(handovers, file+".json")
	}
	t.Logf("handed over after %s", time.Since(began))

	deaf := map[*device.Device]bool{}
	for i, d := range list {
		deaf[d] = i%3 == 0
	}
	var lock sync.Mutex
	a.whileKilled(list, func(ctx context.Context, d *device.Device) bool {
		lock.Lock()
		lose := deaf[d]
		delete(deaf, d)
		lock.Unlock()
		r, err := a.ns.Join(ctx, d, sim.JoinOptions{Rekey: true, Lose: lose})
		if err == nil && r.Err() != nil {
			t.Error(r.Err())
		}
		return d.JoinEUI() == to
	})
	t.Logf("told after %s", time.Since(began))
	b.whileKilled(list, func(ctx context.Context, d *device.Device) bool {
		r, err := b.ns.Join(ctx, d, sim.JoinOptions{})
		if err == nil && r.Err() != nil {
			t.Error(r.Err())
		}
		return err == nil && r.Accepted.JoinNonce > 1<<16
	})
	t.Logf("joined there after %s", time.Since(began))
	for _, h := range handovers {
		b.ctl("rekey", "receipt", h, "--key", keys+"-a.statement.pub", "--out", h+".receipt")
		receipt, err := os.ReadFile(h + ".receipt")
		ok(t, err)
		a.again(func(ctx context.Context) error {
			_, err := a.api.TakeReceipts(ctx, client.RekeyFile{File: receipt})
			return err
		})
	}
	t.Logf("confirmed after %s, %d kills", time.Since(began), a.kills+b.kills)
	for _, d := range list {
		st, err := a.api.Rekeying(t.Context(), ids[d.DevEUI()])
		ok(t, err)
		if o := st.Orders[0]; len(st.Orders) != 1 || o.State != string(joinery.RekeyConfirmed) || o.NewJoinEUI.String() != newJoinEUI {
			t.Fatalf("device %s: %+v", d.DevEUI(), st.Orders)
		}
	}
	for _, m := range []*mover{a, b} {
		ok(t, m.server.Stop())
		_, err := m.server.Run(t.Context(), "", "joinery", "fsck", "--config", m.server.Path("joinery.yaml"))
		ok(t, err)
	}
}

// mover is a Join Server between which devices move.
type mover struct {
	t      *testing.T
	server *rig.Server
	api    *client.Client
	ns     *sim.NS
	kills  int
}

func (m *mover) kill() error {
	m.kills++
	return m.server.Kill()
}

func newMover(t *testing.T, name string, elements int) *mover {
	t.Helper()
	server, err := built(t).Quickstart(t.Context(), filepath.Join(t.TempDir(), name), "--elements", fmt.Sprint(elements))
	ok(t, err)
	ok(t, server.Start(t.Context()))
	t.Cleanup(func() { ok(t, server.Stop()) })
	m := &mover{t: t, server: server}
	m.api, err = client.New(client.Options{Socket: server.Path("joinery.sock")})
	ok(t, err)
	t.Cleanup(m.api.Close)
	l, err := lab.Open(server.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, l.Close()) })
	m.ns, err = l.NS("", lab.PeerOptions{})
	ok(t, err)
	return m
}

func (m *mover) ctl(args ...string) {
	m.t.Helper()
	_, err := m.server.Ctl(m.t.Context(), "", args...)
	ok(m.t, err)
}

// elements makes devices of the elements of the quickstart.
func (m *mover) elements(n int) (list []*device.Device) {
	m.t.Helper()
	to, err := silicon.LoadRecipient(m.server.Path("sim", "recipient.key"))
	ok(m.t, err)
	f, err := os.Open(m.server.Path("sim", "elements.silicon"))
	ok(m.t, err)
	defer func() { _ = f.Close() }()
	rows, err := silicon.NewReader(f, to)
	ok(m.t, err)
	for range n {
		row, err := rows.Next()
		ok(m.t, err)
		e, err := rows.Element(row)
		ok(m.t, err)
		d, err := device.New(e, lorawan.MAC1_0_4, device.Options{})
		ok(m.t, err)
		list = append(list, d)
	}
	return list
}

func (m *mover) ids() map[lorawan.EUI64]joinery.DeviceID {
	m.t.Helper()
	ids := map[lorawan.EUI64]joinery.DeviceID{}
	for d, err := range m.api.Devices(m.t.Context(), client.DevicesQuery{}) {
		ok(m.t, err)
		ids[d.DevEUI] = d.ID
	}
	return ids
}

// whileKilled does something with each device until it succeeded, and kills the server
// in the middle of it, three times.
func (m *mover) whileKilled(list []*device.Device, do func(context.Context, *device.Device) bool) {
	m.t.Helper()
	done := make([]bool, len(list))
	work := func(ctx context.Context) {
		var busy sync.WaitGroup
		for first := range joiners {
			busy.Go(func() {
				for i := first; i < len(list); i += joiners {
					for ctx.Err() == nil && !done[i] && !m.t.Failed() {
						done[i] = do(ctx, list[i])
					}
				}
			})
		}
		busy.Wait()
	}
	for range 3 {
		ctx, dead := context.WithCancel(m.t.Context())
		var busy sync.WaitGroup
		busy.Go(func() { work(ctx) })
		time.Sleep(time.Duration(200+rand.IntN(1500)) * time.Millisecond)
		err := m.kill()
		dead()
		busy.Wait()
		ok(m.t, err)
		ok(m.t, m.server.Start(m.t.Context()))
	}
	work(m.t.Context())
}

// again does something while the server may be killed: it is, once in ten times.
func (m *mover) again(do func(context.Context) error) {
	m.t.Helper()
	if rand.IntN(10) == 0 {
		ctx, dead := context.WithCancel(m.t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = do(ctx) // the answer may be lost
		}()
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		err := m.kill()
		dead()
		<-done
		ok(m.t, err)
		ok(m.t, m.server.Start(m.t.Context()))
	}
	ok(m.t, do(m.t.Context()))
}
