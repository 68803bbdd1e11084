package fault

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"joinery/client"
	"joinery/internal/config"
	"joinery/internal/sim"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
	"joinery/test/leak"
	"joinery/test/rig"
)

// P12: no key material leaves. A server at debug level does everything that it
// can do; then all that it wrote, answered and holds is searched for secrets that
// the test knows, in every form. Answers whose purpose is to show a token or an API
// key are not looked at.
func TestNoKeyLeaves(t *testing.T) {
	h := newHunt(t, func(s *rig.Server, keys *leak.Secrets) [32]byte {
		contents := openKeyFile(t, s)
		contents.plant(keys)
		automaticCustody(t, s, keys)
		return contents.master(t)
	})
	h.live()
	t.Run("memory", func(t *testing.T) {
		needRoot(t)
		// Master keys and KEKs are where no dump looks; a core dump holds all else.
		h.searchMemory(t, "server", h.f.server.PID(), leak.Dumped())
	})
	h.afterwards()
}

// P12 with a hardware token: the server's memory has no key, whatever it did. The
// process with the token has none in memory of ours; what the token's library has
// in its own, this token being made of software, is told and not judged.
func TestNoKeyLeavesTheToken(t *testing.T) {
	h := newHunt(t, func(s *rig.Server, keys *leak.Secrets) [32]byte { return withToken(t, s, keys) })
	h.live()
	pids := workers(t, h.f.server)
	worker := pids[len(pids)-1]
	t.Run("memory of the server", func(t *testing.T) {
		needRoot(t)
		h.searchMemory(t, "server", h.f.server.PID(), append(leak.Dumped(), leak.Undumpable))
	})
	t.Run("memory of the process with the token", func(t *testing.T) {
		needRoot(t)
		h.searchMemory(t, "joinery-hsm", worker, leak.Ours())
	})
	recorded, err := os.ReadFile(h.f.server.Path(auditFile))
	ok(t, err)
	if n := bytes.Count(recorded, []byte(`"verb":"accept"`)); n < h.sessions {
		t.Errorf("joinery-hsm recorded %d joins of %d", n, h.sessions)
	}
	t.Run("core dump of the process with the token", func(t *testing.T) {
		noLimitOfCores(t, worker)
		ok(t, syscall.Kill(worker, syscall.SIGABRT))
		eventually(t, "it is told how it ended", func() bool { return strings.Contains(h.f.server.Log(), "the keyring's process ended") })
		if log := h.f.server.Log(); strings.Contains(log, "core dumped") {
			t.Error("the process with the token left a core")
		}
		noCoreIn(t, "/")
	})
	h.afterwards()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the server lets nobody but root read its memory")
	}
}

// hunt is a server whose every secret is known.
type hunt struct {
	t            *testing.T
	f            *fleet
	keys, tokens leak.Secrets // what never may turn up, and texts that go in and out
	master       [32]byte
	answers      *recorder
	via          string
	roots        map[lorawan.EUI64]roots
	element      *lab.Device // that was claimed
	sessions     int
}

// newHunt starts a server whose keys are as prepare has it: that plants them, and
// gives the master key.
func newHunt(t *testing.T, prepare func(*rig.Server, *leak.Secrets) [32]byte) *hunt {
	t.Helper()
	h := &hunt{t: t, answers: &recorder{}}
	t.Setenv("GOTRACEBACK", "crash") // so that an abort is one, and not just an end
	h.f = newFleetIn(t, dose{devices: 12, claims: 3}, t.TempDir(), func(s *rig.Server) {
		setLogLevel(t, s, "debug")
		allowWebhooks(t, s)
		h.master = prepare(s, &h.keys)
	})
	h.via = h.answers.proxy(t, h.f.server.Path("joinery.sock"))
	h.roots = rootsOf(t, h.f.server.Path("devices.csv"))
	plantRoots(t, &h.keys, h.f.server.Path("devices.csv"))
	plantKEKs(t, &h.keys, h.f.server.Path("sim", "sim.json"))
	for n, c := range h.f.unclaimed {
		h.tokens.PlantText(fmt.Sprintf("owner token %d", n), c.OwnerToken)
		h.plantElement(c.DevEUI)
	}
	return h
}

// allowWebhooks lets events be sent to this machine.
func allowWebhooks(t *testing.T, s *rig.Server) {
	t.Helper()
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	c.Webhooks.AllowNetworks = "127.0.0.0/8"
	var text bytes.Buffer
	ok(t, config.Print(&text, c))
	ok(t, os.WriteFile(s.Path("joinery.yaml"), text.Bytes(), 0o600))
}

