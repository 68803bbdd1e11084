package fault

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"joinery/test/rig"
)

// built is the programs, built once for all tests of the package.
var built struct {
	sync.Once
	dir      string
	programs rig.Programs
	err      error
}

func programs(t testing.TB) rig.Programs {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "joinery-programs"); built.err == nil {
			built.programs, built.err = rig.Build(context.Background(), built.dir)
		}
	})
	ok(t, built.err)
	return built.programs
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func long() bool { return os.Getenv("JOINERY_LONG") != "" }
