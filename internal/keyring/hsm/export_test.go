package hsm

import (
	"time"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
)

// TrustingStorage gives options that serve imported root keys though the token does
// not enforce the template that protects them: so that a token can be tested whole.
func TrustingStorage(opt Options) Options {
	opt.trustStorage = true
	return opt
}

// Without gives options under which mechanisms of the token are not there.
func Without(opt Options, mechanisms ...uint) Options {
	opt.through = func(p api) api { return lacking{p, mechanisms} }
	return opt
}

// Forgetful gives options under which a test can make the token fail.
func Forgetful(opt Options, f *Fault) Options {
	opt.through = func(p api) api { return faulty{p, f} }
	return opt
}

// ForgetPause lets the next try to open a token again happen at once.
func (t *Token) ForgetPause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried = time.Time{}
}

// RawSession gives a login of the test's own to the same token.
func RawSession(opt Options, f func(p *pkcs11.Ctx, s pkcs11.SessionHandle)) error {
	m, err := openModule(opt.Module, opt.InitArgs)
	if err != nil {
		return err
	}
	c, err := connect(m.api, opt.Token, opt.PIN, writable, 0)
	if err != nil {
		return err
	}
	f(m.ctx, c.keeper.handle)
	c.close()
	return m.release()
}

// Pieces of templates that hostile callers use, too.
var (
	DerivationBlock = func(block []byte) *pkcs11.Mechanism {
		b := newCBuffer(len(block)) // a test may leak it
		b.set(block)
		return pkcs11.NewMechanism(pkcs11.CKM_AES_ECB_ENCRYPT_DATA, b.derivationData(len(block)))
	}
	HiddenOnly = unwrapsHiddenOnly
)

// Bare is the chain of calls of one join by a 1.0.x device, with nothing around
// them: what a token can give at most.
type Bare struct {
	P                                 *pkcs11.Ctx
	S                                 pkcs11.SessionHandle
	master, joinKEK, rowMAC, kek      pkcs11.ObjectHandle
	root, derivedRoot, derivedSession []*pkcs11.Attribute
	block                             []*pkcs11.Mechanism
}

// NewBare prepares the chain on the token that t has open.
func NewBare(t *Token, p *pkcs11.Ctx, s pkcs11.SessionHandle, master string) (*Bare, error) {
	c := t.conn.Load()
	b := &Bare{P: p, S: s, master: c.objects.masters[master].handle, joinKEK: c.objects.newestJoinKEK().handles[0], rowMAC: c.objects.rowMAC,
		root: t.can.root, derivedRoot: t.can.derivedRoot, derivedSession: t.can.derived[keyring.UseSession]}
	b.block = []*pkcs11.Mechanism{DerivationBlock(make([]byte, 16))}
	kek, err := p.GenerateKey(s, mechNewAES, ofLen(sessionKey(false, mayWrap), 16))
	b.kek = kek
	return b, err
}

// Join makes the calls: of a derived root key, or of a sealed one whose blob is
// given with its MAC's input.
func (b *Bare) Join(sealed []byte) error {
	var root pkcs11.ObjectHandle
	var err error
	if sealed == nil {
		root, err = b.P.DeriveKey(b.S, b.block, b.master, b.derivedRoot)
	} else {
		if err := b.mac(mechHMAC, b.rowMAC, make([]byte, 46)); err != nil {
			return err
		}
		root, err = b.P.UnwrapKey(b.S, mechKeyWrap, b.joinKEK, sealed, b.root)
	}
	if err != nil {
		return err
	}
	if err := b.mac(mechCMAC, root, make([]byte, 19)); err != nil {
		return err
	}
	for range 2 {
		key, err := b.P.DeriveKey(b.S, b.block, root, b.derivedSession)
		if err != nil {
			return err
		}
		if _, err := b.P.WrapKey(b.S, mechKeyWrap, b.kek, key); err != nil {
			return err
		}
		if err := b.P.DestroyObject(b.S, key); err != nil {
			return err
		}
	}
	if err := b.mac(mechCMAC, root, make([]byte, 13)); err != nil {
		return err
	}
	if err := b.P.DecryptInit(b.S, mechECB, root); err != nil {
		return err
	}
	if _, err := b.P.Decrypt(b.S, make([]byte, 16)); err != nil {
		return err
	}
	return b.P.DestroyObject(b.S, root)
}

