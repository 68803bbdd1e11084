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
	s.ctl("attest", "policy", "--level", "L1", "--activate", "refuse")
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
	says(s.ctl("device", "attest", s.name, "--evidence", file("evidence.json")), "version 3.1.0, self-reported")
	says(s.ctl("device", "list", "--attestation", "L1"), s.name)
	parts := strings.Fields(answer("--fragments", "51"))
	s.ctl(append([]string{"attest", "fragment", s.name, parts[len(parts)-1]}, parts...)...)
	says(s.ctl("audit", "list"), "device.attested")

	s.openLab()
	s.join(s.home, "")
}
