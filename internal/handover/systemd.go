package handover

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// firstPassed is the first descriptor that the service manager passes
// (sd_listen_fds(3)).
const firstPassed = 3

// FromServiceManager takes the sockets that the service manager opened for this
// process (sd_listen_fds_with_names(3)); none if it did not. Each must have one
// of names, and each name comes once. The environment variables are removed, so
// that no child takes them for its own.
func FromServiceManager(names ...string) (sockets []Socket, err error) {
	pid, count, given := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, variable := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(variable); err != nil {
			return nil, err
		}
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxDescriptors {
		return nil, fmt.Errorf("sockets of the service manager: LISTEN_FDS is no number up to %d", maxDescriptors)
	}
	defer func() {
		if err != nil {
			CloseAll(sockets)
			sockets = nil
		}
	}()
	of := strings.Split(given, ":")
	for i := range n {
		name := ""
		if i < len(of) {
			name = of[i]
		}
		if !slices.Contains(names, name) || slices.Contains(of[:i], name) {
			return sockets, fmt.Errorf("sockets of the service manager: socket %d is named %q: want each of %s at most once (FileDescriptorName= in the socket unit)",
				i+1, name, strings.Join(names, ", "))
		}
		syscall.CloseOnExec(firstPassed + i)
		s, err := socketOf(os.NewFile(uintptr(firstPassed+i), name), name, true)
		if err != nil {
			return sockets, fmt.Errorf("sockets of the service manager: %w", err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}
