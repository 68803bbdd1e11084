package main

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joinery/internal/ceremony"
	"joinery/internal/cmac"
	"joinery/internal/keyring/hsm"
	"joinery/internal/keyring/hsm/hsmtest"
	"joinery/internal/seal"
)

// scene is two empty tokens and a plan for them.
type scene struct {
	t    *testing.T
	dir  string
	opt  hsm.Options // of the server's token
	plan ceremony.Plan
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), opt: hsmtest.SoftHSM(t)}
	custody := hsmtest.SoftHSM(t)
	pin := func(name string) string { return s.file(name, hsmtest.PIN+"\n") }
	s.plan = ceremony.Plan{
		Name: "test", Participants: []ceremony.Participant{{Name: "Ada", Role: "leads"}}, Directory: filepath.Join(s.dir, "out"), MinimumLevel: "in-token",
		Token:   ceremony.Token{Module: s.opt.Module, Label: s.opt.Token, PINFile: pin("pin")},
		Custody: ceremony.Custody{Token: ceremony.Token{Module: custody.Module, Label: custody.Token, PINFile: pin("custody.pin")}},
	}
	return s
}

func (s *scene) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// run carries the plan out, or says what would be done.
func (s *scene) run(apply bool) (steps string, report []byte, err error) {
	s.t.Helper()
	var text strings.Builder
	c := &conductor{job: ceremony.Job{Plan: s.plan, Apply: apply}, plan: s.plan, said: func(step ceremony.Step) error {
		fmt.Fprintf(&text, "%s: %s\n", step.Outcome, step.What)
		return nil
	}}
	report, err = c.conduct(s.t.Context())
	return text.String(), report, err
}

func (s *scene) carriedOut() (steps string, r ceremony.Report) {
	s.t.Helper()
	steps, text, err := s.run(true)
	if err != nil {
		s.t.Fatal(err)
	}
	if r, _, err = ceremony.Verify(text); err != nil {
		s.t.Fatal(err)
	}
	return steps, r
}

// refuses wants the plan to be refused, dry and in earnest.
func (s *scene) refuses(name, want string) {
	s.t.Helper()
	for _, apply := range []bool{false, true} {
		if _, _, err := s.run(apply); err == nil || !strings.Contains(err.Error(), want) {
			s.t.Errorf("%s (%t): %v, want %q", name, apply, err, want)
		}
	}
}

