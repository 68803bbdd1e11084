package fault

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/sim"
	"joinery/test/rig"
)

// A peer's KEKs are replaced under load, again and again: the newest version wraps
// as soon as it is there, the old one is retired, and no join fails. A request that
// comes again gets the same answer, under the KEK that it had, until that is retired;
// then it is refused as a used nonce.
func TestPeerKEKsUnderLoad(t *testing.T) {
	const versions = 4
	keks := map[string]string{}
	for n := 2; n <= versions; n++ {
		key := make([]byte, 16)
		rand.Read(key)
		keks[fmt.Sprintf("ns-000013-%d", n)] = hex.EncodeToString(key)
	}
	f := newFleetIn(t, dose{devices: 300, claims: 1}, t.TempDir(), func(s *rig.Server) { ok(t, s.EditSim(func(c map[string]any) { knowKEKs(t, c, keks) })) })
	l := f.load()
	for n := 2; n <= versions; n++ {
		label := fmt.Sprintf("ns-000013-%d", n)
		file := filepath.Join(t.TempDir(), label)
		ok(t, os.WriteFile(file, []byte(keks[label]), 0o600))
		before := l.putAside(t)
		_, err := f.server.Ctl(t.Context(), "", "kek", "add", "ns", "--role", "ns", label+"="+file)
		ok(t, err)
		if got := l.joinAside(t); got != label {
			t.Errorf("session keys came under %q, want %q", got, label)
		}
		before.comesAgain(t, true)
		f.retireKEK(t, fmt.Sprintf("ns-000013-%d", n-1))
		before.comesAgain(t, false)
		before.back()
		if got := l.joinAside(t); got != label {
			t.Errorf("session keys came under %q after the old KEK was retired", got)
		}
	}
	l.stop()
	f.mustJoin(t)
}

// knowKEKs lets the simulated home network have KEKs before the server does, as a
// network does that is told of a new one.
func knowKEKs(t *testing.T, c map[string]any, keks map[string]string) {
	t.Helper()
	servers, is := c["ns"].([]any)
	if !is || len(servers) == 0 {
		t.Fatal("no simulated Network Servers")
	}
	home, is := servers[0].(map[string]any)
	if !is {
		t.Fatal("no home network")
	}
	known, is := home["keks"].(map[string]any)
	if !is {
		t.Fatal("no KEKs of the home network")
	}
	for label, key := range keks {
		known[label] = key
	}
}

// joinAside joins a device that the load leaves alone meanwhile, and gives the label
// of the KEK that wrapped its session keys.
func (l *load) joinAside(t *testing.T) string {
	t.Helper()
	m := <-l.free
	defer func() { l.free <- m }()
	r, err := l.f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
	ok(t, err)
	ok(t, r.Err())
	m.acknowledge(t, r)
	return r.NetworkKEK
}

// aside is a join of a device that the load leaves alone until it is given back.
type aside struct {
	f    *fleet
	r    *sim.Result
	at   time.Time
	back func()
}

func (l *load) putAside(t *testing.T) aside {
	t.Helper()
	m := <-l.free
	at := time.Now()
	r, err := l.f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
	ok(t, err)
	ok(t, r.Err())
	m.acknowledge(t, r)
	return aside{l.f, r, at, func() { l.free <- m }}
}

// comesAgain sends the request again, as a network does that missed the answer.
func (a aside) comesAgain(t *testing.T, same bool) {
	t.Helper()
	want := a.r.ResultCode
	if !same {
		want = sim.ReplayCode(sim.Protocol10)
	}
	again, err := a.f.ns.RepeatExpecting(t.Context(), a.r, want)
	ok(t, err)
	if time.Since(a.at) > repeatWindow/2 {
		t.Logf("too slow to tell: %s", again.ResultCode)
		return
	}
	ok(t, again.Err())
}

// repeatWindow is how long a request that comes again gets the same answer.
const repeatWindow = 10 * time.Second

func (f *fleet) retireKEK(t *testing.T, label string) {
	t.Helper()
	var found client.KEK
	all, err := f.api.KEKs(t.Context())
	ok(t, err)
	for _, k := range all {
		if k.Label == label {
			found = k
		}
	}
	ok(t, f.api.RetireKEK(t.Context(), found.ID))
}
