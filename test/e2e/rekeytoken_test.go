package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"joinery/internal/config"
	"joinery/internal/seal"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/leak"
	"joinery/test/rig"
)

// Two devices, of LoRaWAN 1.0.4 and 1.1, leave a running Join Server with key files for
// one with its keys in a token, to which it hands them over by itself, rekeying keys
// included. Accepts are lost, both servers are killed on the way. One goes back from the
// token to the key files, by a file, once they are pinned for OAEP with SHA-1. All that
// passes between peers, people, both servers, within TLS and without, and the token's
// process is recorded, and no root key, old, new or newer, is in it, nor in any log or
// other file, of the servers as they were killed, too.
func TestRekeysIntoToken(t *testing.T) {
	v := newVault(t)
	v.token("joinery")
	v.token("joinery-custody")
	v.joinery("ceremony", "run", v.plan("keys", "joinery"), "--yes")
	x := taps{t, v.path("taps")}
	ok(t, os.Mkdir(x.dir, 0o700))
	t.Setenv(tapProgram, v.programs.Binary("joinery-hsm"))
	t.Setenv(tapFile, filepath.Join(x.dir, "worker"))

	versions := []lorawan.MACVersion{lorawan.MAC1_0_4, lorawan.MAC1_1}
	a, err := v.programs.Quickstart(t.Context(), v.path("a"), "--elements", "2")
	ok(t, err)
	b, err := v.programs.Quickstart(t.Context(), v.path("b"), "--elements", "1")
	ok(t, err)
	v.moveToToken(b)
	address := v.tapWorker(b)
	from, to := newParty(t, x, a, "a"), newParty(t, x, b, "b")

	const newJoinEUI, there = "EC656EFFFE000001", "token.example.com"
	to.ctl("range", "assign", "EC656EFFFE000000/56")
	v.peers(&scene{t: t, server: b})
	to.connect()
	from.connect()
	devices := from.elements(versions)
	oldJoinEUI := devices[0].JoinEUI().String()
	var names []string
	for _, d := range devices {
		names = append(names, d.DevEUI().String())
		from.joins(d)
	}
	file := func(name string) string { return v.path("taps", name) }
	from.ctl("rekey", "server", "keys", "--out", file("a"))
	to.ctl("rekey", "server", "keys", "--out", file("b"))
	certA, certB := from.certificate(), to.certificate()
	from.ctl("rekey", "server", "add", there, "--transport-key", file("b.transport.pub"), "--statement-key", file("b.statement.pub"),
		"--url", x.servers("servers", address, loadPair(t, b), loadPair(t, a)), "--cert", certB, "--join-euis", "EC656EFFFE000000/56")
	to.ctl("rekey", "server", "add", "old.example.com", "--transport-key", file("a.transport.pub"), "--statement-key", file("a.statement.pub"),
		"--cert", certA, "--accept-into", "EC656EFFFE000000/56")
	for _, name := range names {
		to.ctl("rekey", "expect", name, "--from", "old.example.com", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	}
	from.ctl(append([]string{"rekey", "arm", "--join-eui", newJoinEUI, "--to", there, "--rekeying-key"}, names...)...)
	for _, name := range names {
		from.await(name, "taken")
	}
	if said := from.ctl("device", "show", names[0]); !strings.Contains(said, "profile S, by the word of its manifest") {
		t.Errorf("it does not say by whose word it rekeys:\n%s", said)
	}

	var keys leak.Secrets
	instructions := from.instructions(names)
	silicon := siliconOf(t, a)
	for i, row := range silicon {
		row.plant(t, &keys, fmt.Sprintf("device %d", i+1), instructions[row.DevEUI.String()])
	}
	searched := 0

	for _, d := range devices { // the accept is lost
		from.told(d, true)
	}
	ok(t, a.Kill())
	searched += huntKilled(t, &keys, a)
	ok(t, a.Start(t.Context()))
	for _, d := range devices {
		from.told(d, false)
		if got := d.JoinEUI().String(); got != newJoinEUI {
			t.Fatalf("the device asks for %s", got)
		}
		to.joins(d)
	}
	ok(t, b.Kill())
	searched += huntKilled(t, &keys, b)
	ok(t, b.Start(t.Context()))
	for _, d := range devices {
		if nonce := to.joins(d); nonce <= 1<<16 {
			t.Errorf("JoinNonce %d does not go on above the old Join Server's", nonce)
		}
	}
	from.ctl("rekey", "server", "change", there, "--rename", "hsm.example.com") // has it asked at once; it is the same
	for _, name := range names {
		from.await(name, "confirmed")
	}

	// What rekeys them came, too. This token knows OAEP with SHA-1 only, and gives nothing
	// away to key files until the operator pins theirs for it.
	from.ctl("device", "delete", names[0], "--yes")
	from.ctl("rekey", "server", "change", "hsm.example.com", "--accept-into", oldJoinEUI+"/64")
	back := []string{"rekey", "arm", names[0], "--join-eui", oldJoinEUI, "--to", "old.example.com"}
	give := []string{"rekey", "handover", names[0], "--to", "old.example.com", "--out", file("back.json")}
	to.ctl(back...)
	_, err = b.Run(t.Context(), "", "joinctl", append([]string{"--socket", to.socket}, give...)...)
	if err == nil || !strings.Contains(err.Error(), "rekey server change NAME --sha1") {
		t.Errorf("to key files that nobody opted in for: %v", err)
	}
	to.ctl("rekey", "cancel", names[0])
	to.ctl("rekey", "server", "change", "old.example.com", "--sha1")
	if listed := to.ctl("rekey", "server", "list"); !strings.Contains(listed, "SHA-1") {
		t.Errorf("the list does not say so:\n%s", listed)
	}
	to.ctl(back...)
	to.ctl(give...)
	from.ctl("rekey", "take", file("back.json"), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	again := to.instructions(names[:1])
	for _, row := range silicon {
		if r, ok := again[row.DevEUI.String()]; ok {
			row.plantNext(t, &keys, "device that went back", instructions[row.DevEUI.String()], r)
		}
	}
	to.told(devices[0], false)
	if got := devices[0].JoinEUI().String(); got != oldJoinEUI {
		t.Fatalf("the device asks for %s", got)
	}
	from.joins(devices[0])
	ok(t, a.Kill())
	searched += huntKilled(t, &keys, a)
	ok(t, a.Start(t.Context()))
	from.ctl("rekey", "receipt", file("back.json"), "--key", file("b.statement.pub"), "--out", file("receipt.json"))
	to.ctl("rekey", "accept", file("receipt.json"))
	to.await(names[0], "confirmed")

	for _, s := range []*rig.Server{a, b} {
		ok(t, s.Stop())
		v.joinery("fsck", "--config", s.Path("joinery.yaml"))
	}

	for _, dir := range []string{x.dir, a.Dir, b.Dir, v.path("tokens"), v.path("out-joinery")} {
		searched += hunt(t, &keys, dir)
	}
	t.Logf("%d bytes searched", searched)
	for _, name := range []string{"a", "b", "worker", "ns a", "ns b", "servers", "servers wire"} {
		recorded, err := os.ReadFile(filepath.Join(x.dir, name))
		if err != nil || len(recorded) < 1000 {
			t.Errorf("tap %s recorded %d bytes, %v", name, len(recorded), err)
		}
	}
}

// tapWorker puts the tests' program between a server and its token's process, and has
// others reach the server, at the address that it gives. Its log tells all.
func (v *vault) tapWorker(s *rig.Server) (address string) {
	v.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(v.t, err)
	address = l.Addr().String()
	ok(v.t, l.Close())
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(v.t, err)
	c.API.TLS.Address, c.Log.Level = address, "debug"
	c.Keys.PKCS11.Worker, err = os.Executable()
	ok(v.t, err)
	var text bytes.Buffer
	ok(v.t, config.Print(&text, c))
	ok(v.t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))
	return address
}

// loadPair reads the certificate that a server shows others, and its key.
func loadPair(t *testing.T, s *rig.Server) tls.Certificate {
	t.Helper()
	c, err := s.Config()
	ok(t, err)
	pair, err := tls.LoadX509KeyPair(c.Interop.Certificate, c.Interop.Key)
	ok(t, err)
	return pair
}

// certificate is the file of what the server shows others.
func (p *party) certificate() string {
	p.t.Helper()
	return (&scene{t: p.t, server: p.server}).certificate()
}

// await waits until the rekeying of a device stands so.
func (p *party) await(name, want string) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		said := p.ctl("rekey", "status", name)
		if strings.Contains(said, want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("it does not come to %q:\n%s\n%s", want, said, p.server.Log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// party is a Join Server with those who talk to it, all of them tapped.
type party struct {
	t      *testing.T
	taps   taps
	name   string
	server *rig.Server
	socket string
	lab    *lab.Lab
	ns     *sim.NS
	as     *sim.AS
}

func newParty(t *testing.T, x taps, s *rig.Server, name string) *party {
	t.Helper()
	ok(t, s.Start(t.Context()))
	t.Cleanup(func() { ok(t, s.Stop()) })
	return &party{t: t, taps: x, name: name, server: s, socket: x.socket(name, s)}
}

func (p *party) ctl(args ...string) string {
	p.t.Helper()
	out, err := p.server.Run(p.t.Context(), "", "joinctl", append([]string{"--socket", p.socket}, args...)...)
	ok(p.t, err)
	return out
}

// connect opens the simulated peers.
func (p *party) connect() {
	p.t.Helper()
	var err error
	p.lab, err = lab.Open(p.server.Path("sim", "sim.json"))
	ok(p.t, err)
	p.t.Cleanup(func() { ok(p.t, p.lab.Close()) })
	p.ns, err = p.lab.NS("ns", lab.PeerOptions{Way: p.taps.way("ns " + p.name)})
	ok(p.t, err)
	p.as, err = p.lab.AS("as", lab.PeerOptions{Way: p.taps.way("as " + p.name)})
	ok(p.t, err)
}

// elements imports the elements of the quickstart, each as a device of its version.
func (p *party) elements(versions []lorawan.MACVersion) (devices []*lab.Device) {
	p.t.Helper()
	text, err := os.ReadFile(p.server.Path("sim", "manifest.json"))
	ok(p.t, err)
	var entries []json.RawMessage
	ok(p.t, json.Unmarshal(text, &entries))
	for i, version := range versions {
		one, err := json.Marshal(entries[i : i+1])
		ok(p.t, err)
		path := p.server.Path(fmt.Sprintf("element-%d.json", i))
		ok(p.t, os.WriteFile(path, one, 0o600))
		p.ctl("import", "manifest", path, "--mac-version", version.String(), "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
		d, err := p.lab.Device(lab.Selector{Index: i}, version)
		ok(p.t, err)
		devices = append(devices, d)
	}
	return devices
}

// joins joins a device here, fetches what its Application Server gets, and gives the
// JoinNonce.
func (p *party) joins(d *lab.Device) lorawan.JoinNonce {
	p.t.Helper()
	r, err := p.ns.Join(p.t.Context(), d.Device, sim.JoinOptions{})
	ok(p.t, err)
	ok(p.t, r.Err())
	f, err := p.as.FetchAppSKey(p.t.Context(), sim.FetchOptions{JoinEUI: d.JoinEUI(), DevEUI: d.DevEUI(), SessionKeyID: r.SessionKeyID})
	ok(p.t, err)
	ok(p.t, f.Checks.Err())
	return r.Accepted.JoinNonce
}

// told joins a device here whose accept carries an instruction.
func (p *party) told(d *lab.Device, lose bool) {
	p.t.Helper()
	r, err := p.ns.Join(p.t.Context(), d.Device, sim.JoinOptions{Rekey: true, Lose: lose})
	ok(p.t, err)
	ok(p.t, r.Err())
}

// instructions reads what devices were told, by DevEUI.
func (p *party) instructions(names []string) map[string]lorawan.Rekey {
	p.t.Helper()
	found := map[string]lorawan.Rekey{}
	for _, name := range names {
		var st struct {
			Orders []struct {
				NewJoinEUI lorawan.EUI64
				Cookie     lorawan.Cookie
			}
		}
		ok(p.t, json.Unmarshal([]byte(p.ctl("rekey", "status", name, "--json")), &st))
		found[name] = lorawan.Rekey{JoinEUI: st.Orders[0].NewJoinEUI, Cookie: st.Orders[0].Cookie}
	}
	return found
}

// siliconRow is the keys of one element as its factory sealed them.
type siliconRow struct {
	UniqueID                                 string
	JoinEUI, DevEUI                          lorawan.EUI64
	NwkKey, AppKey, DeviceKey, RekeyKey, MAC []byte
	Certificates                             [][]byte

	header  seal.Header
	private *rsa.PrivateKey
}

// siliconOf reads the silicon file of a quickstart, as who burns it into elements does.
func siliconOf(t *testing.T, s *rig.Server) (rows []siliconRow) {
	t.Helper()
	text, err := os.ReadFile(s.Path("sim", "recipient.key"))
	ok(t, err)
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	ok(t, err)
	files, err := filepath.Glob(s.Path("sim", "*.silicon"))
	ok(t, err)
	for _, file := range files {
		text, err = os.ReadFile(file)
		ok(t, err)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		var head struct{ Seal seal.Header }
		ok(t, json.Unmarshal([]byte(lines[0]), &head))
		for _, line := range lines[1:] {
			row := siliconRow{header: head.Seal, private: parsed.(*rsa.PrivateKey)}
			ok(t, json.Unmarshal([]byte(line), &row))
			rows = append(rows, row)
		}
	}
	return rows
}

// open calls do with what is in an element's row; it is wiped afterwards.
func (row siliconRow) open(t *testing.T, do func(nwkKey, appKey, rekeyKey []byte)) {
	t.Helper()
	o, err := seal.NewOpener(row.private, row.header)
	ok(t, err)
	defer o.Wipe()
	item := seal.ElementItem(row.UniqueID, row.JoinEUI, row.DevEUI, row.Certificates, row.NwkKey, row.AppKey, row.DeviceKey, row.RekeyKey)
	ok(t, o.Open(item, row.MAC, func(opened [][]byte) error {
		do(opened[0], opened[1], opened[3])
		return nil
	}))
}

// derived derives a key by profile S, in a way of the tests' own.
func derived(t *testing.T, rekeyKey []byte, purpose byte, r lorawan.Rekey) []byte {
	t.Helper()
	c, err := aes.NewCipher(rekeyKey)
	ok(t, err)
	key := append([]byte{purpose}, r.Cookie[:]...)
	for i := range r.JoinEUI {
		key = append(key, r.JoinEUI[7-i])
	}
	c.Encrypt(key, key)
	return key
}

// plant plants what the element came with, and what it has after r.
func (row siliconRow) plant(t *testing.T, keys *leak.Secrets, name string, r lorawan.Rekey) {
	t.Helper()
	row.open(t, func(nwkKey, appKey, rekeyKey []byte) {
		keys.PlantKey(name+", old NwkKey", bytes.Clone(nwkKey))
		keys.PlantKey(name+", old AppKey", bytes.Clone(appKey))
		keys.PlantKey(name+", rekeying key", bytes.Clone(rekeyKey))
		for purpose, what := range map[byte]string{0x21: "new NwkKey", 0x22: "new AppKey", 0x23: "new rekeying key"} {
			keys.PlantKey(name+", "+what, derived(t, rekeyKey, purpose, r))
		}
	})
}

// plantNext plants what the element has after next, which came after first, of a server
// that has the rekeying key of first.
func (row siliconRow) plantNext(t *testing.T, keys *leak.Secrets, name string, first, next lorawan.Rekey) {
	t.Helper()
	row.open(t, func(_, _, rekeyKey []byte) {
		then := derived(t, rekeyKey, 0x23, first)
		for purpose, what := range map[byte]string{0x21: "NwkKey", 0x22: "AppKey", 0x23: "rekeying key"} {
			keys.PlantKey(name+", "+what, derived(t, then, purpose, next))
		}
	})
}

// huntKilled searches what a server that was killed leaves, its write-ahead log
// included, which one that stops takes away.
func huntKilled(t *testing.T, keys *leak.Secrets, s *rig.Server) (searched int) {
	t.Helper()
	logs, err := filepath.Glob(s.Path("*-wal"))
	ok(t, err)
	written := int64(0)
	for _, log := range logs {
		i, err := os.Stat(log)
		ok(t, err)
		written += i.Size()
	}
	if written == 0 {
		t.Errorf("%s has no write-ahead log: %v", s.Dir, logs)
	}
	return hunt(t, keys, s.Dir)
}

// hunt searches every file below a directory, but for what is the elements' own, and
// tells how much that was.
func hunt(t *testing.T, keys *leak.Secrets, dir string) (searched int) {
	t.Helper()
	hits := leak.Found{}
	ok(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "sim":
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		keys.In(content, hits)
		searched += len(content)
		return err
	}))
	if len(hits) > 0 {
		t.Errorf("%s: %v", dir, hits)
	}
	return searched
}