// plantElement derives the root keys of an element, as docs/custody.md has it.
func (h *hunt) plantElement(devEUI lorawan.EUI64) {
	h.t.Helper()
	block, err := aes.NewCipher(h.master[:])
	ok(h.t, err)
	var r roots
	for purpose, root := range map[byte]*[]byte{1: &r.app, 2: &r.nwk} {
		in := make([]byte, 0, 16)
		in = append(in, purpose, 1)
		in = binary.BigEndian.AppendUint32(in, 1) // generation
		in = append(append(in, 0, 0), devEUI[:]...)
		block.Encrypt(in, in)
		*root = in
	}
	h.roots[devEUI] = r
	h.keys.PlantKey("AppKey of element "+devEUI.String(), r.app)
	h.keys.PlantKey("NwkKey of element "+devEUI.String(), r.nwk)
}

// live does everything that a server can do.
func (h *hunt) live() {
	t, f := h.t, h.f
	t.Helper()
	made, err := f.api.MakeAPIKey(t.Context(), client.NewAPIKey{Operator: true, Name: "operator's"})
	ok(t, err)
	h.tokens.PlantText("API key", made.Text)
	hook, err := f.api.AddWebhook(t.Context(), client.NewWebhook{URL: "https://127.0.0.1:9/joins"})
	ok(t, err)
	h.tokens.PlantText("secret of a webhook", hook.Secret)
	for range 3 {
		for _, m := range f.members {
			refusals(t, f, m, h.join(m), h.answers)
		}
	}
	apiCalls(t, f, made.Text, h.via)
	h.joinElement()
	left := h.leaves(made.Text)
	h.backup()
	for _, m := range f.members { // the memory is looked at right after joins, and a hand-over
		h.join(m)
	}
	left.handsOver()
}

func (h *hunt) join(m *member) *sim.Result {
	h.t.Helper()
	r, err := h.f.ns.Join(h.t.Context(), m.Device, sim.JoinOptions{})
	ok(h.t, err)
	ok(h.t, r.Err())
	h.answers.add(r.Reply.Body)
	plantSession(h.t, &h.keys, h.roots[m.DevEUI()], m.Device, h.f.ns.NetID(), r)
	h.sessions++
	return r
}

// joinElement claims an element whose root keys derive from the master key, and
// lets it join.
func (h *hunt) joinElement() {
	t := h.t
	t.Helper()
	claim := h.f.unclaimed[0]
	netID := h.f.ns.NetID()
	claim.Binding = &client.NewBinding{NetID: netID, ASID: "as.example.com", AppSKey: "wrapped"}
	_, err := h.f.api.Claim(t.Context(), claim)
	ok(t, err)
	d, err := h.f.lab.Device(lab.Selector{DevEUI: claim.DevEUI}, lorawan.MAC1_0_4)
	ok(t, err)
	h.element = d
	for range 3 {
		r, err := h.f.ns.Join(t.Context(), d.Device, sim.JoinOptions{})
		ok(t, err)
		ok(t, r.Err())
		h.answers.add(r.Reply.Body)
		// Elements serve 1.0.x with NwkKey, as TS001-1.1 §6.1.1.3 has it.
		plantSession(t, &h.keys, roots{app: h.roots[claim.DevEUI].nwk}, d.Device, netID, r)
		h.sessions++
	}
}

// backup writes a backup, and keeps what whoever has its identity reads in it.
func (h *hunt) backup() {
	t := h.t
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	ok(t, err)
	file := h.f.server.Path("joinery.backup")
	_, err = h.f.server.Run(t.Context(), "", "joinery", "backup", "--config", h.f.server.Path("joinery.yaml"), "--recipient", identity.Recipient().String(), "-o", file)
	ok(t, err)
	opened, err := os.Open(file)
	ok(t, err)
	defer func() { _ = opened.Close() }()
	content := backupContent(t, opened, identity)
	if eui := h.f.members[0].DevEUI(); !bytes.Contains(content, eui[:]) {
		t.Error("the backup does not tell of the devices")
	}
	h.search("what is in the backup", content)
}

// searchMemory searches a process, and judges some places of its memory. That the
// search finds what is there, a key shows that is put there for a moment.
func (h *hunt) searchMemory(t *testing.T, who string, pid int, judged []leak.Place) {
	t.Helper()
	c, err := h.keys.InProcess(pid)
	ok(t, err)
	texts, err := h.tokens.InProcess(pid)
	ok(t, err)
	t.Logf("%s after %d sessions: %v", who, h.sessions, c)
	t.Logf("%s: owner tokens, API keys and secrets of webhooks, which net/http and Go's texts keep a while: %v", who, texts.In(leak.Dumped()...))
	if hits := c.In(judged...); len(hits) > 0 {
		t.Errorf("%s: keys are in its memory: %v", who, hits)
	}
	if hits := c.Hits; len(hits) > 0 {
		for place, found := range hits {
			t.Logf("%s, not ours or not judged: %s: %v", who, place, found)
		}
	}
	canary := h.master[:]
	places, err := leak.WithCanary(pid, canary, func() { c, err = h.keys.InProcess(pid) })
	ok(t, err)
	for _, p := range places {
		if c.Hits[p]["master key, raw"] == 0 {
			t.Errorf("%s: a master key in %s is not found", who, p)
		}
	}
	if len(places) < 2 {
		t.Errorf("%s: a key could be put into %v only", who, places)
	}
}

