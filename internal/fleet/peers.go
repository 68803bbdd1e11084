package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"joinery"
)

// PeerConfirm is what an operator says by name because it weakens custody.
type PeerConfirm struct {
	// ClearKeysFor is the name of the peer to which session keys may travel
	// unwrapped. It must be the peer's own name, so that the consent cannot be
	// given by copying a flag.
	ClearKeysFor string
}

// Peers gives the peers that caller may see: all to the operator, its own to an
// organisation.
func (s *Service) Peers(ctx context.Context, caller joinery.Caller) ([]joinery.Peer, error) {
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(peers, func(p joinery.Peer) bool { return !caller.Owns(p.Org) }), nil
}

// Peer gives one peer.
func (s *Service) Peer(ctx context.Context, caller joinery.Caller, id joinery.PeerID) (joinery.Peer, error) {
	peers, err := s.Peers(ctx, caller)
	if err != nil {
		return joinery.Peer{}, err
	}
	return findPeer(peers, id)
}

func findPeer(peers []joinery.Peer, id joinery.PeerID) (joinery.Peer, error) {
	i := slices.IndexFunc(peers, func(p joinery.Peer) bool { return p.ID == id })
	if i < 0 {
		return joinery.Peer{}, notFound("peer")
	}
	return peers[i], nil
}

// AddPeer adds a peer with its first KEKs; ID and CreatedAt are given here, an
// Org that p does not name is the caller's. A peer without a KEK fails unless it
// consents to clear keys, and a Network Server needs an NS KEK or that consent;
// the consent must be confirmed by the peer's name.
//
// Keys are sealed before anything is stored, and the peer is stored together
// with its KEKs or not at all.
func (s *Service) AddPeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, keks []NewKEK, confirm PeerConfirm) (joinery.Peer, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Peer{}, err
	}
	var err error
	if p.Org, err = s.actingOrg(ctx, caller, p.Org); err != nil {
		return joinery.Peer{}, err
	}
	p.ID, p.CreatedAt = joinery.NewPeerID(), s.timestamp()
	credentials, err := checkPeer(p)
	if err != nil {
		return joinery.Peer{}, err
	}
	if err := checkConsent(p, joinery.Peer{}, rolesOf(keks), confirm); err != nil {
		return joinery.Peer{}, err
	}
	if len(p.NetIDs)+len(p.NSIDs) > 0 { // whoever owns devices may have an Application Server
		if err := s.requireKind(ctx, p.Org, "a network", joinery.KindNetworkOperator); err != nil {
			return joinery.Peer{}, err
		}
	}

	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	defer unlock()
	others, err := s.store.Peers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	if err := checkAgainst(p, credentials, others); err != nil {
		return joinery.Peer{}, err
	}
	sealed, err := s.sealKEKs(ctx, p, keks)
	if err != nil {
		return joinery.Peer{}, err
	}
	if err := s.change(ctx, func(ctx context.Context) error { return s.storePeer(ctx, caller, p, sealed) }); err != nil {
		return p, err
	}
	s.warn(p)
	return p, nil
}

// storePeer writes a new peer with its KEKs, all or nothing.
func (s *Service) storePeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, keks []joinery.KEK) error {
	entries := s.peerEntries(caller, joinery.AuditPeerAdded, p, p.ClearKeys)
	for _, k := range keks {
		entries = append(entries, s.kekEntry(caller, joinery.AuditKEKAdded, p, k))
	}
	return s.store.AddPeer(ctx, p, keks, entries...)
}

