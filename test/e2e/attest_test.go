package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery/client"
	"joinery/internal/firmware"
	"joinery/test/rig"
)

// A maker registers a product and its signed firmware; its owner wants the element
// shown before a device joins; the device is refused, shows it at the bench and over
// the radio, and joins.
func TestAttestedDeviceJoins(t *testing.T) {
	programs, err := rig.Build(t.Context(), t.TempDir())
	ok(t, err)
	s := sceneOf(t, programs)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	says := func(out, want string) {
		t.Helper()
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	ok(t, err)
	ok(t, os.WriteFile(file("releases.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	image := []byte("firmware 3.1.0")
	ok(t, os.WriteFile(file("image.bin"), image, 0o600))
	st, err := firmware.Sign(firmware.Release{Product: "meter-3", Hardware: "rev-c", Version: "3.1.0", Digest: sha256.Sum256(image), Counter: 3},
		func(digest [32]byte) (out [64]byte, err error) {
			r, v, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err == nil {
				r.FillBytes(out[:32])
				v.FillBytes(out[32:])
			}
			return out, err
		})
	ok(t, err)
	text, err := st.Text()
	ok(t, err)
	ok(t, os.WriteFile(file("meter-3.1.0.json"), text, 0o600))
	s.ctl("product", "add", "meter-3", "--hardware", "rev-c", "--dev-euis", s.name+"-"+s.name)
	s.ctl("product", "key", "add", "meter-3", "--use", "release", "--public", file("releases.pub"))
	s.ctl("product", "release", "add", "meter-3", file("meter-3.1.0.json"))

	s.join(s.home, "")
	says(s.ctl("attest", "policy", "--level", "L1", "--activate", "refuse"), "vouched")
	s.join(s.home, "ActivationDisallowed")
	s.exportsAll(file("public.pem"), file("export.jsonl"))
	s.join(s.home, "ActivationDisallowed")
	says(s.ctl("device", "list", "--attestation", "L0"), s.name)

	// The bench has the simulator's files for itself.
	ok(t, s.lab.Close())
	answer := func(args ...string) string {
		t.Helper()
		s.ctl("attest", "challenge", s.name, "--out", file("challenge.json"))
		out, err := s.server.Run(t.Context(), "", "joinsim", append([]string{"element", "attest", file("challenge.json"),
			"--config", s.server.Path("sim", "sim.json"), "--image", file("image.bin"), "--counter", "3"}, args...)...)
		ok(t, err)
		return out
	}
	for _, lie := range []string{"forged", "garbled", "replayed"} {
		answer("--lie", lie, "--out", file("lie.json"))
		if out, err := s.server.Ctl(t.Context(), "", "device", "attest", s.name, "--evidence", file("lie.json")); err == nil {
			t.Errorf("%s: %s", lie, out)
		}
	}
	answer("--out", file("evidence.json"))
	out := s.ctl("device", "attest", s.name, "--evidence", file("evidence.json"))
	says(out, "version 3.1.0, self-reported")
	says(out, "chain: a key in the manifest of the pinned signer") // the quickstart's factory certifies its elements
	says(s.ctl("device", "list", "--attestation", "L1"), s.name)
	parts := strings.Fields(answer("--fragments", "51"))
	s.ctl(append([]string{"attest", "fragment", s.name, parts[len(parts)-1]}, parts...)...)
	says(s.ctl("audit", "list"), "device.attested")

	s.openLab()
	s.join(s.home, "")

	ok(t, s.lab.Close()) // its files are for one program at a time
	t.Run("booted", func(t *testing.T) { s.bootedDeviceAttests(t, dir) })
	s.openLab()
}

// exportsAll has the root keys of all devices, which no policy about joins keeps from
// their owner.
func (s *scene) exportsAll(key, file string) {
	t := s.t
	t.Helper()
	ok(t, s.server.Stop())
	automatic(t, s.server)
	ok(t, s.server.Start(t.Context()))
	public, err := os.ReadFile(s.server.Path("transport.pub")) // any RSA key will do: nobody opens the file here
	ok(t, err)
	ok(t, os.WriteFile(key, public, 0o600))
	s.ctl("export", "recipient", "add", "laptop", key)
	e := answer[client.Export](s, "export", "request", "--all", "--to", "laptop")
	for until := time.Now().Add(time.Minute); e.State != "ready"; e = answer[client.Export](s, "export", "show", e.ID.String()) {
		if time.Now().After(until) {
			t.Fatalf("%+v\n%s", e, s.server.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.ctl("export", "download", e.ID.String(), "--out", file)
	whole(t, file, 1)
}

// bootedDeviceAttests: a factory makes elements that verify firmware; their device boots
// signed images and shows it, at every level; what the maker takes back ends.
func (s *scene) bootedDeviceAttests(t *testing.T, dir string) {
	defer func(whole *testing.T) { s.t = whole }(s.t)
	s.t = t
	const joinEUI, first, second = "0200000000000000", "020000FFFE001000", "020000FFFE001001"
	file := func(name string) string { return filepath.Join(dir, name) }
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := s.server.Run(t.Context(), "", program, args...)
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	run("joinctl", "firmware", "key", "new", "--out", file("k.key"), "--public-key", file("k.pub"), "--new-passphrase-file", file("k.pass"))
	for _, r := range []struct{ version, counter string }{{"1.0", "1"}, {"2.0", "2"}} {
		ok(t, os.WriteFile(file("code.bin"), []byte(strings.Repeat("code "+r.version, 50)), 0o600))
		run("joinctl", "firmware", "sign", file("code.bin"), "--key", file("k.key"), "--passphrase-file", file("k.pass"), "--product", "lock-1", "--hardware", "a",
			"--version-text", r.version, "--counter", r.counter, "--out", file(r.version+".signed"))
	}
	out := run("joinery", "factory", "provision", "--key-file", s.server.Path("keys", "factory.age"), "--passphrase-file", s.server.Path("keys", "factory.passphrase"),
		"--master", "quickstart", "--join-eui", joinEUI, "--dev-eui-first", first, "--count", "2", "--recipient", s.server.Path("sim", "recipient.pub"),
		"--manifest", file("boot.json"), "--silicon", s.server.Path("sim", "boot.silicon"), "--release-key", file("k.pub"))
	const what = "--dev-euis " + first + "-" + second + " --boot-slots 11,12 --boot-counter 1"
	if !strings.Contains(out, what) {
		t.Errorf("it does not say how the product is registered: %s", out)
	}
	s.ctl("manifest", "import", file("boot.json"), "--mac-version", "1.0.4")
	s.ctl(append([]string{"product", "add", "lock-1", "--hardware", "a"}, strings.Fields(what)...)...)
	s.ctl("product", "key", "add", "lock-1", "--use", "release", "--public", file("k.pub"))

	sim, err := os.ReadFile(s.server.Path("sim", "sim.json"))
	ok(t, err)
	config := s.server.Path("sim", "boot-sim.json")
	ok(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(sim), "elements.silicon", "boot.silicon")), 0o600))
	for name, devEUI := range map[string]string{"one": first, "two": second} {
		run("joinsim", "element", "make", "--state", file(name), "--product", "lock-1", "--hardware", "a", "--config", config, "--dev-eui", devEUI)
		run("joinsim", "element", "boot", "--state", file(name), "--image", file("1.0.signed"))
	}
	s.ctl("product", "release", "add", "lock-1", file("1.0.signed.release.json"))
	s.ctl("product", "release", "add", "lock-1", file("2.0.signed.release.json"))
	s.ctl("product", "key", "add", "lock-1", "--use", "token", "--public", file("one/token.pub"), "--device", first)

	present := func(args ...string) {
		t.Helper()
		s.ctl("attest", "challenge", first, "--out", file("c.json"))
		run("joinsim", append([]string{"element", "attest", file("c.json"), "--state", file("one"), "--out", file("e.json")}, args...)...)
	}
	levels := [][]string{{"--level", "L1"}, {"--level", "L2"}, {"--level", "L3"}, {"--level", "L3", "--form", "jwt"}}
	for _, lie := range [][]string{{"--lie", "forged"}, {"--lie", "garbled"}, {"--lie", "replayed"}, {"--lie", "foreign", "--by", file("two")}} {
		for _, level := range levels {
			present(append(level, lie...)...)
			if out, err := s.server.Ctl(t.Context(), "", "device", "attest", first, "--evidence", file("e.json")); err == nil {
				t.Errorf("%v %v: %s", level, lie, out)
			}
		}
	}
	for _, level := range levels {
		present(level...)
		if out := words(s.ctl("device", "attest", first, "--evidence", file("e.json"))); !strings.Contains(out, "level "+level[1]+":") || !strings.Contains(out, "version 1.0") {
			t.Errorf("%v: %s", level, out)
		}
	}
	// What rests on certificates of the chip's maker, at L1 and L2, and what on the maker's word.
	for _, r := range answer[client.Attestation](s, "attest", "show", first).Results {
		want := client.AttestationGround{Key: "manifest", SignerName: r.RestsOn.SignerName, SignerSHA256: r.RestsOn.SignerSHA256, Pinned: true, Chain: "checked"}
		basis := "chain"
		if r.Level == "L3" {
			basis, want = "vouched", client.AttestationGround{Key: "registered", ProductKey: r.RestsOn.ProductKey, Chain: "none"}
		}
		if r.Basis != basis || r.RestsOn != want {
			t.Errorf("%s rests on %s, %+v", r.Level, r.Basis, r.RestsOn)
		}
	}
	if out, err := s.server.Ctl(t.Context(), "", "attest", "rule", first, "--level", "L3", "--activate", "refuse", "--basis", "chain"); err == nil {
		t.Errorf("a rule that nothing can hold: %s", out)
	}
	s.ctl("attest", "rule", first, "--level", "L2", "--activate", "refuse", "--basis", "chain")
	if at := answer[client.Attestation](s, "attest", "show", first); at.Below || at.Level != "L3" || at.Counts != "L2" {
		t.Errorf("%+v", at)
	}
	// No claim below the level; the same claim goes through without that policy, and the
	// device may be let go again under it.
	token := s.secretFile(answer[client.OwnerToken](s, "token", "show", second).OwnerToken)
	s.ctl("attest", "policy", "--level", "L1", "--claim", "refuse")
	if out, err := s.server.Ctl(t.Context(), "", "claim", second, "--owner-token-file", token); err == nil || !strings.Contains(err.Error(), "claim none below L1") {
		t.Errorf("claimed below the level: %s, %v", out, err)
	}
	s.ctl("attest", "policy", "--claim", "none")
	s.ctl("claim", second, "--owner-token-file", token)
	s.ctl("attest", "policy", "--claim", "refuse")
	s.ctl("release", second, "--yes")
	// An image that the element refuses changes nothing of what it shows; another does.
	bad, err := os.ReadFile(file("2.0.signed"))
	ok(t, err)
	bad[300] ^= 1
	ok(t, os.WriteFile(file("bad.signed"), bad, 0o600))
	if out, err := s.server.Run(t.Context(), "", "joinsim", "element", "boot", "--state", file("one"), "--image", file("bad.signed")); err == nil {
		t.Errorf("a tampered image: %s", out)
	}
	run("joinsim", "firmware", "update", "--state", file("one"), "--image", file("2.0.signed"), "--loss", "0.1")
	present("--level", "L2")
	out = words(s.ctl("device", "attest", first, "--evidence", file("e.json")))
	if !strings.Contains(out, "level L2:") || !strings.Contains(out, "version 2.0, counter 2") {
		t.Error(out)
	}
	list := strings.Fields(s.ctl("product", "release", "list", "lock-1"))
	s.ctl("product", "release", "withdraw", "lock-1", list[len(list)-1], "--yes")
	if out := words(s.ctl("attest", "show", first)); !strings.Contains(out, "level L0:") {
		t.Errorf("a release was withdrawn: %s", out)
	}
}

// words is a text for people without how its columns are set.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }
