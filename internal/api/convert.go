package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"joinery"
	"joinery/client"
)

// The functions of this file turn nouns into what travels, and back. They copy
// field by field: a field that a noun gets later does not travel by itself.

func organisation(o joinery.Organisation) client.Organisation {
	return client.Organisation{ID: o.ID, Name: o.Name, Kinds: each(o.Kinds, same), CreatedAt: utc(o.CreatedAt)}
}

func joinEUIRange(r joinery.JoinEUIRange) client.JoinEUIRange {
	return client.JoinEUIRange{EUIRange: client.EUIRange(r.EUIRange), Organisation: r.Org, Elements: r.Elements}
}

func signer(n joinery.Signer) client.Signer {
	return client.Signer{
		ID: n.ID, Organisation: n.Org, Name: n.Name, KID: n.KID, X5TS256: n.X5TS256, Certificate: n.DER,
		JoinEUIs: client.EUIRange(n.JoinEUIs), DevEUIs: client.EUIRange(n.DevEUIs),
		Master: n.Master, Generation: n.Generation, CreatedAt: utc(n.CreatedAt),
		Family: string(n.Family), Roots: n.Roots, SerialSuffix: n.SerialSuffix, Shared: n.Shared,
	}
}

func roamingRule(r joinery.RoamingRule) client.RoamingRule {
	return client.RoamingRule{Organisation: r.Org, Device: r.Device, NetIDs: each(r.NetIDs, same)}
}

func same[T any](v T) T { return v }

func peer(p joinery.Peer) client.Peer {
	return client.Peer{
		ID: p.ID, Organisation: p.Org, CreatedAt: utc(p.CreatedAt),
		PeerSettings: client.PeerSettings{
			Name: p.Name, NetIDs: p.NetIDs, NSIDs: p.NSIDs, ASIDs: p.ASIDs,
			Credentials: each(p.Credentials, credential),
			ClearKeys:   p.ClearKeys, OmitSessionKeyID: p.OmitSessionKeyID, AppSKeyAtLeast: p.AppSKeyAtLeast.String(),
			DiscloseDevices: p.DiscloseDevices, IgnoreNSID: p.IgnoreNSID, Suspended: p.Suspended,
			HideExistence: p.HideExistence, ClaimKEKs: p.ClaimKEKs,
		},
	}
}

func credential(c joinery.Credential) client.Credential {
	out := client.Credential{Kind: string(c.Kind), CA: c.CA, SAN: c.SAN}
	if c.Kind == joinery.CredentialSPKI {
		out.SPKI = hex.EncodeToString(c.SPKI[:])
	}
	return out
}

// peerOf reads a peer's settings; identifiers and owner are the caller's to set.
func peerOf(in client.PeerSettings) (joinery.Peer, error) {
	p := joinery.Peer{
		Name: in.Name, NetIDs: in.NetIDs, NSIDs: in.NSIDs, ASIDs: in.ASIDs,
		ClearKeys: in.ClearKeys, OmitSessionKeyID: in.OmitSessionKeyID,
		DiscloseDevices: in.DiscloseDevices, IgnoreNSID: in.IgnoreNSID, Suspended: in.Suspended,
		HideExistence: in.HideExistence, ClaimKEKs: in.ClaimKEKs,
	}
	if in.AppSKeyAtLeast != "" {
		policy, err := joinery.ParseAppSKeyPolicy(in.AppSKeyAtLeast)
		if err != nil {
			return p, joinery.WrapError(joinery.CodeInvalid, err, "appSKeyAtLeast: want clear, wrapped or session-key-id")
		}
		p.AppSKeyAtLeast = policy
	}
	for _, c := range in.Credentials {
		out, err := credentialOf(c)
		if err != nil {
			return p, err
		}
		p.Credentials = append(p.Credentials, out)
	}
	return p, nil
}

func credentialOf(c client.Credential) (joinery.Credential, error) {
	out := joinery.Credential{Kind: joinery.CredentialKind(c.Kind), CA: c.CA, SAN: c.SAN}
	if c.SPKI != "" {
		sum, err := hex.DecodeString(c.SPKI)
		if err != nil || len(sum) != sha256.Size {
			return out, joinery.Errorf(joinery.CodeInvalid, "credentials: spki: want 64 hexadecimal digits")
		}
		out.SPKI = [sha256.Size]byte(sum)
	}
	return out, nil
}

func kek(k joinery.KEK) client.KEK {
	return client.KEK{
		ID: k.ID, Peer: k.Peer, Role: string(k.Role), Label: k.Label, Version: k.Version,
		CreatedAt: utc(k.CreatedAt), Retired: k.Retired, Claimed: k.Claimed,
	}
}

func device(s joinery.ActivationState) client.Device {
	d, now := s.Device, time.Now()
	out := client.Device{
		ID: d.ID, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, MACVersion: d.MACVersion, Maker: d.Maker,
		Owner: holderOf(d.Ownership), Released: d.Ownership.Released, OwnershipEpoch: d.Ownership.Epoch, OwnedSince: utc(d.Ownership.Since),
		Suspended: d.Suspended, Disclosed: d.Disclosed, Exposed: string(s.Exposed()), Told: told(d.Told), Attestation: d.Attested.Level(now).String(), AttestedBasis: attestedBasis(d.Attested, now), AttestedUntil: utc(d.Attested.FallsAt(now)), CreatedAt: utc(d.CreatedAt), LastJoinAt: utc(d.LastJoinAt),
		KeySet: client.KeySet{
			ID: s.KeySet.ID, Origin: s.KeySet.Origin.String(), Master: s.KeySet.Master, Generation: s.KeySet.Generation,
			Root10: s.KeySet.Root10.String(), JoinNonce: s.KeySet.Nonces.JoinNonce, NoncesResetSince: utc(s.KeySet.Nonces.ResetAt),
		},
		Binding: binding(s.Binding),
	}
	if d.Rekey != 0 {
		out.RekeyProfile, out.RekeyWord = d.Rekey.String(), d.RekeyWord.String()
	}
	return out
}

