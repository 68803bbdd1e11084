package guides

import (
	"os"
	"strings"
	"testing"

	"joinery/test/rig"
)

// The page about exports runs as it stands. Behind it stands what it promises: the
// keys that come out are those that were imported, each where the next server looks
// for it, and the device that moved goes on with its nonces.
func TestExportPage(t *testing.T) {
	programs, err := rig.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/export.md")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.Join(shellBlocks(string(text)), "\n")
	run(t, programs, withFreePorts(t, withPorts(t, script, 8543))+exportPageKeeps)
}

const exportPageKeeps = `
key() { grep "$1" mine.csv | cut -d, -f"$2" | tr a-f A-F; }
test -n "$(key 0200BB0000000001 5)" # 1.0.3: its AppKey
grep -i '"devEui":"0200bb0000000001","nwkKey":"'"$(key 0200BB0000000001 5)"'"}' chirpstack.jsonl
ONE=$(key 0200BB0000000001 5) APP=$(key 0200BB0000000002 5) NWK=$(key 0200BB0000000002 4)
test "$(head -n 1 tts.csv)" = "id;dev_eui;join_eui;lorawan_version;lorawan_phy_version;app_key;nwk_key" # none for a plan that nobody said
grep -x "eui-0200bb0000000001;0200BB0000000001;0200000000000100;MAC_V1_0_3;[A-Z0-9_]*;$ONE;$ONE" tts.csv # in both: an empty cell is a key of zeros
grep -x "eui-0200bb0000000002;0200BB0000000002;0200000000000100;MAC_V1_1;[A-Z0-9_]*;$APP;$NWK" tts.csv
if grep ";;\|;$" tts.csv; then exit 1; fi
grep '"dev_eui":"0200BB0000000001"' tts.json | grep -F '"root_keys":{"app_key":{"key":"'"$ONE"'"}},' # and no other
grep '"dev_eui":"0200BB0000000002"' tts.json | grep -F '"root_keys":{"app_key":{"key":"'"$APP"'"},"nwk_key":{"key":"'"$NWK"'"}},'
grep -i "\"nwkKey\":\"$(key 0200BB0000000002 4)\",\"appKey\":\"$(key 0200BB0000000002 5)\"" chirpstack.jsonl
test "$(stat -c %a chirpstack.jsonl)" = 600
for key in $(tail -n +2 mine.csv | cut -d, -f4,5 | tr , ' '); do # nowhere else, in no form
    if grep -iqr "$key" play other export.jsonl move.jsonl; then exit 1; fi
done
joinctl device show 0200BB0000000001 | grep "YES"
if joinctl export download $EXPORT --out again.jsonl; then exit 1; fi
joinctl --socket other/joinery.sock device show 020000FFFE000001 | grep "last JoinNonce *2"
if joinsim join --config other/sim/moved.json --dev-eui 020000FFFE000001 --replay | grep "ResultCode *Success"; then exit 1; fi
joinctl audit list --json | grep -c keys.exposed | grep 5
`
