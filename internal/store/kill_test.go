package store_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/internal/store"
	"joinery/internal/store/storetest"
)

// kills is how often TestKill kills its child: 12, or with JOINERY_LONG the
// 200 of the promise.
func kills() int {
	if os.Getenv("JOINERY_LONG") != "" {
		return 200
	}
	return 12
}

// childEnv names the database in the environment of TestKill's child, which is
// this test binary again.
const childEnv = "JOINERY_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		child := childMain
		if strings.Contains(path, moveMark) {
			child = childMove
		}
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	killDevices  = 40
	killRows     = 20_000 // after that children only join and claim
	killRun      = 50
	firstNewOne  = 1000 // DevEUIs of the rows that children import
	killImport   = "the file that children import"
	killClaimant = "owner"
)

// childMain joins devices, imports rows and claims devices until it is killed.
// Each line of output names one thing that the store acknowledged, and is
// written before the next one is asked for.
func childMain(path string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	errs := make(chan error, 10)
	for w := range 8 {
		go func() { errs <- childJoins(ctx, db, w, say) }()
	}
	go func() { errs <- childImports(ctx, db, say) }()
	go func() { errs <- childClaims(ctx, db, say) }()
	return <-errs
}

func childJoins(ctx context.Context, db *store.DB, w int, say func(string, ...any)) error {
	for n := w; ; n = (n + 3) % killDevices {
		s, err := db.LoadActivation(ctx, benchJoinEUI, benchDevEUI(n))
		if err != nil {
			return err
		}
		c := storetest.NextCommit(s)
		switch err := db.CommitActivation(ctx, c); {
		case err == nil:
			say("join %s", c.Activation.ID)
		case !errors.Is(err, store.ErrSwapLost):
			return err
		}
	}
}

func killBegin(ctx context.Context, db *store.DB) (joinery.Import, error) {
	orgs, err := db.Orgs(ctx)
	if err != nil {
		return joinery.Import{}, err
	}
	return db.BeginImport(ctx, joinery.Import{Org: orgs[1].ID, Kind: joinery.ImportManifest, SHA256: sha256.Sum256([]byte(killImport)), CreatedAt: time.Now()})
}

func childImports(ctx context.Context, db *store.DB, say func(string, ...any)) error {
	i, err := killBegin(ctx, db)
	if err != nil {
		return err
	}
	for i.Next < killRows {
		rows := joinery.ImportRows{Import: i.ID, From: i.Next, Count: killRun}
		for n := range killRun {
			d := benchDevice(firstNewOne+int(i.Next)+n, false)
			d.Index = i.Next + uint64(n)
			rows.Devices = append(rows.Devices, d)
		}
		results, err := db.CommitRows(ctx, rows, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceImported})
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Status != joinery.RowCreated {
				return fmt.Errorf("row %d: %s %s: an earlier run was taken in part", r.Index, r.Status, r.Reason)
			}
		}
		i.Next += killRun
		say("import %d", i.Next)
	}
	<-ctx.Done() // never: the parent ends this process
	return ctx.Err()
}

func childClaims(ctx context.Context, db *store.DB, say func(string, ...any)) error {
	orgs, err := db.Orgs(ctx)
	if err != nil {
		return err
	}
	for n := 0; ; n = (n + 1) % killDevices {
		s, err := db.LoadActivation(ctx, benchJoinEUI, benchDevEUI(n))
		if err != nil {
			return err
		}
		o := s.Device.Ownership
		to := orgs[1+(int(o.Epoch)+1)%2].ID
		err = db.Claim(ctx, s.Device.ID, o.Epoch, to, s.Binding, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditDeviceClaimed, Device: s.Device.ID})
		if err != nil {
			return err
		}
		say("claim %s %d", s.Device.ID, o.Epoch+1)
	}
}

// acknowledged is what children were told to be on disk.
type acknowledged struct {
	joins  map[joinery.ActivationID]bool
	fresh  map[joinery.ActivationID]bool // of the last child
	next   uint64
	epochs map[joinery.DeviceID]uint32
}

// P1: whenever the process dies, nothing that was acknowledged is missing, no
// JoinNonce is issued twice and every invariant holds.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector; it runs without, too")
	}
	o := store.Options{Path: filepath.Join(t.TempDir(), "joinery.db")}
	db := fill(t, o, killDevices, true)
	err := db.AddOrg(t.Context(), joinery.Organisation{ID: joinery.NewOrgID(), Name: killClaimant, CreatedAt: time.Now()}, joinery.AuditEntry{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	acks := acknowledged{joins: map[joinery.ActivationID]bool{}, epochs: map[joinery.DeviceID]uint32{}}
	for round := range kills() {
		acks.read(t, runAndKill(t, o.Path, 5+(round*73)%400))
		acks.check(t, o, acks.fresh)
	}
	acks.check(t, o, acks.joins)
	t.Logf("%d kills: %d joins, %d rows, %d claimed devices acknowledged, none lost", kills(), len(acks.joins), acks.next, len(acks.epochs))
}

// runAndKill starts a child, kills it after it said n things, and gives all
// that it said in whole lines.
func runAndKill(t *testing.T, path string, n int) (lines []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
			break
		}
		lines = append(lines, strings.TrimSpace(line))
		if len(lines) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(lines) < n {
		t.Fatalf("the child ended by itself after %d lines: %v", len(lines), err)
	}
	return lines
}

func (a *acknowledged) read(t *testing.T, lines []string) {
	t.Helper()
	a.fresh = map[joinery.ActivationID]bool{}
	for _, line := range lines {
		var text string
		var n uint64
		switch what, rest, _ := strings.Cut(line, " "); what {
		case "join":
			var id joinery.ActivationID
			if err := id.UnmarshalText([]byte(rest)); err != nil || a.joins[id] {
				t.Fatalf("%s: no identifier, or twice", line)
			}
			a.joins[id], a.fresh[id] = true, true
		case "import":
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			a.next = max(a.next, n)
		case "claim":
			if _, err := fmt.Sscan(rest, &text, &n); err != nil {
				t.Fatal(err)
			}
			id, err := joinery.ParseDeviceID(text)
			if err != nil {
				t.Fatal(err)
			}
			a.epochs[id] = max(a.epochs[id], uint32(n))
		default:
			t.Fatalf("the child says %q", line)
		}
	}
}

// check opens what the child left behind, and looks for joins.
func (a *acknowledged) check(t *testing.T, o store.Options, joins map[joinery.ActivationID]bool) {
	t.Helper()
	db, err := store.Open(t.Context(), o) // the kernel dropped the child's lock
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	found, err := db.Fsck(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Errorf("fsck: %s", v)
	}
	nonces := map[string]bool{}
	for id := range joins {
		act, err := db.Activation(t.Context(), id)
		if err != nil {
			t.Fatalf("acknowledged join %s: %v", id, err)
		}
		key := fmt.Sprint(act.KeySet, act.JoinNonce)
		if nonces[key] {
			t.Errorf("JoinNonce %d of %s was acknowledged twice", act.JoinNonce, act.KeySet)
		}
		nonces[key] = true
	}
	i, err := killBegin(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if i.Next < a.next || i.Created != i.Next {
		t.Errorf("the import stands at %d with %d created, %d were acknowledged", i.Next, i.Created, a.next)
	}
	for id, epoch := range a.epochs {
		s, err := db.Device(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if s.Device.Ownership.Epoch < epoch {
			t.Errorf("device %s has epoch %d, %d was acknowledged", id, s.Device.Ownership.Epoch, epoch)
		}
	}
}
