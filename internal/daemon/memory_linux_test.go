package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// What was read of the program's file is given back, and the program goes on.
func TestForgetProgram(t *testing.T) {
	before := fileResident(t)
	mapped := forgetProgram()
	if mapped < 1<<20 {
		t.Fatalf("%d bytes of the program's file found, want more than a MiB", mapped)
	}
	if after := fileResident(t); after >= before {
		t.Errorf("%d KiB of files in memory, %d before", after, before)
	}
}

// fileResident is how many KiB of files this process has in memory.
func fileResident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), "RssFile:")
	if !found {
		t.Skip("this kernel does not tell what of a process's memory are files")
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
