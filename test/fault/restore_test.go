package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"joinery/internal/sim"
	"joinery/lorawan"

	"joinery/test/leak"
)

// P22: a backup that is 1,000 joins old is restored, and a database file is put
// back by hand. Each time the server refuses joins until that is confirmed, and
// no device is ever given a JoinNonce again.
func TestRestoredNeverRepeats(t *testing.T) {
	d, later, ways := dose{devices: 24, claims: 1}, 150, []bool{true}
	if os.Getenv("JOINERY_LONG") != "" {
		d.devices, later, ways = 240, 5000, []bool{false, true}
	}
	f := newFleet(t, d)
	identity := f.server.Path("backup.identity")
	made := f.joinery("ceremony", "identity", identity)
	recipient := strings.TrimSpace(made[strings.LastIndex(made, " ")+1:])

	// Under load: a backup, and a check of everything.
	copyOfFile := f.server.Path("copy.db")
	file := f.server.Path("joinery.backup")
	f.liveUntil(func() {
		f.wait(len(f.members) * 2)
		f.joinery("fsck", "--live", "--config", f.config())
		out := f.joinery("backup", "--config", f.config(), "--recipient", recipient, "-o", file, "--json")
		var sum struct{ Tables map[string]int64 }
		ok(t, json.Unmarshal([]byte(out), &sum))
		if n := sum.Tables["activation"]; n < int64(len(f.members)*2) {
			t.Errorf("the backup has %d joins, at least %d were acknowledged", n, len(f.members)*2)
		}
		f.noKeyIn(file, identity)
		f.joinery("backup", "verify", file, "--identity-file", identity)
		f.wait(f.total() + later)
	})

	// The disk is lost; what is left is the backup.
	f.moveAway("joinery.db", "joinery.db-wal", "joinery.db-shm", "joinery.db.mark")
	f.killRestores(file, identity)
	out := f.joinery("restore", file, "--identity-file", identity, "--config", f.config())
	if !strings.Contains(out, "every master key is there") || !strings.Contains(out, "fenced") {
		t.Errorf("restore says: %s", out)
	}
	f.refusedThenConfirmed("restored from the backup", func() {})
	f.joinAll(2)

	// Somebody copies the file while the server runs, and later puts it back, as
	// a new file or into the same one.
	for _, inPlace := range ways {
		f.copyFile(f.server.Path("joinery.db"), copyOfFile)
		f.copyFile(f.server.Path("joinery.db-wal"), copyOfFile+"-wal")
		then := f.fetchLog() // of the copy, or later
		f.joinAll(2)
		was := f.logKept(then)
		putBack := func() {
			ok(t, f.server.Kill())
			if !inPlace {
				f.moveAway("joinery.db")
			}
			f.copyFile(copyOfFile, f.server.Path("joinery.db"))
			f.copyFile(copyOfFile+"-wal", f.server.Path("joinery.db-wal"))
		}
		putBack()
		// P26: whoever kept a bundle sees that the log's end is gone, and that it went on
		// without.
		f.refusedThenConfirmed("", func() { f.logFound(f.fetchLog(), was, "rollback") })
		f.joinAll(2)
		f.logKept(was)
		went := f.fetchLog("--checkpoint", was.file)
		f.logFound(went, was, "rollback")
		// The same once more: the log is told in two ways.
		putBack()
		f.refusedThenConfirmed("", func() {})
		f.joinAll(3)
		f.logKept(went)
		f.logFound(f.fetchLog("--checkpoint", went.file), went, "fork")
		f.logWhole()
	}
	ok(t, f.server.Kill())
	f.joinery("fsck", "--config", f.config())
	t.Logf("%d joins acknowledged, each device with JoinNonces of its own", f.total())
}

func (f *fleet) config() string { return f.server.Path("joinery.yaml") }

// joinery runs the program to its end.
func (f *fleet) joinery(args ...string) string {
	f.t.Helper()
	out, err := f.server.Run(f.t.Context(), "", "joinery", args...)
	ok(f.t, err)
	return out
}

