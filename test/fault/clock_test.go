package fault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// clock is set by hand and stands still.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

// P9: a whole server, listeners and all, whose clock stands still or jumps ten
// years either way, also over restarts. JoinNonces and DevNonces go on as if
// nothing were, and the window for repeats and the one of a reset close when their
// age is negative. (The server runs in this process, because nobody can give a Go
// program another clock from outside. Identifiers under wrong clocks:
// TestIDsUnderWrongClocks.)
func TestClockJumps(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{at: now}
	f := newTimeless(t, c)
	joins := map[lorawan.EUI64]lorawan.JoinNonce{}
	join := func(t *testing.T, m *member) *sim.Result {
		t.Helper()
		r, err := f.ns.Join(t.Context(), m.Device, sim.JoinOptions{})
		ok(t, err)
		ok(t, r.Err())
		m.acknowledge(t, r)
		joins[m.DevEUI()]++
		if got, want := r.Accepted.JoinNonce, joins[m.DevEUI()]; got != want {
			t.Errorf("device %s: JoinNonce %d, want %d", m.DevEUI(), got, want)
		}
		return r
	}
	ten := 10 * 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{"frozen": 0, "ten years on": ten, "ten years back": -ten} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				c.set(now)
				var last []*sim.Result
				for _, m := range f.members {
					last = append(last, join(t, m))
				}
				c.set(now.Add(jump))
				for n, m := range f.members {
					f.wantRepeat(t, last[n], jump == 0)
					join(t, m)
				}
				f.checkReplays()
			}
			f.checkJoins()
		})
	}
	t.Run("reset", func(t *testing.T) { f.resetWindow(t, c, now, joins) })
	t.Run("restarts", func(t *testing.T) {
		for _, at := range []time.Time{time.Unix(0, 0), now.Add(-ten), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), now} {
			f.stop()
			c.set(at)
			f.start(t, c)
			for _, m := range f.members {
				join(t, m)
			}
			f.checkReplays()
			f.checkJoins()
		}
	})
	f.stop()
	f.fsck()
}

// wantRepeat sends a request again as it was: the same answer, or none.
func (f *timeless) wantRepeat(t *testing.T, r *sim.Result, same bool) {
	t.Helper()
	again, err := f.ns.Repeat(t.Context(), r)
	ok(t, err)
	if same != again.OK() {
		t.Errorf("repeated: %s, the same answer: %t, want %t", again.ResultCode, again.OK(), same)
	}
	if !same && again.ResultCode != sim.ReplayCode(sim.Protocol10) {
		t.Errorf("repeated outside of the window: %s (%s)", again.ResultCode, again.Description)
	}
}

// resetWindow opens a reset of DevNonces and tries used ones before it, long after
// it, and in it.
func (f *timeless) resetWindow(t *testing.T, c *clock, now time.Time, joins map[lorawan.EUI64]lorawan.JoinNonce) {
	for _, m := range f.members {
		c.set(now)
		ok(t, f.api.ResetNonces(t.Context(), f.ids[m.DevEUI()], client.NoncesReset{}))
		for _, try := range []struct {
			at   time.Duration
			want string
		}{
			{-time.Second, sim.ReplayCode(sim.Protocol10)}, {-10 * 365 * 24 * time.Hour, sim.ReplayCode(sim.Protocol10)},
			{24*time.Hour + time.Second, sim.ReplayCode(sim.Protocol10)}, {time.Hour, sim.ResultSuccess},
		} {
			c.set(now.Add(try.at))
			o := sim.JoinOptions{Frame: m.last, RxDelay: 5, Expect: try.want, Lose: true}
			r, err := f.ns.Join(t.Context(), m.Device, o)
			ok(t, err)
			if r.ResultCode != try.want {
				t.Errorf("device %s (%s): used DevNonce %v after the reset: %s, want %s", m.DevEUI(), m.MACVersion(), try.at, r.ResultCode, try.want)
			}
		}
		joins[m.DevEUI()]++ // of the accept that was lost
		m.last = nil        // the replay that is looked for later is the next join's
	}
	c.set(now)
}

// timeless is a fleet around a server in this process whose certificates are
// valid at any time.
type timeless struct {
	*fleet
	config config.Config
	stop   func()
}

func newTimeless(t *testing.T, c *clock) *timeless {
	t.Helper()
	server, err := built(t).Quickstart(t.Context(), filepath.Join(t.TempDir(), "server"), "--elements", "1")
	ok(t, err)
	f := &timeless{fleet: &fleet{t: t, server: server, ids: map[lorawan.EUI64]joinery.DeviceID{}}}
	f.config, err = config.Load(server.Path("joinery.yaml"))
	ok(t, err)
	own := certificateForEver(t, f.config.Interop.Certificate, f.config.Interop.Key)
	ns := certificateForEver(t, server.Path("pki", "ns.crt"), server.Path("pki", "ns.key"))
	f.start(t, c)
	t.Cleanup(func() { f.stop() })
	f.api, err = client.New(client.Options{Socket: server.Path("joinery.sock")})
	ok(t, err)
	t.Cleanup(f.api.Close)
	peers, err := f.api.Peers(t.Context())
	ok(t, err)
	p := peers[slices.IndexFunc(peers, func(p client.Peer) bool { return p.Name == "ns" })]
	spki := sha256.Sum256(ns.Leaf.RawSubjectPublicKeyInfo)
	p.Credentials = []client.Credential{{Kind: string(joinery.CredentialSPKI), SPKI: hex.EncodeToString(spki[:])}}
	_, err = f.api.ChangePeer(t.Context(), p.ID, client.PeerChange{PeerSettings: p.PeerSettings})
	ok(t, err)

	l, err := lab.Open(server.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, l.Close()) })
	trusted := x509.NewCertPool()
	trusted.AddCert(own.Leaf)
	f.ns, err = l.NS("", lab.PeerOptions{Way: func(url string, _ *tls.Config) (sim.Way, error) {
		return sim.NewLink(url, &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: trusted, Certificates: []tls.Certificate{ns}, Time: c.now,
		}, 0), nil
	}})
	ok(t, err)
	f.importDevices(6)
	return f
}

// start opens and runs the server until stop.
func (f *timeless) start(t *testing.T, c *clock) {
	t.Helper()
	var log bytes.Buffer
	p, err := daemon.Open(t.Context(), f.config, daemon.Options{Log: daemon.NewLogger(&log, f.config.Log), Now: c.now})
	ok(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, p.Close()); err != nil {
			t.Errorf("%v\n%s", err, log.String())
		}
	})
	f.waitReady(t, 10*time.Second)
}

// certificateForEver puts a certificate in place that is valid whatever the clock
// says.
func certificateForEver(t *testing.T, certFile, keyFile string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	der, err := x509.CreateCertificate(rand.Reader, forEver(), forEver(), key.Public(), key)
	ok(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ok(t, err)
	ok(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ok(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	ok(t, err)
	return pair
}

func forEver() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		NotBefore: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true, IsCA: true,
	}
}