func told(t *joinery.Told) *client.Told {
	if t == nil {
		return nil
	}
	return &client.Told{Way: string(t.Way), Server: t.Server, Signer: t.Signer, AsOf: utc(t.AsOf), Outside: t.Outside}
}

// holderOf gives nobody for a released device: the operator's organisation only
// keeps it.
func holderOf(o joinery.Ownership) joinery.OrgID {
	if o.Released {
		return 0
	}
	return o.Org
}

func binding(b *joinery.Binding) *client.Binding {
	if b == nil {
		return nil
	}
	return &client.Binding{
		Epoch: b.Epoch, NetID: b.NetID, NSID: b.NSID, ASID: b.ASID, AppSKey: b.Policy.String(),
		ClearNwkKeys: b.ClearNwkKeys, Source: b.Source, Locked: b.Locked, Since: utc(b.Since), KEK: b.KEK,
	}
}

// bindingOf reads a binding as an owner asks for it; nil for none.
func bindingOf(in *client.NewBinding) (*joinery.Binding, error) {
	if in == nil {
		return nil, nil
	}
	policy, err := joinery.ParseAppSKeyPolicy(in.AppSKey)
	if err != nil {
		return nil, joinery.WrapError(joinery.CodeInvalid, err, "appSKey: want clear, wrapped or session-key-id")
	}
	return &joinery.Binding{
		NetID: in.NetID, NSID: in.NSID, ASID: in.ASID, Policy: policy, ClearNwkKeys: in.ClearNwkKeys, Source: "owner", Locked: in.Locked,
	}, nil
}

func activation(a joinery.Activation) client.Activation {
	out := client.Activation{
		ID: a.ID, At: utc(a.At), Type: joinType(a.Type), JoinEUI: a.JoinEUI, DevEUI: a.DevEUI, KeyLayout: "1.0",
		Count: a.Count, JoinNonce: a.JoinNonce, Peer: a.Peer, NetID: a.NetID, NSID: a.NSID, DevAddr: a.DevAddr,
		ASID: a.ASID, AppSKey: a.Policy.String(), NSKEK: a.NSKEK, ASKEK: a.ASKEK, BindingEpoch: a.BindingEpoch,
	}
	if a.OptNeg {
		out.KeyLayout = "1.1"
	}
	if a.SendSessionKeyID {
		out.SessionKeyID = strings.ToUpper(hex.EncodeToString(a.SessionKeyID[:]))
	}
	return out
}

func joinType(t joinery.JoinType) string {
	switch t {
	case joinery.JoinTypeRejoin0:
		return "rejoin-0"
	case joinery.JoinTypeRejoin1:
		return "rejoin-1"
	case joinery.JoinTypeRejoin2:
		return "rejoin-2"
	}
	return "join"
}

func importState(i joinery.Import) client.Import {
	out := client.Import{
		ID: i.ID, Organisation: i.Org, Kind: string(i.Kind), SHA256: hex.EncodeToString(i.SHA256[:]),
		MACVersion: i.MACVersion, Binding: binding(i.Bind), Next: i.Next, Created: i.Created, Unchanged: i.Unchanged,
		Failed: i.Failed, Done: i.Done, CreatedAt: utc(i.CreatedAt),
	}
	if i.Rekey != 0 {
		out.RekeyProfile = i.Rekey.String()
	}
	return out
}

func rowResult(r joinery.RowResult) client.RowResult {
	return client.RowResult{
		Index: r.Index, Line: r.Line, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, Serial: r.Serial, Device: r.Device,
		Status: string(r.Status), Reason: r.Reason, Warning: r.Warning,
	}
}

func apiKey(k joinery.APIKey) client.APIKey {
	return client.APIKey{
		ID: k.ID, Organisation: k.Org, Operator: k.Operator, Name: k.Name,
		Scopes: each(k.Rights.List(), same), Person: k.Person, MadeBy: k.MadeBy,
		CreatedAt: utc(k.CreatedAt), ExpiresAt: utc(k.ExpiresAt), RevokedAt: utc(k.RevokedAt), LastUsedAt: utc(k.LastUsedAt),
	}
}

func auditEntry(e joinery.AuditEntry) client.AuditEntry {
	return client.AuditEntry{
		ID: e.ID, At: utc(e.At), Event: string(e.Event), Actor: e.Actor,
		Organisation: e.Org, Device: e.Device, Peer: e.Peer, Detail: e.Detail,
	}
}

// utc keeps the zero time zero, so that it is left out.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// attestedBasis is what the level of a device rests on, "" at L0.
func attestedBasis(a joinery.Attested, now time.Time) string {
	level := a.Level(now)
	if level == joinery.AttestNone {
		return ""
	}
	return a.BasisOf(level).String()
}
