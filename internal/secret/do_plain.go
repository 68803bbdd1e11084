//go:build !goexperiment.runtimesecret

package secret

// Do calls f. Built with GOEXPERIMENT=runtimesecret it also erases the
// registers, the stack and, once unreachable, the heap that f used; this build
// does not.
func Do(f func()) { f() }

// Erases tells whether Do erases what its function leaves behind.
func Erases() bool { return false }