// search judges content that nobody but its reader made.
func (h *hunt) search(where string, content []byte) {
	h.t.Helper()
	hits := leak.Found{}
	h.keys.In(content, hits)
	h.tokens.In(content, hits)
	if len(hits) > 0 {
		h.t.Errorf("%s: %v", where, hits)
	}
}

// afterwards aborts the server and searches all that it left.
func (h *hunt) afterwards() {
	t, s := h.t, h.f.server
	t.Helper()
	noLimitOfCores(t, s.PID())
	state, err := s.Signal(syscall.SIGABRT)
	ok(t, err)
	if status, is := state.Sys().(syscall.WaitStatus); !is || status.CoreDump() || !status.Signaled() {
		t.Errorf("the server was to be aborted and to leave no core: %v", state)
	}
	noCoreIn(t, ".")
	log := []byte(s.Log())
	if !bytes.Contains(log, []byte("level=DEBUG")) || !bytes.Contains(log, []byte("SIGABRT")) {
		t.Error("nothing was logged at debug level, or not what a crash prints")
	}
	h.search("answers", h.answers.content())
	files := 0
	ok(t, filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || ofOthers(path) {
			return err
		}
		content, err := os.ReadFile(path)
		h.search(d.Name(), content)
		files++
		return err
	}))
	t.Logf("%d bytes of answers, %d bytes of log, %d files searched", len(h.answers.content()), len(log), files)
	h.searchIsGood(log)
	h.f.fsck() // which copies the write-ahead log back
}

// searchIsGood plants a key among what was searched.
func (h *hunt) searchIsGood(log []byte) {
	h.t.Helper()
	for _, text := range []string{"%x", "%X", "%v", "%s", "%q"} {
		hits := leak.Found{}
		h.keys.In(append(bytes.Clone(log), fmt.Sprintf(text, h.master[:])...), hits)
		if len(hits) == 0 {
			h.t.Errorf("the search does not find a master key that was printed by %s", text)
		}
	}
}

// noLimitOfCores lets a process write core dumps, as far as that is ours to allow.
func noLimitOfCores(t *testing.T, pid int) {
	t.Helper()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &limit, nil); err != nil {
		t.Logf("the limit of core dumps cannot be raised: %v", err)
	}
}

// noCoreIn looks where a core would be, if the kernel writes it to where the
// process works.
func noCoreIn(t *testing.T, dir string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "core*"))
	ok(t, err)
	for _, name := range found {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			t.Errorf("there is a core: %s", name)
		}
	}
}

// A program that does nothing about it does leave a core when it is aborted, or
// this machine makes none and the tests above show less.
func TestCoresAreMadeHere(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "ulimit -c unlimited && kill -ABRT $$")
	cmd.Dir = t.TempDir()
	err := cmd.Run()
	status, is := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !is || !status.Signaled() {
		t.Fatalf("the shell was not aborted: %v", err)
	}
	if !status.CoreDump() {
		t.Skip("this machine makes no core dumps")
	}
}

// keyFile is what the tests read of a key file.
type keyFile struct {
	JoinKEK     []byte `json:"joinKEK"`
	StorageKEK  []byte `json:"storageKEK"`
	RowMAC      []byte `json:"rowMAC"`
	OwnerTokens []byte `json:"ownerTokens"`
	Masters     []struct {
		Name string `json:"name"`
		Key  []byte `json:"key"`
	} `json:"masters"`
}

func openKeyFile(t *testing.T, s *rig.Server) (k keyFile) {
	t.Helper()
	c, err := s.Config()
	ok(t, err)
	passphrase, err := os.ReadFile(c.Keys.PassphraseFile)
	ok(t, err)
	identity, err := age.NewScryptIdentity(strings.TrimRight(string(passphrase), "\r\n"))
	ok(t, err)
	f, err := os.Open(c.Keys.File)
	ok(t, err)
	defer func() { _ = f.Close() }()
	plain, err := age.Decrypt(f, identity)
	ok(t, err)
	text, err := io.ReadAll(plain)
	ok(t, err)
	ok(t, json.Unmarshal(text, &k))
	return k
}

func (k keyFile) plant(s *leak.Secrets) {
	for name, key := range map[string][]byte{"join KEK": k.JoinKEK, "storage KEK": k.StorageKEK, "row-MAC key": k.RowMAC, "owner-token key": k.OwnerTokens} {
		s.PlantKey(name, key)
	}
	for _, m := range k.Masters {
		s.PlantKey("master key", m.Key)
	}
}

// master gives the only master key.
func (k keyFile) master(t *testing.T) [32]byte {
	t.Helper()
	if len(k.Masters) != 1 {
		t.Fatalf("%d master keys", len(k.Masters))
	}
	return [32]byte(k.Masters[0].Key)
}
