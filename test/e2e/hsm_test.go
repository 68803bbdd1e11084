package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"joinery/internal/ceremony"
	"joinery/internal/config"
	"joinery/internal/keyring"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/rig"
)

// vault is a place with hardware tokens of software, and the real programs.
type vault struct {
	t        *testing.T
	dir      string
	programs rig.Programs
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{t: t, dir: t.TempDir()}
	t.Setenv("SOFTHSM2_CONF", "") // is put back afterwards
	ok(t, hsmtest.Place(v.dir))
	bin := filepath.Join(v.dir, "bin")
	ok(t, os.Mkdir(bin, 0o700))
	var err error
	v.programs, err = rig.BuildHSM(t.Context(), bin)
	ok(t, err)
	return v
}

func (v *vault) path(elem ...string) string {
	return filepath.Join(append([]string{v.dir}, elem...)...)
}

// token makes an empty token and the file with its PIN.
func (v *vault) token(label string) hsm.Options {
	v.t.Helper()
	opt := hsm.Options{Module: hsmtest.SoftHSMModule(v.t), Token: label, PIN: []byte(hsmtest.PIN)}
	ok(v.t, hsm.Initialise(opt, []byte("8765-4321")))
	ok(v.t, os.WriteFile(v.path(label+".pin"), []byte(hsmtest.PIN+"\n"), 0o600))
	return opt
}

