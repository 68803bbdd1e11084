package main

import (
	"io"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What opens a key file keeps its memory to itself first.
func TestTransportKeyIsHardened(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "server.age")
	cmd := newCeremonyTransport()
	cmd.SetArgs([]string{"--key-file", missing, "--passphrase-file", missing})
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	if err := cmd.Execute(); err == nil {
		t.Error("a key file that is not there was opened")
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("the process is dumpable (%d, %v)", dumpable, err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
}
