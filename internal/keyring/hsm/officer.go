package hsm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery/internal/ceremony"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Officer is a login by which a ceremony looks at a token and makes its keys, one
// by one. Nothing is ever overwritten: what is there already is checked instead,
// so that a ceremony that was cut off goes on where it stood.
type Officer struct {
	a   *admin
	opt Options
}

// Conduct logs in for the length of f, and tries out what the token can do.
func Conduct(opt Options, f func(*Officer) error) error {
	return administer(opt, func(a *admin) error { return f(&Officer{a, opt}) })
}

// Device tells what the token says of itself.
func (o *Officer) Device() (d ceremony.Device, err error) {
	s := o.a.s
	session, err := s.api.GetSessionInfo(s.handle)
	if err != nil {
		return d, failed("asking for the session", err)
	}
	info, err := s.api.GetTokenInfo(session.SlotID)
	if err != nil {
		return d, failed("asking for the token", err)
	}
	trim := func(text string) string { return strings.Trim(text, " \x00") }
	return ceremony.Device{
		Label: trim(info.Label), Serial: trim(info.SerialNumber), Model: trim(info.Model), Manufacturer: trim(info.ManufacturerID),
		Firmware: fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}, nil
}

// maker is of a key that a Join Server's token has once.
type maker struct {
	label   string
	classes []uint
	make    func(*admin, string) error
}

// makers lists these keys, in the order in which they are made.
var makers = []maker{
	{labelJoinKEK, []uint{pkcs11.CKO_SECRET_KEY}, (*admin).newKEK},
	{labelStorageKEK, []uint{pkcs11.CKO_SECRET_KEY}, (*admin).newKEK},
	{labelRowMAC, []uint{pkcs11.CKO_SECRET_KEY}, (*admin).newMACKey},
	{labelOwnerTokens, []uint{pkcs11.CKO_SECRET_KEY}, (*admin).newMACKey},
	{labelTransport, []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY}, (*admin).newTransport},
	{labelAudit, []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY}, (*admin).newAuditKey},
}

func (a *admin) newTransport(label string) error {
	_, err := a.newPair(label)
	return err
}

// Labels gives the labels of the keys that every Join Server's token has, and a
// ceremony makes.
func Labels() (list []string) {
	for _, m := range makers {
		list = append(list, m.label)
	}
	return list
}

// Ensure makes the key of that label if it is missing and apply is set, and checks
// it if it is there. A key that is not as it must be is ErrObject, or ErrTemplate.
func (o *Officer) Ensure(label string, apply bool) (ceremony.Outcome, error) {
	i := slices.IndexFunc(makers, func(m maker) bool { return m.label == label })
	if i < 0 {
		return "", fmt.Errorf("%w: %q is none that a ceremony makes", ErrObject, label)
	}
	m := makers[i]
	there, err := o.a.present(label, m.classes...)
	switch {
	case err != nil:
		return "", err
	case there:
		return ceremony.WasThere, o.a.fits(label)
	case !apply:
		return ceremony.Planned, nil
	}
	err = o.step(func() error {
		if err := m.make(o.a, label); err != nil {
			return err
		}
		return o.a.fits(label)
	})
	return ceremony.WasMade, err
}

// step makes something, whole or not at all.
func (o *Officer) step(f func() error) error {
	o.a.made = nil
	return o.a.undoing(f)
}

// present tells whether a key is there: once and whole, or not at all.
func (a *admin) present(label string, classes ...uint) (bool, error) {
	total := 0
	for _, class := range classes {
		list, err := a.s.find(class, label)
		if err != nil {
			return false, err
		}
		if len(list) > 1 {
			return false, fmt.Errorf("%w: there are %d objects %s; want 1", ErrObject, len(list), label)
		}
		total += len(list)
	}
	if total > 0 && total < len(classes) {
		return false, fmt.Errorf("%w: of the pair %s only one half is there", ErrObject, label)
	}
	return total > 0, nil
}

