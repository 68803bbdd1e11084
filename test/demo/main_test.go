package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The demo is the first thing that a newcomer runs: it has to work, on the real
// programs, and to leave nothing behind.
func TestDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"joins network 000013", "fetches the AppSKey", "rejoins network 000013, type 2",
		"is replayed", "MICFailed", "UnknownDevEUI", "tried to join your device; you allowed 000013 only", "killed without warning", "checks held",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story does not tell of %q", want)
		}
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
