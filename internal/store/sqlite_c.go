package store

import (
	"unsafe"

	"modernc.org/libc"
)

// SQLite is C translated to Go: structures lie at addresses, functions are addresses.

// at gives what lies at an address in memory of C.
func at[T any](address uintptr) *T {
	return *(**T)(unsafe.Pointer(&address))
}

// address gives a Go function as SQLite calls it.
func address(f any) uintptr { return (*[2]uintptr)(unsafe.Pointer(&f))[1] }

// function gives a method of SQLite as Go calls it.
func function[F any](address uintptr) F {
	return *(*F)(unsafe.Pointer(&struct{ uintptr }{address}))
}

// Methods of a file system.
type (
	openFunc = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	syncFunc = func(tls *libc.TLS, file uintptr, flags int32) int32
)