// fits checks a key that is there: nobody can read it, and where others come in
// under it, they come in hidden.
func (a *admin) fits(label string) error {
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY} {
		list, err := a.s.find(class, label)
		if err != nil {
			return err
		}
		for _, h := range list {
			if err := checkHidden(a.s, h, label); err != nil {
				return err
			}
		}
	}
	if label != labelJoinKEK && label != labelStorageKEK || !a.can.enforced {
		return nil
	}
	h, err := findOne(a.s, pkcs11.CKO_SECRET_KEY, label)
	if err != nil {
		return err
	}
	if a.unwrapsReadable(h) {
		return fmt.Errorf("%w: %s has no template that forbids it", ErrTemplate, label)
	}
	return nil
}

// unwrapsReadable tries whether a key comes in readable under kek.
func (a *admin) unwrapsReadable(kek handle) bool {
	p := &prober{s: a.s}
	return p.unwrapsReadable(kek)
}

// EnsureCustodyPair makes the custody key in the token of its own role, or finds
// it, and gives its public half: none where apply is not set and there is none.
func (o *Officer) EnsureCustodyPair(apply bool) (public seal.PublicKey, out ceremony.Outcome, err error) {
	there, err := o.a.present(labelCustody, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return public, "", err
	}
	if !there {
		if !apply {
			return public, ceremony.Planned, nil
		}
		err = o.step(func() (err error) {
			public, err = o.a.newPair(labelCustody)
			return err
		})
		return public, ceremony.WasMade, err
	}
	if err := o.a.fits(labelCustody); err != nil {
		return public, "", err
	}
	public, err = o.publicKey(labelCustody)
	return public, ceremony.WasThere, err
}

// EnsureCustody puts the public half of the custody key into the token, which must
// not have the private one.
func (o *Officer) EnsureCustody(public seal.PublicKey, apply bool) (ceremony.Outcome, error) {
	if err := findNone(o.a.s, pkcs11.CKO_PRIVATE_KEY, labelCustody); err != nil {
		return "", err
	}
	there, err := o.a.present(labelCustody, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return "", err
	}
	if there {
		return ceremony.WasThere, o.sameCustody(public)
	}
	if !public.IsZero() && !slices.Contains(o.a.out, public.Alg()) {
		return "", fmt.Errorf("%w: the token does not wrap by %s, which the custody key is for", ErrObject, public.Alg())
	}
	if !apply {
		return ceremony.Planned, nil
	}
	return ceremony.WasMade, o.step(func() error { return o.a.storePublic(labelCustody, public) })
}

// sameCustody refuses a custody key that is another one than the token has.
func (o *Officer) sameCustody(want seal.PublicKey) error {
	have, err := o.publicKey(labelCustody)
	if err != nil {
		return err
	}
	if want.IsZero() {
		return fmt.Errorf("%w: the token knows the custody key %s, and the token of custody has none", ErrObject, have.KID())
	}
	if have.KID() != want.KID() {
		return fmt.Errorf("%w: another custody key, %s", ErrExists, have.KID())
	}
	return nil
}

func (o *Officer) publicKey(label string) (seal.PublicKey, error) {
	h, err := findOne(o.a.s, pkcs11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return seal.PublicKey{}, err
	}
	return readPublic(o.a.s, h)
}

// TransportKey gives the public half of the transport key; none where there is no
// such key yet.
func (o *Officer) TransportKey() (seal.PublicKey, error) {
	there, err := o.a.present(labelTransport, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY)
	if err != nil || !there {
		return seal.PublicKey{}, err
	}
	return o.publicKey(labelTransport)
}

// Expected gives the levels at which the token will keep keys once all are made,
// with a custody key for that algorithm; empty is one that is made in a token like
// this.
func (o *Officer) Expected(custody string) []keyring.Custody {
	can := *o.a.can
	if custody == "" && len(o.a.out) > 0 {
		custody = o.a.out[0]
	}
	if slices.Contains(o.a.out, custody) {
		can.custody = custody
	}
	return can.levels()
}

// Levels opens the token as a Join Server does, which checks every object, and
// gives how it keeps keys.
func (o *Officer) Levels(ctx context.Context) ([]keyring.Custody, error) {
	t, err := Open(ctx, o.opt)
	if err != nil {
		return nil, err
	}
	return t.Custody(), t.Close()
}

