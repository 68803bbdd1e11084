package soft

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"regexp"
	"slices"

	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// masterLen is the length of a master key, in bytes: AES-256.
const masterLen = 32

// masterName is the form of a master key's name. It is safe in JSON and in a
// shell.
var masterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// masters are the master keys of a token, ready for use, by name. Only the name
// and key check value of one can be seen.
type masters map[string]loadedMaster

type loadedMaster struct {
	keyring.Master
	cipher secret.Cipher
}

func loadMasters(m *secret.Memory, stored []storedMaster) (masters, error) {
	loaded := masters{}
	for _, s := range stored {
		if err := s.check(); err != nil {
			return nil, err
		}
		kcv, err := keyCheckValue(s.Key)
		if err != nil {
			return nil, err
		}
		c, err := m.Cipher(s.Key)
		if err != nil {
			return nil, err
		}
		loaded[s.Name] = loadedMaster{keyring.Master{Name: s.Name, Profile: s.Profile, KCV: kcv}, c}
	}
	return loaded, nil
}

func (m masters) list() []keyring.Master {
	list := make([]keyring.Master, 0, len(m))
	for _, l := range m {
		list = append(list, l.Master)
	}
	slices.SortFunc(list, func(a, b keyring.Master) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// derive derives a root key into root, by the profile of the master key of that
// name.
func (m masters) derive(root *[lwcrypto.BlockLen]byte, name string, d keyring.Derivation) error {
	master, ok := m[name]
	if !ok {
		return keyring.ErrUnknownMaster
	}
	block, err := d.Block()
	if err != nil {
		return err
	}
	*root = block
	return master.cipher.Use(func(b cipher.Block) error {
		b.Encrypt(root[:], root[:])
		return nil
	})
}

// keyCheckValue gives the first three bytes of AES-CMAC(key, 16 zero bytes), in
// upper-case hexadecimal digits.
func keyCheckValue(key []byte) (string, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("%w: master key", ErrDamaged)
	}
	defer secret.WipeBlock(block)
	mac, err := new(cmac.CMAC).Sum(cmac.Cipher{Block: block}, make([]byte, lwcrypto.BlockLen))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%X", mac[:3]), nil
}
