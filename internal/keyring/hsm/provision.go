package hsm

import (
	"context"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// rsaBits is the size of transport and custody keys.
const rsaBits = 3072

// Plan says what Provision makes beside a Join Server's own keys.
type Plan struct {
	// Custody is the public half of the custody key: NewCustodyKey made it in the
	// token of another role.
	Custody seal.PublicKey
	// Masters are the names of master keys to draw.
	Masters []string
}

// Provisioned is what a report of a ceremony says of a token.
type Provisioned struct {
	Transport seal.PublicKey
	Custody   seal.PublicKey
	Masters   []keyring.Master
	Levels    []keyring.Custody
}

// Provision makes a Join Server's keys in a token that has none yet: join KEK and
// storage KEK, whose templates let nothing readable be unwrapped, the MAC keys of
// rows and owner tokens, the transport pair, the custody key's public half and the
// master keys of the plan. It never overwrites: ErrExists. What a failure leaves
// behind is taken away again.
func Provision(ctx context.Context, opt Options, plan Plan) (made Provisioned, err error) {
	if plan.Custody.IsZero() {
		return made, fmt.Errorf("%w: there is no custody key; make one in the token of its own role first", ErrObject)
	}
	err = administer(opt, func(a *admin) error {
		return a.undoing(func() error { return a.provision(plan) })
	})
	if err != nil {
		return made, err
	}
	// The token as a Join Server will see it.
	t, err := Open(ctx, opt)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return Provisioned{t.TransportKey(), plan.Custody, t.Masters(), t.Custody()}, nil
}

// NewCustodyKey draws the custody key in a token of its own role, which no Join
// Server opens, and gives its public half. ErrExists.
func NewCustodyKey(opt Options) (public seal.PublicKey, err error) {
	err = administer(opt, func(a *admin) error {
		return a.undoing(func() error {
			if err := a.unmade(labelCustody); err != nil {
				return err
			}
			public, err = a.newPair(labelCustody)
			return err
		})
	})
	return public, err
}

// admin is a login that may change the token's objects.
type admin struct {
	s    *session
	can  *capabilities
	in   []string // algorithms by which keys come in, and go out
	out  []string
	made []handle
	// trusts is set for tests: templates are taken for enforced though they are not.
	trusts bool
}

// administer logs in for the length of f, and tries the token out with a key pair
// that is thrown away.
func administer(opt Options, f func(*admin) error) (err error) {
	secret.Do(func() { err = administerToken(opt, f) })
	return err
}

func administerToken(opt Options, f func(*admin) error) error {
	return loggedIn(opt, func(a *admin) error {
		if err := a.try(opt); err != nil {
			return err
		}
		return f(a)
	})
}

// loggedIn logs in for the length of f, and tries nothing out.
func loggedIn(opt Options, f func(*admin) error) (err error) {
	t, err := start(opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return t.pin.Use(func(pin []byte) error {
		c, err := connect(t.api, opt.Token, pin, writable, 1)
		if err != nil {
			return err
		}
		t.conn.Store(c)
		return c.use(context.Background(), func(s *session) error {
			return f(&admin{s: s, trusts: opt.trustStorage})
		})
	})
}

// try finds out what the token can do, with its own transport or custody pair or,
// before it has one, with a pair that is thrown away.
func (a *admin) try(opt Options) error {
	for _, label := range []string{labelTransport, labelCustody} {
		list, err := a.s.everyGeneration(label, classesOf[label]...)
		if err != nil {
			return err
		}
		for _, g := range slices.Backward(list) {
			if g.whole() {
				return a.tryWith(opt, g.handles[0], g.handles[1], label == labelCustody)
			}
		}
	}
	thrown, hidden, err := a.pair("joinery throw-away", "", false)
	if err != nil {
		return failed("making a throw-away key pair", err)
	}
	defer func() { _, _ = a.s.destroy(thrown), a.s.destroy(hidden) }()
	return a.tryWith(opt, thrown, hidden, false)
}

func (a *admin) tryWith(opt Options, public, private handle, leaving bool) error {
	key, err := readRSA(a.s, public)
	if err != nil {
		return err
	}
	p := &prober{s: a.s, pair: pair{public: public, private: private}, leaving: leaving}
	a.in, a.out = p.algorithms(key)
	if len(a.in) == 0 {
		p.transport = nil
		p.basics()
	}
	p.wrapping()
	p.can.enforced = opt.trustStorage || p.can.keyWrap && !p.unwrapsReadable(0)
	p.can.hmac = p.tries(p.makesHMAC)
	p.can.opens = len(a.in) > 0
	a.can = p.can.complete()
	return p.gone
}

// undoing takes back what f made before it failed.
func (a *admin) undoing(f func() error) error {
	err := f()
	if err != nil {
		for _, h := range a.made {
			err = errors.Join(err, failed("taking back what was made", a.s.destroy(h)))
		}
	}
	return err
}

// unmade makes sure that a key has no generation.
func (a *admin) unmade(label string) error {
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		list, err := a.s.labelled(class, label)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("%w: %s", ErrExists, label)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// free makes sure that no object has that label.
func (a *admin) free(labels ...string) error {
	for _, label := range labels {
		for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			list, err := a.s.find(class, label)
			if err != nil {
				return err
			}
			if len(list) > 0 {
				return fmt.Errorf("%w: %s", ErrExists, label)
			}
		}
	}
	return nil
}

func (a *admin) provision(plan Plan) error {
	for _, label := range []string{labelJoinKEK, labelStorageKEK, labelRowMAC, labelOwnerTokens, labelTransport, labelCustody, labelExport} {
		if err := a.unmade(label); err != nil {
			return err
		}
	}
	for _, label := range []string{labelJoinKEK, labelStorageKEK} {
		if err := a.newKEK(label); err != nil {
			return err
		}
	}
	for _, label := range []string{labelRowMAC, labelOwnerTokens} {
		if err := a.newMACKey(label); err != nil {
			return err
		}
	}
	if _, err := a.newPair(labelTransport); err != nil {
		return err
	}
	if err := a.storePublic(labelCustody, plan.Custody); err != nil {
		return err
	}
	if err := a.newAuditKey(labelExport); err != nil {
		return err
	}
	for _, name := range plan.Masters {
		if err := a.newMaster(name); err != nil {
			return err
		}
	}
	return nil
}

// stored is the template of a secret key that stays and never leaves.
func stored(label, kind string, keyType uint, mechanisms []uint, rights ...right) template {
	t := append(secretKey(keyType, true, false), rightsOf(rights)...)
	t = append(t, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), kindOf(kind, label))
	var allowed []byte
	for _, m := range mechanisms {
		allowed = append(allowed, ulong(m)...)
	}
	return append(t, pkcs11.NewAttribute(pkcs11.CKA_ALLOWED_MECHANISMS, allowed))
}

// without gives t without an attribute.
func (t template) without(typ uint) (less template) {
	for _, a := range t {
		if a.Type != typ {
			less = append(less, a)
		}
	}
	return less
}

// generate makes a key that stays. Lists of allowed mechanisms narrow what a PIN
// can do; a token that does not know them is asked again without.
func (a *admin) generate(m []*pkcs11.Mechanism, t template) error {
	h, err := a.s.api.GenerateKey(a.s.handle, m, t)
	if err != nil {
		h, err = a.s.api.GenerateKey(a.s.handle, m, t.without(pkcs11.CKA_ALLOWED_MECHANISMS))
	}
	if err == nil {
		a.made = append(a.made, h)
	}
	return err
}

// newKEK makes a key under which nothing readable can be unwrapped, where the
// token knows such templates.
func (a *admin) newKEK(label string) error {
	t := ofLen(stored(label, "kek", pkcs11.CKK_AES, []uint{pkcs11.CKM_AES_KEY_WRAP}, mayWrap, mayUnwrap), 32)
	err := a.generate(mechNewAES, append(t, unwrapsHiddenOnly()))
	if err != nil && !a.can.enforced {
		err = a.generate(mechNewAES, t)
	}
	return failed("making "+label, err)
}

func (a *admin) newMACKey(label string) error {
	err := a.generate(mechNewHMAC, ofLen(stored(label, "mac", pkcs11.CKK_GENERIC_SECRET, []uint{pkcs11.CKM_SHA256_HMAC}, maySign), 32))
	return failed("making "+label, err)
}

// newPair makes an RSA pair that stays, for the best algorithm by which the token
// opens what is sealed.
func (a *admin) newPair(label string) (seal.PublicKey, error) {
	if len(a.in) == 0 {
		return seal.PublicKey{}, fmt.Errorf("%w: the token opens nothing by RSA-OAEP", ErrObject)
	}
	public, private, err := a.pair(label, a.in[0], true)
	if err != nil {
		return seal.PublicKey{}, failed("making "+label, err)
	}
	a.made = append(a.made, public, private)
	return readPublic(a.s, public)
}

// isCustody tells whether a label is that of a generation of the custody key.
func isCustody(label string) bool {
	n, err := generationOf(labelCustody, label)
	return err == nil && n > 0
}

// pair makes an RSA pair. The private half unwraps hidden keys only, a custody key's
// such as can be wrapped for their owners; it does nothing else.
func (a *admin) pair(label, alg string, token bool) (public, private handle, err error) {
	common := template{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		kindOf(alg, label),
	}
	publicKey := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, rsaBits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
	)
	privateKey := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
	)
	switch {
	case token && isCustody(label):
		privateKey = append(privateKey, pkcs11.NewAttribute(pkcs11.CKA_UNWRAP_TEMPLATE, sensitiveOnly))
	case token:
		privateKey = append(privateKey, unwrapsHiddenOnly())
	}
	public, private, err = a.s.api.GenerateKeyPair(a.s.handle, mechNewRSA, publicKey, privateKey)
	if err != nil && token {
		public, private, err = a.s.api.GenerateKeyPair(a.s.handle, mechNewRSA, publicKey, privateKey.without(pkcs11.CKA_UNWRAP_TEMPLATE))
	}
	return public, private, err
}

