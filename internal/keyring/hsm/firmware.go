package hsm

import (
	"fmt"
	"regexp"

	"github.com/miekg/pkcs11"

	"joinery/internal/secret"
)

// labelFirmware begins the label of a key by which a maker signs firmware. No server
// uses one, and it may be in a token of its own.
const labelFirmware = "joinery.firmware."

var firmwareName = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$`)

// FirmwareKey is a key in a token that signs firmware, for the length of a login.
type FirmwareKey struct {
	// Public is its public half, PEM.
	Public string

	s       *session
	private handle
}

// MakeFirmwareKey logs in to a token and makes the key of that name, which must not be
// there: ErrExists. f may sign with it.
func MakeFirmwareKey(opt Options, name string, f func(FirmwareKey) error) error {
	return withFirmwareKey(opt, name, true, f)
}

// UseFirmwareKey logs in to a token for the length of f, with the key of that name.
func UseFirmwareKey(opt Options, name string, f func(FirmwareKey) error) error {
	return withFirmwareKey(opt, name, false, f)
}

func withFirmwareKey(opt Options, name string, fresh bool, f func(FirmwareKey) error) (err error) {
	if !firmwareName.MatchString(name) {
		return fmt.Errorf("%w: %q names no key", ErrObject, name)
	}
	label := labelFirmware + name
	secret.Do(func() {
		err = loggedIn(opt, func(a *admin) error {
			if fresh {
				if err := a.free(label); err != nil {
					return err
				}
				if err := a.undoing(func() error { return a.newAuditKey(label) }); err != nil {
					return err
				}
			}
			k, err := findFirmwareKey(a.s, label)
			if err != nil {
				return err
			}
			return f(k)
		})
	})
	return err
}

// findFirmwareKey finds both halves, and refuses a key that could be read.
func findFirmwareKey(s *session, label string) (k FirmwareKey, err error) {
	public, err := findOne(s, pkcs11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return k, err
	}
	private, err := findOne(s, pkcs11.CKO_PRIVATE_KEY, label)
	if err == nil {
		err = checkHidden(s, private, label)
	}
	if err != nil {
		return k, err
	}
	text, err := readEC(s, public)
	return FirmwareKey{Public: text, s: s, private: private}, err
}

// Sign signs a SHA-256 digest: r ‖ s.
func (k FirmwareKey) Sign(digest [32]byte) (signature [64]byte, err error) {
	if err := k.s.sign(mechECDSA, k.private, digest[:], signature[:]); err != nil {
		return signature, failed("signing firmware", err)
	}
	return signature, nil
}
