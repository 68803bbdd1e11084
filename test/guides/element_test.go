package guides

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"joinery/test/rig"
)

// TestElementPages: the pages about the element and its firmware run as they stand, the
// last two one after the other, since the second goes on where the first ends. Behind
// each stands what it promises.
func TestElementPages(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("no C compiler here")
	}
	programs, err := rig.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]struct {
		pages []string
		keeps string
	}{
		"element":  {[]string{"element.md"}, elementKeeps},
		"firmware": {[]string{"firmware.md", "attestation.md"}, firmwareKeeps},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			script := []string{"JOINERY='" + sources + "'"}
			for _, page := range p.pages {
				text, err := os.ReadFile(filepath.Join("../../docs", page))
				if err != nil {
					t.Fatal(err)
				}
				blocks := shellBlocks(string(text))
				if len(blocks) < 3 {
					t.Errorf("%s has %d blocks that run", page, len(blocks))
				}
				script = append(script, blocks...)
			}
			run(t, programs, withFreePorts(t, strings.Join(script, "\n"))+p.keeps)
		})
	}
}

const elementKeeps = `
joinctl explain 020000FFFE000001 | grep "DevNonce 2, JoinNonce 2"
test "$(cat nonce)" = 3 # the one whose AES failed used one, too
if JOINSIM_ELEMENT=unix:$PWD/faulty.sock ./join nonce < /dev/null 2> said; then exit 1; fi
grep "the element did not do a command" said
`

const firmwareKeeps = `
joinsim element boot --state meter | grep "version 3.3.0 (counter 3)"
if joinsim element boot --state meter --image meter-3.1.0.signed; then exit 1; fi
joinctl attest show 020000FFFE001000 | grep "level *L3"
joinctl explain 020000FFFE000001 | grep attestation-low
joinctl attest show 020000FFFE000001 | grep "version 1.0, self-reported"
joinctl device show 020000FFFE000001 | grep "last JoinNonce *1"
`
