package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
)

// tryCustody finds out whether a custody key opens what it must, such that it can
// leave, and by which algorithms the token wraps.
func tryCustody(s *session, p pair) (can capabilities, outs []string, err error) {
	k := newKnown(2 * lwcrypto.BlockLen)
	defer k.wipe()
	pr := &custodyProber{prober{s: s, pair: p}, p}
	if err := pr.opens(k); err != nil {
		return can, nil, err
	}
	pr.can.cmac = pr.tries(func() error { return pr.with(k, k.signsLike(s), maySign) })
	pr.can.encrypt = pr.tries(func() error { return pr.with(k, k.encryptsLike(s), mayEncrypt) })
	if !pr.can.macs() && pr.gone == nil {
		return can, nil, fmt.Errorf("%w: what the custody key opens cannot make its key check value", ErrObject)
	}
	pr.can.derive = pr.can.cmac && pr.tries(func() error {
		child := k.under(seal.MACKeyBlocks())
		defer child.wipe()
		return pr.with(k, func(h handle) error { return pr.derivesLike(h, seal.MACKeyBlocks(), child) }, mayDerive)
	})
	pr.can.keyWrap = pr.tries(func() error { return pr.wraps(k) })
	for _, alg := range []string{seal.AlgRSAOAEP256, seal.AlgRSAOAEP} {
		if pr.tries(func() error { return pr.goesOutBy(k, alg) }) {
			outs = append(outs, alg)
		}
	}
	return pr.can, outs, pr.gone
}

// custodyProber tries with what the custody key opens, for that is all that comes in
// under it: sensitive and extractable.
type custodyProber struct {
	prober
	custody pair
}

// open opens a known key under the custody key as one that can leave.
func (p *custodyProber) open(k known, alg string, t template) (handle, error) {
	public, err := seal.NewPublicKeyFor(p.custody.key.RSA(), alg)
	if err != nil {
		return 0, err
	}
	wrapped, err := public.EncryptOAEP(k.value)
	if err != nil {
		return 0, err
	}
	return p.s.api.UnwrapKey(p.s.handle, oaep(alg), p.custody.private, wrapped, t)
}

// with calls f with a known key that has these rights.
func (p *custodyProber) with(k known, f func(handle) error, rights ...right) error {
	h, err := p.open(k, p.custody.key.Alg(), sessionKey(true, rights...))
	if err != nil {
		return err
	}
	defer func() { _ = p.s.destroy(h) }()
	return f(h)
}

// opens tells custody keys of early ceremonies, which let nothing out, from those
// that do not open at all.
func (p *custodyProber) opens(k known) error {
	alg := p.custody.key.Alg()
	h, err := p.open(k, alg, sessionKey(true))
	if err == nil {
		can, leavesErr := p.s.is(h, pkcs11.CKA_EXTRACTABLE)
		if err := errors.Join(leavesErr, p.s.destroy(h)); err != nil {
			return err
		}
		if can {
			return nil
		}
		return ErrCustodyTemplate
	}
	if rv, ok := answer(err); ok && lost[rv] {
		return err
	}
	if h, hiddenErr := p.open(k, alg, sessionKey(false)); hiddenErr == nil {
		return errors.Join(ErrCustodyTemplate, p.s.destroy(h))
	}
	return fmt.Errorf("%w: it opens nothing by %s (%w)", ErrObject, alg, err)
}

// wraps tries key wrap under a known key.
func (p *custodyProber) wraps(k known) error {
	inner := newKnown(lwcrypto.BlockLen)
	defer inner.wipe()
	want, err := seal.WrapKey(nil, k.cipher.Block, inner.value)
	if err != nil {
		return err
	}
	return p.with(k, func(kek handle) error {
		return p.with(inner, func(h handle) error {
			have, err := p.s.wrap(kek, h)
			return errors.Join(err, equal(have, want))
		})
	}, mayWrap)
}

// goesOutBy tells whether the token truly wraps by an algorithm: what it made opens
// to the same key by the algorithm that the custody key is for, or by this one.
func (p *custodyProber) goesOutBy(k known, alg string) error {
	use, like := p.shows(k)
	back, err := p.open(k, alg, sessionKey(true, use)) // it opens by this algorithm
	if err != nil {
		return err
	}
	err = like(back)
	_ = p.s.destroy(back)
	if err != nil {
		return err
	}
	return p.with(k, func(h handle) error {
		wrapped, err := p.s.api.WrapKey(p.s.handle, oaep(alg), p.custody.public, h)
		if err != nil {
			return err
		}
		back, err := p.s.api.UnwrapKey(p.s.handle, oaep(alg), p.custody.private, wrapped, sessionKey(true, use))
		if err != nil {
			return err
		}
		defer func() { _ = p.s.destroy(back) }()
		return like(back)
	})
}
