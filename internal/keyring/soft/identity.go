package soft

import (
	"fmt"

	"filippo.io/age"
)

// CreateIdentity draws an age identity (X25519) and writes it to a new file of
// mode 0600, for Unlock.IdentityFile: what age-keygen does. ErrExists.
func CreateIdentity(path string) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, "# opens what is sealed to %s\n%s\n", identity.Recipient(), identity)
	defer clear(text)
	return createFile(path, text)
}
