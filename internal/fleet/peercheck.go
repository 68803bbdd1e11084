package fleet

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"joinery"
	"joinery/lorawan"
)

// Bounds of a peer.
const (
	maxName        = 128
	maxNames       = 64 // NetIDs, NSIDs, AS-IDs: of each
	maxCredentials = 16
	maxLabel       = 64
)

// checkName refuses what a person could not read back: 1 to 64 printable
// characters, no space at the ends.
func checkName(what, s string) error {
	printable := !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError })
	if n := utf8.RuneCountInString(s); n < 1 || n > maxName || !printable || strings.TrimSpace(s) != s {
		return joinery.Errorf(joinery.CodeInvalid, "%s: want 1 to %d printable characters, without a space at either end", what, maxName)
	}
	return nil
}

// checkPeer checks a peer by itself.
func checkPeer(p joinery.Peer) ([]credential, error) {
	invalid := func(text string) ([]credential, error) {
		return nil, joinery.Errorf(joinery.CodeInvalid, "%s", text)
	}
	if err := checkName("name of the peer", p.Name); err != nil {
		return nil, err
	}
	switch {
	case len(p.NetIDs) == 0 && len(p.ASIDs) == 0:
		return invalid("a peer needs a NetID (Network Server) or an AS-ID (Application Server)")
	case len(p.NetIDs) > maxNames || len(p.NSIDs) > maxNames || len(p.ASIDs) > maxNames:
		return invalid("a peer has at most 64 NetIDs, 64 NSIDs and 64 AS-IDs")
	case hasTwice(p.NetIDs) || hasTwice(p.NSIDs) || hasTwice(p.ASIDs):
		return invalid("a NetID, NSID or AS-ID is given twice")
	case len(p.NSIDs) > 0 && len(p.NetIDs) == 0:
		return invalid("an NSID needs the NetID of its network")
	case p.AppSKeyAtLeast > joinery.AppSKeyByID:
		return invalid("the weakest AppSKey policy is clear, wrapped or session-key-id")
	case len(p.Credentials) == 0 || len(p.Credentials) > maxCredentials:
		return invalid("a peer needs 1 to 16 credentials by which its certificates are recognised")
	}
	for _, nsid := range p.NSIDs {
		if nsid.IsZero() {
			return invalid("an NSID is not zero")
		}
	}
	if err := checkClaimant(p); err != nil {
		return nil, err
	}
	return parseCredentials(p)
}

// checkClaimant checks a peer's AS-IDs, and what only a peer with one can do.
func checkClaimant(p joinery.Peer) error {
	if len(p.ASIDs) == 0 && (p.HideExistence || p.ClaimKEKs) {
		return joinery.Errorf(joinery.CodeInvalid, "hideExistence and claimKEKs are for peers that claim devices, which need an AS-ID")
	}
	for _, asid := range p.ASIDs {
		if err := joinery.CheckASID(asid); err != nil {
			return err
		}
	}
	return nil
}

func parseCredentials(p joinery.Peer) ([]credential, error) {
	var list []credential
	for _, c := range p.Credentials {
		parsed, err := parseCredential(c)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, parsed.same) {
			return nil, joinery.Errorf(joinery.CodeInvalid, "a credential is given twice")
		}
		list = append(list, parsed)
	}
	return list, nil
}

func hasTwice[T comparable](list []T) bool {
	for i, v := range list {
		if slices.Contains(list[:i], v) {
			return true
		}
	}
	return false
}

// checkAgainst refuses a peer that could not always be told from another. The
// message names the other: only operators add peers.
func checkAgainst(p joinery.Peer, credentials []credential, others []joinery.Peer) error {
	for _, o := range others {
		if o.ID == p.ID {
			continue
		}
		if strings.EqualFold(o.Name, p.Name) {
			return joinery.Errorf(joinery.CodeConflict, "there is already a peer of the name %q", o.Name)
		}
		for _, asid := range p.ASIDs {
			if slices.Contains(o.ASIDs, asid) {
				return joinery.Errorf(joinery.CodeConflict, "AS-ID %s belongs to peer %q", asid, o.Name)
			}
		}
		if err := checkNetworks(p, o); err != nil {
			return err
		}
		if err := checkCredentials(credentials, o); err != nil {
			return err
		}
	}
	return nil
}

// checkNetworks: peers may share a NetID where their NSIDs tell them apart; a
// binding to one of the networks must not let the other in.
func checkNetworks(p, o joinery.Peer) error {
	shared := slices.IndexFunc(p.NetIDs, func(n lorawan.NetID) bool { return slices.Contains(o.NetIDs, n) })
	if shared < 0 {
		return nil
	}
	netID := p.NetIDs[shared]
	for _, nsid := range p.NSIDs {
		if slices.Contains(o.NSIDs, nsid) {
			return joinery.Errorf(joinery.CodeConflict, "NSID %s of NetID %s belongs to peer %q", nsid, netID, o.Name)
		}
	}
	if len(p.NSIDs) == 0 || len(o.NSIDs) == 0 || p.IgnoreNSID || o.IgnoreNSID {
		return joinery.Errorf(joinery.CodeConflict,
			"peer %q has NetID %s, too: both peers need NSIDs that tell them apart, and neither may ignore NSIDs", o.Name, netID)
	}
	return nil
}

func checkCredentials(credentials []credential, o joinery.Peer) error {
	for _, raw := range o.Credentials {
		other, err := parseCredential(raw)
		if err != nil {
			continue // recognises nobody; see Directory
		}
		for _, c := range credentials {
			if how := c.overlap(other); how != "" {
				return joinery.Errorf(joinery.CodeConflict, "a certificate could belong to this peer and to peer %q: %s", o.Name, how)
			}
		}
	}
	return nil
}

// checkLabel: a KEKLabel is 1 to 64 bytes of printable ASCII. Spaces are
// allowed inside, since peers configure labels as free text.
func checkLabel(s string) error {
	if s == "" || len(s) > maxLabel || strings.TrimSpace(s) != s ||
		strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return joinery.Errorf(joinery.CodeInvalid, "a KEK label is 1 to %d printable ASCII characters, without a space at either end", maxLabel)
	}
	return nil
}
