package api

import (
	"context"
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"
	"joinery/internal/auth"
)

// register adds every route.
func (s *Server) register() {
	s.registerServer()
	s.registerOrganisations()
	s.registerRoaming()
	s.registerSigners()
	s.registerPeers()
	s.registerKEKs()
	s.registerDevices()
	s.registerRefusals()
	s.registerManifests()
	s.registerOwnership()
	s.registerLabels()
	s.registerHandOver()
	s.registerDisputes()
	s.registerImports()
	s.registerAPIKeys()
	s.registerPeople()
	s.registerEvents()
	s.registerRotation()
	s.registerService()
	s.registerExports()
	s.registerCustodyLog()
	s.registerRekeying()
	s.registerRekeyApprovals()
	s.registerRekeyBatches()
	s.registerRekeyFiles()
	s.registerJoinServers()
	s.registerArrivals()
	s.registerAttestation()
}

func (s *Server) registerServer() {
	route(s, spec{method: http.MethodGet, path: "/status", id: "getStatus", tag: "server",
		summary: "Whether the server is ready, and who it takes the caller for"},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.Status], error) {
			status := client.Status{
				Version: s.version, Ready: true, Caller: callerOut(caller),
			}
			if key := s.System.TransportKey(); !key.IsZero() {
				status.TransportKID = key.KID()
			}
			if err := s.System.Ready(ctx); err != nil {
				status.Ready, status.Reason = false, joinery.MessageOf(err)
			}
			if caller.Operator {
				status.Masters, status.Custody = s.System.Masters(), s.System.Custody()
				status.ClockDoubted = s.Service.Doubt()
			}
			return ok(status), nil
		})
	route(s, spec{method: http.MethodGet, path: "/transport-key", id: "getTransportKey", tag: "server",
		summary: "The public key to which key lists and KEKs are sealed"},
		func(context.Context, joinery.Caller, *none) (*body[client.TransportKey], error) {
			key := s.System.TransportKey()
			if key.IsZero() {
				return nil, joinery.Errorf(joinery.CodeUnavailable, "the keyring is not open; try again later")
			}
			return ok(client.TransportKey{KID: key.KID(), PEM: string(key.MarshalPEM())}), nil
		})
	route(s, spec{method: http.MethodGet, path: "/audit", id: "listAudit", tag: "audit",
		summary: "Custody events, oldest first",
		description: "To the operator all, else those of the caller's organisation. A page may be empty and yet have a 'next': " +
			"what it looked at was not the caller's. There is no more when 'next' is absent."},
		s.listAudit)
}

type auditInput struct {
	Paging
	AfterID int64 `query:"afterID" minimum:"0" maximum:"9007199254740991" doc:"Only entries whose id is above this; 'after' goes before it"`
}

func (s *Server) listAudit(ctx context.Context, caller joinery.Caller, in *auditInput) (*body[client.Page[client.AuditEntry]], error) {
	const listing = "audit"
	after, err := placeNumber(in.Paging, listing, in.AfterID)
	if err != nil {
		return nil, err
	}
	entries, next, err := s.Audit.Audit(ctx, caller, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.AuditEntry]{Items: each(entries, auditEntry)}
	if next > after {
		p.Next = cursor(listing, strconv.FormatInt(next, 10))
	}
	return ok(p), nil
}

type apiKeyInput struct {
	ID string `path:"id" pattern:"^key_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"key_ and 13 characters" doc:"The key's id (not its text)"`
}

func (s *Server) registerAPIKeys() {
	route(s, spec{method: http.MethodGet, path: "/api-keys", id: "listAPIKeys", tag: "credentials",
		summary: "API keys, without their secrets"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.APIKey]], error) {
			keys, err := s.Keys.List(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "api-keys", keys, func(k joinery.APIKey) string { return k.ID.String() }, apiKey)
		})
	route(s, spec{method: http.MethodPost, path: "/api-keys", id: "makeAPIKey", secret: true, tag: "credentials", status: http.StatusCreated,
		summary: "Make an API key",
		description: "The answer holds the key's text. It is not stored and cannot be had again. A key never may more than who made it: " +
			"not now, and not later, when its organisation or the person who made it may less. What is made with the session of a program ends after 366 days at the latest."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewAPIKey]) (*body[client.MadeAPIKey], error) {
			text, key, err := s.Keys.Make(ctx, caller, auth.NewKey{
				Name: in.Body.Name, Org: in.Body.Organisation, Operator: in.Body.Operator, ExpiresAt: in.Body.ExpiresAt, Rights: in.Body.Scopes,
			})
			return ok(client.MadeAPIKey{Key: apiKey(key), Text: text}), err
		})
	route(s, spec{method: http.MethodDelete, path: "/api-keys/{id}", id: "revokeAPIKey", tag: "credentials",
		summary:     "Revoke an API key, at once and for ever",
		description: "Keys that were made by it are revoked with it. Who may not write people revokes only keys of their own making."},
		func(ctx context.Context, caller joinery.Caller, in *apiKeyInput) (*none, error) {
			id, err := parse[joinery.APIKeyID](in.ID, "API key")
			if err != nil {
				return nil, err
			}
			return nil, s.Keys.Revoke(ctx, caller, id)
		})
}
