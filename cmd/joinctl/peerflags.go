package main

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"joinery"
	"joinery/client"
	"joinery/lorawan"

	"github.com/spf13/cobra"
)

// Presets of --for. What they set is what these servers were seen to need.
const (
	presetChirpStack = "chirpstack"
	presetThingsTS   = "the-things-stack"
)

// peerFlags are the flags that describe a peer.
type peerFlags struct {
	command *cobra.Command

	netIDs, nsids, asIDs                 []string
	spki, certs, cas                     []string
	san, preset, confirm, appSKey, name  string
	clearKeys, omitID, disclose, anyNSID bool
	hide, claimKEKs                      bool
	add, suspended                       bool
}

func (p *peerFlags) register(c *cobra.Command) {
	p.command = c
	f := c.Flags()
	f.StringSliceVar(&p.netIDs, "net-id", nil, "NetID under which it speaks as a Network Server; may be given several times")
	f.StringSliceVar(&p.nsids, "nsid", nil, "NSID under which it speaks; may be given several times")
	f.StringSliceVar(&p.asIDs, "as-id", nil, "AS-ID under which it speaks as an Application Server; may be given several times")
	f.StringSliceVar(&p.certs, "cert", nil, "PEM file of its client certificate: its public key is pinned")
	f.StringSliceVar(&p.spki, "spki", nil, "SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits: pinned")
	f.StringSliceVar(&p.cas, "ca", nil, "PEM file of a CA: any certificate under it is this peer's, unless --san is given")
	f.StringVar(&p.san, "san", "", "DNS name or URI that a certificate under --ca must carry, where the CA serves others, too")
	f.StringVar(&p.preset, "for", "", "set what a known Network Server needs: "+presetChirpStack+" or "+presetThingsTS)
	f.BoolVar(&p.clearKeys, "clear-keys", false, "consent that session keys travel to it unwrapped; asks for its name")
	f.StringVar(&p.confirm, "confirm", "", "the peer's name, to confirm --clear-keys without being asked")
	f.BoolVar(&p.omitID, "omit-session-key-id", false, "leave SessionKeyID out of answers that carry AppSKey")
	f.StringVar(&p.appSKey, "app-s-key-at-least", "", "weakest way in which AppSKey travels to it: clear, wrapped or session-key-id")
	f.BoolVar(&p.disclose, "disclose-devices", false, "tell it which devices exist that are not bound to it")
	f.BoolVar(&p.anyNSID, "ignore-nsid", false, "accept any SenderNSID from it")
	f.BoolVar(&p.hide, "hide-existence", false, "answer its claims of devices that are unknown or another's as claims with a wrong token")
	f.BoolVar(&p.claimKEKs, "claim-keks", false, "take the KEK of a device's AppSKey with its claim")
}

// apply sets what the flags name.
func (p *peerFlags) apply(s *client.PeerSettings) error {
	given := p.command.Flags().Changed
	if err := p.applyIdentifiers(s); err != nil {
		return err
	}
	credentials, err := p.credentials()
	if err != nil {
		return err
	}
	if len(credentials) > 0 {
		s.Credentials = merged(s.Credentials, credentials, p.add, sameCredential)
	}
	if len(s.Credentials) == 0 {
		return usagef("say by what its certificate is recognised: --cert, --spki, or --ca with or without --san")
	}
	if err := p.applyPreset(s); err != nil {
		return err
	}
	for flag, set := range map[string]func(){
		"name":                func() { s.Name = p.name },
		"clear-keys":          func() { s.ClearKeys = p.clearKeys },
		"omit-session-key-id": func() { s.OmitSessionKeyID = p.omitID },
		"app-s-key-at-least":  func() { s.AppSKeyAtLeast = p.appSKey },
		"disclose-devices":    func() { s.DiscloseDevices = p.disclose },
		"ignore-nsid":         func() { s.IgnoreNSID = p.anyNSID },
		"hide-existence":      func() { s.HideExistence = p.hide },
		"claim-keks":          func() { s.ClaimKEKs = p.claimKEKs },
		"suspended":           func() { s.Suspended = p.suspended },
	} {
		if given(flag) {
			set()
		}
	}
	if given("app-s-key-at-least") {
		if _, err := joinery.ParseAppSKeyPolicy(p.appSKey); err != nil {
			return usagef("--app-s-key-at-least: %w", err)
		}
	}
	return nil
}