// checkValue is the key check value of a master key, made without the product.
func checkValue(t *testing.T, key []byte) string {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := new(cmac.CMAC).Sum(cmac.Cipher{Block: block}, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%X", mac[:3])
}

// component writes the part of a holder.
func (s *scene) component(holder string, value []byte) ceremony.Component {
	s.t.Helper()
	text := strings.ToUpper(hex.EncodeToString(value))
	return ceremony.Component{Holder: holder, KCV: checkValue(s.t, value), File: s.file(holder, text[:32]+" "+text[32:]+"\n")}
}

// A master key of three components: each and the whole are checked, dry as well,
// and what is wrong changes nothing. The same ceremony again finds everything, and
// needs no holder.
func TestComponents(t *testing.T) {
	s := newScene(t)
	whole := make([]byte, 32)
	var parts []ceremony.Component
	for _, holder := range []string{"Ada", "Bo", "Cy"} {
		part := make([]byte, 32)
		rand.Read(part)
		for i, b := range part {
			whole[i] ^= b
		}
		parts = append(parts, s.component(holder, part))
	}
	master := ceremony.Master{Name: "split", KCV: checkValue(t, whole), Components: parts}
	wrong := func(name, want string, change func(*ceremony.Master)) {
		m := master
		m.Components = append([]ceremony.Component(nil), parts...)
		change(&m)
		s.plan.Masters = []ceremony.Master{m}
		s.refuses(name, want)
	}
	wrong("another whole", "together they have", func(m *ceremony.Master) { m.KCV = "000000" })
	wrong("another part", "number 2: its key check value", func(m *ceremony.Master) { m.Components[1].File = parts[0].File })
	wrong("one too few", "together they have", func(m *ceremony.Master) { m.Components = m.Components[:2] })
	wrong("no digits", "64 hexadecimal digits", func(m *ceremony.Master) { m.Components[0].File = s.file("bad", strings.Repeat("x", 64)) })
	wrong("too short", "64 hexadecimal digits", func(m *ceremony.Master) { m.Components[0].File = s.file("short", "00") })
	wrong("zeros", "all zeros", func(m *ceremony.Master) { m.Components[0].File = s.file("zeros", strings.Repeat("0", 64)) })
	open := s.file("open", strings.Repeat("1", 64))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	wrong("readable by others", "mode 0644", func(m *ceremony.Master) { m.Components[0].File = open })

	s.plan.Masters = []ceremony.Master{master}
	if steps, _, err := s.run(false); err != nil || !strings.Contains(steps, "to be made: master key split, of 3 components") {
		t.Errorf("dry run: %v %s", err, steps)
	}
	steps, r := s.carriedOut()
	if !strings.Contains(steps, "was there: key joinery.join-kek") || !strings.Contains(steps, "made: master key split") {
		t.Errorf("steps after refusals: %s", steps)
	}
	if m := r.Masters[0]; m.KCV != master.KCV || len(m.Components) != 3 || m.Components[0].Holder != "Ada" {
		t.Errorf("reported %+v", m)
	}
	s.leavesNothing(whole)
	for _, part := range parts {
		if err := os.Remove(part.File); err != nil {
			t.Fatal(err)
		}
	}
	if steps, r = s.carriedOut(); strings.Contains(steps, "\nmade: ") || !r.Masters[0].Found {
		t.Errorf("once more: %s", steps)
	}
	s.plan.Masters[0].KCV = "123456"
	s.refuses("another of that name", "the token has that already")
}

// leavesNothing searches all that came out for a key.
func (s *scene) leavesNothing(key []byte) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.plan.Directory, "*"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)} {
			if strings.Contains(strings.ToLower(string(text)), strings.ToLower(form)) {
				s.t.Errorf("%s holds the key", f)
			}
		}
	}
}

// What a report says of the objects: nobody can read one, and the templates were
// tried. A key that is not as it must be is refused.
func TestReportedObjects(t *testing.T) {
	s := newScene(t)
	s.plan.Masters = []ceremony.Master{{Name: "one", Generate: true}}
	_, r := s.carriedOut()
	labels := map[string]int{}
	for _, o := range r.Objects {
		labels[o.Label]++
		if o.Class != "public key" && (o.Sensitive == nil || !*o.Sensitive || o.Extractable == nil || *o.Extractable) {
			t.Errorf("%+v", o)
		}
		unwraps := strings.Contains(strings.Join(o.Rights, " "), "unwrap")
		if unwraps != strings.HasSuffix(o.UnwrapTemplate, "enforced") && o.Class != "public key" {
			t.Errorf("%s may %v, template %q", o.Label, o.Rights, o.UnwrapTemplate)
		}
	}
	want := map[string]int{
		"joinery.custody": 3, "joinery.join-kek": 1, "joinery.storage-kek": 1, "joinery.row-mac": 1, "joinery.owner-tokens": 1,
		"joinery.transport": 2, "joinery.audit": 2, "joinery.export": 2, "joinery.master.one": 1,
	}
	for label, n := range want {
		if labels[label] != n {
			t.Errorf("%d objects %s, want %d", labels[label], label, n)
		}
	}
	if len(labels) != len(want) || len(r.Tokens) != 2 || r.Tokens[1].Serial == "" || r.Tokens[1].Serial == r.Tokens[0].Serial || len(r.Levels) != 4 {
		t.Errorf("%+v", r)
	}
	s.plan.Token.Serial = r.Tokens[1].Serial
	if _, again := s.carriedOut(); !again.Objects[0].Found {
		t.Error("the second report says that it made what was there")
	}
	s.plan.Token.Serial = "0"
	s.refuses("another token", "serial number")
	s.plan.Token.Serial = ""
	s.plan.Custody = ceremony.Custody{PublicKey: s.file("other.pub", otherKey(t))}
	s.refuses("another custody key", "another custody key")
}

func otherKey(t *testing.T) string {
	t.Helper()
	_, key := hsmtest.CustodyKey(t, seal.AlgRSAOAEP)
	return string(key.MarshalPEM())
}

