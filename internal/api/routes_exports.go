package api

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"

	"joinery"
	"joinery/client"
	"joinery/internal/export"
	"joinery/internal/exportfile"
)

// Exports has root keys exported; see the package export.
type Exports interface {
	Request(ctx context.Context, caller joinery.Caller, spec export.Spec) (joinery.Export, error)
	Add(ctx context.Context, caller joinery.Caller, id joinery.ExportID, refs []joinery.DeviceRef, more bool) (joinery.Export, error)
	Withdraw(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error)
	ExportApproval
	ExportReader
	ExportRecipients
	ExportPolicies
	ExportCustody
}

// ExportApproval is the part of another person.
type ExportApproval interface {
	// Approve is CodeConflict where digest or thumbprint is not the export's.
	Approve(ctx context.Context, caller joinery.Caller, id joinery.ExportID, digest [32]byte, thumbprint string) (joinery.Export, error)
	Reject(ctx context.Context, caller joinery.Caller, id joinery.ExportID, note string) (joinery.Export, error)
}

// ExportReader shows exports, and gives out what was wrapped.
type ExportReader interface {
	Export(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error)
	Exports(ctx context.Context, caller joinery.Caller, before joinery.ExportID, limit int) ([]joinery.Export, error)
	Items(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, limit int) ([]joinery.ExportItem, error)
	File(ctx context.Context, caller joinery.Caller, id joinery.ExportID, from uint64, skip, limit int) (export.Page, error)
	Acknowledge(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error)
	// Signers are of the server that name gives, as it stands in its files.
	Signers() (name string, list []exportfile.Signer)
}

// ExportRecipients is to whom root keys may be exported.
type ExportRecipients interface {
	Recipients(ctx context.Context, caller joinery.Caller) ([]joinery.Recipient, error)
	AddRecipient(ctx context.Context, caller joinery.Caller, n export.NewRecipient) (joinery.Recipient, error)
	RemoveRecipient(ctx context.Context, caller joinery.Caller, id joinery.RecipientID) error
	Disclosures(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) ([]joinery.Disclosure, error)
}

