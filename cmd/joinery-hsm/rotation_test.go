package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"joinery/internal/ceremony"
	"joinery/internal/keyring/hsm"
)

// verified reads a report, and gives the fingerprint of the key that signed it.
func verified(t *testing.T, text []byte, err error) (ceremony.Report, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, fingerprint, err := ceremony.Verify(text)
	if err != nil {
		t.Fatal(err)
	}
	return r, fingerprint
}

// A ceremony gives every key a new generation, once, however often it is begun. Its
// report is signed by the audit key that its readers know, and names the next one,
// which signs from then on. Then the same by single steps, which retire as well.
func TestRotationCeremony(t *testing.T) {
	s := newScene(t)
	_, first, err := s.run(true)
	_, known := verified(t, first, err)

	s.plan.Name = "second"
	s.plan.Rotate = []string{ceremony.JoinKEK, ceremony.TransportKey, ceremony.CustodyKey, ceremony.AuditKey, ceremony.ExportKey}
	steps, _, err := s.run(false)
	if err != nil || strings.Count(steps, "to be made: generation 2, key joinery.") != 5 || !strings.Contains(steps, "to be made: public half of joinery.custody.2") {
		t.Errorf("dry run: %v\n%s", err, steps)
	}
	if _, err := os.Stat(s.plan.RotationFile()); err == nil {
		t.Error("a dry run notes what it would make")
	}
	// One that was cut off after it made one of them.
	s.cutOff(ceremony.JoinKEK)
	steps, text, err := s.run(true)
	r, by := verified(t, text, err)
	if !strings.Contains(steps, "was there: generation 2, key joinery.join-kek.2") || strings.Count(steps, "\nmade: generation 2") != 4 {
		t.Errorf("steps:\n%s", steps)
	}
	if by != known || len(r.Rotated) != 5 {
		t.Fatalf("signed by %s, want %s: %+v", by, known, r.Rotated)
	}
	next := ""
	for _, k := range r.Rotated {
		if k.Generation != 2 || (k.KID == "") != (k.Key == ceremony.JoinKEK) {
			t.Errorf("%+v", k)
		}
		if k.Key == ceremony.AuditKey {
			next = k.KID
		}
	}
	for _, name := range []string{"transport-2.pub", "custody-2.pub", "audit-2.pub", "audit.pub"} {
		if _, err := os.Stat(filepath.Join(s.plan.Directory, name)); err != nil {
			t.Error(err)
		}
	}
	steps, text, err = s.run(true)
	if _, by = verified(t, text, err); by != known || strings.Contains(steps, "\nmade: ") {
		t.Errorf("again, signed by %s:\n%s", by, steps)
	}
	s.plan.Rotate = s.plan.Rotate[1:]
	s.refuses("another plan", "the plan was changed")

	s.plan.Name, s.plan.Rotate = "third", nil
	_, text, err = s.run(true)
	if _, by = verified(t, text, err); by != next {
		t.Errorf("the third report is signed by %s, want %s", by, next)
	}
	if _, by = verified(t, first, nil); by != known {
		t.Error("the first report has another signer now")
	}
	s.changes()
}

// cutOff leaves what a ceremony does that ends when one key is made.
func (s *scene) cutOff(key string) {
	s.t.Helper()
	targets := map[string]uint32{}
	for _, key := range s.plan.Rotate {
		targets[key] = 2
	}
	text, err := json.Marshal(targets)
	if err == nil {
		err = os.WriteFile(s.plan.RotationFile(), text, 0o600)
	}
	if err == nil {
		err = hsm.Conduct(s.opt, func(o *hsm.Officer) error {
			_, err := o.MakeGeneration(rotating[key], 2, true)
			return err
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// changes takes single steps, as the commands of a server's operator do, after every
// key has two generations.
func (s *scene) changes() {
	t := s.t
	t.Helper()
	do := func(key string, what ceremony.What) (ceremony.Generations, error) {
		return change(t.Context(), ceremony.Change{Key: key, What: what, Token: s.plan.Token, Custody: &s.plan.Custody.Token})
	}
	want := func(key string, what ceremony.What, joinKEK []uint32, custody uint32, transports int) {
		t.Helper()
		g, err := do(key, what)
		if err != nil || !slices.Equal(g.JoinKEK, joinKEK) || g.Custody != custody || len(g.Transport) != transports {
			t.Errorf("%s %s: %+v, %v", what, key, g, err)
		}
	}
	want(ceremony.JoinKEK, ceremony.ToLook, []uint32{1, 2}, 2, 2)
	want(ceremony.JoinKEK, ceremony.ToMake, []uint32{1, 2, 3}, 2, 2)
	want(ceremony.JoinKEK, ceremony.ToRetire, []uint32{3}, 2, 2)
	want(ceremony.TransportKey, ceremony.ToRetire, []uint32{3}, 2, 1)
	want(ceremony.CustodyKey, ceremony.ToRetire, []uint32{3}, 2, 1)
	for _, key := range []string{ceremony.JoinKEK, ceremony.TransportKey, ceremony.CustodyKey} {
		if _, err := do(key, ceremony.ToRetire); !errors.Is(err, hsm.ErrRetire) {
			t.Errorf("the only %s: %v", key, err)
		}
	}
	for _, c := range []ceremony.Change{
		{Key: ceremony.AuditKey, What: ceremony.ToMake}, {Key: "row-mac", What: ceremony.ToMake}, {Key: ceremony.JoinKEK, What: "more"},
		{Key: ceremony.CustodyKey, What: ceremony.ToMake}, // in no token
	} {
		c.Token = s.plan.Token
		if _, err := change(t.Context(), c); err == nil {
			t.Errorf("%+v was done", c)
		}
	}
	// Of a key that signs exports its public half stays: old files are verified by it.
	signers := func(what ceremony.What, n int) [][]byte {
		t.Helper()
		g, err := do(ceremony.ExportKey, what)
		if err != nil || len(g.Exports) != n {
			t.Errorf("%s: %d keys that sign exports or did, %v", what, len(g.Exports), err)
		}
		return g.Exports
	}
	first := signers(ceremony.ToLook, 2)[0]
	signers(ceremony.ToRetire, 2)
	if _, err := do(ceremony.ExportKey, ceremony.ToRetire); !errors.Is(err, hsm.ErrRetire) {
		t.Errorf("the only export key: %v", err)
	}
	signers(ceremony.ToMake, 3)
	if left := signers(ceremony.ToRetire, 3); !slices.Equal(left[0], first) {
		t.Error("the first key that signed exports is not told of any more")
	}
	want(ceremony.CustodyKey, ceremony.ToMake, []uint32{3}, 3, 1)
	want(ceremony.CustodyKey, ceremony.ToRetire, []uint32{3}, 3, 1)
	// What a ceremony finds now it takes as it is.
	s.plan.Name = "fourth"
	if steps, _, err := s.run(true); err != nil || strings.Contains(steps, "\nmade: ") {
		t.Errorf("after all of it: %v\n%s", err, steps)
	}
}
