package hsm

import (
	"time"

	"github.com/miekg/pkcs11"
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
	c, err := connect(m.ctx, opt.Token, opt.PIN, writable, 0)
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
