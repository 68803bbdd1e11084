//go:build !linux

package harden

// Process does nothing here: what keeps a process's memory to itself is known to
// us on Linux only.
func Process() error { return nil }

// LockMemory does nothing here.
func LockMemory() bool { return false }
