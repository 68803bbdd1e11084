package guides

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"joinery/test/rig"
)

// pages are one for each kind of user.
var pages = []string{
	"element-maker.md", "device-maker.md", "device-owner.md", "integrator.md",
	"network-operator.md", "server-operator.md", "firmware-developer.md",
}

const dir = "../../docs/guides"

// pageTime is how long a page may take.
const pageTime = 5 * time.Minute

func TestGuides(t *testing.T) {
	programs, err := rig.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(page, ".md"), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, page))
			if err != nil {
				t.Fatal(err)
			}
			script := strings.Join(shellBlocks(string(text)), "\n")
			if !strings.Contains(script, "joinctl ") && !strings.Contains(script, "joinery ") {
				t.Fatal("the page runs nothing")
			}
			run(t, programs, withFreePorts(t, script))
		})
	}
}

// TestEveryGuideIsRun: no page without its test, none that nobody finds.
func TestEveryGuideIsRun(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(pages)+1 {
		t.Errorf("%d pages in docs/guides, and %d are run: list new ones in this test", len(found)-1, len(pages))
	}
	for _, page := range pages {
		if !strings.Contains(string(index), "("+page+")") {
			t.Errorf("docs/guides/README.md does not lead to %s", page)
		}
	}
}

// shellBlocks gives what stands between ```sh and ```; other blocks show what
// comes of it.
func shellBlocks(text string) (out []string) {
	for i, part := range strings.Split("\n"+text, "\n```") {
		if kind, block, _ := strings.Cut(part, "\n"); i%2 == 1 && kind == "sh" {
			out = append(out, block)
		}
	}
	return out
}

// withFreePorts puts three free ports in place of those that the pages use.
func withFreePorts(t *testing.T, script string) string {
	t.Helper()
	return withPorts(t, script, 8443)
}

// withPorts puts them in place of those from first on.
func withPorts(t *testing.T, script string, first int) string {
	t.Helper()
	base := freePorts(t)
	for i := range 3 {
		script = strings.ReplaceAll(script, strconv.Itoa(first+i), strconv.Itoa(base+i))
	}
	return script
}

// freePorts finds three free ports that follow each other.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		base := first.Addr().(*net.TCPAddr).Port
		second, err2 := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+1))
		third, err3 := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+2))
		_ = first.Close() // they are free again, that is all
		if err2 == nil {
			_ = second.Close()
		}
		if err3 == nil {
			_ = third.Close()
		}
		if err2 == nil && err3 == nil {
			return base
		}
	}
	t.Fatal("no three free ports in a row")
	return 0
}

// run runs a script in an empty home, and ends whatever it left running.
func run(t *testing.T, programs rig.Programs, script string) {
	t.Helper()
	home := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), pageTime)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-eux")
	c.Dir = home
	c.Env = []string{"HOME=" + home, "PATH=" + filepath.Dir(programs.Binary("joinctl")) + ":" + os.Getenv("PATH"), "TZ=UTC", "LANG=C.UTF-8"}
	c.Stdin = strings.NewReader(script + "\n")
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second // servers in the background hold the output open
	err := c.Run()
	if killErr := syscall.Kill(-c.Process.Pid, syscall.SIGKILL); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
		t.Error(killErr)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("%v\n%s", err, &said)
	} else {
		t.Logf("%s", &said)
	}
}