// FindMaster gives a master key that the token has.
func (o *Officer) FindMaster(name string) (m keyring.Master, there bool, err error) {
	if there, err = o.a.present(labelMaster+name, pkcs11.CKO_SECRET_KEY); err != nil || !there {
		return m, false, err
	}
	if err := o.a.fits(labelMaster + name); err != nil {
		return m, false, err
	}
	h, err := findOne(o.a.s, pkcs11.CKO_SECRET_KEY, labelMaster+name)
	if err != nil {
		return m, false, err
	}
	m, err = o.a.describe(name, h)
	return m, true, err
}

// NewMaster draws a master key.
func (o *Officer) NewMaster(name string) (m keyring.Master, err error) {
	err = o.step(func() error {
		if err := o.a.newMaster(name); err != nil {
			return err
		}
		m, err = o.a.describe(name, o.a.made[len(o.a.made)-1])
		return err
	})
	return m, err
}

// AcceptMaster adds a master key that was shared with this token.
func (o *Officer) AcceptMaster(share seal.Master) (m keyring.Master, err error) {
	err = o.step(func() error {
		m, err = o.a.accept(share)
		return err
	})
	return m, err
}

// CheckShare opens a shared master key in the token without keeping it.
func (o *Officer) CheckShare(share seal.Master) (kcv string, err error) {
	f, err := o.a.openShare(share)
	if err != nil {
		return "", err
	}
	defer f.close(o.a.s)
	t := o.a.masterTemplate(share.Name).without(pkcs11.CKA_ALLOWED_MECHANISMS).without(pkcs11.CKA_TOKEN)
	h, err := o.a.s.unwrap(f.key, share.Key, append(t, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)))
	if err != nil {
		return "", fmt.Errorf("%w: the key does not open (%w)", ErrShare, err)
	}
	defer func() { _ = o.a.s.destroy(h) }()
	m, err := o.a.describe(share.Name, h)
	return m.KCV, err
}

// CanShare tells why a master key cannot be shared with the holder of to.
func (o *Officer) CanShare(to seal.PublicKey) error {
	if !slices.Contains(o.a.out, to.Alg()) {
		return fmt.Errorf("%w: the token does not wrap by %s, which the transport key %s is for", ErrShare, to.Alg(), to.KID())
	}
	if !o.a.can.derive || !o.a.can.cmac {
		return fmt.Errorf("%w: the token cannot derive the key of the MACs", ErrObject)
	}
	return nil
}

// DrawShared draws a master key that stays nowhere yet: it gives it sealed to each
// of the transport keys and, last, to the token's own, with which it is accepted
// when the others are safe on disk.
func (o *Officer) DrawShared(name string, to ...seal.PublicKey) (shares []seal.Master, err error) {
	own, err := o.publicKey(labelTransport)
	if err != nil {
		return nil, err
	}
	if err := o.a.freeMaster(name); err != nil {
		return nil, err
	}
	to = append(slices.Clip(to), own)
	for _, recipient := range to {
		if err := o.CanShare(recipient); err != nil {
			return nil, err
		}
	}
	err = o.a.withMaster(name, func(m keyring.Master, h handle) error {
		for _, recipient := range to {
			share, err := o.a.share(m, h, recipient)
			if err != nil {
				return err
			}
			shares = append(shares, share)
		}
		return nil
	})
	return shares, err
}

// withMaster draws a master key that can leave, for the length of f.
func (a *admin) withMaster(name string, f func(keyring.Master, handle) error) error {
	h, err := a.s.api.GenerateKey(a.s.handle, mechNewAES, ofLen(sessionKey(true, mayDerive, maySign), masterLen))
	if err != nil {
		return failed("drawing a master key", err)
	}
	defer func() { _ = a.s.destroy(h) }()
	m, err := a.describe(name, h)
	if err != nil {
		return err
	}
	return f(m, h)
}

// Reported gives levels in the form of a report.
func Reported(levels []keyring.Custody) (list []ceremony.Level) {
	for _, l := range levels {
		list = append(list, ceremony.Level{Origin: l.Origin.String(), Profile: l.Profile, Level: l.Level.String(), Served: l.Served, Why: l.Why})
	}
	return list
}
