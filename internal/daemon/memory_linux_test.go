package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// What was read of the program's file is given back, and the program goes on.
func TestForgetProgram(t *testing.T) {
	before, told := fileResident(t)
	mapped := forgetProgram()
	if mapped < 1<<20 {
		t.Fatalf("%d bytes of the program's file found, want more than a MiB", mapped)
	}
	if !told {
		t.Skip("the mappings were given back; this kernel does not tell how much of them was in memory")
	}
	if after, _ := fileResident(t); after >= before {
		t.Errorf("%d KiB of files in memory, %d before", after, before)
	}
}

// fileResident is how many KiB of files this process has in memory, where the
// kernel tells (Linux 4.5).
func fileResident(t *testing.T) (kib int, told bool) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), "RssFile:")
	if !found {
		return 0, false
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}
