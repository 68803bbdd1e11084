package keyring

import (
	"context"
	"fmt"

	"joinery"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
	"joinery/lorawan"
)

// request is a join-request or rejoin-request, as far as keys are concerned.
type request struct {
	typ     joinery.JoinType
	joinEUI lorawan.EUI64 // zero for rejoin-requests of type 0 and 2
	devEUI  lorawan.EUI64
	count   uint16 // DevNonce or RJcount
	signed  []byte // what the MIC covers
	mic     lorawan.MIC
}

// readJoin reads a join-request. The error wraps lorawan.ErrFrame.
func readJoin(frame []byte) (request, error) {
	f, err := lorawan.ParseJoinRequest(frame)
	if err != nil {
		return request{}, err
	}
	return request{
		typ: joinery.JoinTypeJoin, joinEUI: f.JoinEUI, devEUI: f.DevEUI, count: uint16(f.DevNonce),
		signed: frame[:len(frame)-lorawan.MICLen], mic: f.MIC,
	}, nil
}

// readRejoin reads a rejoin-request. The error wraps lorawan.ErrFrame.
func readRejoin(frame []byte) (request, error) {
	f, err := lorawan.ParseRejoinRequest(frame)
	if err != nil {
		return request{}, err
	}
	return request{
		typ: joinery.JoinType(f.Type), joinEUI: f.JoinEUI, devEUI: f.DevEUI, count: uint16(f.RJCount),
		signed: frame[:len(frame)-lorawan.MICLen], mic: f.MIC,
	}, nil
}

// signedBy tells whether key made the MIC, in constant time.
func (q *request) signedBy(key Key) (bool, error) {
	mac, err := key.CMAC(q.signed)
	if err != nil {
		return false, err
	}
	return lwcrypto.EqualMIC(lwcrypto.MIC(mac), q.mic), nil
}

// signedByDerived is signedBy with a key derived from parent for this one MIC.
func (q *request) signedByDerived(parent Key, block lwcrypto.Block) (bool, error) {
	key, err := parent.Derive(block, UseMIC)
	if err != nil {
		return false, err
	}
	defer key.Destroy()
	return q.signedBy(key)
}

// VerifyJoin checks that a join-request (the whole PHYPayload) was made with the
// root key of ks (TS001-1.0.4 §6.2.5: AppKey; TS001-1.1 §6.2.2: NwkKey, also
// towards a 1.0.x network; see KeySet.Root10). ErrMIC if not; an error that
// wraps lorawan.ErrFrame for what is no join-request.
func (k *Keyring) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) (err error) {
	q, err := readJoin(frame)
	if err != nil {
		return err
	}
	if err := k.enter(ctx); err != nil {
		return err
	}
	defer k.leave()
	secret.Do(func() {
		r := roots{keyring: k, keySet: ks}
		defer r.destroy()
		err = k.verifyJoin(ctx, &r, &q)
	})
	return err
}

func (k *Keyring) verifyJoin(ctx context.Context, r *roots, q *request) error {
	if q.devEUI != r.keySet.DevEUI {
		return ErrMIC
	}
	root, err := r.key(ctx, r.keySet.Root10)
	if err != nil {
		return err
	}
	return asMIC(q.signedBy(root))
}

// VerifyRejoin checks the MIC of a rejoin-request (the whole PHYPayload). Types
// 0 and 2 are signed with SNwkSIntKey of a session (TS001-1.1 §6.2.4.1): the
// result is the index of the session in sessions whose key it was. Type 1 is
// signed with JSIntKey (TS001-1.1 §6.2.4.2): the result is 0. ErrMIC if none
// signed it; an error that wraps lorawan.ErrFrame for what is no
// rejoin-request.
func (k *Keyring) VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (session int, err error) {
	q, err := readRejoin(frame)
	if err != nil {
		return 0, err
	}
	if err := k.enter(ctx); err != nil {
		return 0, err
	}
	defer k.leave()
	secret.Do(func() {
		r := roots{keyring: k, keySet: ks}
		defer r.destroy()
		session, err = k.verifyRejoin(ctx, &r, &q, sessions)
	})
	return session, err
}

func (k *Keyring) verifyRejoin(ctx context.Context, r *roots, q *request, sessions []joinery.Activation) (int, error) {
	if q.devEUI != r.keySet.DevEUI {
		return 0, ErrMIC
	}
	nwk, err := r.key(ctx, joinery.NwkKey)
	if err != nil {
		return 0, err
	}
	if q.typ == joinery.JoinTypeRejoin1 {
		return 0, asMIC(q.signedByDerived(nwk, lwcrypto.JSIntKey(q.devEUI)))
	}
	for i := range sessions {
		s := &sessions[i]
		if !s.OptNeg || s.KeySet != r.keySet.ID {
			continue // a 1.0.x session, or another device's: it has no such key
		}
		ok, err := q.signedByDerived(nwk, session11(s).SNwkSIntKey())
		if err != nil {
			return 0, err
		}
		if ok {
			return i, nil
		}
	}
	return 0, ErrMIC
}

// session11 gives what the keys of a 1.1 session are derived from.
func session11(a *joinery.Activation) lwcrypto.Session11 {
	return lwcrypto.Session11{JoinNonce: a.JoinNonce, JoinEUI: a.JoinEUI, DevNonce: a.Count}
}

// session10 gives what the keys of a 1.0.x session are derived from.
func session10(a *joinery.Activation) lwcrypto.Session10 {
	return lwcrypto.Session10{JoinNonce: a.JoinNonce, NetID: a.NetID, DevNonce: a.Count}
}

// asMIC turns "was not signed" into ErrMIC.
func asMIC(signed bool, err error) error {
	if err == nil && !signed {
		return ErrMIC
	}
	return err
}

// mismatch says which part of a request contradicts which.
func mismatch(what string) error { return fmt.Errorf("%w: %s", ErrRequest, what) }