// ChangePeer replaces the settings of a peer; Org and CreatedAt stay. A consent
// to clear keys that was not there before must be confirmed by name. Where it is
// only suspended or resumed nothing else is written; see lockPeers.
func (s *Service) ChangePeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, confirm PeerConfirm) (joinery.Peer, error) {
	if err := caller.RequireOperator(); err != nil {
		return joinery.Peer{}, err
	}
	credentials, err := checkPeer(p)
	if err != nil {
		return joinery.Peer{}, err
	}

	peers, err := s.store.Peers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	if before, err := findPeer(peers, p.ID); err == nil && confirm == (PeerConfirm{}) && onlySuspends(p, before) {
		return s.suspendPeer(ctx, caller, before, p.Suspended)
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	defer unlock()
	peers, err = s.store.Peers(ctx)
	if err != nil {
		return joinery.Peer{}, err
	}
	before, err := findPeer(peers, p.ID)
	if err != nil {
		return joinery.Peer{}, s.absent(ctx, err)
	}
	p.Org, p.CreatedAt = before.Org, before.CreatedAt
	roles, err := s.liveRoles(ctx, p.ID)
	if err != nil {
		return joinery.Peer{}, err
	}
	if err := checkConsent(p, before, roles, confirm); err != nil {
		return joinery.Peer{}, err
	}
	if err := checkAgainst(p, credentials, peers); err != nil {
		return joinery.Peer{}, err
	}
	entries := s.peerEntries(caller, joinery.AuditPeerChanged, p, p.ClearKeys && !before.ClearKeys)
	if err := s.change(ctx, func(ctx context.Context) error { return s.store.ChangePeer(ctx, p, entries...) }); err != nil {
		return p, err
	}
	s.warn(p)
	return p, nil
}

// onlySuspends tells whether p is before, but for being suspended.
func onlySuspends(p, before joinery.Peer) bool {
	was, is := peerDetail(before), peerDetail(p)
	delete(was, "suspended")
	delete(is, "suspended")
	return p.Suspended != before.Suspended && maps.Equal(was, is)
}

func (s *Service) suspendPeer(ctx context.Context, caller joinery.Caller, p joinery.Peer, suspended bool) (joinery.Peer, error) {
	p.Suspended = suspended
	entry := s.peerEntries(caller, joinery.AuditPeerChanged, p, false)[0]
	err := s.change(ctx, func(ctx context.Context) error { return s.store.SuspendPeer(ctx, p.ID, suspended, entry) })
	if err == nil {
		s.warn(p)
	}
	return p, err
}

// RemovePeer removes a peer and retires its KEKs. Its living connections are
// refused from the next request on.
func (s *Service) RemovePeer(ctx context.Context, caller joinery.Caller, id joinery.PeerID) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	peers, err := s.store.Peers(ctx)
	if err != nil {
		return err
	}
	p, err := findPeer(peers, id)
	if err != nil {
		return s.absent(ctx, err)
	}
	entry := s.entry(caller, joinery.AuditPeerRemoved, p.Org, map[string]string{"name": p.Name})
	entry.Peer = id
	return s.change(ctx, func(ctx context.Context) error { return s.store.RemovePeer(ctx, id, entry) })
}

// checkConsent decides whether p may do without KEKs. before is the peer as it
// was, zero for a new one: what it may do already needs no new consent.
func checkConsent(p, before joinery.Peer, roles []joinery.KEKRole, confirm PeerConfirm) error {
	switch {
	case p.ClearKeys && !before.ClearKeys && confirm.ClearKeysFor != p.Name:
		return joinery.Errorf(joinery.CodeInvalid,
			"session keys would travel to this peer unwrapped: confirm that by giving the peer's name as the one for clear keys")
	case !p.ClearKeys && confirm.ClearKeysFor != "":
		return joinery.Errorf(joinery.CodeInvalid, "clear keys are confirmed, but not set")
	case p.ClearKeys:
		return nil
	case len(p.NetIDs) > 0 && len(before.NetIDs) == 0 && !slices.Contains(roles, joinery.KEKForNS):
		return joinery.Errorf(joinery.CodeInvalid,
			"a Network Server needs a KEK for its session keys (role ns), or the confirmed consent to send them in the clear")
	case before.ID == 0 && len(roles) == 0 && !p.ClaimKEKs:
		return joinery.Errorf(joinery.CodeInvalid,
			"an Application Server needs a KEK for AppSKeys (role as), or the confirmed consent to send them in the clear")
	}
	return nil
}

// peerEntries are the audit entries of a peer that is added or changed.
func (s *Service) peerEntries(caller joinery.Caller, event joinery.AuditEvent, p joinery.Peer, clearKeys bool) []joinery.AuditEntry {
	entry := s.entry(caller, event, p.Org, peerDetail(p))
	entry.Peer = p.ID
	entries := []joinery.AuditEntry{entry}
	if clearKeys {
		allowed := s.entry(caller, joinery.AuditClearKeysAllowed, p.Org, map[string]string{"name": p.Name})
		allowed.Peer = p.ID
		entries = append(entries, allowed)
	}
	return entries
}

// peerDetail is all settings of a peer.
func peerDetail(p joinery.Peer) map[string]string {
	return map[string]string{
		"name":             p.Name,
		"netIDs":           joinText(p.NetIDs),
		"nsIDs":            joinText(p.NSIDs),
		"asIDs":            strings.Join(p.ASIDs, " "),
		"credentials":      describeCredentials(p),
		"clearKeys":        fmt.Sprint(p.ClearKeys),
		"appSKeyAtLeast":   p.AppSKeyAtLeast.String(),
		"omitSessionKeyID": fmt.Sprint(p.OmitSessionKeyID),
		"discloseDevices":  fmt.Sprint(p.DiscloseDevices),
		"ignoreNSID":       fmt.Sprint(p.IgnoreNSID),
		"hideExistence":    fmt.Sprint(p.HideExistence),
		"claimKEKs":        fmt.Sprint(p.ClaimKEKs),
		"suspended":        fmt.Sprint(p.Suspended),
	}
}

// describeCredentials names credentials by hashes of public material.
func describeCredentials(p joinery.Peer) string {
	var texts []string
	for _, c := range p.Credentials {
		texts = append(texts, describeCredential(c))
	}
	return strings.Join(texts, " ")
}

// warn tells the operator's log what will go wrong with a peer's credentials.
func (s *Service) warn(p joinery.Peer) {
	for _, text := range CredentialWarnings(p, s.now()) {
		s.log.Warn("a credential of a peer needs attention", slog.String("peer", p.Name), slog.String("warning", text))
	}
}

func joinText[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}
