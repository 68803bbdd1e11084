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

// maker is of a key that every Join Server's token has.
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
	{labelTransport, classesOf[labelTransport], (*admin).newRSA},
	{labelAudit, classesOf[labelAudit], (*admin).newAuditKey},
	{labelExport, classesOf[labelExport], (*admin).newAuditKey},
}

func (a *admin) newRSA(label string) error {
	_, err := a.newPair(label)
	return err
}

// makerOf finds the maker of a key; the custody key's makes it in the token of its
// own role.
func makerOf(label string) (maker, error) {
	if label == labelCustody {
		return maker{labelCustody, classesOf[labelCustody], (*admin).newRSA}, nil
	}
	i := slices.IndexFunc(makers, func(m maker) bool { return m.label == label })
	if i < 0 {
		return maker{}, fmt.Errorf("%w: %q is none that a ceremony makes", ErrObject, label)
	}
	return makers[i], nil
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
// it if it is there, in all of its generations. A key that is not as it must be is
// ErrObject, or ErrTemplate.
func (o *Officer) Ensure(label string, apply bool) (ceremony.Outcome, error) {
	m, err := makerOf(label)
	if err != nil {
		return "", err
	}
	there, err := o.a.labelsOf(m)
	switch {
	case err != nil:
		return "", err
	case len(there) > 0:
		for _, each := range there {
			if err := o.a.fits(each); err != nil {
				return "", err
			}
		}
		return ceremony.WasThere, nil
	case !apply:
		return ceremony.Planned, nil
	}
	return ceremony.WasMade, o.make(m, label)
}

// labelsOf lists the labels under which a key is there, whole: one of each
// generation.
func (a *admin) labelsOf(m maker) (list []string, err error) {
	if classesOf[m.label] == nil {
		there, err := a.present(m.label, m.classes...)
		if err == nil && there {
			list = []string{m.label}
		}
		return list, err
	}
	generations, err := a.s.generations(m.label, m.classes...)
	for _, g := range generations {
		list = append(list, g.label)
	}
	return list, err
}

// make makes a key under a label that is free.
func (o *Officer) make(m maker, label string) error {
	return o.step(func() error {
		if err := o.a.free(label); err != nil {
			return err
		}
		if err := m.make(o.a, label); err != nil {
			return err
		}
		return o.a.fits(label)
	})
}

// Newest tells which generation of a key is the newest; 0 where there is none.
func (o *Officer) Newest(label string) (uint32, error) {
	m, err := makerOf(label)
	if err != nil {
		return 0, err
	}
	return o.a.newest(m.label, m.classes...)
}

func (a *admin) newest(label string, classes ...uint) (uint32, error) {
	list, err := a.s.generations(label, classes...)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[len(list)-1].number, nil
}

// MakeGeneration makes that generation of a key if it is the next one and apply is
// set, and checks it if it is the newest that is there. Any other is ErrObject: what
// was planned is not what is to be done any more.
func (o *Officer) MakeGeneration(label string, number uint32, apply bool) (ceremony.Outcome, error) {
	m, err := makerOf(label)
	if err != nil {
		return "", err
	}
	newest, err := o.Newest(label)
	if err != nil {
		return "", err
	}
	if newest == number {
		return ceremony.WasThere, o.a.fits(generationLabel(label, number))
	}
	next, err := following(newest)
	if err != nil {
		return "", err
	}
	if newest == 0 || next != number {
		return "", fmt.Errorf("%w: generation %d of %s was to be made, and the newest is %d", ErrObject, number, label, newest)
	}
	if !apply {
		return ceremony.Planned, nil
	}
	if err := o.a.clearNewest(label); err != nil {
		return "", err
	}
	return ceremony.WasMade, o.make(m, generationLabel(label, number))
}

// GenerationLabel is the label of a generation of a key.
func GenerationLabel(label string, number uint32) string { return generationLabel(label, number) }

// Retire destroys every generation of a key but the newest, of the custody key what
// this token has of it. What they sealed does not open any more. ErrRetire where there
// is one only.
func (o *Officer) Retire(label string) error {
	m, err := makerOf(label)
	if err != nil {
		return err
	}
	if label == labelCustody && noPrivateHalf(o.a.s) == nil {
		m.classes = []uint{pkcs11.CKO_PUBLIC_KEY}
	}
	return o.a.retire(label, m.classes...)
}

// FollowingInServer is the generation that comes after the newest of a key in a Join
// Server's token, of the custody key's public half as well. There must be one.
func (o *Officer) FollowingInServer(label string) (uint32, error) {
	m, err := makerOf(label)
	if err != nil {
		return 0, err
	}
	if label == labelCustody {
		m.classes = []uint{pkcs11.CKO_PUBLIC_KEY}
	}
	list, err := o.a.s.someGenerations(label, m.classes...)
	if err != nil {
		return 0, err
	}
	return following(list[len(list)-1].number)
}

// Generations tells which generations a Join Server's token has.
func (o *Officer) Generations() (keyring.Generations, error) {
	objects, err := findObjects(o.a.s)
	if err != nil {
		return keyring.Generations{}, err
	}
	return objects.generations(), nil
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
	if isCustody(label) {
		return a.fitsCustody(label)
	}
	if !isKEK(label) || !a.can.enforced || a.trusts {
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

// isKEK tells whether a label is that of a key under which others come in.
func isKEK(label string) bool {
	for _, base := range []string{labelJoinKEK, labelStorageKEK} {
		if n, err := generationOf(base, label); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// unwrapsReadable tries whether a key comes in readable under kek.
func (a *admin) unwrapsReadable(kek handle) bool {
	p := &prober{s: a.s}
	return p.unwrapsReadable(kek)
}

// CustodyKey is a generation of a custody key: its public half.
type CustodyKey struct {
	// Generation is 0 where nobody says which one it is.
	Generation uint32
	Public     seal.PublicKey
}

// EnsureCustodyPair makes the custody key in the token of its own role, or finds
// it, and gives the public half of its newest generation: none where apply is not
// set and there is none.
func (o *Officer) EnsureCustodyPair(apply bool) (key CustodyKey, out ceremony.Outcome, err error) {
	if out, err = o.Ensure(labelCustody, apply); err != nil || out == ceremony.Planned {
		return key, out, err
	}
	key, err = o.NewestCustody()
	return key, out, err
}

// NewestCustody gives the newest custody key of either token. It must be there.
func (o *Officer) NewestCustody() (CustodyKey, error) {
	list, err := publicHalves(o.a.s, labelCustody)
	if err != nil {
		return CustodyKey{}, err
	}
	newest := list[len(list)-1]
	return CustodyKey{newest.number, newest.key}, nil
}

// EnsureCustody puts the public half of the custody key into the token, which must
// not have the private one. With next set it may be the generation after the newest
// that is there; else it must be that one, or the first.
func (o *Officer) EnsureCustody(key CustodyKey, next, apply bool) (label string, out ceremony.Outcome, err error) {
	if err := noPrivateHalf(o.a.s); err != nil {
		return "", "", err
	}
	list, err := o.a.s.generations(labelCustody, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return "", "", err
	}
	number := max(key.Generation, 1)
	if len(list) > 0 {
		have, err := o.NewestCustody()
		if err != nil {
			return "", "", err
		}
		same := !key.Public.IsZero() && have.Public.KID() == key.Public.KID()
		switch {
		case key.Public.IsZero() && !next:
			return "", "", fmt.Errorf("%w: the token knows the custody key %s, and the token of custody has none", ErrObject, have.Public.KID())
		case same && (key.Generation == 0 || key.Generation == have.Generation):
			return generationLabel(labelCustody, have.Generation), ceremony.WasThere, nil
		case same || !next:
			return "", "", fmt.Errorf("%w: another custody key, %s, of generation %d", ErrExists, have.Public.KID(), have.Generation)
		}
		if number, err = following(have.Generation); err != nil {
			return "", "", err
		}
		if key.Generation != 0 && key.Generation != number {
			return "", "", fmt.Errorf("%w: generation %d of the custody key does not follow generation %d, which the token knows", ErrObject, key.Generation, have.Generation)
		}
	}
	if !key.Public.IsZero() && !slices.Contains(o.a.out, key.Public.Alg()) {
		return "", "", fmt.Errorf("%w: the token does not wrap by %s, which the custody key is for", ErrObject, key.Public.Alg())
	}
	label = generationLabel(labelCustody, number)
	if !apply {
		return label, ceremony.Planned, nil
	}
	return label, ceremony.WasMade, o.step(func() error { return o.a.storePublic(label, key.Public) })
}

// TransportKey gives the public half of the newest transport key; none where there
// is no such key yet.
func (o *Officer) TransportKey() (seal.PublicKey, error) {
	there, err := o.a.s.generations(labelTransport, classesOf[labelTransport]...)
	if err != nil || len(there) == 0 {
		return seal.PublicKey{}, err
	}
	return readPublic(o.a.s, there[len(there)-1].handles[0])
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
	own, err := o.TransportKey()
	if err != nil {
		return nil, err
	}
	if own.IsZero() {
		return nil, fmt.Errorf("%w: there is no transport key", ErrObject)
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
