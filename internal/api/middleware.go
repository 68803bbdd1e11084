package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

type (
	requestIDKey  struct{}
	callerKey     struct{}
	connectionKey struct{}
	remoteKey     struct{}
)

// connection is what is known of a caller from the connection alone.
type connection struct {
	caller joinery.Caller
	err    error
}

// requestID gives the id under which the log knows a request.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// A request may bring its id, a UUID or other words with dashes or dots between:
// it comes back in the answer and goes into the log, so what could be a key, a
// bare run of digits or something with underscores, is none.
var requestIDText = regexp.MustCompile(`^[0-9A-Za-z]{1,16}([.-][0-9A-Za-z]{1,16}){1,7}$`)

// newRequestID gives the id that a request brings, or draws one.
func newRequestID(r *http.Request) string {
	if sent := r.Header.Values(client.RequestIDHeader); len(sent) == 1 && requestIDText.MatchString(sent[0]) {
		return sent[0]
	}
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// outermost gives each request an id and a line in the log, and turns a panic
// into an answer.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := newRequestID(r)
		w.Header().Set(client.RequestIDHeader, id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		seen := &recorder{ResponseWriter: w}
		began := time.Now()
		ctx := context.WithValue(context.WithValue(r.Context(), requestIDKey{}, id), remoteKey{}, s.proxies.origin(r))
		r = r.WithContext(ctx)
		defer func() {
			if v := recover(); v != nil {
				s.panicked(ctx, seen, v)
			}
			took := time.Since(began)
			s.metrics.count(r.Pattern, seen.status, took)
			// The route and not the path: a path may hold anything.
			s.log.LogAttrs(ctx, slog.LevelDebug, "request",
				slog.String("request", id), slog.String("route", r.Pattern),
				slog.Int("status", seen.status), slog.Duration("took", took))
		}()
		next.ServeHTTP(seen, r)
	})
}

// panicked answers a request whose handling panicked. The value of a panic may
// hold anything, so the log gets its type, and its text only if it is Go's own;
// nor does it get Go's stack, which prints arguments.
func (s *Server) panicked(ctx context.Context, w *recorder, v any) {
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	s.log.LogAttrs(ctx, slog.LevelError, "request panicked", slog.String("request", requestID(ctx)),
		slog.String("panic", what), slog.String("stack", callers()))
	if w.status == 0 {
		s.write(w, s.newProblem(joinery.CodeInternal, "internal error", requestID(ctx)))
	}
}

// callers lists the functions of a panic, by name and line.
func callers() string {
	var pcs [32]uintptr
	// Without Callers, this function, panicked and what recovered.
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		b.WriteString(f.Function + ":" + strconv.Itoa(f.Line) + " ")
		if !more {
			return b.String()
		}
	}
}

// write sends p outside of huma.
func (s *Server) write(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.WriteHeader(p.Status)
	if err := encodeJSON(w, p); err != nil {
		s.log.Debug("write an answer", slog.Any("error", err))
	}
}

// recorder notes the status that was sent, and in copy, unless that is nil, up to
// a little more than maxAnswer of the body.
type recorder struct {
	http.ResponseWriter
	status int
	copy   *bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.copy != nil && r.copy.Len() <= maxAnswer {
		r.copy.Write(b)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets deadlines of the connection be set.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// routes is the mux; what it does not know is refused in our form.
func (s *Server) routes(w http.ResponseWriter, r *http.Request) {
	if s.V2 != nil && strings.HasPrefix(r.URL.Path, client.BasePathV2+"/") {
		s.V2.ServeHTTP(w, r)
		return
	}
	if s.Handover != nil && strings.HasPrefix(r.URL.Path, "/handover/") {
		s.Handover.ServeHTTP(w, r)
		return
	}
	t, err := s.tables.get()
	if err != nil {
		s.logFailure(r.Context(), "routes", err)
		s.write(w, s.problemOf(err, requestID(r.Context())))
		return
	}
	handler, pattern := t.mux.Handler(r)
	// The mux would redirect to the clean path, and repeat it.
	clean := path.Clean(r.URL.Path) == r.URL.Path
	if pattern != "" && clean {
		t.mux.ServeHTTP(w, r)
		return
	}
	var refused discard
	handler.ServeHTTP(&refused, r)
	if allow := refused.Header().Get("Allow"); clean && refused.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		s.write(w, s.statusProblem(refused.status, "this route takes "+allow, requestID(r.Context())))
		return
	}
	s.write(w, s.statusProblem(http.StatusNotFound, "no such route; "+client.BasePath+"/openapi.json lists them all", requestID(r.Context())))
}

// discard keeps status and headers of an answer only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}

func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// authenticate finds out who calls, before anything of the request but its head
// is looked at: an API key or session if one is given, else the connection, else
// the cookie of a browser. Then it asks whether they may call this operation.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	operation := ctx.Operation().OperationID
	if needs[operation] == everybody {
		next(huma.WithValue(ctx, callerKey{}, joinery.Caller{}))
		return
	}
	r, _ := humago.Unwrap(ctx)
	caller, err := s.callerOf(r)
	if err == nil {
		err = allow(operation, caller)
	}
	if err != nil {
		s.attempted(operation, caller, err, joinery.DeviceRef{ID: pathDevice(r)})
		if joinery.CodeOf(err) == joinery.CodeUnauthenticated {
			ctx.SetHeader("WWW-Authenticate", `Bearer realm="joinery"`)
		}
		s.refuse(ctx, err)
		return
	}
	next(huma.WithValue(ctx, callerKey{}, caller))
}

