package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"joinery"
	"joinery/backend"
)

// exchange is the memory of one request and its answer, used again and again.
type exchange struct {
	body    []byte
	request backend.Request
	answer  backend.Answer
	out     []byte

	peer    joinery.Peer
	status  int                 // zero: the answer was written elsewhere
	message backend.MessageType // zero: none could be read
	result  string              // for metrics
	refusal joinery.Refusal     // memory of record
}

var exchanges sync.Pool

func openExchange() *exchange {
	if x, ok := exchanges.Get().(*exchange); ok {
		return x
	}
	return &exchange{body: make([]byte, 0, 2048), out: make([]byte, 0, 2048)}
}

// close gives x back. An answer may hold session keys in the clear, where owner
// and operator both consented, so nothing of it stays.
func (x *exchange) close() {
	clear(x.out)
	x.answer = backend.Answer{}
	x.peer = joinery.Peer{}
	x.body, x.out = x.body[:0], x.out[:0]
	x.status, x.message, x.result = 0, 0, ""
	exchanges.Put(x)
}

// ServeHTTP answers one request: any path, since operators map paths as they
// like, and any Content-Type, since the body tells what it is. Every answer is
// JSON. It is 200 for whatever the protocol can say, failures included: clients
// throw the body of every other status away (ChirpStack v4, The Things Stack),
// or read it as an answer all the same (brocaar/lorawan).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	x := openExchange()
	defer func() {
		defect := recover()
		// Not a defect: who answers in our place is gone, in the middle of it. The
		// client must not take what it has for an answer.
		gone, _ := defect.(error)
		cut := errors.Is(gone, http.ErrAbortHandler)
		if defect != nil && !cut {
			s.reportPanic(r.Context(), x, defect)
		}
		if x.status != 0 {
			s.write(w, x)
		}
		s.metrics.count(x.message, x.result, time.Since(start))
		if defect == nil { // else somebody may still hold pieces of x
			x.close()
		}
		if cut {
			panic(http.ErrAbortHandler)
		}
	}()
	s.serve(w, r, x)
}

// serve leaves status and body of the answer in x, unless somebody else answers.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, x *exchange) {
	var err error
	from := connectionOf(r.Context())
	if x.peer, err = s.peerOf(from, r.TLS); err != nil {
		s.refusePeer(x, err)
		return
	}
	if r.Method != http.MethodPost {
		s.refuseUnread(x, http.StatusMethodNotAllowed, "want POST")
		return
	}
	if status := x.read(r, s.opt.MaxBody); status != http.StatusOK {
		s.refuseUnread(x, status, "the body cannot be read, or is longer than "+strconv.Itoa(s.opt.MaxBody)+" bytes")
		return
	}
	from.beginAnswer()
	if s.opt.Gate != nil {
		elsewhere, err := s.opt.Gate.Enter(r.Context())
		switch {
		case err != nil:
			x.refuse(http.StatusServiceUnavailable, backend.Other, "the server is being started anew; try again")
			return
		case elsewhere != nil:
			s.relay(w, r, x, elsewhere)
			return
		}
		defer s.opt.Gate.Leave()
	}
	err = x.request.Parse(x.body)
	malformed, _ := errors.AsType[*backend.Error](err)
	if malformed != nil && malformed.Kind == backend.Unanswerable {
		s.refuseUnread(x, http.StatusBadRequest, malformed.Error())
		return
	}
	x.message = x.request.MessageType
	x.status = http.StatusOK
	s.answer(r.Context(), x, malformed)
	x.result = string(x.answer.Result.Code)
	x.out = x.answer.Append(x.out[:0])
}

// relay lets a request be answered in our place.
func (s *Server) relay(w http.ResponseWriter, r *http.Request, x *exchange, elsewhere http.Handler) {
	if s.retiring.Load() {
		w.Header().Set("Connection", "close")
	}
	x.result = "relayed"
	// A copy: a transport may still read when we use x again.
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(bytes.Clone(x.body))), int64(len(x.body))
	elsewhere.ServeHTTP(w, r)
}

// refusePeer ends a connection whose handshake was fine, but whose certificate
// leads to no peer any more, or to none that can be known right now.
func (s *Server) refusePeer(x *exchange, err error) {
	if s.refusals.allow(s.now()) {
		s.log.Info("connection refused", slog.String("reason", err.Error()))
	}
	if joinery.CodeOf(err) == joinery.CodeUnavailable {
		x.refuse(http.StatusServiceUnavailable, backend.Other, "the server cannot tell who you are right now; try again")
		return
	}
	x.refuse(http.StatusForbidden, backend.UnknownSender, "the client certificate belongs to no peer of this server")
}

