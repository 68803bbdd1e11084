package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"joinery"
	"joinery/internal/cmac"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// capabilities are what a token was seen to do, with throw-away keys whose values
// are known here, so that every result was compared with the true one.
type capabilities struct {
	opens    bool   // a sealed file, by the transport key's algorithm
	custody  string // the custody key's algorithm, where the token wraps by it; else ""
	derive   bool   // CKM_AES_ECB_ENCRYPT_DATA, of one block and of two
	cmac     bool   // CKM_AES_CMAC
	encrypt  bool   // CKM_AES_ECB, and decrypt the same
	decrypt  bool
	keyWrap  bool // CKM_AES_KEY_WRAP, both ways
	create   bool // C_CreateObject of a session key
	hmac     bool // CKM_SHA256_HMAC
	enforced bool // an unwrap template is not only stored

	// Templates of session objects, with the rights that serve.
	root, derivedRoot, fileKey, outFileKey, macKey, transit, peerKEK template
	derived                                                          map[keyring.Use]template
}

// complete makes the templates.
func (c capabilities) complete() *capabilities {
	signs, derives := maySign, mayDerive
	if !c.cmac {
		signs = mayEncrypt // a CMAC is made of single blocks
	}
	if !c.derive {
		derives = mayEncrypt
	}
	c.root = sessionKey(false, signs, derives, mayDecrypt)
	c.derivedRoot = ofLen(c.root, lwcrypto.BlockLen)
	c.fileKey = sessionKey(false, mayUnwrap, derives)
	c.outFileKey = ofLen(sessionKey(true, mayWrap, derives), 2*lwcrypto.BlockLen)
	c.macKey = ofLen(sessionKey(false, signs), 2*lwcrypto.BlockLen)
	c.transit = sessionKey(true)
	c.peerKEK = sessionKey(false, mayWrap)
	c.derived = map[keyring.Use]template{
		keyring.UseSession: ofLen(sessionKey(true), lwcrypto.BlockLen),
		keyring.UseMIC:     ofLen(sessionKey(false, signs), lwcrypto.BlockLen),
		keyring.UseAccept:  ofLen(sessionKey(false, mayDecrypt), lwcrypto.BlockLen),
		keyring.UseRekey:   ofLen(sessionKey(false, derives), lwcrypto.BlockLen),
		keyring.UseRoot:    c.derivedRoot,
		// As a session key: to be wrapped, once, under the file key of a hand-over.
		keyring.UseHandover: ofLen(sessionKey(true), lwcrypto.BlockLen),
	}
	return &c
}

func (c *capabilities) macs() bool { return c.cmac || c.encrypt }

// servesSealed tells whether imported root keys are kept as they must be: where an
// unwrap template is only stored, whoever has the PIN can read them all.
func (c *capabilities) servesSealed() bool {
	return c.enforced && c.keyWrap && c.opens && c.custody != "" && c.decrypt && c.macs() && (c.derive || c.encrypt && c.create)
}

// levels gives the table of custody, with the reason for each level that is not
// the highest.
func (c *capabilities) levels() []keyring.Custody {
	rekeyed := c.levelOfDerived() // the same derivations, one after the other
	rekeyed.Origin, rekeyed.Profile = joinery.OriginRekeyed, joinery.RekeyS.String()
	slot := keyring.Custody{Origin: joinery.OriginRekeyed, Profile: joinery.RekeyM.String(), Level: keyring.LevelInMemory,
		Why: "SHA-256 over a slot key is nothing that a token derives"}
	return []keyring.Custody{c.levelOfDerived(), c.levelOfSealed(), rekeyed, slot}
}

func (c *capabilities) levelOfDerived() keyring.Custody {
	l := keyring.Custody{Origin: joinery.OriginDerived, Profile: keyring.ProfileECBv1, Level: keyring.LevelInMemory}
	missing := c.missing(c.keyWrap, "AES key wrap", c.hmac, "HMAC-SHA-256")
	switch {
	case missing != "":
		l.Why = missing
	case c.derive && c.decrypt && c.macs():
		l.Level, l.Served = keyring.LevelInToken, true
	default:
		l.Served = c.encrypt && c.create
		l.Why = c.missing(c.derive, "derivation by AES-ECB", c.decrypt, "AES-ECB", c.create || c.derive, "creation of session keys")
	}
	return l
}

