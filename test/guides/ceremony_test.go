package guides

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/test/rig"
)

// The page about ceremonies runs as it stands, on tokens of software.
func TestCeremonyPage(t *testing.T) {
	module := hsmtest.SoftHSMModule(t)
	bin := t.TempDir()
	programs, err := rig.Build(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "joinery-hsm"), "joinery/cmd/joinery-hsm")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile("../../docs/ceremony.md")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.ReplaceAll(strings.Join(shellBlocks(string(text)), "\n"), "/usr/lib/softhsm/libsofthsm2.so", module)
	place := `mkdir tokens
export SOFTHSM2_CONF="$PWD/softhsm2.conf"
echo "directories.tokendir = $PWD/tokens" > softhsm2.conf
`
	run(t, programs, place+script)
}