// A custody key of elsewhere comes in by its public half.
func TestCustodyKeyOfElsewhere(t *testing.T) {
	s := newScene(t)
	s.plan.Custody = ceremony.Custody{PublicKey: s.file("other.pub", otherKey(t))}
	_, r := s.carriedOut()
	if len(r.Tokens) != 1 || r.Levels[1].Level != "in-token" {
		t.Errorf("%+v", r)
	}
	_, foreign := hsmtest.CustodyKey(t, seal.AlgRSAOAEP256)
	other := newScene(t)
	other.plan.Custody = ceremony.Custody{PublicKey: other.file("sha256.pub", string(foreign.MarshalPEM()))}
	other.refuses("an algorithm that the token has not", "does not wrap by RSA-OAEP-256")
}

// A ceremony that is cut off after a shared master key was drawn, and before it is
// anywhere, goes on with that key.
func TestSharedMasterGoesOn(t *testing.T) {
	partner := newScene(t)
	_, r := partner.carriedOut()
	s := newScene(t)
	s.carriedOut()
	transport := filepath.Join(partner.plan.Directory, "transport.pub")
	key, err := readTransport(transport)
	if err != nil {
		t.Fatal(err)
	}
	s.plan.Name = "shares"
	s.plan.Masters = []ceremony.Master{{Name: "shared", Generate: true, Share: []ceremony.Share{{To: transport, KID: key.KID(), File: "shared.master"}}}}
	c := &conductor{job: ceremony.Job{Apply: true}, plan: s.plan}
	var drew drawn
	if err := c.login(s.plan.Token, func(o *hsm.Officer) (err error) {
		drew, err = c.draw(o, s.plan.Masters[0], []seal.PublicKey{key})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, r = s.carriedOut()
	if r.Masters[0].KCV != drew.Own.KCV || r.Masters[0].Found {
		t.Errorf("went on with %+v, drawn %s", r.Masters[0], drew.Own.KCV)
	}
	if left, err := filepath.Glob(filepath.Join(s.plan.Directory, "*resume*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, r = s.carriedOut(); !r.Masters[0].Found {
		t.Error("found nothing")
	}
	partner.plan.Masters = []ceremony.Master{{Name: "shared", Accept: filepath.Join(s.plan.Directory, "shared.master"), KCV: drew.Own.KCV}}
	if _, r = partner.carriedOut(); r.Masters[0].KCV != drew.Own.KCV {
		t.Errorf("accepted %+v", r.Masters[0])
	}
	// What was shared is lost: nothing gives it a second time.
	if err := os.Remove(filepath.Join(s.plan.Directory, "shared.master")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.run(true); err == nil || !strings.Contains(err.Error(), "cannot leave any more") {
		t.Errorf("a share that is gone: %v", err)
	}
}

// The program answers what it is asked, step by step, and says why not.
func TestCeremonyProgram(t *testing.T) {
	s := newScene(t)
	ask := func(job any) (list []ceremony.Message, code int) {
		t.Helper()
		text, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		var answer, stderr bytes.Buffer
		code = runCeremony(bytes.NewReader(text), &answer, &stderr)
		lines := json.NewDecoder(&answer)
		for lines.More() {
			var m ceremony.Message
			if err := lines.Decode(&m); err != nil {
				t.Fatal(err)
			}
			list = append(list, m)
		}
		return list, code
	}
	if list, code := ask("nonsense"); code != 1 || len(list) != 1 || list[0].Error == "" {
		t.Errorf("nonsense: %d %+v", code, list)
	}
	if list, code := ask(ceremony.Job{Plan: s.plan}); code != 0 || list[0].Step == nil || list[len(list)-1].Step != nil {
		t.Errorf("dry run: %d %+v", code, list)
	}
	s.plan.Token.PINFile = s.file("wrong.pin", "9999-9999")
	list, code := ask(ceremony.Job{Plan: s.plan})
	if last := list[len(list)-1].Error; code != 1 || !strings.Contains(last, "PIN") || strings.Contains(last, "9999") {
		t.Errorf("wrong PIN: %d %s", code, last)
	}
}
