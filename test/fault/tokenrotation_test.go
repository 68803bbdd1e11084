package fault

import (
	"context"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/seal"
	"joinery/test/leak"
	"joinery/test/rig"
)

// P21 in a hardware token: a new join KEK and a new transport key come into it under
// load, and the old ones go. The process that opens the custody key is killed, the one
// that has the token as well, the server once; no join fails but while there is no
// server, what was done is not lost, and in the end nothing is under the old key.
func TestTokenRotationUnderLoad(t *testing.T) {
	devices, batch := 120, "8"
	if long() {
		devices, batch = 3000, "100"
	}
	var keys leak.Secrets
	f := newFleetIn(t, dose{devices: devices, claims: 1}, t.TempDir(), func(s *rig.Server) { withToken(t, s, &keys) })
	private, _ := hsmtest.CustodyKey(t, seal.AlgRSAOAEP)
	r := &rotating{f: f, batch: batch, custody: storeKey(t, private)}

	l := f.load()
	r.refuse("join-kek", "--retire") // there is only one
	r.run("join-kek", "--new")
	r.reload(func(s client.Rotation) bool { return slices.Equal(s.JoinKEKs, []uint32{1, 2}) })
	left := r.state().Behind
	if left < int64(devices) {
		t.Fatalf("%d key sets are under the old join KEK; want %d", left, devices)
	}
	r.killTokenCustodian()
	now := r.state().Behind
	if now >= left || now == 0 {
		t.Errorf("%d key sets are left after a killed rotation, %d before", now, left)
	}
	r.refuse("join-kek", "--retire", "--yes") // some are under the old one
	pids := workers(t, f.server)
	process, err := os.FindProcess(pids[len(pids)-1])
	ok(t, err)
	ok(t, process.Kill())
	l.stop()

	p := r.startTokenCustodian()
	p.waitForProgress(t)
	ok(t, f.server.Kill())
	ok(t, f.server.Start(t.Context()))
	ok(t, p.cmd.Wait())
	if s := r.state(); s.Behind != 0 || len(s.Under) != 2 || s.Under[0].Generation != 2 {
		t.Fatalf("%d key sets are left of %d: %+v", s.Behind, s.KeySets, s.Under)
	}

	l = f.load()
	r.run("join-kek", "--retire") // only says that it may
	r.run("transport-key", "--new")
	r.run("join-kek", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool {
		return slices.Equal(s.JoinKEKs, []uint32{2}) && len(s.TransportKIDs) == 2
	})
	r.run("transport-key", "--retire", "--yes")
	r.reload(func(s client.Rotation) bool { return len(s.TransportKIDs) == 1 })
	r.refuse("custody-key", "--new") // in which token?
	l.stop()

	f.mustJoin(t)
	ok(t, f.server.Stop())
	// Every key set opens. The KEKs that were there before the token do not.
	out, err := f.server.Run(t.Context(), "", "joinery", "fsck", "--keys", "--config", f.server.Path("joinery.yaml"))
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "kek ") && !strings.HasSuffix(line, " violations\n") {
			t.Errorf("%v: %s", err, line)
		}
	}
	ok(t, f.server.Start(t.Context())) // with no more than the new keys
	f.mustJoin(t)
}

func storeKey(t *testing.T, private *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	ok(t, err)
	path := filepath.Join(t.TempDir(), "custody.der")
	ok(t, os.WriteFile(path, der, 0o600))
	return path
}

// custodianEnv makes this program the process that opens the custody key, of which
// tests have the private half. Its arguments are the key, the socket and the batch.
const custodianEnv = "JOINERY_TEST_CUSTODIAN"

func (r *rotating) startTokenCustodian() *rotation {
	t := r.f.t
	t.Helper()
	cmd := exec.Command(os.Args[0], r.custody, r.f.server.Path("joinery.sock"), r.batch)
	cmd.Env = append(os.Environ(), custodianEnv+"=1")
	progress, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	ok(t, err)
	t.Cleanup(func() { _ = progress.Close() })
	cmd.Stderr = progress
	ok(t, cmd.Start())
	return &rotation{cmd, progress.Name()}
}

func (r *rotating) killTokenCustodian() {
	r.f.t.Helper()
	p := r.startTokenCustodian()
	p.waitForProgress(r.f.t)
	ok(r.f.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // it was killed
}

// tokenCustodian seals all that is behind anew, as joinery rotate roots does.
func tokenCustodian(keyFile, socket, batch string) error {
	der, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	api, err := client.New(client.Options{Socket: socket})
	if err != nil {
		return err
	}
	defer api.Close()
	c := tokenCustody{api, parsed.(*rsa.PrivateKey)}
	var limit int
	if _, err := fmt.Sscan(batch, &limit); err != nil {
		return err
	}
	for after := ""; ; {
		var page client.Page[client.CustodyRoots]
		if err := untilThere(func() (err error) {
			page, err = api.CustodyRootsPage(context.Background(), client.CustodyRootsQuery{After: after, Limit: limit})
			return err
		}); err != nil {
			return err
		}
		if len(page.Items) > 0 {
			if err := untilThere(func() error { return c.handIn(page.Items) }); err != nil {
				return err
			}
		}
		fmt.Fprintln(os.Stderr, "a page")
		if after = page.Next; after == "" {
			return nil
		}
	}
}

type tokenCustody struct {
	api     *client.Client
	private *rsa.PrivateKey
}

func (c tokenCustody) handIn(items []client.CustodyRoots) error {
	told, err := c.api.TransportKey(context.Background())
	if err != nil {
		return err
	}
	to, err := seal.ParsePublicKey([]byte(told.PEM))
	if err != nil {
		return err
	}
	s, err := seal.NewSealer(to)
	if err != nil {
		return err
	}
	in := client.RewrapRoots{Seal: client.SealHeader(s.Header())}
	for _, item := range items {
		row := seal.SealedRow{JoinEUI: item.JoinEUI, DevEUI: item.DevEUI, MACVersion: item.MACVersion, Root10: item.Root10}
		nwk, err := c.open(item.Nwk)
		if err != nil {
			return err
		}
		app, err := c.open(item.App)
		if err != nil {
			return err
		}
		if err := s.SealRow(&row, nwk, app); err != nil {
			return err
		}
		in.Rows = append(in.Rows, client.RewrapRow{KeySet: item.KeySet, Keys: client.SealedKeyRow(row)})
	}
	out, err := c.api.RewrapRoots(context.Background(), in)
	if err == nil && len(out.Failed) > 0 {
		err = fmt.Errorf("%d rows failed", len(out.Failed))
	}
	return err
}

// open opens a custody blob of a SoftHSM token.
func (c tokenCustody) open(stored joinery.Sealed) ([]byte, error) {
	if len(stored) == 0 {
		return nil, nil
	}
	blob, err := keyring.CustodyBlob(stored)
	if err != nil {
		return nil, err
	}
	if blob[0] != keyring.FormatOAEP1 {
		return nil, fmt.Errorf("a custody blob of format %d", blob[0])
	}
	return rsa.DecryptOAEP(sha1.New(), nil, c.private, blob[1:], nil)
}

// untilThere asks again while the server is away.
func untilThere(ask func() error) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := ask()
		p, answered := errors.AsType[*client.Problem](err)
		if err == nil || answered && p.Code != joinery.CodeUnavailable || time.Now().After(end) {
			return err
		}
	}
}
