package soft

import (
	"crypto/rand"
	"fmt"
	"regexp"
)

// A drawn passphrase is "joinery-" and 26 characters of base32, 130 random bits.
// Nobody guesses one, however fast a guess is, so that a file under it need not
// be slow to open: its work factor is that of one that takes a millisecond and
// 2 MiB instead of a second and 256 MiB.
var drawnPassphrase = regexp.MustCompile(`^joinery-[A-Z2-7]{26}$`)

const drawnWorkFactor = 11

// NewPassphraseFile draws a passphrase and writes it to a new file of mode 0600.
// It is shown to nobody. It never overwrites: ErrExists.
func NewPassphraseFile(path string) error {
	text := []byte("joinery-" + rand.Text() + "\n")
	defer clear(text)
	if err := createFile(path, text); err != nil {
		return fmt.Errorf("passphrase file: %w", err)
	}
	return nil
}

// workFactorFor gives the work factor of scrypt for a new file under passphrase.
func workFactorFor(passphrase string) int {
	if drawnPassphrase.MatchString(passphrase) {
		return drawnWorkFactor
	}
	return defaultWorkFactor
}