// ExportPolicies is when another person is needed.
type ExportPolicies interface {
	Policy(ctx context.Context, caller joinery.Caller) (export.Policy, error)
	SetPolicy(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (export.Policy, error)
	ApprovePolicy(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (export.Policy, error)
}

type (
	// RecipientPath names a recipient in a path; see DevicePath.
	RecipientPath struct {
		ID string `path:"id" pattern:"^rcp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"rcp_ and 13 characters" doc:"The recipient's id"`
	}
	// ExportPath names an export in a path.
	ExportPath struct {
		ID string `path:"id" pattern:"^exp_[0-9a-f][0-9a-hjkmnp-tv-z]{11}[02468acegjmprtwy]$" patternDescription:"exp_ and 13 characters" doc:"The export's id"`
	}
)

func (in RecipientPath) parse() (joinery.RecipientID, error) {
	return parse[joinery.RecipientID](in.ID, "recipient")
}

func (in ExportPath) parse() (joinery.ExportID, error) {
	return parse[joinery.ExportID](in.ID, "export")
}

func (s *Server) registerExports() {
	route(s, spec{method: http.MethodPost, path: "/exports", id: "requestExport", tag: "exports", status: http.StatusCreated, maxBody: batchBody,
		summary: "Have root keys of devices exported to a recipient",
		description: "Of devices that the organisation holds, suspended or not. Where its policy says so another person approves it first. " +
			"With `more` the export waits for further devices; of 100,000 at most."},
		s.requestExport)
	route(s, spec{method: http.MethodPost, path: "/exports/{id}/devices", id: "addExportDevices", tag: "exports", maxBody: batchBody,
		summary: "Add devices to an export that was requested with more"},
		func(ctx context.Context, caller joinery.Caller, in *moreDevicesInput) (*body[client.Export], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			e, err := s.Exports.Add(ctx, caller, id, each(in.Body.Devices, deviceRef), in.Body.More)
			return ok(exportOf(e)), err
		})
	route(s, spec{method: http.MethodGet, path: "/exports", id: "listExports", tag: "exports", summary: "Exports of the organisation, newest first"}, s.listExports)
	s.exportRoute(spec{method: http.MethodGet, path: "/exports/{id}", id: "getExport", summary: "One export"},
		func(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
			return s.Exports.Export(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/exports/{id}/devices", id: "listExportDevices", tag: "exports",
		summary: "The devices of an export, in their order, and why some were left out"}, s.listExportDevices)
	route(s, spec{method: http.MethodPost, path: "/exports/{id}/approve", id: "approveExport", tag: "exports",
		summary: "Approve an export as another person",
		description: "An admin of the organisation who is signed in and did not ask for it; no API key. " +
			"Digest and thumbprint have to be those that were looked at."},
		s.approveExport)
	route(s, spec{method: http.MethodPost, path: "/exports/{id}/reject", id: "rejectExport", tag: "exports", summary: "Reject an export that waits for approval"},
		func(ctx context.Context, caller joinery.Caller, in *rejectionInput) (*body[client.Export], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			e, err := s.Exports.Reject(ctx, caller, id, in.Body.Note)
			return ok(exportOf(e)), err
		})
	s.exportRoute(spec{method: http.MethodPost, path: "/exports/{id}/withdraw", id: "withdrawExport", summary: "End an export before it is delivered",
		description: "What was wrapped is deleted. What was disclosed stays known as that."},
		func(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
			return s.Exports.Withdraw(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/export-signers", id: "listExportSigners", tag: "exports",
		summary:     "Keys that sign exports of this server, or once did; the newest last",
		description: "Whoever opens a file of any time verifies it by one of them."},
		func(_ context.Context, _ joinery.Caller, in *Paging) (*body[client.List[client.ExportSigner]], error) {
			// They have no order but that in which they were made.
			list := s.exportSigners()
			age := map[string]string{}
			for i, x := range list {
				age[x.Thumbprint] = fmt.Sprintf("%06d", i)
			}
			return few(*in, "export-signers", list, func(x client.ExportSigner) string { return age[x.Thumbprint] }, same)
		})
	s.registerExportFile()
	s.registerRecipients()
	s.registerExportPolicy()
	s.registerExportCustody()
}

func (s *Server) exportSigners() []client.ExportSigner {
	server, signers := s.Exports.Signers()
	list := each(signers, func(x exportfile.Signer) client.ExportSigner {
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x.MarshalDER()})
		return client.ExportSigner{Server: server, Thumbprint: x.Thumbprint(), Key: string(text)}
	})
	if len(list) > 0 {
		list[len(list)-1].Signs = true
	}
	return list
}

// exportRoute is a route about one export that answers with it.
func (s *Server) exportRoute(sp spec, do func(context.Context, joinery.Caller, joinery.ExportID) (joinery.Export, error)) {
	sp.tag = "exports"
	route(s, sp, func(ctx context.Context, caller joinery.Caller, in *ExportPath) (*body[client.Export], error) {
		id, err := in.parse()
		if err != nil {
			return nil, err
		}
		e, err := do(ctx, caller, id)
		return ok(exportOf(e)), err
	})
}

func (s *Server) registerExportFile() {
	route(s, spec{method: http.MethodGet, path: "/exports/{id}/file", id: "getExportFile", tag: "exports",
		summary: "A page of the file of an export that is ready",
		description: "The same page can be had again until the export is acknowledged, or expires. What is in it opens for its recipient alone. " +
			"That the keys were disclosed is in the log before this answers."},
		s.getExportFile)
	s.exportRoute(spec{method: http.MethodPost, path: "/exports/{id}/acknowledge", id: "acknowledgeExport",
		summary: "Say that the file is safe; what was wrapped is deleted", description: "Only after all of it is on a disk. Nobody can download it afterwards."},
		func(ctx context.Context, caller joinery.Caller, id joinery.ExportID) (joinery.Export, error) {
			return s.Exports.Acknowledge(ctx, caller, id)
		})
}

func (s *Server) registerRecipients() {
	route(s, spec{method: http.MethodGet, path: "/export-recipients", id: "listRecipients", tag: "exports", summary: "Public keys to which root keys may be exported"},
		func(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.List[client.Recipient]], error) {
			list, err := s.Exports.Recipients(ctx, caller)
			if err != nil {
				return nil, err
			}
			return few(*in, "recipients", list, func(r joinery.Recipient) string { return r.ID.String() }, recipient)
		})
	route(s, spec{method: http.MethodPost, path: "/export-recipients", id: "addRecipient", tag: "exports", status: http.StatusCreated,
		summary: "Register a public key to which root keys may be exported"},
		func(ctx context.Context, caller joinery.Caller, in *body[client.NewRecipient]) (*body[client.Recipient], error) {
			n := export.NewRecipient{Name: in.Body.Name, Kind: joinery.RecipientKind(in.Body.Kind), Key: in.Body.Key, SHA1: in.Body.SHA1}
			if n.Kind == "" {
				n.Kind = joinery.RecipientFile
			}
			r, err := s.Exports.AddRecipient(ctx, caller, n)
			return ok(recipient(r)), err
		})
	route(s, spec{method: http.MethodDelete, path: "/export-recipients/{id}", id: "removeRecipient", tag: "exports",
		summary: "Take a recipient away", description: "What is being exported to it is withdrawn."},
		func(ctx context.Context, caller joinery.Caller, in *RecipientPath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.Exports.RemoveRecipient(ctx, caller, id)
		})
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/disclosures", id: "listDisclosures", tag: "devices",
		summary: "Each time that root keys of a device were disclosed",
		description: "Also by former owners; and what the Join Server told, signed, from which the device came, which is its word (toldBy). " +
			"What that server did later is not known here, nor what happened to keys that came in a list: see 'exposed' of the device. " +
			"A device can be marked as disclosed without one here: then it was under other EUIs."},
		func(ctx context.Context, caller joinery.Caller, in *deviceListInput) (*body[client.List[client.Disclosure]], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			list, err := s.Exports.Disclosures(ctx, caller, id)
			if err != nil {
				return nil, err
			}
			return few(in.Paging, "disclosures", list, func(x joinery.Disclosure) string {
				return strconv.FormatInt(x.At.UnixMilli(), 10) + x.KeySet.String() + x.Export.String() + x.Rekey.String() + x.ToldBy + x.By + x.Reference + x.Recipient
			}, disclosure)
		})
}

