package harden

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process keeps the memory of this process out of core dumps and away from
// debuggers of its own user. It is for the program that holds keys, before it
// opens them; what it cannot do (swap) is LockMemory's and the service manager's
// part.
func Process() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	// Not dumpable: no core, no ptrace by others, /proc/self/mem is root's.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process not dumpable: %w", err)
	}
	return nil
}

// LockMemory keeps all memory of this process out of swap, what it will ask for
// included, and tells whether it did. Under a limit (RLIMIT_MEMLOCK) it does
// not: once that is used up the process would get no memory at all. It is for
// programs that have libraries of others hold keys; our own keys are locked one
// by one, see package secret.
func LockMemory() bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Cur != unix.RLIM_INFINITY {
		return false
	}
	// What is never touched, most of what Go reserves, takes no memory all the same.
	return unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) == nil
}
