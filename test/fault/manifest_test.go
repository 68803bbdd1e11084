package fault

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/manifest/manifesttest"
	"joinery/test/rig"
)

// A manifest of many chips is imported through joinctl. The server is killed in
// the middle, and then joinctl: the same command goes on, and at the end every chip
// is there once. Memory of both stays flat. The log says how fast it went, and how
// that compares with the two signatures of each entry alone.
func TestManifestAtScale(t *testing.T) {
	chips := 3_000
	if long() {
		chips = 1_000_000
	}
	s, err := built(t).Quickstart(t.Context(), filepath.Join(t.TempDir(), "server"), "--elements", "1")
	ok(t, err)
	ok(t, s.Start(t.Context()))
	defer stopAndCheck(t, s)
	m := manifesttest.NewMaker(t)
	path := s.Path("chips.json")
	begin := client.NewImport{Kind: "manifest", MACVersion: lorawan.MAC1_0_4, SHA256: writeChips(t, m, path, chips)}
	pinMaker(t, s, m)

	var all []usage
	from := 0
	for _, stop := range []func(*exec.Cmd) error{
		func(*exec.Cmd) error { return errors.Join(s.Kill(), s.Start(t.Context())) },
		func(ctl *exec.Cmd) error { return ctl.Process.Kill() },
		nil,
	} {
		until := min(from+chips/3, chips)
		if stop == nil {
			until = chips
		}
		u := importUntil(t, s, path, begin, until, stop)
		u.from = from
		from = u.to
		all = append(all, u)
	}
	if from != chips {
		t.Errorf("%d of %d chips are there", from, chips)
	}
	alone, aloneCPU := verifyTwo(t, 2_000)
	for _, u := range all {
		n := float64(u.to - u.from)
		t.Logf("chips %d to %d: %.0f/s, %.0f µs of processor time each (server %.0f, joinctl %.0f); server %d MiB, joinctl %d MiB",
			u.from, u.to, n/u.took.Seconds(), 1e6*(u.server+u.ctl)/n, 1e6*u.server/n, 1e6*u.ctl/n, u.serverKiB>>10, u.ctlKiB>>10)
	}
	last := all[len(all)-1]
	n := float64(last.to - last.from)
	t.Logf("two signatures alone: %.0f/s, %.0f µs; ratio %.2f by the clock, %.2f by processor time of the server, %.2f with joinctl's",
		alone, 1e6*aloneCPU, n/last.took.Seconds()/alone, aloneCPU/(last.server/n), aloneCPU/((last.server+last.ctl)/n))
	if first := all[0]; last.serverKiB > first.serverKiB+128<<10 || last.ctlKiB > first.ctlKiB+64<<10 {
		t.Errorf("memory grows: %+v, then %+v", first, last)
	}
}

// usage is what a part of an import took. Processor times are in seconds.
type usage struct {
	from, to          int
	took              time.Duration
	server, ctl       float64
	serverKiB, ctlKiB int
}

// importUntil runs joinctl until the server has until chips, and then stop. With
// nil it lets joinctl end by itself.
func importUntil(t *testing.T, s *rig.Server, path string, begin client.NewImport, until int, stop func(*exec.Cmd) error) (u usage) {
	t.Helper()
	c, err := s.Config()
	ok(t, err)
	org := operator(t, c.API.Socket)
	api, err := client.New(client.Options{Socket: c.API.Socket, Organisation: org})
	ok(t, err)
	defer api.Close()
	var said strings.Builder
	ctl := exec.CommandContext(t.Context(), s.Binary("joinctl"), "manifest", "import", path, "--mac-version", "1.0.4",
		"--socket", c.API.Socket, "--org", "operator", "--json")
	var out strings.Builder
	ctl.Stdout, ctl.Stderr = &out, &said
	began, before := time.Now(), processorTime(t, s.PID())
	ok(t, ctl.Start())
	ended := make(chan error, 1)
	go func() { ended <- ctl.Wait() }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			u.took = time.Since(began)
			u.server = processorTime(t, s.PID()) - before
			u.ctl = (ctl.ProcessState.UserTime() + ctl.ProcessState.SystemTime()).Seconds()
			if stop != nil {
				t.Fatalf("joinctl was through before it was stopped: %v\n%s", err, &said)
			}
			ok(t, err)
			var done struct{ Import client.Import }
			ok(t, json.Unmarshal([]byte(out.String()), &done))
			if i := done.Import; i.Failed != 0 || i.Unchanged != 0 || !i.Done {
				t.Errorf("%+v", i)
			}
			u.to = int(done.Import.Created)
			return u
		case <-look.C:
			u.serverKiB, u.ctlKiB = max(u.serverKiB, residentKiB(t, s.PID())), max(u.ctlKiB, peakKiB(ctl.Process.Pid))
			if stop == nil {
				continue
			}
			if u.to = standing(t, api, begin); u.to < until {
				continue
			}
			u.took = time.Since(began)
			u.server = processorTime(t, s.PID()) - before
			u.ctl = processorTime(t, ctl.Process.Pid)
			ok(t, stop(ctl))
			_ = ctl.Process.Kill() // joinctl tries a server that is gone again, for some seconds
			<-ended
			return u
		}
	}
}

