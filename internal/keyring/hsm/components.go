package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// ErrComponent says that the parts of a master key do not fit each other, or their
// key check values.
var ErrComponent = errors.New("the components of the master key are not right")

// Component is one holder's part of a master key, 32 bytes, and its key check
// value.
type Component struct {
	Value []byte // the caller clears it
	KCV   string
}

// CheckComponents checks the key check value of each part, and that of their
// exclusive or. No token is asked: the parts are in memory as they are.
func CheckComponents(parts []Component, kcv string) error {
	return withCombined(parts, kcv, func(known) error { return nil })
}

// withCombined calls f with the exclusive or of parts, and wipes it.
func withCombined(parts []Component, kcv string, f func(known) error) (err error) {
	secret.Do(func() {
		value := make([]byte, masterLen)
		for i, part := range parts {
			if err = checkComponent(part); err != nil {
				err = fmt.Errorf("%w: number %d: %w", ErrComponent, i+1, err)
				clear(value)
				return
			}
			for j, b := range part.Value {
				value[j] ^= b
			}
		}
		k := known{value: value}.ready()
		defer k.wipe()
		if !strings.EqualFold(k.checkValue(), kcv) {
			err = fmt.Errorf("%w: together they have the key check value %s, and should have %s", ErrComponent, k.checkValue(), strings.ToUpper(kcv))
			return
		}
		err = f(k)
	})
	return err
}

func checkComponent(part Component) error {
	if len(part.Value) != masterLen {
		return fmt.Errorf("it has %d bytes; want %d", len(part.Value), masterLen)
	}
	all := byte(0)
	for _, b := range part.Value {
		all |= b
	}
	if all == 0 {
		return errors.New("it is all zeros")
	}
	k := known{value: append(make([]byte, 0, masterLen), part.Value...)}.ready()
	defer k.wipe()
	if have := k.checkValue(); !strings.EqualFold(have, part.KCV) {
		return fmt.Errorf("its key check value is %s, and should be %s", have, strings.ToUpper(part.KCV))
	}
	return nil
}

// checkValue is the key check value, as a token makes it.
func (k known) checkValue() string {
	return fmt.Sprintf("%X", k.sum(make([]byte, lwcrypto.BlockLen))[:3])
}

// Combine adds a master key that is the exclusive or of its parts. They are
// combined in this process alone and wiped; the key check value of each part, of
// the whole, and of what is then in the token must be right.
func (o *Officer) Combine(name string, parts []Component, kcv string) (m keyring.Master, err error) {
	if err := o.a.freeMaster(name); err != nil {
		return m, err
	}
	err = withCombined(parts, kcv, func(k known) error {
		return o.step(func() error {
			h, err := o.a.putMaster(name, k.value)
			if err != nil {
				return err
			}
			if m, err = o.a.describe(name, h); err == nil && !strings.EqualFold(m.KCV, kcv) {
				err = errWrong
			}
			return err
		})
	})
	return m, err
}

// putMaster brings a master key into the token by its value.
func (a *admin) putMaster(name string, value []byte) (handle, error) {
	t := append(a.masterTemplate(name), pkcs11.NewAttribute(pkcs11.CKA_VALUE, value))
	h, err := a.s.api.CreateObject(a.s.handle, t)
	if err != nil {
		h, err = a.s.api.CreateObject(a.s.handle, t.without(pkcs11.CKA_ALLOWED_MECHANISMS))
	}
	if err != nil {
		return 0, failed("bringing "+labelMaster+name+" into the token", err)
	}
	a.made = append(a.made, h)
	return h, nil
}
