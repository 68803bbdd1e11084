//go:build !linux

package daemon

// Harden does nothing here: what keeps a process's memory to itself is known to
// us on Linux only.
func Harden() error { return nil }
