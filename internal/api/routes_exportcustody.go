package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"
	"joinery/internal/export"
	"joinery/internal/exportfile"
	"joinery/lorawan"
)

// ExportCustody is what the custody process does about exports; nobody else may.
type ExportCustody interface {
	Jobs(ctx context.Context, caller joinery.Caller) ([]export.Job, error)
	// Start gives the first line that stands, where there is one.
	Start(ctx context.Context, caller joinery.Caller, id joinery.ExportID, h exportfile.Header) (export.Job, error)
	// Work gives devices from index from on, and where to go on; 0: nowhere.
	Work(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, limit int) ([]export.Device, uint64, error)
	HandIn(ctx context.Context, caller joinery.Caller, id joinery.ExportID, done []export.Done) (joinery.Export, error)
	// Fail ends it, Stall says why devices wait on.
	Fail(ctx context.Context, caller joinery.Caller, id joinery.ExportID, why string) (joinery.Export, error)
	Stall(ctx context.Context, caller joinery.Caller, id joinery.ExportID, why string) (joinery.Export, error)
}

func (s *Server) registerExportCustody() {
	route(s, spec{method: http.MethodGet, path: "/custody/exports", id: "listCustodyExports", tag: "server",
		summary:     "Exports that wait for the custody process, the oldest first",
		description: "For the custody process alone, on the operator socket, as all under /custody."},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.CustodyExport]], error) {
			jobs, err := s.Exports.Jobs(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "custody-exports", jobs, func(j export.Job) string { return j.ID.String() }, custodyExport)
		})
	route(s, spec{method: http.MethodPost, path: "/custody/exports/{id}/start", id: "startExport", tag: "server",
		summary: "Fix the first line of the file of an export", description: "Where that was done before, the one that stands is given."},
		func(ctx context.Context, caller joinery.Caller, in *custodyStartInput) (*body[client.CustodyExport], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			h, err := exportfile.ParseHeader([]byte(in.Body.Header))
			if err != nil {
				return nil, joinery.WrapError(joinery.CodeInvalid, err, "header: not the first line of the file of an export")
			}
			j, err := s.Exports.Start(ctx, caller, id, h)
			return ok(custodyExport(j)), err
		})
	route(s, spec{method: http.MethodGet, path: "/custody/exports/{id}/devices", id: "listCustodyExportDevices", tag: "server",
		summary:     "Devices of an export whose root keys are to be wrapped",
		description: "Those that are gone, or another's by now, are left out of the export and not listed."},
		s.listCustodyExportDevices)
	route(s, spec{method: http.MethodPost, path: "/custody/exports/{id}/devices", id: "handInExport", tag: "server", maxBody: importBody,
		summary: "Hand in devices of an export that were wrapped; at most 200",
		description: "With each the disclosure and its entry in the log are written, in one transaction, before anybody can download it. " +
			"What was handed in before is skipped."},
		func(ctx context.Context, caller joinery.Caller, in *custodyHandInInput) (*body[client.Export], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			e, err := s.Exports.HandIn(ctx, caller, id, each(in.Body.Devices, custodyDone))
			return ok(exportOf(e)), err
		})
	route(s, spec{method: http.MethodPost, path: "/custody/exports/{id}/word", id: "tellExport", tag: "server",
		summary: "Say why devices of an export wait on, or why it failed", description: "The organisation is told by an event, once for each reason."},
		func(ctx context.Context, caller joinery.Caller, in *custodyWordInput) (*body[client.Export], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			do := s.Exports.Stall
			if in.Body.Failed {
				do = s.Exports.Fail
			}
			e, err := do(ctx, caller, id, in.Body.Why)
			return ok(exportOf(e)), err
		})
}

type custodyWordInput struct {
	ExportPath
	Body client.CustodyWord
}

type custodyStartInput struct {
	ExportPath
	Body client.CustodyStart
}

type custodyHandInInput struct {
	ExportPath
	Body client.CustodyHandIn
}

func custodyDone(d client.CustodyDone) export.Done {
	return export.Done{
		Index: uint64(d.Index), KeySet: d.KeySet, Line: []byte(d.Line),
		Reason: map[string]string{
			"does-not-open": joinery.DropUnwrapped, "not-allowed": joinery.DropNotAllowed, "no-key": joinery.DropNoKey, "not-wrappable": joinery.DropWrapping,
		}[d.Failed],
	}
}

func custodyExport(j export.Job) client.CustodyExport {
	header, _ := exportfile.MarshalHeader(j.Begin) // of plain values
	return client.CustodyExport{Export: exportOf(j.Export), RecipientKey: j.RecipientKey, Header: string(header), Started: j.Header != nil}
}

func (s *Server) listCustodyExportDevices(ctx context.Context, caller joinery.Caller, in *exportListInput) (*body[client.Page[client.CustodyExportItem]], error) {
	const listing = "custody-export-devices"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	from, err := placeNumber(in.Paging, listing, 0)
	if err != nil {
		return nil, err
	}
	work, next, err := s.Exports.Work(ctx, caller, id, uint64(from), in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.CustodyExportItem]{Items: make([]client.CustodyExportItem, len(work))}
	for i, w := range work {
		about, err := json.Marshal(w.About)
		if err != nil {
			return nil, err
		}
		k := w.KeySet
		p.Items[i] = client.CustodyExportItem{
			Index: int64(w.Index), KeySet: k.ID, DevEUI: k.DevEUI, Origin: k.Origin.String(), Master: k.Master, Generation: k.Generation,
			Root10: k.Root10.String(), Nwk: k.Nwk.Custody, App: k.App.Custody, About: string(about),
		}
		if k.Origin == joinery.OriginRekeyed {
			p.Items[i].RekeyProfile, p.Items[i].Serial = k.Rekey.String(), hex.EncodeToString(k.Serial[:])
			p.Items[i].Steps = each(k.Steps, func(r lorawan.Rekey) client.RekeyStep {
				return client.RekeyStep{NewJoinEUI: r.JoinEUI, Cookie: r.Cookie}
			})
		}
	}
	if next != 0 {
		p.Next = cursor(listing, strconv.FormatUint(next, 10))
	}
	return ok(p), nil
}