// answer fills in x.answer for a request that can be answered.
func (s *Server) answer(ctx context.Context, x *exchange, malformed *backend.Error) {
	// A connection that ends ends no answer (see clientConn), and a context under
	// another one that can end costs both a map.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.AnswerTimeout)
	defer cancel()
	x.answer = backend.Answer{Header: x.request.Answer()}
	if x.message == backend.TypeAppSKeyReq {
		x.answer.DevEUI = x.request.DevEUI
		x.answer.SessionKeyID = x.request.SessionKeyID
	}
	err := checkSender(&x.peer, &x.request)
	switch {
	case err != nil:
	case malformed != nil && malformed.Kind == backend.UnsupportedVersion:
		err = joinery.Errorf(joinery.CodeProtocol, "%s", malformed.Error())
	case malformed != nil:
		err = joinery.Errorf(joinery.CodeInvalid, "%s", malformed.Error())
	default:
		err = s.ask(ctx, x)
	}
	x.answer.Result = resultOf(err, x.answer.ProtocolVersion)
	if err != nil {
		s.record(x, err)
		s.logRefusal(ctx, x, err)
	}
}

// refuse leaves an answer for a request to which the protocol has none: JSON
// with nothing but a result, which is all that can be said.
func (x *exchange) refuse(status int, code backend.ResultCode, description string) {
	x.status = status
	x.result = "http_" + strconv.Itoa(status)
	x.out = append(x.out[:0], `{"ProtocolVersion":"1.0","Result":{"ResultCode":"`...)
	x.out = append(x.out, code...)
	x.out = append(x.out, `","Description":"`...)
	x.out = append(x.out, description...) // our own words, without quotes
	x.out = append(x.out, `"}}`...)
}

// read takes the body into x.body.
func (x *exchange) read(r *http.Request, limit int) int {
	if r.ContentLength > int64(limit) {
		return http.StatusRequestEntityTooLarge
	}
	for {
		if len(x.body) == cap(x.body) {
			x.body = append(x.body, 0)[:len(x.body)]
		}
		n, err := r.Body.Read(x.body[len(x.body):min(cap(x.body), limit+1)])
		x.body = x.body[:len(x.body)+n]
		switch {
		case len(x.body) > limit:
			return http.StatusRequestEntityTooLarge
		case errors.Is(err, io.EOF):
			return http.StatusOK
		case err != nil:
			return http.StatusBadRequest
		}
	}
}

// Values that all answers share; net/http only reads them.
var (
	jsonType = []string{"application/json"}
	closing  = []string{"close"}
)

func (s *Server) write(w http.ResponseWriter, x *exchange) {
	h := w.Header()
	h["Content-Type"] = jsonType
	if s.retiring.Load() {
		h["Connection"] = closing
	}
	switch x.status {
	case http.StatusOK, http.StatusBadRequest:
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodPost)
	default:
		// A peer that is none any more, or a body that was not read to its end.
		h.Set("Connection", "close")
	}
	w.WriteHeader(x.status)
	_, _ = w.Write(x.out) // a client that is gone has no use for it
}

// logRefusal writes one line for a refused request, without any value that is
// not an identifier; under a flood, only some of them. Networks ask about every
// foreign device that they hear: that we have nothing to say about it is no news.
func (s *Server) logRefusal(ctx context.Context, x *exchange, err error) {
	code := joinery.CodeOf(err)
	var level slog.Level // info
	switch code {
	case joinery.CodeInternal, joinery.CodeKEKMissing:
		level = slog.LevelError
	case joinery.CodeUnavailable:
		level = slog.LevelWarn
	case joinery.CodeNoRoaming:
		level = slog.LevelDebug
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	unsaid, ok := s.chatter.allow(s.now(), x.peer.ID, code)
	if !ok {
		return
	}
	if unsaid > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "requests refused without a line each", slog.Int("count", unsaid))
	}
	s.log.LogAttrs(ctx, level, "request refused",
		slog.String("message", x.message.String()),
		slog.String("result", string(x.answer.Result.Code)),
		slog.String("code", string(code)),
		slog.String("peer", x.peer.Name),
		slog.String("joinEUI", x.request.JoinEUI.String()),
		slog.String("devEUI", x.request.DevEUI.String()),
		slog.String("reason", err.Error()))
}

// reportPanic answers a request on which this program failed, and says where.
// The value of a panic is not logged unless it is the runtime's own, and no
// arguments of functions are: both may hold what must stay here.
func (s *Server) reportPanic(ctx context.Context, x *exchange, defect any) {
	s.metrics.panics.Inc()
	reason := "a value of our own"
	if e, ok := defect.(runtime.Error); ok {
		reason = e.Error()
	}
	s.log.LogAttrs(ctx, slog.LevelError, "defect",
		slog.String("message", x.message.String()),
		slog.String("panic", reason),
		slog.String("at", callers()))
	if x.message == 0 {
		x.refuse(http.StatusInternalServerError, backend.Other, "internal error")
		return
	}
	x.status, x.result = http.StatusOK, string(backend.Other)
	failed := backend.Answer{
		Header: x.request.Answer(),
		Result: resultOf(errInternal, x.request.ProtocolVersion),
	}
	if x.message == backend.TypeAppSKeyReq {
		failed.DevEUI, failed.SessionKeyID = x.request.DevEUI, x.request.SessionKeyID
	}
	clear(x.out)
	x.out = failed.Append(x.out[:0])
}

var errInternal = joinery.Errorf(joinery.CodeInternal, "internal error")

// callers lists the functions of a panic, by name and line.
func callers() string {
	var pcs [32]uintptr
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
