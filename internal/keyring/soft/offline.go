package soft

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// The functions of this file change or read a key file, a server's or a
// factory's, while no program needs it: a server sees a new master key when it
// starts next.

// NewMaster draws a master key of profile ecb-v1 and adds it under a new name.
// ErrMasterExists, ErrMasterName.
func NewMaster(keyFile string, u Unlock, name string) (m keyring.Master, err error) {
	err = change(keyFile, u, func(c *contents) error {
		made, err := newMaster(name)
		if err != nil {
			return err
		}
		defer func() {
			if err != nil {
				clear(made.Key)
			}
		}()
		if c.find(name) >= 0 {
			err = ErrMasterExists
			return err
		}
		c.Masters = append(c.Masters, made)
		m, err = describe(made)
		return err
	})
	return m, err
}

// ShareMaster writes a master key, sealed to the transport key of another key
// file, to w. keyring.ErrUnknownMaster.
func ShareMaster(keyFile string, u Unlock, name string, to seal.PublicKey, w io.Writer) (m keyring.Master, err error) {
	err = look(keyFile, u, func(c *contents) error {
		i := c.find(name)
		if i < 0 {
			return fmt.Errorf("%w: %s has none of that name", keyring.ErrUnknownMaster, keyFile)
		}
		if m, err = describe(c.Masters[i]); err != nil {
			return err
		}
		header, wrapped, mac, err := seal.SealMaster(to, m.Name, m.Profile, c.Masters[i].Key)
		if err != nil {
			return err
		}
		text, err := seal.Master{Name: m.Name, Profile: m.Profile, KCV: m.KCV, Seal: header, Key: wrapped, MAC: mac}.Marshal()
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	return m, err
}

// maxShare bounds what is read of a shared master key, in bytes.
const maxShare = 64 << 10

// AcceptMaster adds a master key that was shared with this key file under its
// name. The same key again changes nothing; another one of the name is
// ErrMasterExists. ErrShare for what is not shared with this file.
func AcceptMaster(keyFile string, u Unlock, r io.Reader) (m keyring.Master, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxShare))
	if err != nil {
		return m, err
	}
	s, err := seal.ParseMaster(text)
	if err != nil {
		return m, fmt.Errorf("%w: it is not of format %s", ErrShare, seal.MasterFormat)
	}
	err = change(keyFile, u, func(c *contents) error {
		opened, err := openShare(&s, c)
		if err != nil {
			return err
		}
		if m, err = describe(opened); err != nil {
			return err
		}
		if i := c.find(s.Name); i >= 0 {
			defer clear(opened.Key)
			if subtle.ConstantTimeCompare(c.Masters[i].Key, opened.Key) != 1 {
				return ErrMasterExists
			}
			return errUnchanged
		}
		c.Masters = append(c.Masters, opened)
		return nil
	})
	return m, err
}

// openShare opens the shared key with the transport key in c.
func openShare(s *seal.Master, c *contents) (m storedMaster, err error) {
	memory, err := secret.NewMemory()
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, memory.Close()) }()
	transports, err := loadTransports(memory, c.copyTransports())
	if err != nil {
		return m, err
	}
	opener, err := transports.opener(s.Seal)
	if errors.Is(err, seal.ErrOtherKey) {
		return m, fmt.Errorf("%w: it is sealed to another transport key; share it with that of this file", ErrShare)
	}
	if err != nil {
		return m, fmt.Errorf("%w: it is damaged", ErrShare)
	}
	defer opener.Wipe()
	m = storedMaster{Name: s.Name, Profile: s.Profile}
	err = opener.Open(s.Item(), s.MAC, func(keys [][]byte) error {
		m.Key = slices.Clone(keys[0])
		return nil
	})
	if err != nil {
		return storedMaster{}, fmt.Errorf("%w: it is not as it was shared", ErrShare)
	}
	if err := m.check(); err != nil {
		clear(m.Key)
		return storedMaster{}, fmt.Errorf("%w: name, profile or length of the key", ErrShare)
	}
	kcv, err := keyCheckValue(m.Key)
	if err != nil || !strings.EqualFold(kcv, s.KCV) {
		clear(m.Key)
		return storedMaster{}, fmt.Errorf("%w: the key check value is another one", ErrShare)
	}
	return m, nil
}

// TransportKey gives the transport key of a key file: the one to share master
// keys with.
func TransportKey(keyFile string, u Unlock) (p seal.PublicKey, err error) {
	err = look(keyFile, u, func(c *contents) error {
		p, err = seal.ParsePublicKeyDER(c.TransportPublic)
		return err
	})
	return p, err
}

func describe(m storedMaster) (keyring.Master, error) {
	kcv, err := keyCheckValue(m.Key)
	return keyring.Master{Name: m.Name, Profile: m.Profile, KCV: kcv}, err
}

// errUnchanged ends a change that has nothing to write.
var errUnchanged = errors.New("unchanged")

// look opens a key file of a server or a factory for reading.
func look(keyFile string, u Unlock, f func(*contents) error) (err error) {
	defer scrub()
	secret.Do(func() {
		var c *contents
		if c, err = readContents(context.Background(), keyFile, u, formatServer, formatRotated, formatFactory); err != nil {
			return
		}
		defer c.wipe()
		err = f(c)
	})
	return err
}

// change opens a key file of a server or a factory, lets f change it and writes
// it anew in one step: after a crash there is the old one or the new one. Two
// changes at once wait for each other.
func change(keyFile string, u Unlock, f func(*contents) error) (err error) {
	defer scrub()
	secret.Do(func() { err = changeLocked(keyFile, u, f) })
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

func changeLocked(keyFile string, u Unlock, f func(*contents) error) error {
	keep := func(l *lock, c *contents) (*lock, error) { return l, f(c) }
	return rewrite(keyFile, u, keep, formatServer, formatRotated, formatFactory)
}

// Reseal writes a key file of a server or a factory, or a custody file, anew so
// that it is opened by to, and no longer by from. In one step: after a crash there
// is the one or the other, and a key file that to does not open is never left.
// Copies of the old file, as backups are, go on being opened by from.
func Reseal(keyFile string, from, to Unlock) (err error) {
	if from == to {
		return fmt.Errorf("%w: that is how it is sealed already", ErrUnlock)
	}
	defer scrub()
	secret.Do(func() {
		err = rewrite(keyFile, from, func(*lock, *contents) (*lock, error) {
			next, err := to.read(context.Background())
			if err != nil {
				return nil, err
			}
			return next, next.forNewFile()
		}, formatServer, formatRotated, formatFactory, formatCustody)
	})
	return err
}

// rewrite opens a key file, lets f change it and say how it is sealed from now
// on, and writes it anew.
func rewrite(keyFile string, u Unlock, f func(*lock, *contents) (*lock, error), formats ...string) error {
	held, err := openLocked(keyFile)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = held.Close() }()
	sealed, err := readOpenFile(held, othersMask)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	l, err := u.read(context.Background())
	if err != nil {
		return err
	}
	c, err := l.open(sealed, formats...)
	if err != nil {
		return fmt.Errorf("key file: %s: %w", keyFile, err)
	}
	defer c.wipe()
	next, err := f(l, c)
	if err != nil {
		return err
	}
	if sealed, err = next.seal(c); err != nil {
		return err
	}
	// What cannot be opened must not take the place of what can: a command may seal
	// to one secret and give another the next time.
	again, err := next.open(sealed, c.Format)
	if err != nil {
		return fmt.Errorf("key file: %s: as it would be written, it does not open: %w", keyFile, err)
	}
	again.wipe()
	return replaceFile(keyFile, sealed)
}
