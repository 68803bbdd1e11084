package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/client"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Headers of terms.
const (
	ifMatch        = "If-Match"
	idempotencyKey = "Idempotency-Key"
	replayed       = "Idempotency-Replayed"
)

// maxAnswer bounds the answers that are kept.
const maxAnswer = 64 << 10

// setTerms reads under what terms a request changes anything: If-Match and
// Idempotency-Key. A request that was done before gets the answer that it had.
func (s *Server) setTerms(ctx huma.Context, next func(huma.Context)) {
	op := ctx.Operation()
	r, w := humago.Unwrap(ctx)
	if op.Method == http.MethodGet {
		next(ctx)
		return
	}
	terms := &joinery.Terms{}
	if err := readMatch(terms, op, r); err != nil {
		s.refuse(ctx, err)
		return
	}
	key, err := readKey(r)
	if err != nil {
		s.refuse(ctx, err)
		return
	}
	if key != "" && s.Answers != nil {
		ctx, terms.Once, err = s.name(ctx, key)
		if err == nil {
			var done bool
			if done, err = s.answerAgain(ctx, terms.Once); done {
				return
			}
		}
		if err != nil {
			s.refuse(ctx, err)
			return
		}
	}
	if terms.Once == nil {
		next(huma.WithContext(ctx, joinery.WithTerms(ctx.Context(), terms)))
		return
	}
	seen, _ := w.(*recorder)
	if seen != nil && op.Extensions[Secret] == nil {
		seen.copy = &bytes.Buffer{}
	}
	next(huma.WithContext(ctx, joinery.WithTerms(ctx.Context(), terms)))
	s.keepAnswer(r.Context(), terms, seen)
}

// matched is the path parameter of the things that have an ETag, by how their
// paths begin.
var matched = []string{full("/devices/{id}"), full("/peers/{id}")}

// takesMatch tells whether a route changes a thing with an ETag.
func takesMatch(method, path string) bool {
	return method != http.MethodGet && slices.ContainsFunc(matched, func(thing string) bool {
		return path == thing || strings.HasPrefix(path, thing+"/")
	})
}

var etagText = regexp.MustCompile(`^"([!#-~]{0,64})"$`)

// readMatch reads If-Match: "*" or strong ETags.
func readMatch(terms *joinery.Terms, op *huma.Operation, r *http.Request) error {
	text := strings.Join(r.Header.Values(ifMatch), ",")
	if text == "" || text == "*" {
		return nil // what has to be there is refused anyway where it is not
	}
	if !takesMatch(op.Method, op.Path) {
		return joinery.Errorf(joinery.CodeInvalid, "this route takes no If-Match: what it changes has no ETag")
	}
	for tag := range strings.SplitSeq(text, ",") {
		m := etagText.FindStringSubmatch(strings.TrimSpace(tag))
		if m == nil {
			return joinery.Errorf(joinery.CodeInvalid, `If-Match: want the ETag under which it was read, as in "5b1c…", with its quotation marks`)
		}
		terms.Tags = append(terms.Tags, m[1])
	}
	// An id that is none names nothing; the route says so.
	if id, err := joinery.ParseDeviceID(r.PathValue("id")); err == nil {
		terms.Device = id
	}
	if id, err := joinery.ParsePeerID(r.PathValue("id")); err == nil {
		terms.Peer = id
	}
	return nil
}

var keyText = regexp.MustCompile(`^[!-~]{16,128}$`)

func readKey(r *http.Request) (string, error) {
	values := r.Header.Values(idempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || !keyText.MatchString(values[0]) {
		return "", joinery.Errorf(joinery.CodeInvalid, "Idempotency-Key: want 16 to 128 printable ASCII characters without spaces, such as a random UUID")
	}
	return values[0], nil
}

// name makes the mark of a request, and gives the request back with its body
// unread. What is stored of it is a MAC under the key, which is not stored: a
// body may hold an owner token, which is short enough to be guessed from a plain
// hash.
func (s *Server) name(ctx huma.Context, key string) (huma.Context, *joinery.Once, error) {
	r, _ := humago.Unwrap(ctx)
	var body []byte
	if ctx.Operation().RequestBody != nil {
		var err error
		if body, err = io.ReadAll(ctx.BodyReader()); err != nil {
			return ctx, nil, err
		}
		ctx = bodyContext{ctx, bytes.NewReader(body)}
	}
	caller, _ := ctx.Context().Value(callerKey{}).(joinery.Caller)
	return ctx, &joinery.Once{
		ID:      mac(key, "joinery answer", caller.Name, caller.Org.String()),
		Request: mac(key, "joinery request", r.Method, r.URL.Path, r.URL.RawQuery, string(body)),
		At:      time.Now(),
	}, nil
}

// mac is HMAC-SHA-256 over texts, each behind its length.
func mac(key string, texts ...string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, []byte(key))
	for _, text := range texts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(text))))
		h.Write([]byte(text))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// answerAgain answers a request that was done before; done is false for one that
// was not.
func (s *Server) answerAgain(ctx huma.Context, once *joinery.Once) (done bool, err error) {
	a, found, err := s.Answers.Answer(ctx.Context(), once.ID)
	switch {
	case err != nil || !found:
		return false, err
	case a.Request != once.Request:
		return false, joinery.Errorf(joinery.CodeInvalid, "Idempotency-Key: this key was given to another request; every request needs a new one")
	case a.Status == 0:
		return false, joinery.Errorf(joinery.CodeConflict, "this request was done, or is being done, and its answer is not kept (it may hold a secret); look at what it changed")
	}
	_, w := humago.Unwrap(ctx)
	w.Header().Set(replayed, "true")
	for name, value := range map[string]string{"Content-Type": a.ContentType, "ETag": a.ETag} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // whoever went away needs no answer
	return true, nil
}

// keepAnswer notes the answer of a request that changed something. Without a
// change there is no mark, and the request may be sent again.
func (s *Server) keepAnswer(ctx context.Context, terms *joinery.Terms, seen *recorder) {
	if !terms.Met() || seen == nil || seen.copy == nil || seen.copy.Len() > maxAnswer || seen.status >= http.StatusInternalServerError {
		return
	}
	a := joinery.Answer{
		Status: seen.status, ContentType: seen.Header().Get("Content-Type"), ETag: seen.Header().Get("ETag"), Body: seen.copy.Bytes(),
	}
	if err := s.Answers.KeepAnswer(context.WithoutCancel(ctx), terms.Once.ID, a); err != nil {
		s.logFailure(ctx, "keep an answer", err)
	}
}

// tagged is an output with the ETag of what it shows.
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"Stands for all that people set of it; give it as If-Match to change what was read and nothing newer"`
	Body T
}

func taggedDevice(s joinery.ActivationState) *tagged[client.Device] {
	return &tagged[client.Device]{quoted(s.Tag()), device(s)}
}

func taggedPeer(p joinery.Peer) *tagged[client.Peer] {
	return &tagged[client.Peer]{quoted(p.Tag()), peer(p)}
}

func quoted(tag string) string { return `"` + tag + `"` }
