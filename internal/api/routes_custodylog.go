package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"joinery"
	"joinery/auditlog"
	"joinery/client"
	"joinery/internal/custodylog"
)

// CustodyLog is the log of what is done with keys.
type CustodyLog interface {
	Custody(ctx context.Context, caller joinery.Caller, q custodylog.Query) (custodylog.Page, error)
	Provenance(ctx context.Context, caller joinery.Caller, q custodylog.Query) (custodylog.Page, error)
	Erase(ctx context.Context, caller joinery.Caller, ref joinery.LogRef, reason string) error
	State(ctx context.Context, caller joinery.Caller, id joinery.DeviceID) error
	EnterCeremony(ctx context.Context, caller joinery.Caller, report []byte, key string) (custodylog.Ceremony, error)
	PublicLog
}

// PublicLog is what of it is for everybody.
type PublicLog interface {
	Key(ctx context.Context) (auditlog.Key, error)
	Checkpoint(ctx context.Context) (string, error)
	Tile(ctx context.Context, level int, index int64, width int) ([]byte, error)
	EntryBundle(ctx context.Context, index int64, width int) ([]byte, error)
}

type provenanceInput struct {
	DevicePath
	From int64 `query:"from" minimum:"0" maximum:"9007199254740991" doc:"Also prove that the log continues its first so many entries"`
}

type custodyInput struct {
	DevicePath
	Paging
	Size int64 `query:"size" minimum:"0" maximum:"9007199254740991" doc:"The 'size' of the first part, for parts behind it"`
	From int64 `query:"from" minimum:"0" maximum:"9007199254740991" doc:"Also prove that the log continues its first so many entries"`
}

func (s *Server) registerCustodyLog() {
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/custody", id: "getCustody", tag: "audit",
		summary: "Everything that was done with a device's keys, with proofs",
		description: "To the operator and to who has or had the device. What was another owner's is there as a record without content, " +
			"so that nothing can be left out unnoticed. See docs/audit.md for how it is checked."},
		func(ctx context.Context, caller joinery.Caller, in *custodyInput) (*body[client.CustodyPage], error) {
			const listing = "custody"
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			q := custodylog.Query{Device: id, Limit: in.Limit, Size: in.Size, From: in.From}
			place, err := in.place(listing, 1)
			if err == nil && place != nil {
				q.After, err = custodylog.ParseEntryName(place[0])
			}
			if err != nil {
				return nil, err
			}
			p, err := s.CustodyLog.Custody(ctx, caller, q)
			if err != nil {
				return nil, err
			}
			return custodyPage(p, q, listing)
		})
	route(s, spec{method: http.MethodGet, path: "/devices/{id}/provenance", id: "getProvenance", tag: "audit",
		summary: "The chain of a device's owners, with proofs",
		description: "To the operator and to who has or had the device. Owners are commitments to their names; the caller's own is opened. " +
			"Whoever gets this from a seller can check it before paying."},
		func(ctx context.Context, caller joinery.Caller, in *provenanceInput) (*body[client.CustodyPage], error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			q := custodylog.Query{Device: id, From: in.From}
			p, err := s.CustodyLog.Provenance(ctx, caller, q)
			if err != nil {
				return nil, err
			}
			return custodyPage(p, q, "provenance")
		})
	route(s, spec{method: http.MethodPost, path: "/devices/{id}/provenance", id: "stateProvenance", tag: "audit",
		summary: "Have the custody log state how the chain of a device's owners stands",
		description: "For its owner. Whoever is shown the chain sees by the statement that nothing is left out of it, and whether root keys were disclosed by then. " +
			"'getProvenance' has it from some seconds later on, when it is in the log."},
		func(ctx context.Context, caller joinery.Caller, in *DevicePath) (*none, error) {
			id, err := in.parse()
			if err != nil {
				return nil, err
			}
			return nil, s.CustodyLog.State(ctx, caller, id)
		})
	route(s, spec{method: http.MethodPost, path: "/log/erasures", id: "eraseLogEntry", tag: "audit",
		summary: "Erase the content of an entry of the custody log",
		description: "It cannot be undone. The entry's record stays in the log, which stays valid, and the erasure is an entry itself. " +
			"An erased join is no session any longer."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.LogErasure]) (*none, error) {
			ref, err := custodylog.ParseEntryName(in.Body.Entry)
			if err != nil {
				return nil, err
			}
			return nil, s.CustodyLog.Erase(ctx, caller, ref, in.Body.Reason)
		})
	s.registerCeremonies()
}

// reportBody bounds a report in base64 and JSON.
const reportBody = 2 << 20

func (s *Server) registerCeremonies() {
	route(s, spec{method: http.MethodPost, path: "/log/ceremonies", id: "enterCeremony", tag: "audit", status: http.StatusCreated, maxBody: reportBody,
		summary: "Enter the signed report of a ceremony of keys into the custody log",
		description: "For the operator. The entry has the hash of the report, what was made and who was there. The report itself is not kept; " +
			"'joinery ceremony verify' checks it."},
		func(ctx context.Context, caller joinery.Caller, in *body[client.CeremonyReport]) (*body[client.EnteredCeremony], error) {
			c, err := s.CustodyLog.EnterCeremony(ctx, caller, in.Body.Report, in.Body.Key)
			return ok(client.EnteredCeremony(c)), err
		})
}

