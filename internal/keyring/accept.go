package keyring

import (
	"context"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// answerLen is room for everything of an answer: a long accept, what its MIC
// covers, and four session keys.
const answerLen = lorawan.JoinAcceptCFListLen + micInputLen + 4*lwcrypto.WrappedKeyLen

// micInputLen is the length of the longest MIC input of an accept: JoinReqType,
// JoinEUI, DevNonce and the plaintext.
const micInputLen = 1 + 8 + 2 + lorawan.JoinAcceptCFListLen - lorawan.MICLen

// Accept answers one join-request or rejoin-request. Its steps, each of which
// may be the last:
//
//  1. the MIC of the frame is verified; nothing is computed before
//  2. frame and activation are checked against each other
//  3. the KEKs are opened
//  4. session keys are derived and wrapped
//  5. the accept gets its MIC and is encrypted
//
// Errors: ErrMIC, ErrNoKEK, ErrNoRoot, ErrIntegrity (of a root or a KEK),
// ErrUnknownMaster, ErrRequest; lorawan.ErrFrame for what is no request.
func (k *Keyring) Accept(ctx context.Context, r AcceptRequest) (answer Answer, err error) {
	buf := make([]byte, 0, answerLen) // outside of Do: it will hold no secret
	if err := k.enter(ctx); err != nil {
		return Answer{}, err
	}
	defer k.leave()
	secret.Do(func() {
		op := acceptance{
			roots: roots{keyring: k, keySet: r.KeySet},
			act:   r.Activation,
			out:   buf,
		}
		defer op.roots.destroy()
		answer, err = op.run(ctx, &r)
	})
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// acceptance is one Accept under way. It holds copies, not pointers into the
// request, so that both stay on the stack.
type acceptance struct {
	roots roots
	req   request
	act   joinery.Activation
	out   []byte // grows within its capacity only
}

func (o *acceptance) run(ctx context.Context, r *AcceptRequest) (answer Answer, err error) {
	if err := o.verify(ctx, r); err != nil {
		return Answer{}, err
	}
	if err := o.check(); err != nil {
		return Answer{}, err
	}
	wraps, err := o.openWraps(ctx, r)
	if err != nil {
		return Answer{}, err
	}
	defer wraps.release()
	if o.act.OptNeg {
		return o.accept11(ctx, wraps)
	}
	return o.accept10(ctx, wraps)
}

// verify is step 1.
func (o *acceptance) verify(ctx context.Context, r *AcceptRequest) (err error) {
	k := o.roots.keyring
	if o.act.Type == joinery.JoinTypeJoin {
		if o.req, err = readJoin(r.Frame); err != nil {
			return err
		}
		return k.verifyJoin(ctx, &o.roots, &o.req)
	}
	if o.req, err = readRejoin(r.Frame); err != nil {
		return err
	}
	var sessions []joinery.Activation
	if r.Session != nil {
		sessions = []joinery.Activation{*r.Session}
	}
	_, err = k.verifyRejoin(ctx, &o.roots, &o.req, sessions)
	return err
}

// check is step 2: an activation that was frozen for another frame, or a layout
// that the key set does not have, is a defect of the caller's.
func (o *acceptance) check() error {
	a, q, ks := &o.act, &o.req, &o.roots.keySet
	switch {
	case a.Type != q.typ:
		return mismatch("the frame is of another type than the activation")
	case a.Count != q.count:
		return mismatch("the frame has another DevNonce or RJcount than the activation")
	case a.KeySet != ks.ID:
		return mismatch("the activation is of another key set")
	case !q.joinEUI.IsZero() && a.JoinEUI != q.joinEUI:
		return mismatch("the frame has another JoinEUI than the activation")
	case a.JoinNonce == 0 || a.JoinNonce > lorawan.MaxJoinNonce:
		return mismatch("JoinNonce is out of range")
	case a.Type != joinery.JoinTypeJoin && !a.OptNeg:
		return mismatch("a rejoin-request is answered in a 1.1 session only")
	case a.OptNeg && ks.Root10 != joinery.NwkKey:
		return mismatch("a 1.1 session needs a 1.1 device")
	case !a.OptNeg && a.Root != ks.Root10:
		return mismatch("the activation names another root key than the key set")
	}
	return nil
}

// accept10 makes the answer of a 1.0.x session: one root key does everything
// (TS001-1.0.4 §6.2.6; for a 1.1 device in a 1.0.x network it is NwkKey,
// TS001-1.1 §6.1.1.3).
func (o *acceptance) accept10(ctx context.Context, w wraps) (answer Answer, err error) {
	root, err := o.roots.key(ctx, o.act.Root)
	if err != nil {
		return Answer{}, err
	}
	s := session10(&o.act)
	if answer.NwkSKey, err = o.envelope(root, s.NwkSKey(), w.ns); err != nil {
		return Answer{}, err
	}
	if answer.AppSKey, err = o.envelope(root, s.AppSKey(), w.as); err != nil {
		return Answer{}, err
	}
	plain := o.plaintext()
	mac, err := root.CMAC(plain)
	if err != nil {
		return Answer{}, err
	}
	answer.PHYPayload, err = o.encrypt(root, plain, mac)
	return answer, err
}

// accept11 makes the answer of a 1.1 session (TS001-1.1 §6.2.3), to a
// join-request or a rejoin-request.
func (o *acceptance) accept11(ctx context.Context, w wraps) (answer Answer, err error) {
	nwk, err := o.roots.key(ctx, joinery.NwkKey)
	if err != nil {
		return Answer{}, err
	}
	app, err := o.roots.key(ctx, joinery.AppKey)
	if err != nil {
		return Answer{}, err
	}
	s := session11(&o.act)
	if answer.FNwkSIntKey, err = o.envelope(nwk, s.FNwkSIntKey(), w.ns); err != nil {
		return Answer{}, err
	}
	if answer.SNwkSIntKey, err = o.envelope(nwk, s.SNwkSIntKey(), w.ns); err != nil {
		return Answer{}, err
	}
	if answer.NwkSEncKey, err = o.envelope(nwk, s.NwkSEncKey(), w.ns); err != nil {
		return Answer{}, err
	}
	if answer.AppSKey, err = o.envelope(app, s.AppSKey(), w.as); err != nil {
		return Answer{}, err
	}
	answer.PHYPayload, err = o.sign11(nwk)
	return answer, err
}

// sign11 gives a 1.1 accept its MIC, under JSIntKey, and encrypts it: under
// NwkKey as an answer to a join-request, under JSEncKey as one to a
// rejoin-request (TS001-1.1 §6.2.3, §6.2.4.4).
func (o *acceptance) sign11(nwk Key) ([]byte, error) {
	jsIntKey, err := nwk.Derive(lwcrypto.JSIntKey(o.req.devEUI), UseMIC)
	if err != nil {
		return nil, err
	}
	defer jsIntKey.Destroy()
	plain := o.plaintext()
	mac, err := jsIntKey.CMAC(lwcrypto.AcceptMICInput(o.out[len(o.out):], byte(o.act.Type), o.act.JoinEUI, o.act.Count, plain))
	if err != nil {
		return nil, err
	}
	if o.act.Type == joinery.JoinTypeJoin {
		return o.encrypt(nwk, plain, mac)
	}
	jsEncKey, err := nwk.Derive(lwcrypto.JSEncKey(o.req.devEUI), UseAccept)
	if err != nil {
		return nil, err
	}
	defer jsEncKey.Destroy()
	return o.encrypt(jsEncKey, plain, mac)
}

// plaintext takes room for a whole accept and writes it, but for the MIC.
func (o *acceptance) plaintext() []byte {
	n := lorawan.JoinAcceptLen
	if o.act.CFList.IsPresent() {
		n = lorawan.JoinAcceptCFListLen
	}
	plain := o.act.Accept().Append(o.take(n))
	return plain
}

// encrypt appends the MIC and encrypts the accept in place.
func (o *acceptance) encrypt(key Key, plain []byte, mac [lwcrypto.BlockLen]byte) ([]byte, error) {
	mic := lwcrypto.MIC(mac)
	phy := append(plain, mic[:]...)
	if err := lwcrypto.EncryptAccept(key, phy); err != nil {
		return nil, err
	}
	return phy, nil
}

// take cuts n bytes of room off the answer's buffer.
func (o *acceptance) take(n int) []byte {
	start := len(o.out)
	o.out = o.out[:start+n]
	return o.out[start : start : start+n]
}