// standing is how many chips the import has taken: beginning it again finds it.
func standing(t *testing.T, api *client.Client, begin client.NewImport) int {
	t.Helper()
	i, err := api.BeginImport(t.Context(), begin)
	ok(t, err)
	return int(i.Next)
}

// operator gives the operator's organisation.
func operator(t *testing.T, socket string) joinery.OrgID {
	t.Helper()
	api, err := client.New(client.Options{Socket: socket})
	ok(t, err)
	defer api.Close()
	orgs, err := api.Organisations(t.Context())
	ok(t, err)
	for _, o := range orgs {
		if o.Name == "operator" {
			return o.ID
		}
	}
	t.Fatal("no operator")
	return 0
}

// peakKiB is the memory of a process that may be gone.
func peakKiB(pid int) (size int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	_, _ = fmt.Sscan(rest, &size) // 0 where it is gone
	return size
}

// processorTime is the processor time of a process, in seconds.
func processorTime(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	ok(t, err)
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have blanks
	fields := strings.Fields(rest)
	const user, system, perSecond = 11, 12, 100 // proc(5), behind the name; USER_HZ
	ticks := 0.0
	for _, i := range []int{user, system} {
		n, err := strconv.ParseFloat(fields[i], 64)
		ok(t, err)
		ticks += n
	}
	return ticks / perSecond
}

// writeChips writes the manifest of n chips, and holds few of them in memory. It
// gives the file's SHA-256 in hexadecimal.
func writeChips(t *testing.T, m *manifesttest.Maker, path string, n int) (sum string) {
	t.Helper()
	f, err := os.Create(path)
	ok(t, err)
	hash := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
	lead := "[\n"
	for from := 0; from < n; from += 1000 {
		run := make([][]byte, min(1000, n-from))
		var wait sync.WaitGroup
		for c := range runtime.GOMAXPROCS(0) {
			wait.Go(func() {
				for k := c; k < len(run); k += runtime.GOMAXPROCS(0) {
					run[k] = m.Entry(manifesttest.NewPart(manifesttest.Third, chipsJoinEUI, from+k))
				}
			})
		}
		wait.Wait()
		for _, entry := range run {
			_, err := w.WriteString(lead)
			ok(t, err)
			_, err = w.Write(entry)
			ok(t, err)
			lead = ",\n"
		}
	}
	_, err = w.WriteString("\n]\n")
	ok(t, err)
	ok(t, w.Flush())
	ok(t, f.Close())
	return hex.EncodeToString(hash.Sum(nil))
}

const chipsJoinEUI = 0x70B3D57ED0000000

func pinMaker(t *testing.T, s *rig.Server, m *manifesttest.Maker) {
	t.Helper()
	log, root := s.Path("log.crt"), s.Path("root.crt")
	for path, der := range map[string][]byte{log: m.Log, root: m.Root} {
		ok(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	}
	for _, args := range [][]string{
		{"range", "assign", "70B3D57ED0000000", "--elements", "--org", "operator"},
		{"manifest", "signers", "add", "Log Signer 002", "--org", "operator", "--shared", "--family", "microchip", "--serial-suffix", "27",
			"--certificate", log, "--root", root, "--master", "quickstart", "--join-euis", "70B3D57ED0000000", "--dev-euis", "0004A30000000000/24"},
	} {
		_, err := s.Ctl(t.Context(), "", args...)
		ok(t, err)
	}
}

// verifyTwo verifies n times two signatures on all processors and does nothing
// else: how many pairs a second, and how much processor time one takes.
func verifyTwo(t *testing.T, n int) (rate, each float64) {
	t.Helper()
	key := manifesttest.NewKey(t)
	digest := sha256.Sum256([]byte("what is signed"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	ok(t, err)
	began, before := time.Now(), processorTime(t, os.Getpid())
	var wait sync.WaitGroup
	processors := runtime.GOMAXPROCS(0)
	for range processors {
		wait.Go(func() {
			for range 2 * n / processors {
				if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
					t.Error("a signature does not verify")
				}
			}
		})
	}
	wait.Wait()
	return float64(n) / time.Since(began).Seconds(), (processorTime(t, os.Getpid()) - before) / float64(n)
}
