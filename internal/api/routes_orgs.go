package api

import (
	"context"
	"net/http"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
	"joinery/manifest"
)

func (s *Server) registerOrganisations() {
	route(s, spec{method: http.MethodGet, path: "/organisations", id: "listOrganisations", tag: "organisations",
		summary: "Organisations: all to the operator, else the caller's own"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Organisation]], error) {
			orgs, err := s.Organisations.Orgs(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "organisations", orgs, func(o joinery.Organisation) string { return o.ID.String() }, organisation)
		})
	route(s, spec{method: http.MethodPost, path: "/organisations", id: "addOrganisation", tag: "organisations", status: http.StatusCreated,
		summary: "Add an organisation", description: "For the operator."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewOrganisation]) (*body[client.Organisation], error) {
			o, err := s.Organisations.AddOrg(ctx, caller, in.Body.Name)
			return ok(organisation(o)), err
		})
	route(s, spec{method: http.MethodGet, path: "/join-eui-ranges", id: "listJoinEUIRanges", tag: "organisations",
		summary: "JoinEUI ranges that this server answers for"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.JoinEUIRange]], error) {
			ranges, err := s.Ranges.Ranges(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "join-eui-ranges", ranges, func(r joinery.JoinEUIRange) string { return r.First.String() }, joinEUIRange)
		})
	route(s, spec{method: http.MethodPost, path: "/join-eui-ranges", id: "assignJoinEUIRange", tag: "organisations", status: http.StatusCreated,
		summary: "Assign a JoinEUI range to an organisation", description: "For the operator. Ranges never overlap."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewJoinEUIRange]) (*body[client.JoinEUIRange], error) {
			r, err := s.Ranges.AssignRange(ctx, caller, joinery.JoinEUIRange{
				EUIRange: joinery.EUIRange(in.Body.EUIRange), Org: in.Body.Organisation, Elements: in.Body.Elements,
			})
			return ok(joinEUIRange(r)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/join-eui-ranges", id: "releaseJoinEUIRange", tag: "organisations",
		summary: "Give a JoinEUI range back", description: "For the operator. It is refused while devices or signers lie in the range."},
		func(ctx context.Context, caller joinery.Caller, in *rangeInput) (*none, error) {
			r, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Ranges.ReleaseRange(ctx, caller, r)
		})
}

type rangeInput struct {
	First string `query:"first" required:"true" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"First JoinEUI of the range"`
	Last  string `query:"last" required:"true" pattern:"^[0-9A-Fa-f]{16}$" patternDescription:"16 hexadecimal digits" doc:"Last JoinEUI of the range"`
}

func (in *rangeInput) parse() (r joinery.EUIRange, err error) {
	if r.First, err = lorawan.ParseEUI64(in.First); err == nil {
		r.Last, err = lorawan.ParseEUI64(in.Last)
	}
	if err != nil {
		return r, joinery.WrapError(joinery.CodeInvalid, err, "first, last: want 16 hexadecimal digits")
	}
	return r, nil
}

type signerInput struct {
	ID string `path:"id" pattern:"^sgn_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"sgn_ and 13 characters" doc:"The signer's id"`
}

func (s *Server) registerSigners() {
	route(s, spec{method: http.MethodGet, path: "/signers", id: "listSigners", tag: "organisations",
		summary: "Pinned signers of manifests"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Signer]], error) {
			signers, err := s.Signers.Signers(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "signers", signers, func(n joinery.Signer) string { return n.ID.String() }, signer)
		})
	route(s, spec{method: http.MethodPost, path: "/signers", id: "addSigner", tag: "organisations", status: http.StatusCreated,
		summary: "Pin a signer of manifests", description: "For the operator."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewSigner]) (*body[client.Signer], error) {
			n := in.Body
			made, err := s.Signers.AddSigner(ctx, caller, joinery.Signer{
				Org: n.Organisation, Name: n.Name, DER: n.Certificate, Master: n.Master, Generation: n.Generation,
				JoinEUIs: joinery.EUIRange(n.JoinEUIs), DevEUIs: joinery.EUIRange(n.DevEUIs),
				Family: manifest.Family(n.Family), Roots: n.Roots, SerialSuffix: n.SerialSuffix, Shared: n.Shared,
			})
			return ok(signer(made)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/signers/{id}", id: "removeSigner", tag: "organisations",
		summary: "Trust a signer no longer", description: "For the operator. Devices that it brought stay."},
		func(ctx context.Context, caller joinery.Caller, in *signerInput) (*none, error) {
			id, err := parse[joinery.SignerID](in.ID, "signer")
			if err != nil {
				return nil, err
			}
			return nil, s.Signers.RemoveSigner(ctx, caller, id)
		})
}

type roamingInput struct {
	Paging
	Organisation string `query:"organisation" pattern:"^org_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"org_ and 13 characters" doc:"Whose rules; without it the organisation for which the caller acts"`
}

func (s *Server) registerRoaming() {
	route(s, spec{method: http.MethodGet, path: "/roaming", id: "listRoaming", tag: "organisations",
		summary: "Roaming rules: which networks may learn a device's home network"},
		func(ctx context.Context, caller joinery.Caller, in *roamingInput) (*body[client.List[client.RoamingRule]], error) {
			var org joinery.OrgID
			if in.Organisation != "" {
				var err error
				if org, err = parse[joinery.OrgID](in.Organisation, "organisation"); err != nil {
					return nil, err
				}
			}
			rules, err := s.Organisations.Roaming(ctx, caller, org)
			if err != nil {
				return nil, err
			}
			return few(in.Paging, "roaming", rules, func(r joinery.RoamingRule) string { return r.Org.String() + r.Device.String() }, roamingRule)
		})
	route(s, spec{method: http.MethodPut, path: "/roaming", id: "setRoaming", tag: "organisations",
		summary:     "Set or remove a roaming rule",
		description: "A rule for a device overrides its organisation's. Without 'netIDs' the rule is removed; an empty list lets no network ask."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.RoamingRule]) (*none, error) {
			return nil, s.Organisations.SetRoaming(ctx, caller, joinery.RoamingRule{
				Org: in.Body.Organisation, Device: in.Body.Device, NetIDs: in.Body.NetIDs,
			})
		})
}