// liveUntil lets devices join until fn is done, and kills the server.
func (f *fleet) liveUntil(fn func()) {
	f.t.Helper()
	ctx, dead := context.WithCancel(f.t.Context())
	var busy sync.WaitGroup
	for i := range joiners {
		busy.Go(func() { f.join(ctx, i) })
	}
	fn()
	err := f.server.Kill()
	dead()
	busy.Wait()
	ok(f.t, err)
}

// wait waits until n joins were acknowledged.
func (f *fleet) wait(n int) {
	f.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); f.total() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%d joins were acknowledged, waited for %d", f.total(), n)
		}
	}
}

func (f *fleet) total() int { return int(f.count.Load()) }

// joinAll lets every device join n times; each JoinNonce must be above all that
// the device was ever given.
func (f *fleet) joinAll(n int) {
	f.t.Helper()
	for range n {
		for _, m := range f.members {
			var highest lorawan.JoinNonce
			for nonce := range m.nonces {
				highest = max(highest, nonce)
			}
			r, err := f.ns.Join(f.t.Context(), m.Device, sim.JoinOptions{})
			ok(f.t, err)
			ok(f.t, r.Err())
			if r.Accepted.JoinNonce <= highest {
				f.t.Errorf("device %s: JoinNonce %d after %d", m.DevEUI(), r.Accepted.JoinNonce, highest)
			}
			m.acknowledge(f.t, r)
		}
	}
}

// refusedThenConfirmed starts the server, which must refuse every join, and
// confirms that its database counts, after what is done meanwhile.
func (f *fleet) refusedThenConfirmed(reason string, meanwhile func()) {
	f.t.Helper()
	ok(f.t, f.server.StartFenced(f.t.Context()))
	for _, m := range f.members[:6] {
		r, err := f.ns.Join(f.t.Context(), m.Device, sim.JoinOptions{Expect: "Other"})
		ok(f.t, err)
		ok(f.t, r.Err())
	}
	status, err := f.server.Ctl(f.t.Context(), "", "status")
	ok(f.t, err)
	if !strings.Contains(status, "joins are refused") || !strings.Contains(status, reason) {
		f.t.Errorf("joinctl status says: %s", status)
	}
	meanwhile()
	ok(f.t, f.server.Stop())
	f.joinery("restore", "confirm", "--config", f.config())
	ok(f.t, f.server.Start(f.t.Context()))
}

func (f *fleet) moveAway(names ...string) {
	f.t.Helper()
	dir := f.t.TempDir()
	for _, name := range names {
		if err := os.Rename(f.server.Path(name), filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
			f.t.Fatal(err)
		}
	}
}

// copyFile writes a file as cp does: into the one that is there, if there is one.
func (f *fleet) copyFile(from, to string) {
	f.t.Helper()
	content, err := os.ReadFile(from)
	ok(f.t, err)
	ok(f.t, os.WriteFile(to, content, 0o600))
}

// P12 for backups: noKeyIn looks for the root keys of devices in a backup, and
// in what whoever has its identity reads in it.
func (f *fleet) noKeyIn(file, identity string) {
	f.t.Helper()
	encrypted, err := os.ReadFile(file)
	ok(f.t, err)
	secret, err := os.ReadFile(identity)
	ok(f.t, err)
	identities, err := age.ParseIdentities(bytes.NewReader(secret))
	ok(f.t, err)
	content := backupContent(f.t, bytes.NewReader(encrypted), identities...)
	eui := f.members[0].DevEUI()
	if !bytes.Contains(content, eui[:]) || bytes.Contains(encrypted, eui[:]) {
		f.t.Error("the DevEUI of a device must be in the content of a backup, and nowhere readable in its file")
	}
	var keys leak.Secrets
	plantRoots(f.t, &keys, f.server.Path("devices.csv"))
	for _, where := range [][]byte{encrypted, content} {
		hits := leak.Found{}
		if keys.In(where, hits); len(hits) > 0 {
			f.t.Errorf("root keys are in the backup: %v", hits)
		}
	}
}

