package fleet

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// NewKEK is a KEK on its way in: wrapped on the sender's machine under the key
// of Header, which is encrypted to the server's transport key. MAC binds it to
// role and label.
type NewKEK struct {
	Role    joinery.KEKRole
	Label   string
	Header  seal.Header
	Wrapped []byte
	MAC     []byte
}

// KEKs gives the KEKs, retired ones too, of the peers that caller may see.
func (s *Service) KEKs(ctx context.Context, caller joinery.Caller) ([]joinery.KEK, error) {
	keks, err := s.store.KEKs(ctx)
	if err != nil || caller.Operator {
		return keks, err
	}
	peers, err := s.Peers(ctx, caller)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(keks, func(k joinery.KEK) bool {
		return !slices.ContainsFunc(peers, func(p joinery.Peer) bool { return p.ID == k.Peer })
	}), nil
}

// AddKEK adds the next version of a peer's KEK in one role. It wraps from now
// on; older versions stay for repeated answers until they are retired.
func (s *Service) AddKEK(ctx context.Context, caller joinery.Caller, peer joinery.PeerID, n NewKEK) (joinery.KEK, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.KEK{}, err
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return joinery.KEK{}, err
	}
	defer unlock()
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return joinery.KEK{}, err
	}
	p, err := findPeer(peers, peer)
	if err != nil {
		return joinery.KEK{}, err
	}
	sealed, err := s.sealKEKs(ctx, p, []NewKEK{n})
	if err != nil {
		return joinery.KEK{}, err
	}
	k := sealed[0]
	entry := s.kekEntry(caller, joinery.AuditKEKAdded, p, k)
	return k, s.change(ctx, func(ctx context.Context) error { return s.store.AddKEK(ctx, k, entry) })
}

// RetireKEK takes a KEK out of use for ever: nothing is wrapped under it again,
// and a repeat of a join that it answered is refused.
func (s *Service) RetireKEK(ctx context.Context, caller joinery.Caller, id joinery.KEKID) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	keks, err := s.store.KEKs(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(keks, func(k joinery.KEK) bool { return k.ID == id })
	if i < 0 {
		return s.absent(ctx, notFound("KEK"))
	}
	if keks[i].Retired {
		return s.reload(ctx) // an earlier call may have failed after it was stored
	}
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return err
	}
	p, err := findPeer(peers, keks[i].Peer)
	if err != nil {
		return err
	}
	entry := s.kekEntry(caller, joinery.AuditKEKRetired, p, keks[i])
	return s.change(ctx, func(ctx context.Context) error { return s.store.RetireKEK(ctx, id, entry) })
}

// sealKEKs checks new KEKs of p against those that exist and seals them.
func (s *Service) sealKEKs(ctx context.Context, p joinery.Peer, add []NewKEK) ([]joinery.KEK, error) {
	known, err := s.store.KEKs(ctx)
	if err != nil {
		return nil, err
	}
	var sealed []joinery.KEK
	for _, n := range add {
		if err := checkNewKEK(p, n, known); err != nil {
			return nil, err
		}
		k := joinery.KEK{
			ID: joinery.NewKEKID(), Peer: p.ID, Role: n.Role, Label: n.Label,
			Version: nextVersion(known, p.ID, n.Role), CreatedAt: s.timestamp(),
		}
		in := seal.SealedKEK{Role: string(n.Role), Label: n.Label, Wrapped: n.Wrapped, MAC: n.MAC}
		k.Sealed, err = s.keys.SealKEK(ctx, n.Header, in, k.Peer, k.Version)
		if errors.Is(err, keyring.ErrTransport) {
			return nil, joinery.WrapError(joinery.CodeInvalid, err,
				"the KEK does not open: seal 16, 24 or 32 bytes to this server's transport key (ChirpStack unwraps with 16 only), for this role and label")
		}
		if err != nil {
			return nil, err
		}
		known = append(known, k)
		sealed = append(sealed, k)
	}
	return sealed, nil
}

func checkNewKEK(p joinery.Peer, n NewKEK, known []joinery.KEK) error {
	if err := checkLabel(n.Label); err != nil {
		return err
	}
	switch {
	case n.Role == joinery.KEKForNS && len(p.NetIDs) == 0:
		return joinery.Errorf(joinery.CodeInvalid, "a KEK of role ns needs a peer with a NetID")
	case n.Role == joinery.KEKForAS && len(p.ASIDs) == 0:
		return joinery.Errorf(joinery.CodeInvalid, "a KEK of role as needs a peer with an AS-ID")
	case n.Role != joinery.KEKForNS && n.Role != joinery.KEKForAS:
		return joinery.Errorf(joinery.CodeInvalid, "the role of a KEK is ns or as")
	}
	for _, k := range known {
		// Labels that peers brought with claims are theirs alone.
		if k.Label == n.Label && (!k.Claimed || k.Peer == p.ID) {
			return joinery.Errorf(joinery.CodeConflict,
				"KEK label %s is in use, or was: labels are never used again, so that a peer never unwraps with an old key", n.Label)
		}
	}
	return nil
}

func nextVersion(known []joinery.KEK, peer joinery.PeerID, role joinery.KEKRole) uint32 {
	var newest uint32
	for _, k := range known {
		if k.Peer == peer && k.Role == role {
			newest = max(newest, k.Version)
		}
	}
	return newest + 1
}

func rolesOf(keks []NewKEK) []joinery.KEKRole {
	var roles []joinery.KEKRole
	for _, k := range keks {
		roles = append(roles, k.Role)
	}
	return roles
}

// liveRoles are the roles in which a peer has a KEK that is not retired.
func (s *Service) liveRoles(ctx context.Context, peer joinery.PeerID) ([]joinery.KEKRole, error) {
	keks, err := s.store.KEKs(ctx)
	if err != nil {
		return nil, err
	}
	var roles []joinery.KEKRole
	for _, k := range keks {
		if k.Peer == peer && !k.Retired && !k.Claimed {
			roles = append(roles, k.Role)
		}
	}
	return roles, nil
}

func (s *Service) kekEntry(caller joinery.Caller, event joinery.AuditEvent, p joinery.Peer, k joinery.KEK) joinery.AuditEntry {
	entry := s.entry(caller, event, p.Org, map[string]string{
		"kek": k.ID.String(), "label": k.Label, "role": string(k.Role), "version": strconv.FormatUint(uint64(k.Version), 10),
	})
	if k.Claimed {
		entry.Detail["claimed"] = "true"
	}
	entry.Peer = p.ID
	return entry
}
