package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/activation"
)

// recorder is a small http.ResponseWriter.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// serveInProcess calls the handler as net/http does after a handshake with cert.
func serveInProcess(h *house, cert tls.Certificate, body io.ReadCloser, length int64) *recorder {
	r := &http.Request{
		Method: http.MethodPost, Header: http.Header{}, Body: body, ContentLength: length,
		TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}},
	}
	w := &recorder{header: http.Header{}}
	h.ServeHTTP(w, r.WithContext(withConnection(context.Background(), nil)))
	return w
}

// refuseByFrame answers by what is in the frame: a success, any of our codes, or
// an error without one.
func refuseByFrame(_ context.Context, r activation.JoinRequest) (activation.JoinAnswer, error) {
	codes := make([]joinery.Code, 0, len(resultCodes))
	for c := range resultCodes {
		codes = append(codes, c)
	}
	switch n := int(r.PHYPayload[0]) % (len(codes) + 2); n {
	case len(codes):
		return activation.JoinAnswer{}, errors.New("no code")
	case len(codes) + 1:
		return (&joins{}).Join(context.Background(), r)
	default:
		return activation.JoinAnswer{}, joinery.Errorf(codes[n], "RxDelay %d with \"quotes\", \\ and ä", r.RxDelay)
	}
}

// TestUnknownLength: a body of unknown length is bounded, too, and a reader that
// gives little at a time is read to its end.
func TestUnknownLength(t *testing.T) {
	h := newHouse(t)
	for _, tt := range []struct {
		name string
		body io.Reader
		want int
	}{
		{"one byte at a time", oneByte{strings.NewReader(joinReq10)}, http.StatusOK},
		{"longer than the first buffer", strings.NewReader(strings.Repeat(" ", 5000) + joinReq10), http.StatusOK},
		{"as long as allowed", strings.NewReader(strings.Repeat(" ", DefaultMaxBody-len(joinReq10)) + joinReq10), http.StatusOK},
		{"one more", strings.NewReader(strings.Repeat(" ", DefaultMaxBody-len(joinReq10)+1) + joinReq10), http.StatusRequestEntityTooLarge},
		{"endless", endless{}, http.StatusRequestEntityTooLarge},
		{"broken off", io.MultiReader(strings.NewReader(joinReq10[:40]), broken{}), http.StatusBadRequest},
	} {
		if w := serveInProcess(h, h.ns, io.NopCloser(tt.body), -1); w.status != tt.want || checkAnswered(w.status, w.body.String()) != nil {
			t.Errorf("%s: %d %s", tt.name, w.status, w.body.String())
		}
	}
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(1, len(b))]) }

type endless struct{}

func (endless) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestWithoutTLS: the handler by itself lets nobody in.
func TestWithoutTLS(t *testing.T) {
	h := newHouse(t)
	for name, state := range map[string]*tls.ConnectionState{"plain HTTP": nil, "no certificate": {}} {
		r := &http.Request{Method: http.MethodPost, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(joinReq10)), TLS: state}
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, r)
		if w.status != http.StatusForbidden || h.joins.calls.Load() != 0 || w.header.Get("Connection") != "close" {
			t.Errorf("%s: %d", name, w.status)
		}
	}
}

// TestDefectBeforeAnyMessage: where nothing was read yet, the answer is 500, in
// JSON as all.
func TestDefectBeforeAnyMessage(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Peers = defective{} })
	w := serveInProcess(h, h.ns, io.NopCloser(strings.NewReader(joinReq10)), int64(len(joinReq10)))
	if w.status != http.StatusInternalServerError || !json.Valid(w.body.Bytes()) || strings.Contains(h.log.String(), "c0ffee") {
		t.Errorf("%d %s\n%s", w.status, w.body.String(), h.log)
	}
}

type defective struct{}

func (defective) Generation() uint64 { return 0 }
func (defective) Resolve([]*x509.Certificate, time.Time) (joinery.Peer, error) {
	panic("c0ffee5ec2e7")
}

// TestPeersUnknown: who cannot be known is not refused for good.
func TestPeersUnknown(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Peers = unavailable{} })
	w := serveInProcess(h, h.ns, io.NopCloser(strings.NewReader(joinReq10)), int64(len(joinReq10)))
	if w.status != http.StatusServiceUnavailable || w.header.Get("Connection") != "close" || !json.Valid(w.body.Bytes()) ||
		!strings.Contains(h.log.String(), "cannot read its peers") {
		t.Errorf("%d %s\n%s", w.status, w.body.String(), h.log)
	}
}

type unavailable struct{}

func (unavailable) Generation() uint64 { return 1 }
func (unavailable) Resolve([]*x509.Certificate, time.Time) (joinery.Peer, error) {
	return joinery.Peer{}, joinery.Errorf(joinery.CodeUnavailable, "the server cannot read its peers")
}

// TestBuffersKeepNothing: an answer may have held keys.
func TestBuffersKeepNothing(t *testing.T) {
	x := &exchange{body: make([]byte, 0, 64), out: append(make([]byte, 0, 64), "secret"...)}
	out := x.out
	x.answer.PHYPayload = []byte{1}
	x.peer.Name = "ns"
	x.close()
	if !bytes.Equal(out[:6], make([]byte, 6)) || x.answer.PHYPayload != nil || x.peer.Name != "" {
		t.Errorf("%q %v %q", out[:6], x.answer.PHYPayload, x.peer.Name)
	}
}

func BenchmarkServe(b *testing.B) {
	h := newHouse(b)
	body := []byte(joinReq10)
	var reader bytes.Reader
	r := &http.Request{
		Method: http.MethodPost, Header: http.Header{}, Body: io.NopCloser(&reader), ContentLength: int64(len(body)),
		TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{h.ns.Leaf}},
	}
	r = r.WithContext(withConnection(context.Background(), nil))
	w := &recorder{header: http.Header{}}
	answer, err := (&joins{}).Join(context.Background(), activation.JoinRequest{})
	h.joins.join = func(context.Context, activation.JoinRequest) (activation.JoinAnswer, error) { return answer, err }
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		w.body.Reset()
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkServeTLS(b *testing.B) {
	h := openHouse(b)
	b.RunParallel(func(pb *testing.PB) {
		c := h.client(b, h.tlsConfig(h.ns))
		for pb.Next() {
			if status, _, err := h.post(c, joinReq10); err != nil || status != http.StatusOK {
				b.Error(status, err)
			}
		}
	})
}