// storePublic puts a public key of others into the token.
func (a *admin) storePublic(label string, p seal.PublicKey) error {
	h, err := a.s.api.CreateObject(a.s.handle, publicKey(label, p, true))
	if err != nil {
		return failed("storing "+label, err)
	}
	a.made = append(a.made, h)
	return nil
}

// publicKey is the template of a public key to which keys are wrapped.
func publicKey(label string, p seal.PublicKey, token bool) template {
	key := p.RSA()
	return template{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		kindOf(p.Alg(), label),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, key.N.Bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, exponent(key)),
	}
}

func exponent(key *rsa.PublicKey) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(key.E))
	return new(big.Int).SetBytes(b).Bytes()
}

// newMaster draws a master key of profile ecb-v1.
func (a *admin) newMaster(name string) error {
	if err := a.freeMaster(name); err != nil {
		return err
	}
	err := a.generate(mechNewAES, ofLen(a.masterTemplate(name), 32))
	return failed("making "+labelMaster+name, err)
}

func (a *admin) freeMaster(name string) error {
	if !masterName.MatchString(name) {
		return fmt.Errorf("%w: a master key's name is 1 to 64 letters, digits, hyphens, dots and underscores", ErrObject)
	}
	return a.free(labelMaster + name)
}

// masterTemplate gives a master key the right to derive and, for its key check
// value, to make CMACs; only where a token cannot derive, to encrypt.
func (a *admin) masterTemplate(name string) template {
	rights, mechanisms := []right{mayEncrypt}, []uint{pkcs11.CKM_AES_ECB}
	if a.can.derive {
		rights, mechanisms = []right{mayDerive}, []uint{pkcs11.CKM_AES_ECB_ENCRYPT_DATA}
	}
	if a.can.cmac {
		rights, mechanisms = append(rights, maySign), append(mechanisms, pkcs11.CKM_AES_CMAC)
	}
	return stored(labelMaster+name, keyring.ProfileECBv1, pkcs11.CKK_AES, mechanisms, rights...)
}
