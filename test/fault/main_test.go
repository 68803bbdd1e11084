package fault

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/test/rig"
)

// programDir holds the programs, which all tests share.
var programDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if programDir, err = os.MkdirTemp("", "fault-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(programDir) }()
	if err := hsmtest.Place(programDir); err != nil { // SoftHSM's library asks the environment
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var build = sync.OnceValues(func() (rig.Programs, error) {
	return rig.Build(context.Background(), programDir)
})

// built gives the programs, built at the first call.
func built(t *testing.T) rig.Programs {
	t.Helper()
	programs, err := build()
	ok(t, err)
	return programs
}

// long tells whether the full figures of the promises are wanted.
func long() bool { return os.Getenv("JOINERY_LONG") != "" }