// plan writes the plan of a ceremony, and gives its file. The masters are YAML.
func (v *vault) plan(name, token string, masters ...string) string {
	v.t.Helper()
	text := fmt.Sprintf(`ceremony: %[1]s
participants:
  - {name: Ada Lind, role: leads}
directory: out-%[2]s
minimum_level: in-token
token: {module: %[3]s, label: %[2]s, pin_file: %[2]s.pin}
custody: {module: %[3]s, label: %[2]s-custody, pin_file: %[2]s-custody.pin}
`, name, token, hsmtest.SoftHSMModule(v.t))
	if len(masters) > 0 {
		text += "masters:\n" + strings.Join(masters, "\n") + "\n"
	}
	path := v.path(name + ".yaml")
	ok(v.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// joinery runs a command and gives what it printed.
func (v *vault) joinery(args ...string) string {
	v.t.Helper()
	out, err := v.programs.Run(v.t.Context(), "", "joinery", args...)
	ok(v.t, err)
	return out
}

// refuses wants a command to fail, and say so.
func (v *vault) refuses(want string, args ...string) {
	v.t.Helper()
	_, err := v.programs.Run(v.t.Context(), "", "joinery", args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		v.t.Errorf("joinery %s: %v, want %q", strings.Join(args, " "), err, want)
	}
}

// report reads the report of a ceremony, which must be signed.
func (v *vault) report(name, token string) ceremony.Report {
	v.t.Helper()
	path := v.path("out-"+token, name+".report.json")
	v.joinery("ceremony", "verify", path)
	text, err := os.ReadFile(path)
	ok(v.t, err)
	r, _, err := ceremony.Verify(text)
	ok(v.t, err)
	return r
}

// kid reads the identifier of a transport key that a ceremony gave out.
func (v *vault) kid(r ceremony.Report) string {
	v.t.Helper()
	for _, o := range r.Objects {
		if o.Label == "joinery.transport" && o.KID != "" {
			return o.KID
		}
	}
	v.t.Fatal("the report names no transport key")
	return ""
}

// Two organisations exchange a master key between their tokens, by the programs
// alone: what travels is a file that only the other's token opens.
func TestMasterKeyBetweenTokens(t *testing.T) {
	v := newVault(t)
	for _, label := range []string{"server", "server-custody", "factory", "factory-custody"} {
		v.token(label)
	}
	v.joinery("ceremony", "run", v.plan("server-keys", "server"), "--yes")
	transport, kid := v.path("out-server", "transport.pub"), v.kid(v.report("server-keys", "server"))
	share := "  - {name: line-1, generate: true, share: [{to: %s, kid: %q, file: line-1.master}]}"
	v.refuses("the plan names", "ceremony", "run", v.plan("wrong", "factory", fmt.Sprintf(share, transport, "another")))
	factory := v.plan("factory-keys", "factory", fmt.Sprintf(share, transport, kid))
	if out := v.joinery("ceremony", "run", factory); !strings.Contains(out, "to be made  master key line-1") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("dry run: %s", out)
	}
	if _, err := os.Stat(v.path("out-factory")); err == nil {
		t.Error("a dry run made a directory")
	}
	v.joinery("ceremony", "run", factory, "--yes")
	made := v.report("factory-keys", "factory").Masters[0]
	accept := "  - {name: line-1, accept: out-factory/line-1.master, kcv: %q}"
	v.refuses("key check value", "ceremony", "run", v.plan("other", "server", fmt.Sprintf(accept, "000000")), "--yes")
	accepts := v.plan("accepts", "server", fmt.Sprintf(accept, made.KCV))
	if out := v.joinery("ceremony", "run", accepts); !strings.Contains(out, "it opens in the token, with key check value "+made.KCV) {
		t.Errorf("dry run: %s", out)
	}
	v.joinery("ceremony", "run", accepts, "--yes")
	r := v.report("accepts", "server")
	if r.Masters[0].KCV != made.KCV || r.Masters[0].Found || r.Objects[0].Found != true {
		t.Errorf("masters %+v, made %+v", r.Masters, made)
	}
	v.sameRoots("line-1", "factory", "server")
	v.refuses("this ceremony is done", "ceremony", "run", accepts, "--yes")
	v.signsFirmware("factory")
}

// signsFirmware makes a key in a token and signs an image, by the programs as they
// ship: joinctl, which has no PIN, and joinery-hsm, which joinctl finds beside it.
func (v *vault) signsFirmware(token string) {
	v.t.Helper()
	ctl := func(args ...string) (string, error) {
		return v.programs.Run(v.t.Context(), "", "joinctl", append([]string{"firmware"}, args...)...)
	}
	key, public, image := v.path("m.key"), v.path("m.pub"), v.path("m.signed")
	ok(v.t, os.WriteFile(v.path("m.bin"), []byte("code"), 0o600))
	made := []string{"key", "new", "--out", key, "--public-key", public, "--token", token, "--module", hsmtest.SoftHSMModule(v.t), "--pin-file", v.path(token + ".pin")}
	_, err := ctl(made...)
	ok(v.t, err)
	text, err := os.ReadFile(key)
	ok(v.t, err)
	if bytes.Contains(text, []byte(hsmtest.PIN)) {
		v.t.Error("the file of the key has the PIN")
	}
	_, err = ctl("sign", v.path("m.bin"), "--key", key, "--product", "p", "--hardware", "h", "--version-text", "1", "--counter", "1", "--out", image)
	ok(v.t, err)
	for _, file := range []string{image, image + ".release.json"} {
		_, err = ctl("verify", file, "--public-key", public)
		ok(v.t, err)
	}
	made[3], made[5] = v.path("n.key"), v.path("n.pub")
	if _, err := ctl(made...); err == nil || !strings.Contains(err.Error(), "has that already") {
		v.t.Errorf("a second key of the same name: %v", err)
	}
}

// sameRoots compares what two tokens derive, by a MAC.
func (v *vault) sameRoots(master, one, other string) {
	v.t.Helper()
	var macs [2][16]byte
	for i, label := range []string{one, other} {
		token, err := hsm.Open(v.t.Context(), hsm.Options{Module: hsmtest.SoftHSMModule(v.t), Token: label, PIN: []byte(hsmtest.PIN)})
		ok(v.t, err)
		k, err := token.DeriveRoot(v.t.Context(), master, keyring.Derivation{Root: 1, Generation: 1})
		ok(v.t, err)
		macs[i], err = k.CMAC([]byte("who are you"))
		ok(v.t, err)
		k.Destroy()
		ok(v.t, token.Close())
	}
	if macs[0] != macs[1] {
		v.t.Errorf("%s and %s derive other root keys from %s", one, other, master)
	}
}

// A whole server with all its keys in a token: made by a ceremony, with the master
// key of a factory, elements, a key list and peers; devices of each kind join, and
// the simulator checks every answer.
func TestServerInToken(t *testing.T) {
	v := newVault(t)
	v.token("joinery")
	v.token("joinery-custody")
	v.joinery("ceremony", "run", v.plan("keys", "joinery"), "--yes")

	server, err := v.programs.Quickstart(t.Context(), v.path("server"), "--elements", "1")
	ok(t, err)
	v.maker(server)
	v.moveToToken(server)
	ok(t, server.Start(t.Context()))
	t.Cleanup(func() { ok(t, server.Stop()) })
	s := &scene{t: t, server: server}
	listed := v.customers(s)

	if status := s.ctl("status"); !strings.Contains(status, "derived ecb-v1 in-token; sealed in-token") {
		t.Errorf("status does not tell how keys are kept:\n%s", status)
	}
	s.lab, err = lab.Open(server.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, s.lab.Close()) })
	s.home, err = s.lab.NS("ns", lab.PeerOptions{})
	ok(t, err)
	s.as, err = s.lab.AS("as", lab.PeerOptions{})
	ok(t, err)
	for i, version := range elementVersions {
		d, err := s.lab.Device(lab.Selector{Index: i}, version)
		ok(t, err)
		s.joins(d.Device)
	}
	for _, d := range listed {
		s.joins(d)
	}
	t.Run("export", func(t *testing.T) { v.exports(t, s, listed) })
}

