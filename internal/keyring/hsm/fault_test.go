package hsm

import (
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
)

// lacking is a library whose token lacks mechanisms: over a real one, so that what
// is done instead is done for real.
type lacking struct {
	api
	mechanisms []uint
}

func (p lacking) has(m []*pkcs11.Mechanism) error {
	if slices.Contains(p.mechanisms, m[0].Mechanism) {
		return pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
	}
	return nil
}

func (p lacking) DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := p.has(m); err != nil {
		return 0, err
	}
	return p.api.DeriveKey(s, m, base, t)
}

func (p lacking) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	if err := p.has(m); err != nil {
		return nil, err
	}
	return p.api.WrapKey(s, m, wrapping, key)
}

func (p lacking) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := p.has(m); err != nil {
		return 0, err
	}
	return p.api.UnwrapKey(s, m, unwrapping, wrapped, t)
}

func (p lacking) SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error {
	if err := p.has(m); err != nil {
		return err
	}
	return p.api.SignInit(s, m, o)
}

func (p lacking) EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error {
	if err := p.has(m); err != nil {
		return err
	}
	return p.api.EncryptInit(s, m, o)
}

func (p lacking) DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error {
	if err := p.has(m); err != nil {
		return err
	}
	return p.api.DecryptInit(s, m, o)
}

// Fault says how a token fails, and counts what it was asked.
type Fault struct {
	mu       sync.Mutex
	Sign     error // of every MAC
	Login    error // of every login
	Open     error // of every session
	Logins   int
	Sessions int
	Searches int
	// The token computes the encryption, or the derivation, of something else and
	// reports success.
	Lie bool
}

// Set changes the fault.
func (f *Fault) Set(change func(*Fault)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *Fault) get(count func(*Fault), want func(*Fault) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	count(f)
	return want(f)
}

type faulty struct {
	api
	f *Fault
}

func (p faulty) Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error) {
	if err := p.f.get(func(*Fault) {}, func(f *Fault) error { return f.Sign }); err != nil {
		return nil, err
	}
	mac, err := p.api.Sign(s, message)
	if p.f.lies() && err == nil {
		mac[0] ^= 1
	}
	return mac, err
}

func (f *Fault) lies() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Lie
}

func (p faulty) LoginBytes(s pkcs11.SessionHandle, user uint, pin []byte) error {
	if err := p.f.get(func(f *Fault) { f.Logins++ }, func(f *Fault) error { return f.Login }); err != nil {
		return err
	}
	return p.api.LoginBytes(s, user, pin)
}

func (p faulty) OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error) {
	if err := p.f.get(func(f *Fault) { f.Sessions++ }, func(f *Fault) error { return f.Open }); err != nil {
		return 0, err
	}
	return p.api.OpenSession(slot, flags)
}

func (p faulty) FindObjectsInit(s pkcs11.SessionHandle, t []*pkcs11.Attribute) error {
	_ = p.f.get(func(f *Fault) { f.Searches++ }, func(*Fault) error { return nil })
	return p.api.FindObjectsInit(s, t)
}
