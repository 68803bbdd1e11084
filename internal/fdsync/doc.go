// Package fdsync waits for the disk without keeping a processor from others.
//
// While a goroutine is in a system call, Go's runtime lends its processor to
// others only after it has noticed, some 20 µs to 10 ms later. A server that has
// one processor, and syncs some hundred times a second, spends a fifth of its time
// so. Here the kernel is asked to sync, and the goroutine waits for its answer as
// it would for a network's.
//
// Only Linux has it; elsewhere this package is empty.
package fdsync
