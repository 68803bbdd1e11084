//go:build !linux

package daemon

// forgetProgram does nothing here: pages of the program are the kernel's business.
func forgetProgram() (mapped int) { return 0 }