type deviceListInput struct {
	DevicePath
	Paging
}

func disclosure(x joinery.Disclosure) client.Disclosure {
	return client.Disclosure{
		KeySet: x.KeySet, Organisation: x.Org, At: utc(x.At), Recipient: x.Recipient, Kind: string(x.Kind), Export: x.Export, Rekey: x.Rekey,
		Former: x.Former, ToldBy: x.ToldBy, By: x.By, Reference: x.Reference,
	}
}

func recipient(r joinery.Recipient) client.Recipient {
	return client.Recipient{
		ID: r.ID, Name: r.Name, Kind: string(r.Kind), Thumbprint: r.Thumbprint, Key: r.Key, SHA1: r.SHA1, AddedBy: r.AddedBy, CreatedAt: utc(r.CreatedAt),
	}
}

func (s *Server) registerExportPolicy() {
	route(s, spec{method: http.MethodGet, path: "/export-policy", id: "getExportPolicy", tag: "exports", summary: "When exports need another person"},
		func(ctx context.Context, caller joinery.Caller, _ *none) (*body[client.ExportPolicy], error) {
			p, err := s.Exports.Policy(ctx, caller)
			return ok(exportPolicy(p)), err
		})
	for _, r := range []struct {
		spec
		do func(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (export.Policy, error)
	}{
		{spec{method: http.MethodPut, path: "/export-policy", id: "setExportPolicy", tag: "exports", summary: "Say when exports need another person",
			description: "What is stricter holds at once. What is weaker needs the approval that an export needs, and holds a day later."},
			func(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (export.Policy, error) {
				return s.Exports.SetPolicy(ctx, caller, rule)
			}},
		{spec{method: http.MethodPost, path: "/export-policy/approve", id: "approveExportPolicy", tag: "exports",
			summary: "Approve, as another person, the weaker rule that was proposed"},
			func(ctx context.Context, caller joinery.Caller, rule joinery.ApprovalRule) (export.Policy, error) {
				return s.Exports.ApprovePolicy(ctx, caller, rule)
			}},
	} {
		route(s, r.spec, func(ctx context.Context, caller joinery.Caller, in *body[client.NewExportPolicy]) (*body[client.ExportPolicy], error) {
			rule, err := joinery.ParseApprovalRule(in.Body.Approval)
			if err != nil {
				return nil, err
			}
			p, err := r.do(ctx, caller, rule)
			return ok(exportPolicy(p)), err
		})
	}
}

func exportPolicy(p export.Policy) client.ExportPolicy {
	out := client.ExportPolicy{Approval: p.Holds.String(), Admins: p.Admins, Needed: p.Needed}
	if p.Next != 0 && p.Next != p.Holds {
		out.Next, out.NextFrom, out.ProposedBy = p.Next.String(), utc(p.NextFrom), p.ProposedBy
	}
	return out
}

func (s *Server) requestExport(ctx context.Context, caller joinery.Caller, in *body[client.NewExport]) (*body[client.Export], error) {
	spec := export.Spec{Recipient: in.Body.Recipient, Form: exportfile.Form(in.Body.Form), Devices: each(in.Body.Devices, deviceRef), More: in.Body.More}
	if q := in.Body.Select; q != nil {
		spec.Select = &joinery.DeviceQuery{JoinEUI: q.JoinEUI, DevEUIPrefix: q.DevEUI, Status: joinery.DeviceStatus(q.Status)}
	}
	e, err := s.Exports.Request(ctx, caller, spec)
	return ok(exportOf(e)), err
}

type moreDevicesInput struct {
	ExportPath
	Body client.MoreExportDevices
}

type rejectionInput struct {
	ExportPath
	Body client.ExportRejection
}

type approvalInput struct {
	ExportPath
	Body client.ExportApproval
}

func (s *Server) approveExport(ctx context.Context, caller joinery.Caller, in *approvalInput) (*body[client.Export], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	var digest [32]byte
	if n, err := hex.Decode(digest[:], []byte(in.Body.Digest)); err != nil || n != len(digest) {
		return nil, joinery.Errorf(joinery.CodeInvalid, "digest: want 64 hexadecimal digits")
	}
	e, err := s.Exports.Approve(ctx, caller, id, digest, in.Body.Thumbprint)
	return ok(exportOf(e)), err
}

func (s *Server) listExports(ctx context.Context, caller joinery.Caller, in *Paging) (*body[client.Page[client.Export]], error) {
	const listing = "exports"
	before, err := placeID[joinery.ExportID](*in, listing)
	if err != nil {
		return nil, err
	}
	list, err := s.Exports.Exports(ctx, caller, before, in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.Export]{Items: each(list, exportOf)}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, list[n-1].ID.String())
	}
	return ok(p), nil
}

