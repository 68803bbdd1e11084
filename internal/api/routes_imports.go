package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"
	"joinery/internal/claim"
	"joinery/internal/provisioning"
	"joinery/internal/seal"
)

// ImportPath names a import in a path. Its name is exported because huma looks past
// embedded types of other names.
type ImportPath struct {
	ID string `path:"id" pattern:"^imp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"imp_ and 13 characters" doc:"The import's id"`
}

func (in ImportPath) parse() (joinery.ImportID, error) {
	return parse[joinery.ImportID](in.ID, "import")
}

type rowsInput struct {
	ImportPath
	Body client.ImportRows
}

type importErrorsInput struct {
	ImportPath
	Paging
}

func (s *Server) registerImports() {
	route(s, spec{method: http.MethodPost, path: "/imports", id: "beginImport", tag: "imports",
		summary: "Begin an import, or find the one of the same file",
		description: "A file is known by organisation, kind and SHA-256: an import that was cut off goes on at its 'next'. " +
			"With other settings than it was begun with it is a conflict. With a binding this needs the right `devices:bind` as well."},
		s.beginImport)
	route(s, spec{method: http.MethodGet, path: "/imports/{id}", id: "getImport", tag: "imports", summary: "How far an import is"},
		func(ctx context.Context, caller joinery.Caller, in *ImportPath) (*body[client.Import], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			i, err := s.Imports.Status(ctx, caller, id)
			return ok(importState(i)), err
		})
	route(s, spec{method: http.MethodPost, path: "/imports/{id}/rows", id: "importRows", tag: "imports", maxBody: importBody,
		summary: "Give a run of rows, at most 500",
		description: "The rows are taken in one transaction, and each has its own result. They must begin at the import's 'next'; " +
			"if they do not, that is a conflict, and asking for the import says where to go on."},
		s.importRows)
	route(s, spec{method: http.MethodGet, path: "/imports/{id}/errors", id: "listImportErrors", tag: "imports",
		summary: "Rows of an import that were refused, in the file's order"},
		s.listImportErrors)
}

func (s *Server) beginImport(ctx context.Context, caller joinery.Caller, in *body[client.NewImport]) (*body[client.Import], error) {
	b, err := bindingOf(in.Body.Binding)
	if err != nil {
		return nil, err
	}
	if err := allowBinding(caller, claim.Act{Binding: b}); err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(in.Body.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return nil, joinery.Errorf(joinery.CodeInvalid, "sha256: want 64 hexadecimal digits")
	}
	profile, err := rekeyProfile(in.Body.RekeyProfile)
	if err != nil {
		return nil, err
	}
	i, err := s.Imports.Begin(ctx, caller, provisioning.Spec{
		Kind: joinery.ImportKind(in.Body.Kind), SHA256: [sha256.Size]byte(sum), MACVersion: in.Body.MACVersion,
		Rekey: profile, Bind: b, DryRun: in.Body.DryRun,
	})
	return ok(importState(i)), err
}

func sealedRow(k client.SealedKeyRow) seal.SealedRow {
	return seal.SealedRow{
		Line: k.Line, JoinEUI: k.JoinEUI, DevEUI: k.DevEUI, MACVersion: k.MACVersion, NwkKey: k.NwkKey, AppKey: k.AppKey, Root10: k.Root10,
		UsedDevNonces: k.UsedDevNonces, JoinNonceFloor: k.JoinNonceFloor, NextRJCount1: k.NextRJCount1, MAC: k.MAC,
		Former: each(k.Former, func(f client.FormerNonces) seal.FormerNonces { return seal.FormerNonces(f) }),
	}
}

func (s *Server) importRows(ctx context.Context, caller joinery.Caller, in *rowsInput) (*body[client.ImportProgress], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	chunk := provisioning.Chunk{
		Import: id, From: in.Body.From, Last: in.Body.Last,
		Keys: each(in.Body.Keys, sealedRow),
		BadRows: each(in.Body.BadRows, func(b client.BadRow) joinery.RowResult {
			return joinery.RowResult{Index: b.Index, Line: b.Line, Status: joinery.RowFailed, Reason: b.Reason}
		}),
		Entries: each(in.Body.Entries, func(e []byte) json.RawMessage { return e }),
		Checked: func() { parkSlot(ctx) },
	}
	chunk.ExportHeader = []byte(in.Body.ExportHeader)
	chunk.Exported = each(in.Body.Exported, func(line string) []byte { return []byte(line) })
	if in.Body.Seal != nil {
		chunk.Seal = seal.Header(*in.Body.Seal)
	}
	results, state, err := s.Imports.Rows(ctx, caller, chunk)
	if err != nil {
		return nil, err
	}
	return ok(client.ImportProgress{Results: each(results, rowResult), Import: importState(state)}), nil
}

func (s *Server) listImportErrors(ctx context.Context, caller joinery.Caller, in *importErrorsInput) (*body[client.Page[client.RowResult]], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	const listing = "import-errors"
	from, err := placeNumber(in.Paging, listing, 0)
	if err != nil {
		return nil, err
	}
	rows, err := s.Imports.Errors(ctx, caller, id, uint64(from), in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.RowResult]{Items: each(rows, rowResult)}
	if n := len(rows); n > 0 && n == in.Limit {
		p.Next = cursor(listing, strconv.FormatUint(rows[n-1].Index+1, 10))
	}
	return ok(p), nil
}
