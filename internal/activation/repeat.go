package activation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"joinery"
)

// repeatWindow is how long the same request gets the same answer: a network
// that timed out, or heard the device through a second gateway, asks again.
const repeatWindow = 10 * time.Second

// frameHash is SHA-256 over all that makes a request the same request: frame,
// parameters and peer. TransactionID is not among them.
func frameHash(typ joinery.JoinType, req JoinRequest) [32]byte {
	b := make([]byte, 0, 128)
	b = append(b, "joinery frame v1"...)
	b = append(b, byte(typ), byte(req.MACVersion))
	b = binary.BigEndian.AppendUint64(b, uint64(req.Peer.ID))
	b = append(b, req.JoinEUI[:]...)
	b = append(b, req.NetID[:]...)
	b = append(b, req.NSID[:]...)
	b = append(b, req.DevAddr[:]...)
	b = append(b, byte(req.DLSettings), req.RxDelay, byte(len(req.PHYPayload)))
	b = append(b, req.PHYPayload...)
	b = req.CFList.Append(b) // at the end: present or not makes a difference
	return sha256.Sum256(b)
}

// answerAgain makes the answer to a request that was accepted a moment ago
// once more, without writing anything: same key set, same JoinNonce, same
// bytes. It reports false if this is no such repeat; then the nonce rules
// decide. The caller has authorised the request like a new one.
func (s *Service) answerAgain(ctx context.Context, req JoinRequest, state joinery.ActivationState, hash [32]byte, session *joinery.Activation) (JoinAnswer, bool, error) {
	for _, recent := range state.KeySet.Nonces.Recent {
		if recent.Tag != [8]byte(hash[:8]) {
			continue
		}
		a, err := s.store.Activation(ctx, recent.ID)
		if joinery.CodeOf(err) == joinery.CodeNotFound {
			return JoinAnswer{}, false, nil
		}
		if err != nil {
			return JoinAnswer{}, false, storeError(err)
		}
		w, ok := s.frozenWrapping(req.Peer, *state.Binding, a)
		if !ok || !s.isRepeat(a, state, hash) {
			return JoinAnswer{}, false, nil
		}
		answer, err := s.compute(ctx, req.PHYPayload, state, session, a, w)
		return answer, true, err
	}
	return JoinAnswer{}, false, nil
}

// isRepeat tells whether a answered this very request, recently, under the
// binding that stands now.
func (s *Service) isRepeat(a joinery.Activation, state joinery.ActivationState, hash [32]byte) bool {
	return a.FrameHash == hash &&
		a.KeySet == state.KeySet.ID &&
		a.BindingEpoch == state.Binding.Epoch &&
		within(s.now(), a.At, repeatWindow)
}
