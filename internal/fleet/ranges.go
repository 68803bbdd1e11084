package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"joinery"
	"joinery/internal/keyring"
	"joinery/manifest"
)

// Ranges gives the JoinEUI ranges that caller may see.
func (s *Service) Ranges(ctx context.Context, caller joinery.Caller) ([]joinery.JoinEUIRange, error) {
	ranges, err := s.store.Ranges(ctx)
	return slices.DeleteFunc(ranges, func(r joinery.JoinEUIRange) bool { return !caller.Owns(r.Org) }), err
}

// AssignRange lets an organisation import devices into a range of JoinEUIs, and
// this server answer for it. Ranges never overlap.
func (s *Service) AssignRange(ctx context.Context, caller joinery.Caller, r joinery.JoinEUIRange) (joinery.JoinEUIRange, error) {
	if err := caller.RequireOperator(); err != nil {
		return r, err
	}
	var err error
	if r.Org, err = s.actingOrg(ctx, caller, r.Org); err != nil {
		return r, err
	}
	if err := checkRange("JoinEUI range", r.EUIRange); err != nil {
		return r, err
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return r, err
	}
	defer unlock()
	ranges, err := s.store.Ranges(ctx)
	if err != nil {
		return r, err
	}
	for _, o := range ranges {
		if o.Overlaps(r.EUIRange) {
			return r, joinery.Errorf(joinery.CodeConflict, "the range overlaps %s to %s of %s", o.First, o.Last, o.Org)
		}
	}
	entry := s.entry(caller, joinery.AuditRangeAssigned, r.Org, rangeDetail(r))
	return r, s.change(ctx, func(ctx context.Context) error { return s.store.AssignRange(ctx, r, entry) })
}

// ReleaseRange takes a whole range back, which first and last must name. It is
// refused while devices or signers lie in it.
func (s *Service) ReleaseRange(ctx context.Context, caller joinery.Caller, r joinery.EUIRange) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ranges, err := s.store.Ranges(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ranges, func(o joinery.JoinEUIRange) bool { return o.EUIRange == r })
	if i < 0 {
		return s.absent(ctx, notFound("JoinEUI range"))
	}
	signers, err := s.store.Signers(ctx)
	if err != nil {
		return err
	}
	for _, signer := range signers {
		if signer.JoinEUIs.Overlaps(r) {
			return joinery.Errorf(joinery.CodeConflict, "signer %q provisions in this range: remove it first", signer.Name)
		}
	}
	found := ranges[i]
	entry := s.entry(caller, joinery.AuditRangeReleased, found.Org, rangeDetail(found))
	return s.change(ctx, func(ctx context.Context) error { return s.store.ReleaseRange(ctx, found, entry) })
}

func checkRange(what string, r joinery.EUIRange) error {
	if r.First.Uint64() > r.Last.Uint64() {
		return joinery.Errorf(joinery.CodeInvalid, "%s: the first is above the last", what)
	}
	return nil
}

func rangeDetail(r joinery.JoinEUIRange) map[string]string {
	return map[string]string{"first": r.First.String(), "last": r.Last.String(), "elements": strconv.FormatBool(r.Elements)}
}

// Signers gives the pinned signers that caller may see: its own, and shared ones.
func (s *Service) Signers(ctx context.Context, caller joinery.Caller) ([]joinery.Signer, error) {
	signers, err := s.store.Signers(ctx)
	return slices.DeleteFunc(signers, func(x joinery.Signer) bool { return !caller.Owns(x.Org) && !x.Shared }), err
}

// AddSigner pins a signer of manifests by its certificate (DER); ID, KID,
// X5TS256 and CreatedAt are made here. What it may provision must lie in one
// JoinEUI range of its organisation, and its master key be in the keyring. Several
// organisations may pin one certificate, each with ranges of its own.
func (s *Service) AddSigner(ctx context.Context, caller joinery.Caller, n joinery.Signer) (joinery.Signer, error) {
	if err := caller.RequireOperator(); err != nil {
		return n, err
	}
	n, err := s.completeSigner(ctx, caller, n)
	if err != nil {
		return n, err
	}
	unlock, err := s.lockPeers(ctx)
	if err != nil {
		return n, err
	}
	defer unlock()
	if err := s.checkSigner(ctx, n); err != nil {
		return n, err
	}
	entry := s.entry(caller, joinery.AuditSignerAdded, n.Org, map[string]string{
		"signer": n.ID.String(), "name": n.Name, "kid": n.KID, "x5t#S256": n.X5TS256,
		"joinEUIs": n.JoinEUIs.First.String() + " " + n.JoinEUIs.Last.String(),
		"devEUIs":  n.DevEUIs.First.String() + " " + n.DevEUIs.Last.String(),
		"master":   n.Master, "generation": strconv.FormatUint(uint64(n.Generation), 10),
		"family": string(n.Family), "serialSuffix": n.SerialSuffix, "shared": strconv.FormatBool(n.Shared),
		"roots": rootsDetail(n.Roots),
	})
	return n, s.store.AddSigner(ctx, n, entry)
}

