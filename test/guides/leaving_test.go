package guides

import (
	"os"
	"strings"
	"testing"

	"joinery/test/rig"
)

// The pages about service terms, the custody log and rekeying run as they stand. Each
// begins with the same server, which is made once here, and needs no other page. Behind
// them stands what they promise.
func TestLeavingPages(t *testing.T) {
	programs, err := rig.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var begin string
	var script []string
	for _, page := range []string{"service.md", "audit.md", "handover.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellBlocks(string(text))
		if len(blocks) < 2 || begin != "" && blocks[0] != begin {
			t.Fatalf("%s does not begin with the server that the others begin with", page)
		}
		begin, script = blocks[0], append(script, blocks[1:]...)
	}
	all := begin + "\n" + strings.Join(script, "\n")
	// The fourth port of the other server goes first: 8546 is none of the three that
	// are found for it.
	all = withPorts(t, all, 8546)
	run(t, programs, withFreePorts(t, withPorts(t, all, 8543))+leavingPagesKeep)
}

const leavingPagesKeep = `
joinctl service show 020000FFFE000001 --json | grep '"state": "active"'
joinctl service list --ending-before 1100d --json | grep -c '"device"' | grep '^3$' # two more by then
grep "standard,,1,.*,2,24,0,0,0,0$" usage.csv
joinctl plan list | grep "metering .*120 months"
joinctl service credit list --org "Acme Metering" | grep 1200
joinctl audit verify bundle.json --key log.key | grep "nothing is wrong"
joinctl audit verify provenance.json --key log.key | grep "root keys not disclosed by this server"
for n in 1 2 3 4 5; do joinctl rekey status 020000FFFE00000$n | grep " confirmed "; done
joinctl --socket other/joinery.sock rekey arrivals --json | grep -c '"state": "joined"' | grep '^3$'
joinctl rekey status 020000FFFE000001 | grep "by a file"
joinctl rekey status 020000FFFE000002 | grep " joined "
joinsim join --config play/sim/sim.json --dev-eui 020000FFFE000003 --expect UnkownReceiver # it asks for its new JoinEUI
grep '"key":"[0-9A-F]\{32\}"' opened.jsonl
joinctl device show 020000FFFE000005 | grep "YES"
joinctl device show 020000FFFE000001 | grep "disclosed *not by this server"
joinctl rekey server remove joins.example.com --yes
joinctl rekey server list --json | grep '^\[\]$'
joinctl rekey batch show $BATCH --json | grep '"armed": 2'
`
