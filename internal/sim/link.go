package sim

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxAnswer bounds an answer, in bytes: several times the longest one.
const maxAnswer = 64 << 10

// defaultTimeout bounds one exchange: the shortest that a client in the field
// has is 5 s.
const defaultTimeout = 5 * time.Second

// Way is how a peer reaches its Join Server: it posts a body as it is and gives
// the whole HTTP answer, or an error where none came. A Link, unless somebody
// has a need of its own.
type Way interface {
	Send(ctx context.Context, body []byte) (*Reply, error)
}

// Link is a peer's way to a Join Server: one URL, one client certificate,
// connections that are kept. Safe for concurrent use.
type Link struct {
	url    string
	client *http.Client
}

// NewLink makes a link to url. conf carries the client certificate and whom to
// trust; conns is how many connections may stay open, 0 for 16. HTTP/1.1 only,
// as Network Servers speak it.
func NewLink(url string, conf *tls.Config, conns int) *Link {
	if conns == 0 {
		conns = 16
	}
	return &Link{url: url, client: &http.Client{
		Timeout: defaultTimeout,
		Transport: &http.Transport{
			TLSClientConfig:     conf,
			MaxIdleConns:        conns,
			MaxIdleConnsPerHost: conns,
			IdleConnTimeout:     90 * time.Second,
			// An own map turns HTTP/2 off.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		},
		// A Join Server has no business with redirecting a POST with keys.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (l *Link) Close() { l.client.CloseIdleConnections() }

// Reply is what came back over HTTP.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

// Send posts a body as it is. An error means that no whole HTTP answer came.
func (l *Link) Send(ctx context.Context, body []byte) (*Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("join server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("join server: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if resp.ContentLength > 0 && resp.ContentLength <= maxAnswer {
		b.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("join server: answer broke off: %w", err)
	}
	if n > maxAnswer {
		return nil, fmt.Errorf("join server: answer is longer than %d bytes", maxAnswer)
	}
	return &Reply{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: b.Bytes()}, nil
}
