package hsm

import (
	"errors"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
)

type handle = pkcs11.ObjectHandle

type template []*pkcs11.Attribute

// Mechanisms without parameters.
var (
	mechCMAC    = mechanism(pkcs11.CKM_AES_CMAC)
	mechECB     = mechanism(pkcs11.CKM_AES_ECB)
	mechKeyWrap = mechanism(pkcs11.CKM_AES_KEY_WRAP)
	mechHMAC    = mechanism(pkcs11.CKM_SHA256_HMAC)
	mechNewAES  = mechanism(pkcs11.CKM_AES_KEY_GEN)
	mechNewHMAC = mechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN)
	mechNewRSA  = mechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN)
)

func mechanism(m uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, nil)}
}

// oaep gives the mechanism of an algorithm's name, with an empty label.
func oaep(alg string) []*pkcs11.Mechanism {
	hash, mgf := uint(pkcs11.CKM_SHA256), uint(pkcs11.CKG_MGF1_SHA256)
	if alg == seal.AlgRSAOAEP {
		hash, mgf = pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1
	}
	params := pkcs11.NewOAEPParams(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}
}

// session is one session, used by one goroutine at a time.
type session struct {
	api    api
	handle pkcs11.SessionHandle
	// input is what the next derivation is made of: the parameter of oneBlock and
	// twoBlocks points to it.
	input               cBuffer
	oneBlock, twoBlocks []*pkcs11.Mechanism
	// begun is set while an operation of two calls is under way; a session that
	// failed between them may refuse every other.
	begun bool
}

func openSession(p api, slot uint, flags uint) (*session, error) {
	h, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return nil, failed("opening a session", err)
	}
	s := &session{api: p, handle: h, input: newCBuffer(2 * lwcrypto.BlockLen)}
	derivation := func(n int) []*pkcs11.Mechanism {
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_ECB_ENCRYPT_DATA, s.input.derivationData(n))}
	}
	s.oneBlock, s.twoBlocks = derivation(lwcrypto.BlockLen), derivation(2*lwcrypto.BlockLen)
	return s, nil
}

// close ends the session, and with it every session object made in it.
func (s *session) close() {
	_ = s.api.CloseSession(s.handle) // it is gone either way
	s.input.free()
}

// alive tells whether the session is there and logged in.
func (s *session) alive() bool {
	const roUser, rwUser = 1, 3
	info, err := s.api.GetSessionInfo(s.handle)
	return err == nil && (info.State == roUser || info.State == rwUser)
}

// derive makes the AES key whose value is the encryption of blocks (one or two)
// under base.
func (s *session) derive(base handle, blocks []byte, t template) (handle, error) {
	s.input.set(blocks)
	m := s.oneBlock
	if len(blocks) > lwcrypto.BlockLen {
		m = s.twoBlocks
	}
	return s.api.DeriveKey(s.handle, m, base, t)
}

func (s *session) destroy(h handle) error { return s.api.DestroyObject(s.handle, h) }

// wrap wraps key by RFC 3394.
func (s *session) wrap(kek, key handle) ([]byte, error) {
	return s.api.WrapKey(s.handle, mechKeyWrap, kek, key)
}

// unwrap opens what wrap made.
func (s *session) unwrap(kek handle, wrapped []byte, t template) (handle, error) {
	return s.api.UnwrapKey(s.handle, mechKeyWrap, kek, wrapped, t)
}

func (s *session) cmac(key handle, msg []byte) (mac [lwcrypto.BlockLen]byte, err error) {
	return mac, s.sign(mechCMAC, key, msg, mac[:])
}

func (s *session) hmac(key handle, msg []byte) (mac [32]byte, err error) {
	return mac, s.sign(mechHMAC, key, msg, mac[:])
}

// sign puts a MAC of exactly len(out) bytes into out.
func (s *session) sign(m []*pkcs11.Mechanism, key handle, msg, out []byte) error {
	return s.operation(func() error { return s.api.SignInit(s.handle, m, key) }, func() ([]byte, error) {
		return s.api.Sign(s.handle, msg)
	}, out)
}

// encrypt encrypts whole blocks in place: what comes out may be a session key.
func (s *session) encrypt(key handle, blocks []byte) error {
	return s.operation(func() error { return s.api.EncryptInit(s.handle, mechECB, key) }, func() ([]byte, error) {
		out := make([]byte, len(blocks))
		n, err := s.api.EncryptInto(s.handle, blocks, out)
		if err != nil || n > len(out) {
			clear(out)
			return nil, errors.Join(err, errNoAnswer)
		}
		return out[:n], nil
	}, blocks)
}

// decrypt decrypts whole blocks in place.
func (s *session) decrypt(key handle, blocks []byte) error {
	return s.operation(func() error { return s.api.DecryptInit(s.handle, mechECB, key) }, func() ([]byte, error) {
		return s.api.Decrypt(s.handle, blocks)
	}, blocks)
}

// operation is one of two calls, whose result must be as long as out.
func (s *session) operation(begin func() error, end func() ([]byte, error), out []byte) error {
	if err := begin(); err != nil {
		return err
	}
	s.begun = true
	result, err := end()
	if err != nil {
		return err
	}
	s.begun = false
	defer clear(result)
	if len(result) != len(out) {
		return errNoAnswer
	}
	copy(out, result)
	return nil
}

// find gives every object of that class and, if it is not empty, label.
func (s *session) find(class uint, label string) (list []handle, err error) {
	t := template{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
	if label != "" {
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	if err := s.api.FindObjectsInit(s.handle, t); err != nil {
		return nil, failed("searching", err)
	}
	defer func() { err = errors.Join(err, s.api.FindObjectsFinal(s.handle)) }()
	for {
		some, _, err := s.api.FindObjects(s.handle, 100)
		if err != nil {
			return nil, failed("searching", err)
		}
		if len(some) == 0 {
			return list, nil
		}
		list = append(list, some...)
	}
}

// attribute reads one attribute.
func (s *session) attribute(o handle, typ uint) ([]byte, error) {
	list, err := s.api.GetAttributeValue(s.handle, o, template{pkcs11.NewAttribute(typ, nil)})
	if err != nil {
		return nil, err
	}
	return list[0].Value, nil
}

// is tells whether a boolean attribute is set.
func (s *session) is(o handle, typ uint) (bool, error) {
	v, err := s.attribute(o, typ)
	return len(v) == 1 && v[0] != 0, err
}
