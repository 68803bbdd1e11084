//go:build goexperiment.runtimesecret

package secret

import (
	"runtime"
	runtimesecret "runtime/secret"
)

// Do calls f and erases the registers and the stack that f used, and the heap
// that it allocated as soon as the garbage collector finds it unreachable. f
// must not start goroutines: what they use is not erased.
func Do(f func()) { runtimesecret.Do(f) }

// Erases tells whether Do erases what its function leaves behind.
func Erases() bool {
	return runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
}