func (p *peerFlags) applyIdentifiers(s *client.PeerSettings) error {
	netIDs, err := parseAll("--net-id", p.netIDs, lorawan.ParseNetID)
	if err != nil {
		return err
	}
	nsids, err := parseAll("--nsid", p.nsids, lorawan.ParseEUI64)
	if err != nil {
		return err
	}
	if len(netIDs) > 0 {
		s.NetIDs = merged(s.NetIDs, netIDs, p.add, equal)
	}
	if len(nsids) > 0 {
		s.NSIDs = merged(s.NSIDs, nsids, p.add, equal)
	}
	if len(p.asIDs) > 0 {
		s.ASIDs = merged(s.ASIDs, p.asIDs, p.add, equal)
	}
	if len(s.NetIDs) == 0 && len(s.ASIDs) == 0 {
		return usagef("say as what it speaks: --net-id, --as-id or both")
	}
	return nil
}

// applyPreset sets what a known server needs; single flags go before it.
func (p *peerFlags) applyPreset(s *client.PeerSettings) error {
	switch p.preset {
	case "":
	case presetChirpStack:
		// ChirpStack v4 takes an answer with a SessionKeyID for end-to-end
		// encryption, and then never decrypts the payload.
		s.OmitSessionKeyID = true
	case presetThingsTS:
		// The Things Stack invents a SessionKeyID where there is none, and its
		// Application Server then cannot fetch AppSKey.
		s.OmitSessionKeyID = false
	default:
		return usagef("--for: want %s or %s", presetChirpStack, presetThingsTS)
	}
	return nil
}

func (p *peerFlags) credentials() ([]client.Credential, error) {
	var out []client.Credential
	for _, pin := range p.spki {
		if b, err := hex.DecodeString(pin); err != nil || len(b) != sha256.Size {
			return nil, usagef("--spki: want 64 hexadecimal digits; --cert FILE works them out")
		}
		out = append(out, client.Credential{Kind: "spki", SPKI: pin})
	}
	for _, path := range p.certs {
		crt, err := readCertificate(path)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(crt.RawSubjectPublicKeyInfo)
		out = append(out, client.Credential{Kind: "spki", SPKI: hex.EncodeToString(sum[:])})
	}
	for _, path := range p.cas {
		crt, err := readCertificate(path)
		if err != nil {
			return nil, err
		}
		c := client.Credential{Kind: "ca", CA: crt.Raw}
		if p.san != "" {
			c.Kind, c.SAN = "ca+san", p.san
		}
		out = append(out, c)
	}
	if p.san != "" && len(p.cas) == 0 {
		return nil, usagef("--san needs --ca, the CA under which that name is trusted")
	}
	return out, nil
}

func sameCredential(a, b client.Credential) bool {
	return a.Kind == b.Kind && a.SPKI == b.SPKI && a.SAN == b.SAN && slices.Equal(a.CA, b.CA)
}

func equal[T comparable](a, b T) bool { return a == b }

// merged gives what replaces before: now, or, to add, both without doubles.
func merged[T any](before, now []T, add bool, same func(a, b T) bool) []T {
	if !add {
		return now
	}
	out := slices.Clone(before)
	for _, n := range now {
		if !slices.ContainsFunc(out, func(o T) bool { return same(o, n) }) {
			out = append(out, n)
		}
	}
	return out
}

func parseAll[T any](flag string, texts []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, usagef("%s: %w", flag, err)
		}
		out = append(out, v)
	}
	return out, nil
}
