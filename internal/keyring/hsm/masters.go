package hsm

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
)

// masterLen is the length of a master key, in bytes: AES-256.
const masterLen = 32

// maxShare bounds what is read of a shared master key, in bytes.
const maxShare = 64 << 10

// NewMaster draws a master key in the token and adds it under a new name. It can
// never leave. ErrExists.
func NewMaster(opt Options, name string) (m keyring.Master, err error) {
	err = administer(opt, func(a *admin) error {
		return a.undoing(func() error {
			if err := a.newMaster(name); err != nil {
				return err
			}
			m, err = a.describe(name, a.made[len(a.made)-1])
			return err
		})
	})
	return m, err
}

// NewSharedMaster draws a master key in the token, gives it to the keyrings whose
// transport keys are named, sealed by the token itself, and adds it. After that it
// can never leave: with whom it is shared is said once, when it is made. No part of
// it is ever in this process. ErrExists.
func NewSharedMaster(opt Options, name string, to ...seal.PublicKey) (m keyring.Master, shares []seal.Master, err error) {
	err = administer(opt, func(a *admin) error {
		return a.undoing(func() error {
			m, shares, err = a.newShared(name, to)
			return err
		})
	})
	if err != nil {
		return keyring.Master{}, nil, err
	}
	return m, shares, nil
}

// AcceptMaster adds a master key that was shared with this token's transport key
// under its name: it is unwrapped into the token and checked there against its key
// check value. The same key again changes nothing; another one of the name is
// ErrExists. ErrShare for what was not shared with this token.
func AcceptMaster(opt Options, r io.Reader) (m keyring.Master, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxShare))
	if err != nil {
		return m, err
	}
	share, err := seal.ParseMaster(text)
	if err != nil {
		return m, fmt.Errorf("%w: it is not of format %s", ErrShare, seal.MasterFormat)
	}
	err = administer(opt, func(a *admin) error {
		return a.undoing(func() error {
			m, err = a.accept(share)
			return err
		})
	})
	return m, err
}

func (a *admin) describe(name string, h handle) (keyring.Master, error) {
	kcv, err := a.can.keyCheckValue(a.s, h)
	return keyring.Master{Name: name, Profile: keyring.ProfileECBv1, KCV: kcv}, err
}

// accept unwraps a shared master key into the token.
func (a *admin) accept(share seal.Master) (m keyring.Master, err error) {
	if !masterName.MatchString(share.Name) || share.Profile != keyring.ProfileECBv1 || len(share.Key) != masterLen+seal.WrapOverhead {
		return m, fmt.Errorf("%w: name, profile or length of the key", ErrShare)
	}
	f, err := a.openShare(share)
	if err != nil {
		return m, err
	}
	defer f.close(a.s)
	before, err := a.s.find(pkcs11.CKO_SECRET_KEY, labelMaster+share.Name)
	if err != nil {
		return m, err
	}
	h, err := a.unwrapMaster(f.key, share.Key, share.Name)
	if err != nil {
		return m, fmt.Errorf("%w: the key does not open (%w)", ErrShare, err)
	}
	if m, err = a.describe(share.Name, h); err != nil {
		return m, err
	}
	if !strings.EqualFold(m.KCV, share.KCV) {
		return m, fmt.Errorf("%w: the key check value is another one", ErrShare)
	}
	if len(before) == 0 {
		return m, nil
	}
	same, err := a.same(before[0], h)
	switch {
	case err != nil:
		return m, err
	case !same:
		return m, fmt.Errorf("%w: another master key of that name", ErrExists)
	}
	a.made = slices.DeleteFunc(a.made, func(made handle) bool { return made == h })
	return m, a.s.destroy(h)
}

// openShare opens the file key of a share by a transport key of the token, and checks
// the share's MAC.
func (a *admin) openShare(share seal.Master) (f file, err error) {
	if err := share.Seal.Check(); err != nil {
		return f, fmt.Errorf("%w (%w)", ErrShare, err)
	}
	transports, err := bothHalves(a.s, labelTransport)
	if err != nil {
		return f, err
	}
	key, err := opener(transports, share.Seal)
	if err != nil {
		return f, fmt.Errorf("%w: it is sealed to another transport key", ErrShare)
	}
	if f, err = openFile(a.s, a.can, key.private, share.Seal); err != nil {
		return f, fmt.Errorf("%w: it is damaged (%w)", ErrShare, err)
	}
	if err := f.check(a.s, a.can, share.Item(), share.MAC); err != nil {
		f.close(a.s)
		return f, fmt.Errorf("%w: it is not as it was shared", ErrShare)
	}
	return f, nil
}