// joins joins a device twice, and fetches what its Application Server gets.
func (s *scene) joins(d *device.Device) {
	s.t.Helper()
	for range 2 {
		r, err := s.home.Join(s.t.Context(), d, sim.JoinOptions{})
		ok(s.t, err)
		ok(s.t, r.Err())
		f, err := s.as.FetchAppSKey(s.t.Context(), sim.FetchOptions{JoinEUI: d.JoinEUI(), DevEUI: d.DevEUI(), SessionKeyID: r.SessionKeyID})
		ok(s.t, err)
		ok(s.t, f.Checks.Err())
	}
}

// Versions of the devices: elements of the factory, and rows of the key list.
var (
	elementVersions = []lorawan.MACVersion{lorawan.MAC1_0_4, lorawan.MAC1_1}
	listVersions    = []lorawan.MACVersion{lorawan.MAC1_0_3, lorawan.MAC1_1}
)

// maker is a factory that shares its master key with the token and makes elements.
func (v *vault) maker(server *rig.Server) {
	v.t.Helper()
	files := []string{"--key-file", v.path("maker", "factory.age"), "--passphrase-file", v.path("maker", "factory.passphrase")}
	with := func(args ...string) []string { return append(args, files...) }
	v.joinery("factory", "init", "--dir", v.path("maker"), "--name", "line 1")
	v.joinery(with("ceremony", "master", "new", "maker-2026")...)
	said := v.joinery(with("ceremony", "master", "share", "maker-2026", "--to", v.path("out-joinery", "transport.pub"), "--out", v.path("maker.master"))...)
	kcv := regexp.MustCompile(`check value (\w{6})`).FindStringSubmatch(said)
	if kcv == nil {
		v.t.Fatal(said)
	}
	plan := v.plan("accept", "joinery", fmt.Sprintf("  - {name: maker-2026, accept: maker.master, kcv: %q}", kcv[1]))
	v.joinery("ceremony", "run", plan, "--yes")
	var silicon []string
	for i := range elementVersions {
		name := fmt.Sprintf("element-%d", i)
		silicon = append(silicon, name+".silicon")
		v.joinery(with("factory", "provision", "--master", "maker-2026", "--join-eui", "0200000000000000",
			"--dev-eui-first", fmt.Sprintf("020000FFFE00000%d", i+1), "--recipient", server.Path("sim", "recipient.pub"),
			"--manifest", server.Path(name+".json"), "--silicon", server.Path("sim", name+".silicon"))...)
	}
	ok(v.t, server.EditSim(func(c map[string]any) { c["silicon"] = silicon }))
}

