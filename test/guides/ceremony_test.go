package guides

import (
	"os"
	"strings"
	"testing"

	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/test/rig"
)

// The page about ceremonies runs as it stands, on tokens of software.
func TestCeremonyPage(t *testing.T) {
	module := hsmtest.SoftHSMModule(t)
	programs, err := rig.BuildHSM(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
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