func (c *capabilities) levelOfSealed() keyring.Custody {
	l := keyring.Custody{Origin: joinery.OriginSealed, Level: keyring.LevelInMemory}
	switch {
	case !c.servesSealed() || !c.hmac:
		l.Why = c.missing(c.enforced, "enforcement of unwrap templates", c.keyWrap, "AES key wrap", c.opens && c.custody != "", "RSA-OAEP",
			c.decrypt && c.macs(), "AES-ECB and CMAC", c.derive || c.encrypt && c.create, "derivation by AES-ECB, and creation of session keys",
			c.hmac, "HMAC-SHA-256")
	case c.derive:
		l.Level, l.Served = keyring.LevelInToken, true
	default:
		l.Level, l.Served = keyring.LevelECBOracle, true
		l.Why = c.missing(c.derive, "derivation by AES-ECB", c.cmac, "AES-CMAC")
	}
	return l
}

// missing names what is not there, of pairs of a fact and its name.
func (c *capabilities) missing(pairs ...any) string {
	var list []string
	for i := 0; i+1 < len(pairs); i += 2 {
		if there, ok := pairs[i].(bool); ok && !there {
			list = append(list, fmt.Sprint(pairs[i+1]))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "the token lacks " + strings.Join(list, ", ")
}

// keyCheckValue makes the key check value of a master key: with the key itself
// where the token has CMAC, else block by block.
func (c *capabilities) keyCheckValue(s *session, h handle) (string, error) {
	zero := make([]byte, lwcrypto.BlockLen)
	var mac [lwcrypto.BlockLen]byte
	var err error
	switch {
	case c.cmac:
		mac, err = s.cmac(h, zero)
	case c.derive:
		mac, err = new(cmac.CMAC).Sum(revealing{s, h}, zero)
	default:
		mac, err = new(cmac.CMAC).Sum(ecb{s, h}, zero)
	}
	return fmt.Sprintf("%X", mac[:3]), err
}

// revealing is a cmac.Encrypter over derivation, for a key check value alone.
type revealing struct {
	s *session
	h handle
}

func (r revealing) EncryptBlock(b *[lwcrypto.BlockLen]byte) error {
	return reveal(r.s, r.h, *b, b)
}

// probed is what was found out about a token.
type probed struct {
	can capabilities
	// joinKEKsHide is not set where the token unwrapped a key as readable under a
	// join KEK itself, of whatever generation.
	joinKEKsHide bool
	births       []uint // see checkBirths
}

// prober tries a token out. What a token refuses it cannot do; only a lost session
// is an error.
type prober struct {
	s         *session
	pair      pair            // a transport key, or one that is thrown away
	transport *seal.PublicKey // what comes in by it
	can       capabilities
	gone      error
	leaving   bool // pair is a custody key's, under which keys come in such that they can leave
}

// probe finds out what a token can do, with the help of its transport key, and
// tries every join KEK.
func probe(s *session, o objects) (probed, error) {
	p := &prober{s: s, pair: o.newestTransport()}
	in, out := p.algorithms(p.pair.key.RSA())
	if len(in) == 0 {
		p.transport = nil
		p.basics()
	}
	p.can.opens = slices.Contains(in, p.pair.key.Alg())
	if alg := o.newestCustody().key.Alg(); slices.Contains(out, alg) {
		p.can.custody = alg
	}
	p.wrapping()
	p.can.hmac = p.tries(p.makesHMAC)
	p.can.enforced = p.can.keyWrap && !p.unwrapsReadable(0)
	hide := true
	for _, kek := range o.joinKEKs {
		hide = !p.unwrapsReadable(kek.handles[0]) && hide
	}
	return probed{p.can, hide, p.births()}, p.gone
}

// algorithms tells by which algorithms keys truly come in under the transport key,
// and by which they go out to a public key. The last that works is used from here
// on.
func (p *prober) algorithms(key *rsa.PublicKey) (in, out []string) {
	for _, alg := range []string{seal.AlgRSAOAEP256, seal.AlgRSAOAEP} {
		public, err := seal.NewPublicKeyFor(key, alg)
		if err != nil {
			continue
		}
		before, can := p.transport, p.can
		p.transport = &public
		if !p.basics() {
			p.transport, p.can = before, can
			continue
		}
		in = append(in, alg)
		if p.goesOut() {
			out = append(out, alg)
		}
	}
	return in, out
}

// tries tells whether f succeeded. After a lost session nothing does.
func (p *prober) tries(f func() error) bool {
	if p.gone != nil {
		return false
	}
	err := f()
	if rv, ok := answer(err); ok && lost[rv] {
		p.gone = err
	}
	if p.s.begun { // the operation is under way still; another session goes on
		p.s.begun = false
		p.renew()
	}
	return err == nil
}

// renew takes another session in the place of one that may refuse everything.
func (p *prober) renew() {
	info, err := p.s.api.GetSessionInfo(p.s.handle)
	if err != nil {
		p.gone = err
		return
	}
	fresh, err := p.s.api.OpenSession(info.SlotID, info.Flags)
	if err != nil {
		p.gone = err
		return
	}
	_ = p.s.api.CloseSession(p.s.handle)
	p.s.handle = fresh
}

// bring makes a throw-away key of a known value: wrapped to the transport key, as
// a customer's comes, or, where that does not work, as an object with a value.
func (p *prober) bring(value []byte, t template, f func(handle) error) error {
	h, err := p.put(value, t)
	if err != nil {
		return err
	}
	defer func() { _ = p.s.destroy(h) }()
	return f(h)
}

func (p *prober) put(value []byte, t template) (handle, error) {
	t = p.fitting(t)
	if p.transport == nil {
		return p.s.api.CreateObject(p.s.handle, append(t[:len(t):len(t)], pkcs11.NewAttribute(pkcs11.CKA_VALUE, value)))
	}
	wrapped, err := p.transport.EncryptOAEP(value)
	if err != nil {
		return 0, err
	}
	return p.s.api.UnwrapKey(p.s.handle, oaep(p.transport.Alg()), p.pair.private, wrapped, t)
}

// bringOut makes a throw-away key of a known value that can be wrapped. The
// transport key itself brings in none such.
func (p *prober) bringOut(value []byte, f func(handle) error) error {
	kek := newKnown(2 * lwcrypto.BlockLen)
	defer kek.wipe()
	wrapped, err := seal.WrapKey(nil, kek.cipher.Block, value)
	if err != nil {
		return err
	}
	return p.bring(kek.value, sessionKey(false, mayUnwrap), func(under handle) error {
		h, err := p.s.unwrap(under, wrapped, sessionKey(true))
		if err != nil {
			return err
		}
		defer func() { _ = p.s.destroy(h) }()
		return f(h)
	})
}

// fitting gives a template as it must be for keys that come in under the pair.
func (p *prober) fitting(t template) template {
	if !p.leaving {
		return t
	}
	return append(slices.Clip(t.without(pkcs11.CKA_EXTRACTABLE)), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
}

var errWrong = errors.New("the token computed something else")

func equal(have, want []byte) error {
	if !bytes.Equal(have, want) {
		return errWrong
	}
	return nil
}

// known is a throw-away key whose value is known here.
type known struct {
	value  []byte
	cipher cmac.Cipher
}

func newKnown(n int) known {
	k := known{value: make([]byte, n)}
	rand.Read(k.value) // never fails
	return k.ready()
}

func (k known) ready() known {
	c, err := aes.NewCipher(k.value)
	if err != nil {
		panic(err) // the lengths are constants of this file
	}
	k.cipher = cmac.Cipher{Block: c}
	return k
}

// sum is CMAC by the implementation of this process.
func (k known) sum(msg []byte) []byte {
	mac, err := new(cmac.CMAC).Sum(k.cipher, msg)
	if err != nil {
		panic(err) // a cipher of this process never fails
	}
	return mac[:]
}

// under gives the key that derives from k by these blocks.
func (k known) under(blocks []byte) known {
	child := known{value: bytes.Clone(blocks)}
	for b := child.value; len(b) > 0; b = b[lwcrypto.BlockLen:] {
		k.cipher.Encrypt(b[:lwcrypto.BlockLen], b[:lwcrypto.BlockLen])
	}
	return child.ready()
}

func (k known) wipe() {
	clear(k.value)
	secret.WipeBlock(k.cipher.Block)
}

// basics tries what a root key and a master key need, and tells whether any of it
// works: a wrong OAEP gives keys of other values, or none.
func (p *prober) basics() bool {
	k := newKnown(lwcrypto.BlockLen)
	defer k.wipe()
	p.can.encrypt = p.tries(func() error { return p.bring(k.value, sessionKey(false, mayEncrypt), k.encryptsLike(p.s)) })
	p.can.decrypt = p.tries(func() error { return p.bring(k.value, sessionKey(false, mayDecrypt), k.decryptsLike(p.s)) })
	p.can.cmac = p.tries(func() error { return p.bring(k.value, sessionKey(false, maySign), k.signsLike(p.s)) })
	p.can.derive = p.tries(func() error { return p.derives(k) })
	// All at once, as a root key must: some tokens refuse such a mixture.
	if p.can.derive && p.can.decrypt && p.can.macs() {
		whole := p.can.complete()
		p.can.decrypt = p.tries(func() error { return p.bring(k.value, whole.root, k.decryptsLike(p.s)) })
	}
	p.can.create = p.tries(func() error {
		t := append(sessionKey(true), pkcs11.NewAttribute(pkcs11.CKA_VALUE, k.value))
		h, err := p.s.api.CreateObject(p.s.handle, t)
		if err != nil {
			return err
		}
		return p.s.destroy(h)
	})
	return p.can.encrypt || p.can.decrypt || p.can.cmac
}

func (k known) encryptsLike(s *session) func(handle) error {
	return func(h handle) error {
		var block, want [lwcrypto.BlockLen]byte
		copy(block[:], "a block to probe")
		k.cipher.Encrypt(want[:], block[:])
		return errors.Join(s.encrypt(h, block[:]), equal(block[:], want[:]))
	}
}

func (k known) decryptsLike(s *session) func(handle) error {
	return func(h handle) error {
		blocks := []byte("two blocks with which to probe...")[:32]
		want := make([]byte, len(blocks))
		k.cipher.Decrypt(want, blocks[:16])
		k.cipher.Decrypt(want[16:], blocks[16:])
		if err := s.decrypt(h, blocks); err != nil {
			return err
		}
		return equal(blocks, want)
	}
}

func (k known) signsLike(s *session) func(handle) error {
	return func(h handle) error {
		msg := []byte("nineteen characters")
		mac, err := s.cmac(h, msg)
		if err != nil {
			return err
		}
		return equal(mac[:], k.sum(msg))
	}
}

// shows gives the right and the operation by which the token shows what a key is.
func (p *prober) shows(k known) (right, func(handle) error) {
	switch {
	case p.can.cmac:
		return maySign, k.signsLike(p.s)
	case p.can.encrypt:
		return mayEncrypt, k.encryptsLike(p.s)
	}
	return mayDecrypt, k.decryptsLike(p.s)
}

// derives tries a derivation of one block, as of session keys, and of two, as of
// the MAC key of a file, from keys of both lengths.
func (p *prober) derives(k known) error {
	long := newKnown(2 * lwcrypto.BlockLen)
	defer long.wipe()
	for _, base := range []known{k, long} {
		for _, blocks := range [][]byte{[]byte("one block, of 16"), seal.MACKeyBlocks()} {
			child := base.under(blocks)
			err := p.bring(base.value, sessionKey(false, mayDerive), func(h handle) error { return p.derivesLike(h, blocks, child) })
			child.wipe()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *prober) derivesLike(h handle, blocks []byte, want known) error {
	use, like := p.shows(want)
	child, err := p.s.derive(h, blocks, ofLen(sessionKey(false, use), len(blocks)))
	if err != nil {
		return err
	}
	defer func() { _ = p.s.destroy(child) }()
	return like(child)
}

// wrapping tries key wrap in both directions.
func (p *prober) wrapping() {
	kek, inner := newKnown(2*lwcrypto.BlockLen), newKnown(lwcrypto.BlockLen)
	defer kek.wipe()
	defer inner.wipe()
	wrapped, err := seal.WrapKey(nil, kek.cipher.Block, inner.value)
	if err != nil {
		return
	}
	p.can.keyWrap = p.tries(func() error {
		return p.bring(kek.value, sessionKey(false, mayWrap, mayUnwrap), func(h handle) error {
			if err := p.bringOut(inner.value, func(k handle) error {
				have, err := p.s.wrap(h, k)
				return errors.Join(err, equal(have, wrapped))
			}); err != nil {
				return err
			}
			use, like := p.shows(inner)
			opened, err := p.s.unwrap(h, wrapped, sessionKey(false, use))
			if err != nil {
				return err
			}
			defer func() { _ = p.s.destroy(opened) }()
			return like(opened)
		})
	})
}

// goesOut tells whether the token wraps keys by the same OAEP by which it unwraps
// them: that it unwraps truly is known, so that what it unwraps again was wrapped
// truly.
func (p *prober) goesOut() bool {
	k := newKnown(lwcrypto.BlockLen)
	defer k.wipe()
	return p.tries(func() error {
		return p.bringOut(k.value, func(h handle) error {
			m := oaep(p.transport.Alg())
			wrapped, err := p.s.api.WrapKey(p.s.handle, m, p.pair.public, h)
			if err != nil {
				return err
			}
			use, like := p.shows(k)
			back, err := p.s.api.UnwrapKey(p.s.handle, m, p.pair.private, wrapped, p.fitting(sessionKey(false, use)))
			if err != nil {
				return err
			}
			defer func() { _ = p.s.destroy(back) }()
			return like(back)
		})
	})
}

// makesHMAC tries HMAC-SHA-256.
func (p *prober) makesHMAC() error {
	value := make([]byte, sha256.Size)
	rand.Read(value)
	defer clear(value)
	t := append(secretKey(pkcs11.CKK_GENERIC_SECRET, false, false), rightsOf([]right{maySign})...)
	return p.bring(value, t, func(h handle) error {
		mac, err := p.s.hmac(h, []byte("probe"))
		if err != nil {
			return err
		}
		want := hmac.New(sha256.New, value)
		want.Write([]byte("probe"))
		return equal(mac[:], want.Sum(nil))
	})
}

// unwrapsReadable tells whether the token unwraps a key such that it could leave,
// under kek or, if that is 0, under a throw-away one whose template forbids it. A
// token may obey the template without a word, so what was made is looked at.
func (p *prober) unwrapsReadable(kek handle) (readable bool) {
	found := p.tries(func() error {
		if kek == 0 {
			t := append(ofLen(sessionKey(false, mayWrap, mayUnwrap), 32), unwrapsHiddenOnly())
			h, err := p.s.api.GenerateKey(p.s.handle, mechNewAES, t)
			if err != nil {
				readable = true // it knows no such templates
				return nil
			}
			defer func() { _ = p.s.destroy(h) }()
			kek = h
		}
		var err error
		readable, err = p.unwrapsReadableUnder(kek)
		return err
	})
	return readable || !found
}

func (p *prober) unwrapsReadableUnder(kek handle) (bool, error) {
	h, err := p.s.api.GenerateKey(p.s.handle, mechNewAES, ofLen(sessionKey(true), lwcrypto.BlockLen))
	if err != nil {
		return false, err
	}
	defer func() { _ = p.s.destroy(h) }()
	wrapped, err := p.s.wrap(kek, h)
	if err != nil {
		return false, err
	}
	for _, hidden := range []bool{true, false} {
		t := sessionKey(true)
		if !hidden {
			t = readable[:len(readable)-1] // without its length, which is for derivation
		}
		opened, err := p.s.unwrap(kek, wrapped, t)
		if err != nil {
			if rv, ok := answer(err); ok && lost[rv] {
				return false, err
			}
			continue // refused, as it must be
		}
		leaves, err := p.leaves(opened)
		if destroyErr := p.s.destroy(opened); leaves || err != nil || destroyErr != nil {
			return leaves, errors.Join(err, destroyErr)
		}
	}
	return false, nil
}

// leaves tells whether a key can leave the token, wrapped or read.
func (p *prober) leaves(h handle) (bool, error) {
	extractable, err := p.s.is(h, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return false, err
	}
	sensitive, err := p.s.is(h, pkcs11.CKA_SENSITIVE)
	return extractable || !sensitive, err
}