func custodyPage(p custodylog.Page, q custodylog.Query, listing string) (*body[client.CustodyPage], error) {
	b := p.Bundle
	checkpoint, _, err := p.Key.Open(b.Checkpoint)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint in the database: %w", err)
	}
	out := client.CustodyPage{
		Kind: b.Kind, Device: p.Device.ID, JoinEUI: p.Device.JoinEUI, DevEUI: p.Device.DevEUI, Key: p.Key.String(),
		Checkpoint: b.Checkpoint, Size: checkpoint.Size, Manifest: b.Manifest, Entries: each(b.Entries, custodyEntry),
	}
	if q.Size > 0 {
		out.Size = q.Size
	}
	if b.Import != nil {
		i := client.CustodyImport(*b.Import)
		i.Proof = append([][]byte{}, i.Proof...) // empty, not absent, for a device that came alone
		out.Import = &i
	}
	for _, set := range b.Sets {
		s := client.CustodySet(set)
		s.Proof = append([][]byte{}, s.Proof...) // empty, not absent, for a device that is alone in it
		out.Sets = append(out.Sets, s)
	}
	for _, c := range b.Consistency {
		out.Consistency = append(out.Consistency, client.LogConsistency(c))
	}
	for _, party := range b.Parties {
		out.Parties = append(out.Parties, client.CustodyParty(party))
	}
	if p.Next != 0 {
		out.Next = cursor(listing, custodylog.EntryName(p.Next))
	}
	return ok(out), nil
}

func custodyEntry(e auditlog.Entry) client.CustodyEntry { return client.CustodyEntry(e) }

// publicLog is where the log's tiles begin (c2sp.org/tlog-tiles).
const publicLog = "/log/"

// servePublicLog answers everybody: hashes, and checkpoints that say whose they
// are.
func (s *Server) servePublicLog() {
	s.made.mux.HandleFunc("GET "+publicLog+"key", s.public(func(r *http.Request) (answer, error) {
		key, err := s.CustodyLog.Key(r.Context())
		return answer{text: []byte(key.String() + "\n"), kind: "text/plain; charset=utf-8", cache: "no-cache"}, err
	}))
	s.made.mux.HandleFunc("GET "+publicLog+"checkpoint", s.public(func(r *http.Request) (answer, error) {
		note, err := s.CustodyLog.Checkpoint(r.Context())
		return answer{text: []byte(note), kind: "text/plain; charset=utf-8", cache: "no-cache"}, err
	}))
	s.made.mux.HandleFunc("GET "+publicLog+"tile/{level}/{index...}", s.public(func(r *http.Request) (answer, error) {
		index, width, err := tilePath(r.PathValue("index"))
		if err != nil {
			return answer{}, err
		}
		a := answer{kind: "application/octet-stream", cache: "public, max-age=31536000, immutable"}
		if r.PathValue("level") == "entries" {
			a.text, err = s.CustodyLog.EntryBundle(r.Context(), index, width)
			return a, err
		}
		level, err := strconv.ParseUint(r.PathValue("level"), 10, 6)
		if err != nil || strconv.FormatUint(level, 10) != r.PathValue("level") {
			return answer{}, noTile()
		}
		a.text, err = s.CustodyLog.Tile(r.Context(), int(level), index, width)
		return a, err
	}))
}

// answer is what of the log is sent.
type answer struct {
	text        []byte
	kind, cache string
}

// public makes a handler for everybody, bounded by the address from which they
// ask.
func (s *Server) public(get func(r *http.Request) (answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if s.CustodyLog == nil {
			s.write(w, s.statusProblem(http.StatusNotFound, "this server has no custody log", requestID(ctx)))
			return
		}
		var a answer
		err := s.spend(w.Header().Set, "log "+remote(ctx).String(), 1)
		if err == nil {
			a, err = get(r)
		}
		if err != nil {
			s.logFailure(ctx, "log", err)
			s.write(w, s.problemOf(err, requestID(ctx)))
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", a.cache)
		h.Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(a.text)
	}
}

func noTile() error { return joinery.Errorf(joinery.CodeNotFound, "no such tile of the custody log") }

// tilePath reads the path of a tile behind its level: groups of three digits, all
// but the last behind an x, and ".p/W" for one of W hashes.
func tilePath(text string) (index int64, width int, err error) {
	const full = 256
	width = full
	text, partial, isPartial := strings.Cut(text, ".p/")
	if isPartial {
		w, err := strconv.ParseUint(partial, 10, 8)
		if err != nil || w == 0 || strconv.FormatUint(w, 10) != partial {
			return 0, 0, noTile()
		}
		width = int(w)
	}
	groups := strings.Split(text, "/")
	if len(groups) > 5 {
		return 0, 0, noTile()
	}
	for i, g := range groups {
		if i < len(groups)-1 {
			rest, ok := strings.CutPrefix(g, "x")
			if !ok || i == 0 && rest == "000" {
				return 0, 0, noTile()
			}
			g = rest
		}
		n, err := strconv.ParseUint(g, 10, 16)
		if err != nil || len(g) != 3 || n > 999 {
			return 0, 0, noTile()
		}
		index = index*1000 + int64(n)
	}
	return index, width, nil
}