// backupContent gives what whoever has its identity reads in a backup.
func backupContent(t *testing.T, file io.Reader, identities ...age.Identity) []byte {
	t.Helper()
	opened, err := age.Decrypt(file, identities...)
	ok(t, err)
	plain, err := zstd.NewReader(opened)
	ok(t, err)
	defer plain.Close()
	content, err := io.ReadAll(plain)
	ok(t, err)
	return content
}

// Killed at any instant, a restore leaves no database, or the whole one, fenced.
func (f *fleet) killRestores(file, identity string) {
	f.t.Helper()
	for _, after := range []time.Duration{5, 20, 60, 120} {
		cmd := exec.Command(f.server.Binary("joinery"), "restore", file, "--identity-file", identity, "--config", f.config())
		ok(f.t, cmd.Start())
		time.Sleep(after * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if _, err := os.Stat(f.server.Path("joinery.db")); err == nil {
			f.joinery("fsck", "--config", f.config())
			f.moveAway("joinery.db", "joinery.db-wal", "joinery.db-shm")
		}
	}
}

// kept is a bundle of the custody log, as the owner of the first device keeps it.
type kept struct {
	file string
	size uint64 // of the tree
}

// fetchLog fetches one as it is now.
func (f *fleet) fetchLog(more ...string) kept {
	f.t.Helper()
	k := kept{file: filepath.Join(f.t.TempDir(), "bundle.json")}
	_, err := f.server.Ctl(f.t.Context(), "", append([]string{"audit", "fetch", f.members[0].DevEUI().String(), "--out", k.file}, more...)...)
	ok(f.t, err)
	text, err := os.ReadFile(k.file)
	ok(f.t, err)
	var b struct{ Checkpoint string }
	ok(f.t, json.Unmarshal(text, &b))
	_, err = fmt.Sscanf(strings.Split(b.Checkpoint, "\n")[1], "%d", &k.size)
	ok(f.t, err)
	return k
}

// logKept fetches one once the log is larger than before.
func (f *fleet) logKept(before kept) (k kept) {
	f.t.Helper()
	eventually(f.t, "the log goes on", func() bool {
		k = f.fetchLog()
		return k.size > before.size
	})
	return k
}

// logFound verifies a bundle against an older one, which finds this wrong.
func (f *fleet) logFound(now, older kept, want string) {
	f.t.Helper()
	said, err := f.server.Ctl(f.t.Context(), "", "audit", "verify", now.file, "--key", f.logKey(), "--checkpoint", older.file)
	if err == nil || !strings.Contains(said+err.Error(), "WRONG "+want) {
		f.t.Errorf("a log of %d entries after one of %d: %v; want %s\n%s", now.size, older.size, err, want, said)
	}
}

// logWhole wants of the log that it is right by itself, whatever was restored: joins
// that a restored database had not named yet, and the JoinNonces that were left out,
// are no joins that somebody hides.
func (f *fleet) logWhole() {
	f.t.Helper()
	var said string
	var err error
	eventually(f.t, "every entry is in the log, and nothing is wrong", func() bool {
		said, err = f.server.Ctl(f.t.Context(), "", "audit", "verify", f.fetchLog().file, "--key", f.logKey())
		return err == nil
	})
	if !strings.Contains(said, "nothing is wrong") {
		f.t.Errorf("the log says: %s", said)
	}
}

// logKey is the log's key, of who took it when they first met.
func (f *fleet) logKey() string {
	f.t.Helper()
	c, err := f.server.Config()
	ok(f.t, err)
	resp, err := http.Get("http://" + c.API.Address + "/log/key")
	ok(f.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	ok(f.t, err)
	return strings.TrimSpace(string(text))
}
