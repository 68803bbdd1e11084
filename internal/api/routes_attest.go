package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/attest"
	"joinery/manifest"
)

// Attestations is what devices show of their element and firmware.
type Attestations interface {
	Challenge(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, life time.Duration) (attest.Asked, error)
	Standing(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) (attest.Standing, error)
	Evidence(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, kind joinery.EvidenceKind, b []byte) (attest.Standing, error)
	Fragment(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, b []byte) (attest.Progress, error)
	AttestationWants
	Products
	ProductKeys
	FirmwareReleases
}

// AttestationWants is what owners want of their devices.
type AttestationWants interface {
	Policy(ctx context.Context, caller joinery.Caller) (joinery.AttestPolicy, error)
	SetPolicy(ctx context.Context, caller joinery.Caller, p joinery.AttestPolicy) (joinery.AttestPolicy, error)
	// SetRule with nil wants of a device what is wanted of all.
	SetRule(ctx context.Context, caller joinery.Caller, id joinery.DeviceID, rule *joinery.AttestRule) error
}

// Products is the makes of devices that makers register.
type Products interface {
	Products(ctx context.Context, caller joinery.Caller) ([]joinery.Product, error)
	Product(ctx context.Context, caller joinery.Caller, id joinery.ProductID) (joinery.Product, error)
	AddProduct(ctx context.Context, caller joinery.Caller, p joinery.Product) (joinery.Product, error)
	RemoveProduct(ctx context.Context, caller joinery.Caller, id joinery.ProductID) error
}

// ProductKeys is what verifies releases, and evidence of devices.
type ProductKeys interface {
	Keys(ctx context.Context, caller joinery.Caller, product joinery.ProductID, after joinery.ProductKeyID, limit int) ([]joinery.ProductKey, error)
	AddKey(ctx context.Context, caller joinery.Caller, k joinery.ProductKey) (joinery.ProductKey, error)
	RemoveKey(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ProductKeyID) error
}

// FirmwareReleases is the signed firmware of products.
type FirmwareReleases interface {
	Releases(ctx context.Context, caller joinery.Caller, product joinery.ProductID, after joinery.ReleaseID, limit int) ([]joinery.Release, error)
	AddRelease(ctx context.Context, caller joinery.Caller, product joinery.ProductID, statement []byte) (joinery.Release, error)
	WithdrawRelease(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ReleaseID) error
	LowerFloor(ctx context.Context, caller joinery.Caller, product joinery.ProductID, id joinery.ReleaseID, counter uint32) error
}

type (
	challengeInput struct {
		DevicePath
		Body client.NewAttestChallenge
	}
	evidenceInput struct {
		DevicePath
		Body client.NewEvidence
	}
	fragmentInput struct {
		DevicePath
		Body client.NewEvidenceFragment
	}
	attestRuleInput struct {
		DevicePath
		Body client.AttestRule
	}
)

func (s *Server) registerAttestation() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/attestation", id: "getAttestation", tag: "attestation",
		summary: "What was shown of a device's element and firmware, and what its owner wants"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*body[client.Attestation], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			st, err := s.Attestations.Standing(ctx, caller, id)
			return ok(attestation(st)), err
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/attestation/challenges", id: "makeAttestChallenge", tag: "attestation", status: http.StatusCreated,
		summary: "Get something for a device to answer", description: "It is good for one answer. A device has four at most; a fifth takes the place of the oldest."},
		s.makeAttestChallenge)
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/attestation/evidence", id: "giveEvidence", tag: "attestation",
		summary: "Show evidence of a device",
		description: "It has to answer a challenge that waits for this device, and uses it up. What is accepted gives the level of its kind and no other. " +
			"What proves nothing is `attestation`, with the reason, and changes nothing. The result says on what it rests."},
		func(ctx context.Context, caller joinery.Caller, in *evidenceInput) (*body[client.Attestation], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			st, err := s.Attestations.Evidence(ctx, caller, id, joinery.EvidenceKind(in.Body.Kind), in.Body.Evidence)
			return ok(attestation(st)), err
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/attestation/fragments", id: "giveEvidenceFragment", tag: "attestation",
		summary:     "Show a part of compact evidence, as it came in an uplink",
		description: "In any order, and more than once if it comes so. With the last one the whole is judged."},
		func(ctx context.Context, caller joinery.Caller, in *fragmentInput) (*body[client.EvidenceProgress], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			p, err := s.Attestations.Fragment(ctx, caller, id, in.Body.Fragment)
			out := client.EvidenceProgress{Have: uint32(p.Have), Total: uint32(p.Total)}
			if p.Standing != nil {
				a := attestation(*p.Standing)
				out.Attestation = &a
			}
			return ok(out), err
		})
	s.registerAttestWants()
	s.registerProducts()
	s.registerProductKeys()
	s.registerReleases()
}

