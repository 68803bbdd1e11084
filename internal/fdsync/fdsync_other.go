//go:build !linux

// Package fdsync waits for the disk without keeping a processor from others, on
// Linux. Here it only waits.
package fdsync

import "os"

// Data is fsync.
func Data(fd int) error { return os.NewFile(uintptr(fd), "file").Sync() }
