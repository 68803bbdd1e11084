package simtest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"joinery/internal/sim/command"
	"joinery/internal/sim/lab"
	"joinery/internal/sim/silicon"
	"joinery/internal/sim/simtest"
	"joinery/lorawan"
)

// bench is a directory as quickstart makes it, around the mini Join Server.
type bench struct {
	t        *testing.T
	js       *miniJS
	dir      string
	elements []simtest.Element
}

var recipientFiles struct {
	sync.Once
	key, pub []byte
	err      error
}

// newBench makes three elements. The recipient key is made once for all tests.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, js: newMiniJS(t), dir: t.TempDir()}
	for _, sub := range []string{"pki", "sim"} {
		if err := os.Mkdir(filepath.Join(b.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	recipientFiles.Do(func() {
		dir, err := os.MkdirTemp("", "recipient")
		if err != nil {
			recipientFiles.err = err
			return
		}
		defer func() { _ = os.RemoveAll(dir) }()
		_, recipientFiles.err = silicon.CreateRecipient(dir)
		recipientFiles.key, _ = os.ReadFile(filepath.Join(dir, silicon.RecipientKeyFile))
		recipientFiles.pub, _ = os.ReadFile(filepath.Join(dir, silicon.RecipientPubFile))
	})
	if recipientFiles.err != nil {
		t.Fatal(recipientFiles.err)
	}
	writeFile(t, b.path("sim/recipient.key"), recipientFiles.key)
	writeFile(t, b.path("sim/recipient.pub"), recipientFiles.pub)
	writeFile(t, b.path("pki/ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.js.ca.cert.Raw}))
	for _, name := range []string{"ns", "other-ns", "as"} {
		writePEM(t, b.path("pki"), name, b.js.ca.leaf(t, name))
	}
	for i := range 3 {
		e := simtest.Element{UniqueID: fmt.Sprintf("0123%014x", i), JoinEUI: joinEUI, DevEUI: lorawan.EUI64FromUint64(devEUI.Uint64() + uint64(i))}
		copy(e.Roots.NwkKey[:], randomBytes(16))
		copy(e.Roots.AppKey[:], randomBytes(16))
		b.elements = append(b.elements, e)
		b.js.add(e.DevEUI, e.Roots)
	}
	writeFile(t, b.path("sim/elements.silicon"), simtest.Silicon(t, b.path("sim/recipient.pub"), b.elements))
	b.writeConfig(b.config())
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// peer is an entry of ns or as.
func peer(name string, more map[string]any) map[string]any {
	more["name"], more["cert"], more["key"] = name, "../pki/"+name+".crt", "../pki/"+name+".key"
	return more
}

func (b *bench) ns(i int) map[string]any {
	return []map[string]any{
		peer("ns", map[string]any{"netID": "000013", "nsid": "", "keks": map[string]string{b.js.nsLabel: hex.EncodeToString(b.js.nsKEK)}}),
		peer("other-ns", map[string]any{"netID": "000042", "nsid": "EC656EFFFE000001", "keks": map[string]string{}}),
	}[i]
}

func (b *bench) config() map[string]any {
	return map[string]any{
		"joinServer": b.js.server.URL, "serverCA": "../pki/ca.crt",
		"ns": []any{b.ns(0), b.ns(1)},
		"as": []any{
			peer("as", map[string]any{"asID": "as.example.com", "keks": map[string]string{b.js.asLabel: hex.EncodeToString(b.js.asKEK)}}),
		},
		"recipientKey": "recipient.key", "silicon": []string{"elements.silicon"}, "state": "devices.json",
	}
}

func (b *bench) writeConfig(c map[string]any) {
	b.t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	writeFile(b.t, b.path("sim/sim.json"), text)
}

// run runs joinsim and looks for keys in whatever it says.
func (b *bench) run(args ...string) (string, error) {
	b.t.Helper()
	if args[0] != "recipient" {
		args = append(args, "--config", b.path("sim/sim.json"))
	}
	cmd := command.New()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	said := strings.ToLower(out.String() + fmt.Sprint(err))
	secrets := [][]byte{b.js.nsKEK, b.js.asKEK}
	for _, e := range b.elements {
		secrets = append(secrets, e.Roots.NwkKey[:], e.Roots.AppKey[:])
	}
	state, _ := os.ReadFile(b.path("sim/devices.json"))
	for _, secret := range secrets {
		if len(secret) == 0 {
			continue
		}
		if digits := hex.EncodeToString(secret[:8]); strings.Contains(said, digits) || strings.Contains(strings.ToLower(string(state)), digits) {
			b.t.Errorf("%v shows or keeps a key", args)
		}
	}
	return out.String(), err
}

// good runs joinsim and wants it to end well, saying each of the texts.
func (b *bench) good(args []string, texts ...string) string {
	b.t.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	flat := strings.Join(strings.Fields(out), " ")
	for _, text := range texts {
		if !strings.Contains(flat, text) {
			b.t.Errorf("%v: no %q in\n%s", args, text, out)
		}
	}
	return out
}

// bad runs joinsim and wants an error that says each of the texts.
func (b *bench) bad(args []string, texts ...string) {
	b.t.Helper()
	out, err := b.run(args...)
	if err == nil || errors.Is(err, command.ErrFailed) {
		b.t.Errorf("%v: got %v, want an error\n%s", args, err, out)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			b.t.Errorf("%v: no %q in %v", args, text, err)
		}
	}
}

// A device's life over several invocations: counters, sessions and what was
// recorded on the air go on.
func TestJoinsimLife(t *testing.T) {
	b := newBench(t)
	b.good([]string{"devices"}, "never used", "0004A310001FF9DC")
	b.good([]string{"join", "--mac", "1.1", "--then", "repeat,appskey,rejoin0,rejoin2,rejoin1,appskey,replay"},
		"joins network 000013", "saves its counter, then sends a join-request, DevNonce 0", "KEK "+b.js.nsLabel, "AppSKey wrapped under KEK "+b.js.asLabel+", closed to the network",
		"AppSKey equals the element's", "a repeat gets the same answer", "rejoins network 000013, type 2", "refuses: JoinReqFailed")
	b.good([]string{"rejoin", "--type", "0"}, "type 0", "JoinNonce 5")
	b.good([]string{"appskey"}, "Application Server as.example.com fetches")
	b.good([]string{"join", "--replay"}, "recorded on the air", "JoinReqFailed")
	b.good([]string{"join", "--replay", "--protocol", "1.1"}, "FrameReplayed")
	b.good([]string{"join", "--network", "1.0", "--protocol", "1.1", "--dialect", "tts", "--nsid", "EC656EFFFE000009", "--cflist", "none"}, "session of LoRaWAN 1.0.x", "JoinNonce 6", "no CFList")
	b.good([]string{"join", "--lose"}, "Success")
	b.good([]string{"join", "--wrong-mic"}, "MICFailed", "one bit of its MIC flipped")
	b.good([]string{"join", "--ns", "other-ns"}, "joins network 000042", "UnknownDevEUI")
	b.good([]string{"join", "--ns", "other-ns", "--wrong-mic"}, "UnknownDevEUI")
	b.good([]string{"join", "--silicon-index", "1", "--mac", "1.0.3", "--dialect", "chirpstack"}, "LoRaWAN 1.0.3", "(chirpstack)", b.elements[1].DevEUI.String())
	b.good([]string{"homens"}, "names network 000013")
	b.good([]string{"homens", "--ns", "other-ns", "--expect", "Success"}, "000042 asks", "names network 000013")
	// The accept is lost, and the device speaks from a session that this
	// invocation's network never saw.
	b.good([]string{"join", "--then", "join"})
	b.good([]string{"join", "--lose", "--then", "rejoin0"}, "rejoins")
	out := b.good([]string{"devices"}, "next 9", "1 used", "JOINNONCE", "never used", "by join")
	if strings.Count(out, "\n") != 4 {
		t.Errorf("devices:\n%s", out)
	}
	b.good([]string{"devices", "--limit", "1", "--from", "1"}, "1 of 3 elements")
}

// Firmware can change, and counting goes on above what was used.
func TestJoinsimReflash(t *testing.T) {
	b := newBench(t)
	b.good([]string{"join", "--mac", "1.0.3", "--then", "join,join"}, "ok")
	b.good([]string{"join", "--mac", "1.0.4"}, "LoRaWAN 1.0.4")
	b.good([]string{"join", "--mac", "1.1", "--then", "rejoin0"}, "rejoins")
	b.good([]string{"join", "--mac", "1.0.4"}, "session of LoRaWAN 1.0.x")
	b.bad([]string{"rejoin", "--type", "1"}, "cannot rejoin", "--mac 1.1")
}

func TestJoinsimJSON(t *testing.T) {
	b := newBench(t)
	b.js.byID = true
	var report struct {
		OK    bool
		Error string
		Steps []struct {
			OK     bool
			Title  string
			Facts  []struct{ Who, What string }
			Checks []struct {
				Party, Name string
				OK          bool
			}
		}
	}
	if err := json.Unmarshal([]byte(b.good([]string{"join", "--json", "--then", "appskey"})), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || len(report.Steps) != 2 || len(report.Steps[0].Checks) < 20 || len(report.Steps[1].Checks) < 10 || report.Steps[0].Facts[0].Who != "device" {
		t.Errorf("got %+v", report)
	}
	out, err := b.run("join", "--json", "--then", "rejoin0")
	if err == nil || json.Unmarshal([]byte(out), &report) != nil || report.OK || !strings.Contains(report.Error, "cannot rejoin") {
		t.Errorf("error in JSON: %v\n%s", err, out)
	}
	var devices struct {
		Total   int
		Devices []lab.Listed
	}
	if err := json.Unmarshal([]byte(b.good([]string{"devices", "--json", "--limit", "0"})), &devices); err != nil {
		t.Fatal(err)
	}
	if devices.Total != 3 || len(devices.Devices) != 3 || devices.Devices[0].Record.Device.NextDevNonce != 2 || devices.Devices[2].Record != nil {
		t.Errorf("got %+v", devices)
	}
}

// What does not hold is said, and the exit status tells.
func TestJoinsimFails(t *testing.T) {
	b := newBench(t)
	for _, args := range [][]string{
		{"join", "--expect", "MICFailed"},
		{"join", "--appskey", "session-key-id"},
		{"join", "--ns", "other-ns", "--expect", "Success", "--then", "join"},
		{"homens", "--ns", "other-ns"},
	} {
		out, err := b.run(args...)
		if !errors.Is(err, command.ErrFailed) || strings.Count(out, "FAILED") == 0 {
			t.Errorf("%v: got %v\n%s", args, err, out)
		}
		if strings.Contains(strings.Join(args, " "), "--then") && strings.Count(out, "joins network") != 1 {
			t.Errorf("%v went on after a failure\n%s", args, out)
		}
	}
	b.js.tamper = func(m *message) { m.remove("NwkSKey") }
	out, err := b.run("join", "--verbose")
	if !errors.Is(err, command.ErrFailed) || !strings.Contains(out, "session keys are those of the asked layout") {
		t.Errorf("got %v\n%s", err, out)
	}
	b.js.tamper = nil
	b.js.nsKEK, b.js.asKEK, b.js.omitID = nil, nil, true
	b.good([]string{"join", "--clear-keys", "--appskey", "clear", "-v"}, "the network can read the application's data", "NwkSKey in the clear, as allowed")
	b.bad([]string{"appskey"}, "no SessionKeyID")
}

func TestJoinsimBadInput(t *testing.T) {
	b := newBench(t)
	b.bad([]string{"join", "--dev-eui", "0004"}, "--dev-eui", "16 hexadecimal digits")
	b.bad([]string{"join", "--join-eui", "x"}, "--join-eui")
	b.bad([]string{"join", "--dev-eui", "FFFFFFFFFFFFFFFF"}, "is in no silicon file")
	b.bad([]string{"join", "--silicon-index", "3"}, "no element has index 3", "hold 3")
	b.bad([]string{"join", "--silicon-index", "-1"}, "--silicon-index")
	b.bad([]string{"join", "--silicon-index", "1", "--dev-eui", devEUI.String()}, "dev-eui")
	b.bad([]string{"join", "--replay", "--wrong-mic"}, "replay")
	b.bad([]string{"join", "--mac", "2.0"}, "--mac")
	b.bad([]string{"join", "--network", "2.0"}, "--network")
	b.bad([]string{"join", "--protocol", "1.2"}, "protocol")
	b.bad([]string{"join", "--dialect", "x"}, "chirpstack, tts, brocaar")
	b.bad([]string{"join", "--dialect", "chirpstack", "--protocol", "1.1"}, "1.0 only")
	b.bad([]string{"join", "--dialect", "tts", "--protocol", "1.1"}, "NSID")
	b.bad([]string{"join", "--nsid", "1"}, "--nsid")
	b.bad([]string{"join", "--cflist", "00"}, "--cflist")
	b.bad([]string{"join", "--appskey", "x"}, "--appskey")
	b.bad([]string{"join", "--ns", "x"}, "ns, other-ns")
	b.bad([]string{"join", "--as", "x"}, "there are: as")
	b.bad([]string{"join", "--then", "dance"}, "no such step")
	b.bad([]string{"rejoin", "--type", "3"}, "--type")
	b.bad([]string{"rejoin", "--type", "0"}, "cannot rejoin")
	b.bad([]string{"appskey", "--silicon-index", "2"}, "never joined")
	b.bad([]string{"homens", "--home", "1"}, "--home")
	b.bad([]string{"devices", "--limit", "-1"}, "--limit")
	b.bad([]string{"join", "extra"}, "unknown command")
	b.js.server.Close()
	b.bad([]string{"join"}, "join server", "refused")
}

// Every way in which the files can be wrong has its own message.
func TestJoinsimBadFiles(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(b *bench)
		want []string
	}{
		"no config":          {func(b *bench) { must(b.t, os.Remove(b.path("sim/sim.json"))) }, []string{"no such file", "--config"}},
		"config open":        {func(b *bench) { must(b.t, os.Chmod(b.path("sim/sim.json"), 0o644)) }, []string{"chmod 600"}},
		"config empty":       {func(b *bench) { writeFile(b.t, b.path("sim/sim.json"), nil) }, []string{"not valid JSON"}},
		"config key unknown": {func(b *bench) { b.change("colour", "red") }, []string{"colour"}},
		"http":               {func(b *bench) { b.change("joinServer", "http://127.0.0.1") }, []string{"https URL"}},
		"no ns":              {func(b *bench) { b.change("ns", []any{}) }, []string{"ns:"}},
		"ns twice":           {func(b *bench) { b.change("ns", []any{b.ns(0), b.ns(0)}) }, []string{"name of its own"}},
		"no state":           {func(b *bench) { b.change("state", "") }, []string{"state"}},
		"no silicon":         {func(b *bench) { b.change("silicon", []string{}) }, []string{"silicon"}},
		"no CA":              {func(b *bench) { b.change("serverCA", "") }, []string{"serverCA"}},
		"KEK": {func(b *bench) {
			ns := b.ns(0)
			ns["keks"] = map[string]string{"l": hex.EncodeToString(b.js.nsKEK) + "0"}
			b.change("ns", []any{ns})
		}, []string{"/ns/0/keks/l", "hexadecimal digits"}},
		"nsid": {func(b *bench) {
			ns := b.ns(0)
			ns["nsid"] = "12"
			b.change("ns", []any{ns})
		}, []string{"nsid"}},
		"silicon absent":    {func(b *bench) { must(b.t, os.Remove(b.path("sim/elements.silicon"))) }, []string{"elements.silicon", "no such file"}},
		"silicon of other":  {func(b *bench) { b.otherRecipient() }, []string{"sealed to another recipient key"}},
		"recipient open":    {func(b *bench) { must(b.t, os.Chmod(b.path("sim/recipient.key"), 0o604)) }, []string{"chmod 600"}},
		"recipient absent":  {func(b *bench) { must(b.t, os.Remove(b.path("sim/recipient.key"))) }, []string{"recipient.key"}},
		"client key open":   {func(b *bench) { must(b.t, os.Chmod(b.path("pki/ns.key"), 0o644)) }, []string{"ns.key", "chmod 600"}},
		"client key absent": {func(b *bench) { must(b.t, os.Remove(b.path("pki/ns.key"))) }, []string{"ns.key"}},
		"client cert":       {func(b *bench) { writeFile(b.t, b.path("pki/ns.crt"), []byte("x")) }, []string{"client certificate"}},
		"CA":                {func(b *bench) { writeFile(b.t, b.path("pki/ca.crt"), []byte("x")) }, []string{"serverCA: no certificate"}},
		"other CA": {func(b *bench) {
			writeFile(b.t, b.path("pki/ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(b.t, "x").cert.Raw}))
		}, []string{"certificate"}},
		"state damaged": {func(b *bench) { writeFile(b.t, b.path("sim/devices.json"), []byte("{")) }, []string{"damaged", "nonces reset"}},
		"state format":  {func(b *bench) { writeFile(b.t, b.path("sim/devices.json"), []byte(`{"format":"x","devices":[]}`)) }, []string{"want format"}},
		"state counter": {func(b *bench) {
			writeFile(b.t, b.path("sim/devices.json"), []byte(`{"format":"joinery-sim-devices/1","devices":[{"device":{"joinEUI":"70B3D57ED0000000","devEUI":"0004A310001FF9DA","macVersion":"1.0.4","nextDevNonce":70000}}]}`))
		}, []string{"beyond 16 bits"}},
		"DevEUI twice": {func(b *bench) { b.change("silicon", []string{"elements.silicon", "elements.silicon"}) }, []string{"more than once", "--join-eui"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.do(b)
			b.bad([]string{"join", "--dev-eui", devEUI.String()}, c.want...)
		})
	}
}

func (b *bench) change(name string, value any) {
	b.t.Helper()
	c := b.config()
	c[name] = value
	b.writeConfig(c)
}

func (b *bench) otherRecipient() {
	b.t.Helper()
	out, err := b.run("recipient", "--out", b.path("other"))
	if err != nil || !strings.Contains(out, "give to the factory") {
		b.t.Fatalf("%v\n%s", err, out)
	}
	b.change("recipientKey", b.path("other/recipient.key"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestJoinsimRecipient(t *testing.T) {
	b := newBench(t)
	b.bad([]string{"recipient"}, "--out")
	var made struct{ Kid, Key, Pub string }
	if err := json.Unmarshal([]byte(b.good([]string{"recipient", "--out", b.path("r"), "--json"})), &made); err != nil {
		t.Fatal(err)
	}
	r, err := silicon.LoadRecipient(made.Key)
	if err != nil || r.KID() != made.Kid || made.Pub != b.path("r/recipient.pub") {
		t.Errorf("got %+v, %v", made, err)
	}
	b.bad([]string{"recipient", "--out", b.path("r")}, "exists already")
}

// Two invocations at once: each has its turn, no counter is used twice.
func TestJoinsimTakesTurns(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, errs[i] = b.run("join") })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("invocation %d: %v", i, err)
		}
	}
	b.good([]string{"devices"}, "next 6")
}