type exportListInput struct {
	ExportPath
	Paging
}

func (s *Server) listExportDevices(ctx context.Context, caller joinery.Caller, in *exportListInput) (*body[client.Page[client.ExportItem]], error) {
	const listing = "export-devices"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	from, err := placeNumber(in.Paging, listing, 0)
	if err != nil {
		return nil, err
	}
	list, err := s.Exports.Items(ctx, caller, id, uint64(from), in.Limit)
	if err != nil {
		return nil, err
	}
	p := client.Page[client.ExportItem]{Items: each(list, func(i joinery.ExportItem) client.ExportItem {
		return client.ExportItem{Index: int64(i.Index), Device: i.Device, JoinEUI: i.JoinEUI, DevEUI: i.DevEUI, State: i.State.String(), Reason: i.Reason}
	})}
	if n := len(list); n > 0 && n == in.Limit {
		p.Next = cursor(listing, strconv.FormatUint(list[n-1].Index+1, 10))
	}
	return ok(p), nil
}

type exportFileInput struct {
	ExportPath
	Paging
	Skip int `query:"skip" minimum:"0" maximum:"100000" default:"0" doc:"Leave out this many devices in front: to go on with a file that was cut off"`
}

func (s *Server) getExportFile(ctx context.Context, caller joinery.Caller, in *exportFileInput) (*body[client.ExportFilePage], error) {
	const listing = "export-file"
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	from, err := placeNumber(in.Paging, listing, 0)
	if err != nil {
		return nil, err
	}
	page, err := s.Exports.File(ctx, caller, id, uint64(from), in.Skip, in.Limit)
	if err != nil {
		return nil, err
	}
	out := client.ExportFilePage{Header: string(page.Header), Items: each(page.Lines, func(w joinery.WrappedItem) string { return string(w.Blob) })}
	if n := len(page.Lines); n > 0 && n == in.Limit {
		out.Next = cursor(listing, strconv.FormatUint(page.Lines[n-1].Index+1, 10))
	}
	return ok(out), nil
}

func exportOf(e joinery.Export) client.Export {
	out := client.Export{
		ID: e.ID, Organisation: e.Org, State: string(e.State), Recipient: e.Recipient, RecipientName: e.RecipientName, Kind: string(e.Kind),
		Thumbprint: e.Thumbprint, Form: e.Form, Devices: e.Devices, Wrapped: e.Wrapped, Dropped: e.Dropped, NeedsApproval: e.NeedsApproval,
		RequestedBy: e.RequestedBy, RequestedAt: utc(e.RequestedAt), DecidedBy: e.DecidedBy, DecidedAt: utc(e.DecidedAt), Note: e.Note,
		ReadyAt: utc(e.ReadyAt), EndedAt: utc(e.EndedAt), ExpiresAt: utc(e.ExpiresAt),
	}
	if e.Digest != ([32]byte{}) {
		out.Digest = hex.EncodeToString(e.Digest[:])
	}
	switch e.State {
	case joinery.ExportRequested:
		out.WaitsFor = "approval"
	case joinery.ExportApproved, joinery.ExportWorking:
		out.WaitsFor = "custody-key"
	}
	if h, err := exportfile.ParseHeader(e.Header); err == nil {
		out.Signer = h.Signer.Thumbprint()
	}
	return out
}
