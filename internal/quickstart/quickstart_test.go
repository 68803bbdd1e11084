package quickstart

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/daemon"
	"joinery/internal/sim/lab"
	"joinery/internal/store"
)

// One directory, made once, judged by everybody who reads it.
func TestPrepare(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	var told []string
	o := Options{Dir: dir, Elements: 3, Report: func(format string, _ ...any) { told = append(told, format) }}
	if err := Prepare(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if len(told) == 0 {
		t.Error("nothing was reported")
	}
	t.Run("nothing else is left", func(t *testing.T) {
		entries, err := os.ReadDir(filepath.Dir(dir))
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the server: %v, %v", entries, err)
		}
	})
	t.Run("secrets are for their owner", func(t *testing.T) { checkModes(t, dir) })
	t.Run("never twice", func(t *testing.T) {
		if err := Prepare(t.Context(), o); !errors.Is(err, ErrPrepared) {
			t.Errorf("a second time: %v", err)
		}
	})
	c, err := config.Load(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the configuration is in order", func(t *testing.T) {
		if err := c.CheckFiles(time.Now()); err != nil {
			t.Error(err)
		}
	})
	t.Run("the simulator reads its side", func(t *testing.T) {
		if _, err := lab.Open(filepath.Join(dir, "sim", "sim.json")); err != nil {
			t.Error(err)
		}
	})
	t.Run("the database is sound", func(t *testing.T) { checkDatabase(t, c) })
	t.Run("the server knows whom it serves", func(t *testing.T) {
		err := serveWhile(t.Context(), c, nil, func(ctx context.Context) error { return checkServer(ctx, t, c) })
		if err != nil {
			t.Error(err)
		}
	})
}

// checkModes wants every file with a secret to have mode 0600.
func checkModes(t *testing.T, dir string) {
	public := []string{"joinery.yaml", "transport.pub", "recipient.pub", "manifest.json"}
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		info, err := d.Info()
		if err != nil {
			return err
		}
		open := slices.Contains(public, d.Name()) || filepath.Ext(d.Name()) == ".crt" ||
			strings.HasPrefix(d.Name(), "confirmed-") // how far JoinNonces have jumped: for root and the server alike
		if info.Mode().Perm()&0o077 != 0 && !open {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || seen < 25 {
		t.Errorf("%d files, %v", seen, err)
	}
}

func checkDatabase(t *testing.T, c config.Config) {
	db, err := store.OpenReadOnly(t.Context(), store.Options{Path: c.Database.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	keys, err := daemon.OpenKeyring(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keys.Close() }()
	found, err := db.Fsck(t.Context(), keys)
	if err != nil || len(found) > 0 {
		t.Errorf("fsck: %v, %v", found, err)
	}
}

func checkServer(ctx context.Context, t *testing.T, c config.Config) error {
	api, err := client.New(client.Options{Socket: c.API.Socket})
	if err != nil {
		return err
	}
	defer api.Close()
	peers, err := api.Peers(ctx)
	if err != nil || len(peers) != 3 {
		t.Errorf("peers: %+v, %v", peers, err)
	}
	keks, err := api.KEKs(ctx)
	if err != nil || len(keks) != 3 {
		t.Errorf("KEKs: %+v, %v", keks, err)
	}
	for _, p := range peers {
		if len(p.Credentials) != 1 || p.Credentials[0].Kind != string(joinery.CredentialCA) || p.ClearKeys {
			t.Errorf("peer %s: %+v", p.Name, p.PeerSettings)
		}
	}
	ranges, err := api.JoinEUIRanges(ctx)
	if err != nil || len(ranges) != 2 || !ranges[0].Elements || ranges[1].Elements {
		t.Errorf("ranges: %+v, %v", ranges, err)
	}
	signers, err := api.Signers(ctx)
	if err != nil || len(signers) != 1 || signers[0].Master != masterName {
		t.Errorf("signers: %+v, %v", signers, err)
	}
	status, err := api.Status(ctx)
	if err != nil || !status.Ready || len(status.Masters) != 1 {
		t.Errorf("status: %+v, %v", status, err)
	}
	return nil
}

// What stands in the way stays, and what was begun is taken back.
func TestPrepareRefuses(t *testing.T) {
	parent := t.TempDir()
	full := filepath.Join(parent, "full")
	if err := errors.Join(os.Mkdir(full, 0o700), os.WriteFile(filepath.Join(full, "letter"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Prepare(t.Context(), Options{Dir: full, Elements: 1}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a directory with something in it: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Prepare(ended, Options{Dir: filepath.Join(parent, "new"), Elements: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
