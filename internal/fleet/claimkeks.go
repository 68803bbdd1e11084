package fleet

import (
	"context"
	"errors"
	"slices"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// maxClaimKEKs bounds the KEKs in use that one peer brought with its claims: all
// of them are in memory. A peer needs one, and another for each change of key.
const maxClaimKEKs = 256

// ClaimKEK finds the KEK of role as that a peer brings with a claim, by its label
// among the peer's own, or adds it. It wraps for the bindings that name it and
// serves nothing else.
//
// CodeInvalid where the operator does not take KEKs from this peer, where the
// label has another key or is out of use, and where the key does not open.
func (s *Service) ClaimKEK(ctx context.Context, peer joinery.PeerID, h seal.Header, in seal.SealedKEK) (joinery.KEKID, error) {
	// The lock is over all servers, and nearly every claim names a KEK that is
	// there: that is found without.
	if _, id, err := s.findClaimKEK(ctx, peer, h, in); id != 0 || err != nil {
		return id, err
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	known, id, err := s.findClaimKEK(ctx, peer, h, in)
	if id != 0 || err != nil {
		return id, err
	}
	p, err := s.claimPeer(ctx, peer)
	if err != nil {
		return 0, err
	}
	k := joinery.KEK{
		ID: joinery.NewKEKID(), Peer: peer, Role: joinery.KEKForAS, Label: in.Label,
		Version: nextVersion(known, peer, joinery.KEKForAS), CreatedAt: s.timestamp(), Claimed: true,
	}
	if k.Sealed, err = s.keys.SealKEK(ctx, h, in, peer, k.Version); err != nil {
		return 0, claimKEKError(err)
	}
	entry := s.kekEntry(joinery.Caller{Name: "peer " + peer.String()}, joinery.AuditKEKAdded, p, k)
	return k.ID, s.change(ctx, func(ctx context.Context) error { return s.store.AddKEK(ctx, k, entry) })
}

// findClaimKEK checks what a claim brings against the KEKs of its peer. The id is
// 0 where it is a new one; known are all KEKs.
func (s *Service) findClaimKEK(ctx context.Context, peer joinery.PeerID, h seal.Header, in seal.SealedKEK) (known []joinery.KEK, id joinery.KEKID, err error) {
	if _, err := s.claimPeer(ctx, peer); err != nil {
		return nil, 0, err
	}
	if err := checkLabel(in.Label); err != nil {
		return nil, 0, err
	}
	if in.Role != string(joinery.KEKForAS) {
		return nil, 0, joinery.Errorf(joinery.CodeInvalid, "a KEK that comes with a claim wraps AppSKey, and nothing for a network")
	}
	if known, err = s.store.KEKs(ctx); err != nil {
		return nil, 0, err
	}
	held := func(k joinery.KEK) bool { return k.Peer == peer && k.Label == in.Label }
	if i := slices.IndexFunc(known, held); i >= 0 {
		return known, known[i].ID, s.checkSameKEK(ctx, h, in, known[i])
	}
	live := 0
	for _, k := range known {
		if k.Peer == peer && k.Claimed && !k.Retired {
			live++
		}
	}
	if live >= maxClaimKEKs {
		return nil, 0, joinery.Errorf(joinery.CodeInvalid, "%d KEKs came with claims already, and no more are taken: name one of them, or have the operator retire some", live)
	}
	return known, 0, nil
}

// claimPeer finds a peer of which KEKs are taken.
func (s *Service) claimPeer(ctx context.Context, id joinery.PeerID) (joinery.Peer, error) {
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	p, err := findPeer(peers, id)
	if err == nil && !p.ClaimKEKs {
		err = joinery.Errorf(joinery.CodeInvalid, "no KEK is taken with claims from this client; leave it out, or have the operator allow it")
	}
	return p, err
}

// checkSameKEK refuses a label that does not mean k any more: whoever unwraps
// would take the wrong key.
func (s *Service) checkSameKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, k joinery.KEK) error {
	if k.Retired {
		return joinery.Errorf(joinery.CodeInvalid, "the KEK of this label is out of use; labels are never used again, so give the new key a new one")
	}
	same, err := s.keys.IsKEK(ctx, h, in, k)
	if err != nil {
		return claimKEKError(err)
	}
	if !same {
		return joinery.Errorf(joinery.CodeInvalid, "this label belongs to another key; give the new key a new label")
	}
	return nil
}

func claimKEKError(err error) error {
	if errors.Is(err, keyring.ErrTransport) {
		return joinery.WrapError(joinery.CodeInvalid, err, "the KEK does not open: want 16, 24 or 32 bytes")
	}
	return err
}

// WrapsAppSKey tells whether the peer has a KEK now that wraps AppSKeys where a
// binding names none.
func (s *Service) WrapsAppSKey(peer joinery.PeerID) bool {
	_, ok := s.directory.CurrentKEK(peer, joinery.KEKForAS)
	return ok
}
