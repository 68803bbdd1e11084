package rekeylink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"joinery"
	"joinery/internal/rekey"
)

// Client calls other Join Servers; it implements rekey.Link. It shows this server's
// certificate, and speaks to nobody who does not prove that he is the one pinned.
type Client struct {
	certificate func() (*tls.Certificate, error)
	now         func() time.Time

	mu    sync.Mutex
	conns map[joinery.JoinServerID]known
}

// known is how a Join Server is reached, as it was pinned then.
type known struct {
	url      string
	identity joinery.Credential
	http     *http.Client
}

func (k known) is(to joinery.JoinServer) bool {
	c := to.Identity
	return k.url == to.URL && k.identity.Kind == c.Kind && k.identity.SPKI == c.SPKI && k.identity.SAN == c.SAN && bytes.Equal(k.identity.CA, c.CA)
}

// NewClient makes a Client. certificate gives this server's, for each connection.
func NewClient(certificate func() (*tls.Certificate, error), now func() time.Time) *Client {
	return &Client{certificate: certificate, now: now, conns: map[joinery.JoinServerID]known{}}
}

// callTimeout bounds a call: sealing at the other side may take its time.
const callTimeout = 2 * time.Minute

// Offer implements rekey.Link.
func (c *Client) Offer(ctx context.Context, to joinery.JoinServer, file []byte) ([]byte, error) {
	return c.call(ctx, to, http.MethodPost, pathOffers, file)
}

// Receipts implements rekey.Link.
func (c *Client) Receipts(ctx context.Context, to joinery.JoinServer, after joinery.ReceiptPlace) ([]byte, error) {
	return c.call(ctx, to, http.MethodGet, pathReceipts+"?after="+strconv.FormatUint(after.N, 10)+"&epoch="+strconv.FormatUint(after.Epoch, 10), nil)
}

// Close ends idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.conns {
		k.http.CloseIdleConnections()
	}
}

func (c *Client) call(ctx context.Context, to joinery.JoinServer, method, path string, body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return nil, joinery.Errorf(joinery.CodeTooLarge, "it is too much for one call")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(to.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, joinery.WrapError(joinery.CodeInvalid, err, "its URL is none")
	}
	if body != nil {
		r.Header.Set("Content-Type", typeFile)
	}
	answer, err := c.client(to).Do(r)
	if errors.Is(err, errStranger) {
		return nil, joinery.WrapError(joinery.CodeUnavailable, err, "who answers there is not the Join Server that is pinned")
	}
	if err != nil {
		return nil, joinery.WrapError(joinery.CodeUnavailable, err, "it cannot be reached")
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, MaxBody+1))
	switch {
	case err != nil:
		return nil, joinery.WrapError(joinery.CodeUnavailable, err, "its answer broke off")
	case len(text) > MaxBody:
		return nil, joinery.Errorf(joinery.CodeUnavailable, "its answer is too long")
	case answer.StatusCode == http.StatusOK:
		return text, nil
	}
	return nil, refusal(answer.StatusCode, text)
}

// refusal is what an answer that is none says. Of what another server says for
// people nothing is repeated.
func refusal(status int, text []byte) error {
	var p problem
	if err := json.Unmarshal(text, &p); err != nil {
		p = problem{}
	}
	switch p.Code {
	case codeAhead:
		return rekey.ErrAhead
	case codeIdentity:
		return joinery.Errorf(joinery.CodeForbidden, "it does not know this server: its operator has to pin this server's certificate and statement key")
	case codeInvalid, codeTooLarge:
		return joinery.Errorf(joinery.CodeInvalid, "it refused the message as %s", p.Code)
	case codeNoSuch:
		return joinery.Errorf(joinery.CodeProtocol, "it does not speak version 1 of the hand-over protocol")
	}
	return joinery.Errorf(joinery.CodeUnavailable, "it answered %d", status)
}

var errStranger = errors.New("the certificate is not that of the Join Server that is pinned")

// client gives what reaches a Join Server, as it is pinned now.
func (c *Client) client(to joinery.JoinServer) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.conns[to.ID]; ok {
		if k.is(to) {
			return k.http
		}
		k.http.CloseIdleConnections()
	}
	host := ""
	if u, err := url.Parse(to.URL); err == nil {
		host = u.Hostname()
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// By whom the certificate has to be is the pin's business, below.
			InsecureSkipVerify: true, //nolint:gosec // verified in VerifyConnection
			VerifyConnection: func(s tls.ConnectionState) error {
				if !proves(to.Identity, s.PeerCertificates, x509.ExtKeyUsageServerAuth, host, c.now()) {
					return errStranger
				}
				return nil
			},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate() },
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 20 * time.Second, MaxResponseHeaderBytes: 16 << 10,
		ForceAttemptHTTP2: false,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.conns[to.ID] = known{to.URL, to.Identity, client}
	return client
}
