package soft

import (
	"crypto/rand"
	"fmt"
)

// NewPassphraseFile draws a passphrase of at least 128 bits and writes it to a
// new file of mode 0600. It is shown to nobody. It never overwrites: ErrExists.
func NewPassphraseFile(path string) error {
	text := []byte(rand.Text() + "\n")
	defer clear(text)
	if err := createFile(path, text); err != nil {
		return fmt.Errorf("passphrase file: %w", err)
	}
	return nil
}