func (b *Bare) mac(m []*pkcs11.Mechanism, key pkcs11.ObjectHandle, msg []byte) error {
	if err := b.P.SignInit(b.S, m, key); err != nil {
		return err
	}
	_, err := b.P.Sign(b.S, msg)
	return err
}

// Labels of objects, by what they are for.
const (
	LabelMaster    = labelMaster
	LabelJoinKEK   = labelJoinKEK
	LabelRowMAC    = labelRowMAC
	LabelTransport = labelTransport
	LabelCustody   = labelCustody
)

// Find gives the only object of a class and label.
func Find(p *pkcs11.Ctx, s pkcs11.SessionHandle, class uint, label string) (pkcs11.ObjectHandle, error) {
	return findOne(&session{api: direct{Ctx: p}, handle: s}, class, label)
}

// SessionKey and StoredKEK are the templates that the backend itself uses.
func SessionKey(extractable bool, rights ...uint) []*pkcs11.Attribute {
	list := make([]right, len(rights))
	for i, r := range rights {
		list[i] = right(r)
	}
	return sessionKey(extractable, list...)
}

// UntemplatedKEK is a join KEK whose maker forgot the template.
func UntemplatedKEK() []*pkcs11.Attribute {
	return ofLen(stored(labelJoinKEK, "kek", pkcs11.CKK_AES, []uint{pkcs11.CKM_AES_KEY_WRAP}, mayWrap, mayUnwrap), 32)
}

// Readable is the template of a key that anybody may read.
func Readable() []*pkcs11.Attribute { return readable }

// DirectCalls makes each of the calls that carry secrets, on a library that keeps
// nothing, and clears what is the caller's to clear.
func DirectCalls(module string, pin, value []byte) error {
	d, err := newDirect(nil, module)
	if err != nil {
		return err
	}
	out := make([]byte, 61)
	defer clear(out)
	if err := d.LoginBytes(1, pkcs11.CKU_USER, pin); err != nil {
		return err
	}
	if _, err := d.CreateObject(1, []*pkcs11.Attribute{{Type: pkcs11.CKA_VALUE, Value: value}}); err != nil {
		return err
	}
	if _, err := d.Value(1, 1, out); err != nil {
		return err
	}
	_, err = d.EncryptInto(1, value, out)
	return err
}

// ClientCalls makes the same by the client.
func ClientCalls(module string, pin, value []byte) error {
	p := pkcs11.New(module)
	if p == nil {
		return ErrModule
	}
	if err := p.Login(1, pkcs11.CKU_USER, string(pin)); err != nil {
		return err
	}
	_, err := p.CreateObject(1, []*pkcs11.Attribute{{Type: pkcs11.CKA_VALUE, Value: value}})
	return err
}

// OAEP is a mechanism of hostile callers.
func OAEP(alg string) []*pkcs11.Mechanism { return oaep(alg) }

// EncryptTo encrypts to a public key of the token, outside of it.
func EncryptTo(p *pkcs11.Ctx, s pkcs11.SessionHandle, public pkcs11.ObjectHandle, value []byte) ([]byte, error) {
	key, err := readPublic(&session{api: direct{Ctx: p}, handle: s}, public)
	if err != nil {
		return nil, err
	}
	return key.EncryptOAEP(value)
}

// EarlyCustodyKey makes a custody key as ceremonies did before there were exports.
func (o *Officer) EarlyCustodyKey(number uint32) error {
	label := generationLabel(labelCustody, number)
	common := template{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), kindOf(o.a.in[0], label),
	}
	public := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, rsaBits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true))
	private := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true), unwrapsHiddenOnly())
	_, _, err := o.a.s.api.GenerateKeyPair(o.a.s.handle, mechNewRSA, public, private)
	return err
}
