package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps the memory of this process out of core dumps and away from
// debuggers of its own user. It is for the program that holds keys, before it
// opens them; what it cannot do (swap) is the service manager's part.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	// Not dumpable: no core, no ptrace by others, /proc/self/mem is root's.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process not dumpable: %w", err)
	}
	return nil
}