// unwrapMaster makes a master key that stays of what is wrapped under kek.
func (a *admin) unwrapMaster(kek handle, wrapped []byte, name string) (handle, error) {
	t := a.masterTemplate(name)
	h, err := a.s.unwrap(kek, wrapped, t)
	if err != nil {
		if h, err = a.s.unwrap(kek, wrapped, t.without(pkcs11.CKA_ALLOWED_MECHANISMS)); err != nil {
			return 0, err
		}
	}
	a.made = append(a.made, h)
	return h, nil
}

// same tells whether two master keys are one, by a whole block that only the key
// gives: a key check value is too short for that.
func (a *admin) same(one, other handle) (bool, error) {
	msg := []byte("joinery: are these one key?")
	sum := func(h handle) (mac [lwcrypto.BlockLen]byte, err error) {
		if !a.can.cmac {
			return mac, fmt.Errorf("%w: and the token cannot tell whether it is the same", ErrExists)
		}
		return a.s.cmac(h, msg)
	}
	x, err := sum(one)
	if err != nil {
		return false, err
	}
	y, err := sum(other)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1, err
}

// newShared makes a master key that can leave, wraps it for everybody, and keeps a
// copy that cannot.
func (a *admin) newShared(name string, to []seal.PublicKey) (m keyring.Master, shares []seal.Master, err error) {
	if err := a.freeMaster(name); err != nil {
		return m, nil, err
	}
	if !a.can.derive || !a.can.cmac {
		return m, nil, fmt.Errorf("%w: the token cannot derive the key of the MACs", ErrObject)
	}
	t := ofLen(sessionKey(true, mayDerive, maySign), masterLen)
	master, err := a.s.api.GenerateKey(a.s.handle, mechNewAES, t)
	if err != nil {
		return m, nil, failed("drawing a master key", err)
	}
	defer func() { _ = a.s.destroy(master) }()
	if m, err = a.describe(name, master); err != nil {
		return m, nil, err
	}
	for _, recipient := range to {
		share, err := a.share(m, master, recipient)
		if err != nil {
			return m, nil, err
		}
		shares = append(shares, share)
	}
	return m, shares, a.keepMaster(m, master)
}

// keepMaster stores a master key such that it cannot leave any more.
func (a *admin) keepMaster(m keyring.Master, master handle) error {
	return a.withFileKey(func(fileKey handle) error {
		wrapped, err := a.s.wrap(fileKey, master)
		if err != nil {
			return failed("keeping the master key", err)
		}
		h, err := a.unwrapMaster(fileKey, wrapped, m.Name)
		if err != nil {
			return failed("keeping the master key", err)
		}
		kept, err := a.describe(m.Name, h)
		if err == nil && kept != m {
			err = errWrong
		}
		return err
	})
}

// withFileKey draws a file key in the token for the length of f.
func (a *admin) withFileKey(f func(handle) error) error {
	h, err := a.s.api.GenerateKey(a.s.handle, mechNewAES, ofLen(sessionKey(true, mayWrap, mayUnwrap, mayDerive), 32))
	if err != nil {
		return failed("drawing a file key", err)
	}
	defer func() { _ = a.s.destroy(h) }()
	return f(h)
}

// share seals a master key to a transport key, as package seal does, with every
// step in the token.
func (a *admin) share(m keyring.Master, master handle, to seal.PublicKey) (s seal.Master, err error) {
	if !slices.Contains(a.out, to.Alg()) {
		return s, fmt.Errorf("%w: the token does not wrap by %s, which the transport key %s is for", ErrShare, to.Alg(), to.KID())
	}
	public, err := a.s.api.CreateObject(a.s.handle, publicKey("joinery recipient", to, false))
	if err != nil {
		return s, failed("bringing the transport key into the token", err)
	}
	defer func() { _ = a.s.destroy(public) }()
	s = seal.Master{Name: m.Name, Profile: m.Profile, KCV: m.KCV}
	err = a.withFileKey(func(fileKey handle) error {
		key, err := a.s.api.WrapKey(a.s.handle, oaep(to.Alg()), public, fileKey)
		if err != nil {
			return failed("wrapping the file key", err)
		}
		s.Seal = seal.Header{Format: seal.Format, KID: to.KID(), Alg: to.Alg(), Wrap: seal.WrapA256KW, Key: key}
		if s.Key, err = a.s.wrap(fileKey, master); err != nil {
			return failed("wrapping the master key", err)
		}
		macKey, err := a.s.derive(fileKey, seal.MACKeyBlocks(), a.can.macKey)
		if err != nil {
			return failed("deriving the key of MACs", err)
		}
		defer func() { _ = a.s.destroy(macKey) }()
		mac, err := a.s.cmac(macKey, s.Item().MACInput())
		s.MAC = bytes.Clone(mac[:])
		return err
	})
	return s, errors.Join(err, s.Seal.Check())
}