// moveToToken gives the server a configuration with its keys in the token, and an
// empty database.
func (v *vault) moveToToken(server *rig.Server) {
	v.t.Helper()
	c, err := config.Read(server.Path("joinery.yaml"))
	ok(v.t, err)
	c.Keys.Backend, c.Keys.PassphraseFile = config.BackendPKCS11, ""
	p := &c.Keys.PKCS11
	p.Module, p.Token, p.PINFile, p.MinimumLevel = hsmtest.SoftHSMModule(v.t), "joinery", v.path("joinery.pin"), "in-token"
	var text bytes.Buffer
	ok(v.t, config.Print(&text, c))
	ok(v.t, os.WriteFile(server.Path("joinery.yaml"), text.Bytes(), 0o600))
	ok(v.t, os.RemoveAll(server.Path("keys")))
	old, err := filepath.Glob(server.Path("joinery.db*"))
	ok(v.t, err)
	for _, f := range old {
		ok(v.t, os.Remove(f))
	}
	v.joinery("migrate", "--create", "--config", server.Path("joinery.yaml"))
}

// customers registers ranges, signer, peers and devices over the API, and gives the
// devices of the key list.
func (v *vault) customers(s *scene) (listed []*device.Device) {
	v.t.Helper()
	s.ctl("range", "assign", "0200000000000000/56", "--elements")
	s.ctl("range", "assign", "0200000000000100/56")
	s.ctl("signer", "add", "line 1", "--cert", v.path("maker", "factory.crt"), "--root", v.path("maker", "factory-root.crt"),
		"--master", "maker-2026", "--join-euis", "0200000000000000/56", "--dev-euis", "020000FFFE000000/40")
	v.peers(s)
	for i, version := range elementVersions {
		s.ctl("import", "manifest", s.server.Path(fmt.Sprintf("element-%d.json", i)), "--mac-version", version.String(),
			"--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	}
	var list bytes.Buffer
	factory := element.NewFactory(&list)
	for i, version := range listVersions {
		e, err := factory.Make(lorawan.EUI64FromUint64(0x0200000000000100), lorawan.EUI64FromUint64(0x0200_00EE_0000_0000+uint64(i)), version)
		ok(v.t, err)
		d, err := device.New(e, version, device.Options{})
		ok(v.t, err)
		listed = append(listed, d)
	}
	ok(v.t, os.WriteFile(s.server.Path("list.csv"), list.Bytes(), 0o600))
	s.ctl("import", "keys", s.server.Path("list.csv"), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	return listed
}

// peers adds the parties that the simulator plays, each with its KEK.
func (v *vault) peers(s *scene) {
	v.t.Helper()
	text, err := os.ReadFile(s.server.Path("sim", "sim.json"))
	ok(v.t, err)
	type party struct {
		Name, NetID, NSID, ASID string
		KEKs                    map[string]string
	}
	var parties struct{ NS, AS []party }
	ok(v.t, json.Unmarshal(text, &parties))
	for _, p := range append(parties.NS, parties.AS...) {
		args, kind := []string{"peer", "add", p.Name, "--ca", s.server.Path("pki", p.Name+"-ca.crt")}, "--ns-kek"
		if p.ASID != "" {
			args, kind = append(args, "--as-id", p.ASID), "--as-kek"
		} else {
			args = append(args, "--net-id", p.NetID, "--nsid", p.NSID)
		}
		for label, kek := range p.KEKs {
			args = append(args, kind, label+"="+s.secretFile(kek))
		}
		s.ctl(args...)
	}
}
