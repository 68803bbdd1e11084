package harden

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a process did to itself cannot be undone, so another one does it.
func TestProcess(t *testing.T) {
	const asChild = "JOINERY_TEST_HARDEN"
	if os.Getenv(asChild) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcess$", "-test.v")
		cmd.Env = append(os.Environ(), asChild+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestProcess") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := Process(); err != nil {
		t.Fatal(err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("dumpable: %d, %v", dumpable, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		t.Errorf("core: %+v, %v", core, err)
	}
	testLocking(t)
}

// testLocking wants memory to be locked exactly where there is no limit.
func testLocking(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	locked := LockMemory()
	if limit.Cur != unix.RLIM_INFINITY && locked {
		t.Error("memory was locked under a limit")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, told := strings.Cut(string(status), "VmLck:")
	if !told {
		return // this kernel does not tell
	}
	if none := strings.HasPrefix(strings.TrimSpace(rest), "0 kB"); locked == none {
		t.Errorf("locked: %v, and the kernel says %q", locked, strings.Fields(rest)[0])
	}
	_ = make([]byte, 64<<20) // there is memory still
}