func (s *Server) makeAttestChallenge(ctx context.Context, caller joinery.Caller, in *challengeInput) (*body[client.AttestChallenge], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	a, err := s.Attestations.Challenge(ctx, caller, id, time.Duration(in.Body.ValidSeconds)*time.Second)
	return ok(client.AttestChallenge{
		Challenge: a.Random[:], Device: a.Device.ID, JoinEUI: a.Device.JoinEUI, DevEUI: a.Device.DevEUI, ExpiresAt: utc(a.ExpiresAt),
	}), err
}

func (s *Server) registerAttestWants() {
	route(s, spec{method: http.MethodPut, path: "/devices/{id}/attestation/rule", id: "setAttestRule", tag: "attestation",
		summary: "Want something else of one device than of all", description: "It ends when the device changes hands."},
		func(ctx context.Context, caller joinery.Caller, in *attestRuleInput) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			rule, err := attestRule(in.Body.Level, in.Body.Activate, in.Body.Basis)
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.SetRule(ctx, caller, id, &rule)
		})
	route(s, spec{method: http.MethodDelete, path: "/devices/{id}/attestation/rule", id: "removeAttestRule", tag: "attestation",
		summary: "Want of a device what is wanted of all"},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Attestations.SetRule(ctx, caller, id, nil)
		})
	route(s, spec{method: http.MethodGet, path: "/attestation-policy", id: "getAttestPolicy", tag: "attestation",
		summary: "What the organisation wants of its devices"},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.AttestPolicy], error) {
			p, err := s.Attestations.Policy(ctx, caller)
			return ok(attestPolicy(p)), err
		})
	route(s, spec{method: http.MethodPut, path: "/attestation-policy", id: "setAttestPolicy", tag: "attestation",
		summary: "Say what the organisation wants of its devices",
		description: "It holds for the next join of each device, within some seconds on every server, and for results that come. " +
			"It never keeps a device from leaving: export, rekeying, transfer and release stay open."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.AttestPolicy]) (*body[client.AttestPolicy], error) {
			p := joinery.AttestPolicy{ValidDays: int(in.Body.ValidDays)}
			var err error
			if p.AttestRule, err = attestRule(in.Body.Level, in.Body.Activate, in.Body.Basis); err != nil {
				return nil, err
			}
			if err := p.Claim.UnmarshalText([]byte(in.Body.Claim)); err != nil {
				return nil, joinery.Errorf(joinery.CodeInvalid, "claim: want none, warn or refuse")
			}
			p, err = s.Attestations.SetPolicy(ctx, caller, p)
			return ok(attestPolicy(p)), err
		})
}

func attestRule(level, activate, basis string) (r joinery.AttestRule, err error) {
	r.Basis = joinery.AttestUnsaid
	if r.Level.UnmarshalText([]byte(level)) != nil || r.Activate.UnmarshalText([]byte(activate)) != nil ||
		basis != "" && r.Basis.UnmarshalText([]byte(basis)) != nil {
		err = joinery.Errorf(joinery.CodeInvalid, "level: want L0 to L3; activate: want none, warn or refuse; basis: want any, vouched or chain")
	}
	return r, err
}

func attestPolicy(p joinery.AttestPolicy) client.AttestPolicy {
	return client.AttestPolicy{Level: p.Level.String(), Activate: p.Activate.String(), Claim: p.Claim.String(), Basis: p.Basis.String(), ValidDays: uint32(p.ValidDays)}
}

func attestation(st attest.Standing) client.Attestation {
	return client.Attestation{
		Device: st.Device.ID, Level: st.Level.String(), Until: utc(st.Until), Counts: st.Counts.String(), Below: st.Broken, OwnRule: st.Own,
		Wanted:  client.AttestRule{Level: st.Rule.Level.String(), Activate: st.Rule.Activate.String(), Basis: st.Rule.Basis.String()},
		Results: each(st.Results, attestResult),
	}
}

func attestResult(a joinery.Attestation) client.AttestationResult {
	return client.AttestationResult{
		Level: a.Level.String(), Kind: string(a.Kind), Verifier: a.Verifier, At: utc(a.At), Until: utc(a.Until), EndedAt: utc(a.EndedAt),
		SHA256: hex.EncodeToString(a.Digest[:]), SelfReported: a.SelfReported(), Version: a.Version, Release: a.Release, Counter: a.Counter,
		Evidence: hex.EncodeToString(a.Evidence[:]), Basis: a.Basis.String(), RestsOn: attestGround(a.Ground),
	}
}

func attestGround(g joinery.AttestGround) client.AttestationGround {
	out := client.AttestationGround{
		Key: "unknown", ProductKey: g.Key, SignerName: g.SignerName, Pinned: g.Pinned(), UnpinnedAt: utc(g.UnpinnedAt), Chain: "unknown",
	}
	if sum, err := base64.RawURLEncoding.DecodeString(g.SignerX5TS256); err == nil {
		out.SignerSHA256 = hex.EncodeToString(sum)
	}
	switch {
	case g.Key != 0:
		out.Key, out.Chain = "registered", string(manifest.ChainNone)
	case g.SignerX5TS256 != "":
		out.Key = "manifest"
		if g.Chain != "" {
			out.Chain = string(g.Chain)
		}
	}
	return out
}
