package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"joinery"
	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/internal/rotation"
	"joinery/internal/seal"
)

// Rotation seals imported root keys under newer storage keys.
type Rotation interface {
	Progress(ctx context.Context, caller joinery.Caller) (rotation.Progress, error)
	// Behind may give fewer than limit, or none, and yet a next.
	Behind(ctx context.Context, caller joinery.Caller, after joinery.KeySetID, limit int) ([]joinery.StoredRoots, joinery.KeySetID, error)
	Rewrap(ctx context.Context, caller joinery.Caller, h seal.Header, rows []rotation.Row) (rotation.Outcome, error)
}

func (s *Server) registerRotation() {
	route(s, spec{method: http.MethodGet, path: "/rotation", id: "getRotation", tag: "server",
		summary:     "How far imported root keys are under the newest storage keys",
		description: "It counts every imported key set; see docs/custody.md."},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.Rotation], error) {
			p, err := s.Rotation.Progress(ctx, caller)
			if err != nil {
				return nil, err
			}
			return ok(rotationState(p)), nil
		})
	route(s, spec{method: http.MethodGet, path: "/rotation/roots", id: "listCustodyRoots", tag: "server",
		summary:     "Imported root keys that are not under the newest storage keys, sealed to the custody key",
		description: "On the operator socket alone. Only the holder of the custody key opens them."},
		s.listCustodyRoots)
	route(s, spec{method: http.MethodPost, path: "/rotation/roots", id: "rewrapRoots", tag: "server", maxBody: importBody,
		summary: "Have root keys sealed anew, which the holder of the custody key sealed to the transport key; at most 500 key sets",
		description: "On the operator socket alone. They are stored in one transaction, and only where they are the keys that are stored already. " +
			"What was done before is skipped."},
		s.rewrapRoots)
}

func rotationState(p rotation.Progress) client.Rotation {
	out := client.Rotation{
		JoinKEKs: each(p.Generations.JoinKEK, same), Custody: p.Generations.Custody, TransportKIDs: each(p.Generations.Transport, same),
		ExportSigners: each(p.Generations.Exports, exportfile.Signer.Thumbprint),
		KeySets:       p.KeySets, Behind: p.Behind, Under: []client.RotationCount{},
	}
	for _, k := range []struct {
		name  string
		under map[uint32]int64
	}{{"join-kek", p.JoinKEK}, {"custody", p.Custody}} {
		from := len(out.Under)
		for generation, n := range k.under {
			out.Under = append(out.Under, client.RotationCount{Key: k.name, Generation: generation, KeySets: n})
		}
		slices.SortFunc(out.Under[from:], func(a, b client.RotationCount) int { return cmp.Compare(a.Generation, b.Generation) })
	}
	return out
}

type custodyRootsInput struct{ Paging }

func (s *Server) listCustodyRoots(ctx context.Context, caller joinery.Caller, in *custodyRootsInput) (*body[client.Page[client.CustodyRoots]], error) {
	const listing = "custody-roots"
	after, err := placeID[joinery.KeySetID](in.Paging, listing)
	if err != nil {
		return nil, err
	}
	list, next, err := s.Rotation.Behind(ctx, caller, after, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.CustodyRoots]{Items: each(list, custodyRoots)}
	if next != 0 {
		p.Next = cursor(listing, next.String())
	}
	return ok(p), nil
}

func custodyRoots(r joinery.StoredRoots) client.CustodyRoots {
	return client.CustodyRoots{
		KeySet: r.KeySet, JoinEUI: r.JoinEUI, DevEUI: r.DevEUI, MACVersion: r.MACVersion, Root10: r.Root10.String(),
		Nwk: r.Nwk.Custody, App: r.App.Custody,
	}
}

func (s *Server) rewrapRoots(ctx context.Context, caller joinery.Caller, in *body[client.RewrapRoots]) (*body[client.Rewrapped], error) {
	rows := each(in.Body.Rows, func(r client.RewrapRow) rotation.Row {
		return rotation.Row{KeySet: r.KeySet, Row: sealedRow(r.Keys)}
	})
	o, err := s.Rotation.Rewrap(ctx, caller, seal.Header(in.Body.Seal), rows)
	if err != nil {
		return nil, err
	}
	return ok(client.Rewrapped{Changed: o.Changed, Skipped: o.Skipped, Failed: each(o.Failed, same)}), nil
}
