package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/keyring/soft"
	"joinery/internal/store"
)

// keyFiles are the server's keys in every installation: RSA keys take long to make.
var keyFiles = sync.OnceValues(func() (keys struct{ file, identity []byte }, err error) {
	dir, err := os.MkdirTemp("", "joinery-keys-")
	if err != nil {
		return keys, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, identity, custody := filepath.Join(dir, "server.age"), filepath.Join(dir, "server.identity"), filepath.Join(dir, "custody")
	if err := errors.Join(soft.CreateIdentity(identity), soft.CreateIdentity(custody+".identity")); err != nil {
		return keys, err
	}
	if err := soft.Init(soft.InitOptions{
		KeyFile: file, Unlock: soft.Unlock{IdentityFile: identity},
		CustodyFile: custody + ".age", CustodyUnlock: soft.Unlock{IdentityFile: custody + ".identity"},
	}); err != nil {
		return keys, err
	}
	if keys.file, err = os.ReadFile(file); err != nil {
		return keys, err
	}
	keys.identity, err = os.ReadFile(identity)
	return keys, err
})

// installation makes what a server needs in a directory: keys, certificate,
// database. All ports are free ones.
func installation(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	c := config.Default()
	c.Keys.File, c.Keys.IdentityFile = "server.age", "server.identity"
	c.Interop = config.Interop{Address: "127.0.0.1:0", Certificate: "server.crt", Key: "server.key"}
	c.API.Address, c.Ops.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.Limits.DrainTimeout = 5 * time.Second
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	c = c.Resolve(dir)
	keys, err := keyFiles()
	must(t, err)
	must(t, os.WriteFile(c.Keys.File, keys.file, 0o600))
	must(t, os.WriteFile(c.Keys.IdentityFile, keys.identity, 0o600))
	must(t, store.Create(t.Context(), store.Options{Path: c.Database.Path}))
	writeCertificate(t, c.Interop, "first", time.Now().Add(time.Hour))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeCertificate puts a new self-signed pair in place.
func writeCertificate(t *testing.T, c config.Interop, name string, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(c.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(c.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

// running is a server that serves until stop, which gives what Run gave.
type running struct {
	*Program
	stop  func() error
	ended <-chan struct{} // closed when Run returned
}

func start(t *testing.T, c config.Config, log *slog.Logger) running {
	t.Helper()
	return startWith(t, c, Options{Log: log})
}

func startWith(t *testing.T, c config.Config, o Options) running {
	t.Helper()
	p, err := Open(t.Context(), c, o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var result error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result = p.Run(ctx)
	}()
	stop := sync.OnceValue(func() error {
		cancel()
		<-ended
		return errors.Join(result, p.Close())
	})
	t.Cleanup(func() { _ = stop() })
	return running{p, stop, ended}
}

func TestProgramServesAndStops(t *testing.T) {
	c := installation(t)
	p := start(t, c, nil)
	ops := "http://" + p.OpsAddr().String()
	if status, body := get(t, ops+"/readyz?verbose"); status != 200 {
		t.Errorf("/readyz: %d %q", status, body)
	}
	status, body := get(t, ops+"/metrics")
	for _, want := range []string{"joinery_interop_connections", "joinery_log_entries ", "joinery_log_waiting_seconds ", "joinery_log_failed_rounds_total 0"} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics (%d) lacks %s", status, want)
		}
	}

	info, err := os.Stat(c.API.Socket)
	must(t, err)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the operator socket has mode %v, want 0600", info.Mode())
	}
	api, err := client.New(client.Options{Socket: c.API.Socket})
	must(t, err)
	if status, err := api.Status(t.Context()); err != nil || !status.Ready {
		t.Errorf("status over the socket: %+v, %v", status, err)
	}
	api.Close()
	// On TCP everybody needs a key.
	if status, _ := get(t, "http://"+p.APIAddr().String()+client.BasePath+"/status"); status != 401 {
		t.Errorf("status over TCP without a key: %d, want 401", status)
	}

	must(t, p.stop())
	if _, err := os.Stat(c.API.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the operator socket is still there: %v", err)
	}
	for _, addr := range []net.Addr{p.InteropAddr(), p.APIAddr(), p.OpsAddr()} {
		if conn, err := net.Dial("tcp", addr.String()); err == nil {
			_ = conn.Close()
			t.Errorf("%v still accepts", addr)
		}
	}
	must(t, p.Close()) // again
	// The lock is free and everything opens anew.
	must(t, start(t, c, nil).stop())
}

// A request in flight when the server is told to stop gets its answer.
func TestStopLetsRequestsInFlightFinish(t *testing.T) {
	c := installation(t)
	p := start(t, c, nil)
	conn, answers := requestInFlight(t, c, `{"name":`)
	defer func() { _ = conn.Close() }()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop() }()
	waitFor(t, p.core.ops.isStopping)
	_, err := io.WriteString(conn, `"in flight"}`)
	must(t, err)
	res, err := http.ReadResponse(answers, nil)
	must(t, err)
	answer, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, res.Body.Close())
	if res.StatusCode != 200 && res.StatusCode != 201 {
		t.Errorf("answered %s %s", res.Status, answer)
	}
	must(t, <-stopped)
	if p.core.cutOff.Load() {
		t.Error("no join was cut off, and the server says so")
	}
}