func (s *Server) callerOf(r *http.Request) (joinery.Caller, error) {
	org, err := actingFor(r.Header.Values(client.OrganisationHeader))
	if err != nil {
		return joinery.Caller{}, err
	}
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		scheme, token, found := strings.Cut(values[0], " ")
		if len(values) > 1 || !found || !strings.EqualFold(scheme, "Bearer") {
			return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "want one header 'Authorization: Bearer' with an API key")
		}
		return s.Keys.Authenticate(r.Context(), strings.TrimSpace(token), org)
	}
	if c, ok := r.Context().Value(connectionKey{}).(connection); ok {
		c.caller.Org = org // whether there is such an organisation the rules say
		return c.caller, c.err
	}
	if session := s.sessionCookie(r); session != "" {
		if err := s.crossOrigin.Check(r); err != nil {
			return joinery.Caller{}, joinery.Errorf(joinery.CodeForbidden, "a page of another site sent this")
		}
		return s.Keys.Authenticate(r.Context(), session, org)
	}
	return joinery.Caller{}, joinery.Errorf(joinery.CodeUnauthenticated, "a credential is needed here: 'Authorization: Bearer' with an API key or a session")
}

// actingFor reads for which organisation a caller means to act; zero is none said.
func actingFor(header []string) (joinery.OrgID, error) {
	if len(header) == 0 {
		return 0, nil
	}
	org, err := joinery.ParseOrgID(header[0])
	if err != nil || len(header) > 1 {
		return 0, joinery.Errorf(joinery.CodeNotFound, "header %s: no such organisation", client.OrganisationHeader)
	}
	return org, nil
}

// readBody reads a body whole before it is decoded, within its bounds, so that
// a body that breaks off is the client's fault and not ours.
func (s *Server) readBody(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	if op.RequestBody == nil {
		next(ctx)
		return
	}
	limit := bodyLimit(op)
	if limit > ordinaryBody {
		caller, _ := ctx.Context().Value(callerKey{}).(joinery.Caller)
		slot, err := s.imports.enter(ctx.Context(), caller.Org)
		if err != nil {
			s.refuse(ctx, err)
			return
		}
		defer slot.leave()
		ctx = huma.WithValue(ctx, slotKey{}, slot)
	}
	_ = ctx.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has one; the server's stands
	body, err := readAll(ctx, limit)
	timeout, isNet := errors.AsType[net.Error](err)
	status := 0
	switch {
	case isNet && timeout.Timeout():
		status = http.StatusRequestTimeout
	case err != nil:
		status = http.StatusBadRequest
	case int64(len(body)) > limit:
		status = http.StatusRequestEntityTooLarge
	}
	if status != 0 {
		r, w := humago.Unwrap(ctx)
		s.write(w, s.statusProblem(status, statusDetail(status), requestID(r.Context())))
		return
	}
	next(bodyContext{ctx, body})
}

// readAll reads a body of at most limit bytes, or one byte more. A long one whose
// length is known gets its memory at once, instead of growing into it.
func readAll(ctx huma.Context, limit int64) ([]byte, error) {
	var body bytes.Buffer
	if r, _ := humago.Unwrap(ctx); limit == importBody && 0 < r.ContentLength && r.ContentLength <= limit {
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := body.ReadFrom(io.LimitReader(ctx.BodyReader(), limit+1))
	return body.Bytes(), err
}

// bodyContext is a request whose body was read; each BodyReader begins anew.
type bodyContext struct {
	request
	body []byte
}

// bodyOf is the body of a request behind readBody; nil for none.
func bodyOf(ctx huma.Context) []byte {
	c, _ := ctx.(bodyContext)
	return c.body
}

// request is a huma.Context under a name that is not one of its methods.
type request huma.Context

// BodyReader implements huma.Context.
func (c bodyContext) BodyReader() io.Reader { return bytes.NewReader(c.body) }

// Unwrap gives the request beneath.
func (c bodyContext) Unwrap() huma.Context { return c.request }

// refuse answers an error before a route was reached.
func (s *Server) refuse(ctx huma.Context, err error) {
	r, w := humago.Unwrap(ctx)
	s.logFailure(r.Context(), ctx.Operation().OperationID, err)
	s.write(w, s.problemOf(err, requestID(r.Context())))
}

// logFailure logs an error that is ours to mend, once. Refusals are not logged:
// whoever asked was told.
func (s *Server) logFailure(ctx context.Context, operation string, err error) {
	code := joinery.CodeOf(err)
	if code != joinery.CodeInternal && code != joinery.CodeUnavailable {
		return
	}
	s.log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("request", requestID(ctx)),
		slog.String("operation", operation), slog.String("code", string(code)), slog.Any("error", err))
}
