package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// keyPair writes both halves of a recipient's key, and gives their files.
func (v *vault) keyPair(name string, key any, public any) (privatePEM, publicPEM string) {
	v.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ok(v.t, err)
	spki, err := x509.MarshalPKIXPublicKey(public)
	ok(v.t, err)
	privatePEM, publicPEM = v.path(name+".pem"), v.path(name+".pub")
	ok(v.t, os.WriteFile(privatePEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	ok(v.t, os.WriteFile(publicPEM, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o600))
	return privatePEM, publicPEM
}

// exports has the owner take keys out of two tokens: what they cannot wrap so fails
// and says why, without the custody token imported keys wait, and with it the owner
// has the very keys that were imported, and another Joinery the devices.
func (v *vault) exports(t *testing.T, s *scene, listed []*device.Device) {
	v.t, s.t = t, t
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	ok(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	private, public := v.keyPair("owner", rsaKey, &rsaKey.PublicKey)
	_, curve := v.keyPair("curve", ecKey, &ecKey.PublicKey)
	s.ctl("export", "recipient", "add", "curve", curve)
	s.ctl("export", "recipient", "add", "owner", public)
	ask := func(to string) joinery.ExportID {
		t.Helper()
		return answer[client.Export](s, "export", "request", "--all", "--to", to).ID
	}
	show := func(id joinery.ExportID) client.Export {
		t.Helper()
		return answer[client.Export](s, "export", "show", id.String())
	}
	config := []string{"export", "run", "--config", s.server.Path("joinery.yaml")}
	custody := append(config, "--custody-token", "joinery-custody", "--custody-pin-file", v.path("joinery-custody.pin"))

	onCurve, modern := ask("curve"), ask("owner")
	v.joinery(custody...)
	for id, why := range map[joinery.ExportID]string{onCurve: "P-256", modern: "SHA-1"} {
		if e := show(id); e.State != "failed" || !strings.Contains(e.Note, why) || e.Wrapped != 0 {
			t.Errorf("%+v", e)
		}
	}
	if said := s.ctl("export", "show", modern.String()); !strings.Contains(said, "the recipient has to opt in") {
		t.Error(said)
	}
	s.ctl("export", "recipient", "remove", "owner", "--yes")
	s.ctl("export", "recipient", "add", "owner", public, "--sha1")
	e := show(ask("owner"))
	v.refuses("devices wait on", config...)
	if e = show(e.ID); e.State != "working" || int(e.Wrapped) != len(elementVersions) || !strings.Contains(e.Note, "not at hand") {
		t.Errorf("without the custody token: %+v", e)
	}
	retire := v.nextSigner(s, e)
	v.joinery(custody...)
	if e = show(e.ID); e.State != "ready" || int(e.Wrapped) != len(elementVersions)+len(listVersions) || e.Note != "" {
		t.Fatalf("%+v", e)
	}
	v.opened(s, e, private)
	retire()
	v.moved(t, s, listed, custody)
}

// nextSigner makes the next generation of the key that signs exports in the server's
// token, while an export that the first one began waits. The function that it gives
// retires that one, which only goes once the export is done.
func (v *vault) nextSigner(s *scene, begun client.Export) (retire func()) {
	v.t.Helper()
	rotate := func(args ...string) []string {
		return append([]string{"rotate", "export-key", "--config", s.server.Path("joinery.yaml")}, args...)
	}
	signers := func() (list []string) {
		for _, one := range answer[[]client.ExportSigner](s, "export", "signers") {
			list = append(list, one.Thumbprint)
		}
		return list
	}
	v.refuses("one key only that signs exports", rotate("--retire", "--yes")...)
	if said := v.joinery(rotate("--new")...); !strings.Contains(said, begun.Signer) {
		v.t.Errorf("it does not name the key that there was:\n%s", said)
	}
	v.refuses("does not publish the newest one yet", rotate("--retire", "--yes")...)
	ok(v.t, syscall.Kill(s.server.PID(), syscall.SIGHUP))
	for until := time.Now().Add(30 * time.Second); len(signers()) != 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			v.t.Fatalf("the server does not publish the next key: %v", signers())
		}
	}
	v.refuses("was begun under an older one", rotate("--retire", "--yes")...)
	return func() {
		v.t.Helper()
		v.joinery(rotate("--retire")...) // only says that it may
		v.joinery(rotate("--retire", "--yes")...)
		v.refuses("nothing can be retired", rotate("--retire", "--yes")...)
		if list := signers(); len(list) != 2 || list[0] != begun.Signer {
			v.t.Errorf("old files are verified by %v, and %s signed them", list, begun.Signer)
		}
	}
}

// opened downloads, and compares what comes out with what was imported.
func (v *vault) opened(s *scene, e client.Export, private string) {
	v.t.Helper()
	file, out := v.path("export.jsonl"), v.path("plain.jsonl")
	s.ctl("export", "download", e.ID.String(), "--out", file)
	text, err := os.ReadFile(file)
	ok(v.t, err)
	if h := header(v.t, text); h.Wrapping != exportfile.RawOAEP1 {
		v.t.Errorf("%+v", h.Wrapping)
	}
	s.ctl("export", "open", file, "--key", private, "--format", "json", "--out", out, "--server-key", e.Signer)
	plain, err := os.ReadFile(out)
	ok(v.t, err)
	list, err := os.ReadFile(s.server.Path("list.csv"))
	ok(v.t, err)
	found := 0
	for _, row := range strings.Split(strings.ToUpper(string(list)), "\n")[1:] {
		for _, field := range strings.Split(row, ",") {
			if len(field) != 32 {
				continue
			}
			if found++; !bytes.Contains(bytes.ToUpper(plain), []byte(field)) {
				v.t.Error("a root key of the list did not come out")
			}
			if bytes.Contains(bytes.ToUpper(text), []byte(field)) {
				v.t.Error("a root key is readable in the file")
			}
		}
	}
	if found < len(listVersions) {
		v.t.Errorf("%d keys in the list", found)
	}
}

func header(t *testing.T, file []byte) exportfile.Header {
	t.Helper()
	first, _, _ := bytes.Cut(file, []byte("\n"))
	h, err := exportfile.ParseHeader(first)
	ok(t, err)
	return h
}

// moved has devices go to another Joinery, whose keys are in a key file: in two steps
// under its transport key. They join there; what was recorded on the air before is
// refused.
func (v *vault) moved(t *testing.T, s *scene, listed []*device.Device, custody []string) {
	twoRoots := listed[1]
	var recorded [][]byte
	for _, d := range listed {
		r, err := s.home.Join(t.Context(), d, sim.JoinOptions{})
		ok(t, err)
		ok(t, r.Err())
		recorded = append(recorded, r.Sent.PHYPayload)
	}
	rejoined, err := s.home.Rejoin(t.Context(), twoRoots, lorawan.Rejoin1, sim.JoinOptions{})
	ok(t, err)
	ok(t, rejoined.Err())

	other, err := v.programs.Quickstart(t.Context(), v.path("other"), "--elements", "1")
	ok(t, err)
	ok(t, other.Start(t.Context()))
	t.Cleanup(func() { ok(t, other.Stop()) })
	there := &scene{t: t, server: other}
	s.ctl("export", "recipient", "add", "other", other.Path("transport.pub"), "--kind", "join-server", "--sha1")
	var names []string
	for _, d := range listed {
		names = append(names, d.DevEUI().String())
	}
	e := answer[client.Export](s, append([]string{"export", "request", "--to", "other"}, names...)...)
	v.joinery(custody...)
	file := v.path("move.jsonl")
	s.ctl("export", "download", e.ID.String(), "--out", file)
	text, err := os.ReadFile(file)
	ok(t, err)
	h := header(t, text)
	if h.Wrapping != exportfile.SealOAEP1 {
		t.Errorf("%+v", h.Wrapping)
	}
	if signers := answer[[]client.ExportSigner](s, "export", "signers"); h.Signer.Thumbprint() != signers[1].Thumbprint {
		t.Errorf("%s signs, of %+v", h.Signer.Thumbprint(), signers)
	}
	there.ctl("export", "import", file, "--server-key", h.Signer.Thumbprint(), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")

	there.lab, err = lab.Open(other.Path("sim", "sim.json"))
	ok(t, err)
	t.Cleanup(func() { ok(t, there.lab.Close()) })
	there.home, err = there.lab.NS("ns", lab.PeerOptions{})
	ok(t, err)
	there.as, err = there.lab.AS("as", lab.PeerOptions{})
	ok(t, err)
	replayed := sim.ReplayCode(there.home.Protocol())
	old, err := there.home.Rejoin(t.Context(), twoRoots, lorawan.Rejoin1, sim.JoinOptions{Frame: rejoined.Sent.PHYPayload, Expect: replayed})
	ok(t, err)
	ok(t, old.Err())
	for i, d := range listed {
		old, err := there.home.Join(t.Context(), d, sim.JoinOptions{Frame: recorded[i], Expect: replayed})
		ok(t, err)
		ok(t, old.Err())
	}
	for _, d := range listed {
		there.joins(d)
	}
}