// Where requests of networks are cut off, the feed of events is told: what they
// commit has to be found.
func TestStopKnowsOfJoinsCutOff(t *testing.T) {
	c := installation(t)
	c.Limits.DrainTimeout = 200 * time.Millisecond
	p := start(t, c, nil)
	conn, err := net.Dial("tcp", p.InteropAddr().String())
	must(t, err)
	defer func() { _ = conn.Close() }()
	waitFor(t, func() bool { return p.core.interop.Connections() > 0 })
	_ = p.stop()
	if !p.core.cutOff.Load() {
		t.Error("a join may be in flight, and the server says it drained")
	}
}

// requestInFlight begins a POST to /organisations on the operator socket and
// sends the first part of its body, 20 bytes in all, after the server said that
// it reads it.
func requestInFlight(t *testing.T, c config.Config, first string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", c.API.Socket)
	must(t, err)
	_, err = fmt.Fprintf(conn, "POST %s/organisations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", client.BasePath, len(`{"name":"in flight"}`))
	must(t, err)
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("the server does not read on: %q, %v", line, err)
	}
	_, err = answers.ReadString('\n') // the empty line behind it
	must(t, err)
	_, err = io.WriteString(conn, first)
	must(t, err)
	return conn, answers
}

// A client that never finishes its request does not keep a server from stopping.
func TestStopDoesNotWaitForEver(t *testing.T) {
	c := installation(t)
	c.Limits.DrainTimeout = 200 * time.Millisecond
	p := start(t, c, nil)
	conn, _ := requestInFlight(t, c, `{"na`)
	defer func() { _ = conn.Close() }()
	begin := time.Now()
	if err := p.stop(); err == nil {
		t.Error("a request was cut off, and Run says nothing of it")
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("stopping took %v", took)
	}
	must(t, start(t, c, nil).stop()) // the lock is free nevertheless
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 5s")
		}
	}
}

// P27: one server holds a database; a declared successor waits for it.
func TestSecondServer(t *testing.T) {
	c := installation(t)
	first := start(t, c, nil)
	second := c
	second.API.Socket += "2"
	if _, err := Open(t.Context(), second, Options{}); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("a second server: %v, want ErrLocked", err)
	}
	type opened struct {
		p   *Program
		err error
	}
	successor := make(chan opened, 1)
	go func() {
		p, err := Open(t.Context(), second, Options{Successor: true})
		successor <- opened{p, err}
	}()
	select {
	case o := <-successor:
		t.Fatalf("the successor did not wait: %v", o.err)
	case <-time.After(200 * time.Millisecond):
	}
	if status, _ := get(t, "http://"+first.OpsAddr().String()+"/readyz"); status != 200 {
		t.Errorf("the first server stopped serving: %d", status)
	}
	must(t, first.stop())
	o := <-successor
	must(t, o.err)
	must(t, o.p.Close())
}