func (s *Service) completeSigner(ctx context.Context, caller joinery.Caller, n joinery.Signer) (joinery.Signer, error) {
	var err error
	if n.Org, err = s.actingOrg(ctx, caller, n.Org); err != nil {
		return n, err
	}
	if n.Family == "" {
		n.Family = manifest.FamilyJoinery
	}
	pinned, err := n.Pinned()
	if err != nil {
		return n, joinery.WrapError(joinery.CodeInvalid, err, "signer: %v", err)
	}
	id := pinned.ID()
	if n.KID != "" && n.KID != id.KID || n.X5TS256 != "" && n.X5TS256 != id.X5TS256 {
		return n, joinery.Errorf(joinery.CodeInvalid, "signer: kid or x5t#S256 are not those of the certificate")
	}
	n.ID, n.CreatedAt = joinery.NewSignerID(), s.timestamp()
	n.KID, n.X5TS256 = id.KID, id.X5TS256
	return n, nil
}

// rootsDetail names root certificates by their SHA-256.
func rootsDetail(ders []byte) string {
	roots, err := x509.ParseCertificates(ders)
	if err != nil {
		return "" // they were parsed before
	}
	var names []string
	for _, root := range roots {
		sum := sha256.Sum256(root.Raw)
		names = append(names, hex.EncodeToString(sum[:]))
	}
	return strings.Join(names, " ")
}

// checkSigner checks a new signer against masters, ranges and other signers.
func (s *Service) checkSigner(ctx context.Context, n joinery.Signer) error {
	if err := checkName("name of the signer", n.Name); err != nil {
		return err
	}
	if err := checkRange("JoinEUIs of the signer", n.JoinEUIs); err != nil {
		return err
	}
	if err := checkRange("DevEUIs of the signer", n.DevEUIs); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.keys.Masters(), func(m keyring.Master) bool { return m.Name == n.Master }) {
		return joinery.Errorf(joinery.CodeInvalid, "signer: there is no master key of that name in the keyring")
	}
	ranges, err := s.store.Ranges(ctx)
	if err != nil {
		return err
	}
	in := slices.IndexFunc(ranges, func(r joinery.JoinEUIRange) bool {
		return r.Org == n.Org && r.Contains(n.JoinEUIs.First) && r.Contains(n.JoinEUIs.Last)
	})
	switch {
	case in < 0:
		return joinery.Errorf(joinery.CodeInvalid, "signer: its JoinEUIs do not lie in one JoinEUI range of its organisation")
	case n.Shared && !ranges[in].Elements:
		return joinery.Errorf(joinery.CodeInvalid, "signer: it can be shared only where its range is kept for elements")
	}
	signers, err := s.store.Signers(ctx)
	if err != nil {
		return err
	}
	for _, o := range signers {
		switch {
		case o.Org == n.Org && o.KID == n.KID && o.X5TS256 == n.X5TS256:
			return joinery.Errorf(joinery.CodeConflict, "the certificate is pinned already, as signer %q", o.Name)
		case o.Org == n.Org && o.Name == n.Name:
			return joinery.Errorf(joinery.CodeConflict, "the organisation has a signer of that name")
		}
	}
	return nil
}

// RemoveSigner takes a pinned signer away: its manifests are refused from now
// on. Devices that were imported stay.
func (s *Service) RemoveSigner(ctx context.Context, caller joinery.Caller, id joinery.SignerID) error {
	if err := caller.RequireOperator(); err != nil {
		return err
	}
	signers, err := s.store.Signers(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(signers, func(x joinery.Signer) bool { return x.ID == id })
	if i < 0 {
		return notFound("signer")
	}
	entry := s.entry(caller, joinery.AuditSignerRemoved, signers[i].Org, map[string]string{"signer": id.String(), "name": signers[i].Name})
	return s.store.RemoveSigner(ctx, id, entry)
}
