package remote

import (
	"os"
	"strconv"
	"strings"
)

// resident is how much memory this process has, in bytes (proc_pid_statm(5)). The
// worker tells of itself because its parent must not look into /proc of a process
// that is not dumpable.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text)) // size, resident, …
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