// What fails to open says what to do, and leaves nothing held.
func TestOpenFailures(t *testing.T) {
	c := installation(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = taken.Close() }()
	other := filepath.Join(filepath.Dir(c.Database.Path), "other.identity")
	must(t, soft.CreateIdentity(other))
	notSocket := filepath.Join(filepath.Dir(c.Database.Path), "file.sock")
	must(t, os.WriteFile(notSocket, []byte("x"), 0o600))
	openKey := filepath.Join(filepath.Dir(c.Database.Path), "open.key")
	key, err := os.ReadFile(c.Interop.Key)
	must(t, err)
	must(t, os.WriteFile(openKey, key, 0o600))
	must(t, os.Chmod(openKey, 0o640))
	for _, tc := range []struct {
		name   string
		change func(*config.Config)
		want   string
	}{
		{"missing database", func(c *config.Config) { c.Database.Path += "x" }, "joinery migrate --create"},
		{"missing key file", func(c *config.Config) { c.Keys.File += "x" }, "key file"},
		{"another identity", func(c *config.Config) { c.Keys.IdentityFile = other }, "wrong passphrase or identity"},
		{"missing certificate", func(c *config.Config) { c.Interop.Certificate += "x" }, "certificate of the interop listener"},
		{"TLS key for all", func(c *config.Config) { c.Interop.Key = openKey }, "interop.key: " + openKey + " has mode 0640"},
		{"interop address taken", func(c *config.Config) { c.Interop.Address = taken.Addr().String() }, "interop.address"},
		{"API address taken", func(c *config.Config) { c.API.Address = taken.Addr().String() }, "api.address"},
		{"monitoring address taken", func(c *config.Config) { c.Ops.Address = taken.Addr().String() }, "ops.address"},
		{"no socket", func(c *config.Config) { c.API.Socket = notSocket }, "no socket"},
		{"socket path too long", func(c *config.Config) { c.API.Socket = "/" + strings.Repeat("s", 120) }, "api.socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := c
			tc.change(&bad)
			p, err := Open(t.Context(), bad, Options{})
			if err == nil {
				_ = p.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("want %q in: %v", tc.want, err)
			}
		})
	}
	must(t, start(t, c, nil).stop())
}

func TestExpiredCertificateIsRefused(t *testing.T) {
	c := installation(t)
	writeCertificate(t, c.Interop, "old", time.Now().Add(-time.Minute))
	if _, err := Open(t.Context(), c, Options{}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("got: %v", err)
	}
}

// SIGHUP puts a new certificate in force, and not a broken one or one whose key
// others can read.
func TestHangupReadsTheCertificateAnew(t *testing.T) {
	c := installation(t)
	var log syncBuffer
	p := start(t, c, slog.New(slog.NewTextHandler(&log, nil)))
	waitFor(t, func() bool { return strings.Contains(log.String(), "msg=serving") })
	if got := servedName(t, p); got != "first" {
		t.Fatalf("the server shows the certificate of %q", got)
	}
	writeCertificate(t, c.Interop, "second", time.Now().Add(time.Hour))
	hangUp(t)
	waitFor(t, func() bool { return servedName(t, p) == "second" })

	must(t, os.WriteFile(c.Interop.Key, []byte("not a key"), 0o600))
	hangUp(t)
	waitFor(t, func() bool { return strings.Contains(log.String(), "old certificate stays") })
	if got := servedName(t, p); got != "second" {
		t.Errorf("after a broken pair the server shows %q", got)
	}

	writeCertificate(t, c.Interop, "third", time.Now().Add(time.Hour))
	must(t, os.Chmod(c.Interop.Key, 0o604))
	hangUp(t)
	waitFor(t, func() bool { return strings.Contains(log.String(), "has mode 0604") })
	if got := servedName(t, p); got != "second" {
		t.Errorf("after a key that others can read the server shows %q", got)
	}
}

func hangUp(t *testing.T) {
	t.Helper()
	must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
}

// servedName is the name in the certificate that the interop listener shows.
func servedName(t *testing.T, p running) (name string) {
	t.Helper()
	conn, err := tls.Dial("tcp", p.InteropAddr().String(), &tls.Config{
		InsecureSkipVerify: true, // only looked at
		VerifyConnection: func(s tls.ConnectionState) error {
			name = s.PeerCertificates[0].DNSNames[0]
			return nil
		},
	})
	if err == nil {
		_ = conn.Close()
	}
	return name
}

// syncBuffer is a buffer that a server may log to while a test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A listener that fails stops the server, which says why.
func TestFailingListenerStopsTheServer(t *testing.T) {
	c := installation(t)
	p, err := Open(t.Context(), c, Options{})
	must(t, err)
	defer func() { _ = p.Close() }()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(context.Background()) }()
	waitFor(t, func() bool {
		res, err := http.Get("http://" + p.OpsAddr().String() + "/livez")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil
	})
	for _, s := range p.sockets {
		if s.Name == socketOps {
			must(t, s.Close())
		}
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "monitoring listener") {
			t.Errorf("Run gave: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the server goes on without its listener")
	}
}

// systemd is told when the server serves and when it stops, and in between
// nothing.
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	p := start(t, installation(t), nil)
	read := func() string {
		t.Helper()
		must(t, manager.SetReadDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 64)
		n, err := manager.Read(buf)
		must(t, err)
		return string(buf[:n])
	}
	if got := read(); got != "READY=1" {
		t.Errorf("told %q, want READY=1", got)
	}
	must(t, p.stop())
	if got := read(); got != "STOPPING=1" {
		t.Errorf("told %q, want STOPPING=1", got)
	}
}
