package soft

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A drawn passphrase is recognised, others are not: what people choose must stay
// slow to guess.
func TestDrawnPassphrase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := NewPassphraseFile(file); err != nil {
		t.Fatal(err)
	}
	if err := NewPassphraseFile(file); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: %v", err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v: want mode 0600", info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	drawn := strings.TrimSpace(string(text))
	if got := workFactorFor(drawn); got != drawnWorkFactor {
		t.Errorf("a drawn passphrase gets work factor %d", got)
	}
	for _, chosen := range []string{
		"", "correct horse battery", "joinery-", "joinery-AAAA", drawn[:len(drawn)-1], drawn + "A",
		strings.ToLower(drawn), " " + drawn, strings.TrimPrefix(drawn, "joinery-"),
	} {
		if got := workFactorFor(chosen); got != defaultWorkFactor {
			t.Errorf("a chosen passphrase gets work factor %d", got)
		}
	}
}
