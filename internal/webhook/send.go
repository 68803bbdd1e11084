package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of one attempt.
const (
	attemptTimeout = 10 * time.Second
	dialTimeout    = 5 * time.Second
	maxAnswerHead  = 16 << 10
	maxAnswerBody  = 4 << 10 // of which nothing is kept
	maxRetryAfter  = 24 * time.Hour
)

// Headers of Standard Webhooks.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

// Content is what a signature is over: id, time of the attempt and body.
func Content(id string, at time.Time, body []byte) []byte {
	b := make([]byte, 0, len(id)+22+len(body))
	b = append(append(b, id...), '.')
	b = strconv.AppendInt(b, at.Unix(), 10)
	return append(append(b, '.'), body...)
}

// Message is one message, signed.
type Message struct {
	URL string
	ID  string
	At  time.Time
	// Signatures are of Content, each "v1,…".
	Signatures []string
	Body       []byte
}

// Answer is what became of an attempt.
type Answer struct {
	Status int // of HTTP; 0: there was no answer
	// RetryAfter is what the receiver asked for; 0: nothing.
	RetryAfter time.Duration
	// Err is nil where the receiver took the message. It says why in words of ours:
	// nothing that the receiver sent, and not the URL.
	Err error
}

// Gone tells whether the receiver wants nothing any more.
func (a Answer) Gone() bool { return a.Status == http.StatusGone }

// Sender sends messages. It is safe for concurrent use.
type Sender struct {
	policy Policy
	client *http.Client
	agent  string
}

// NewSender makes a Sender that calls itself agent. Nil roots are the system's.
func NewSender(p Policy, agent string, roots *x509.CertPool) *Sender {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: p.control}
	return &Sender{policy: p, agent: agent, client: &http.Client{
		Timeout: attemptTimeout,
		Transport: &http.Transport{
			Proxy:       nil, // it would be dialled in place of the address that was looked at
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: maxAnswerHead,
			MaxIdleConns: 64, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
			TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: attemptTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Policy says where messages may go.
func (s *Sender) Policy() Policy { return s.policy }

// Close lets go of idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send makes one attempt.
func (s *Sender) Send(ctx context.Context, m Message) Answer {
	if _, err := s.policy.CheckURL(m.URL); err != nil { // what was allowed once may not be any more
		return Answer{Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return Answer{Err: errors.New("url: it cannot be used")}
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {s.agent},
	}
	req.Header.Set(HeaderID, m.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(m.At.Unix(), 10))
	req.Header.Set(HeaderSignature, strings.Join(m.Signatures, " "))
	res, err := s.client.Do(req)
	if err != nil {
		return Answer{Err: plain(ctx, err)}
	}
	// What of the answer is read lets the connection be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswerBody))
	_ = res.Body.Close()
	return judge(res)
}

func judge(res *http.Response) Answer {
	a := Answer{Status: res.StatusCode}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
	case res.StatusCode >= 300 && res.StatusCode < 400:
		a.Err = fmt.Errorf("the receiver answered %d: redirects are not followed; give the URL to which it leads", res.StatusCode)
	default:
		a.Err = fmt.Errorf("the receiver answered %d", res.StatusCode)
		a.RetryAfter = retryAfter(res.Header.Get("Retry-After"))
	}
	return a
}

// retryAfter reads seconds; the form with a date needs a clock that both sides
// have, and is not read.
func retryAfter(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return min(maxRetryAfter, time.Duration(n)*time.Second)
}

// plain says what went wrong in words of ours: errors of the transport repeat
// the URL, and what a server on the other side made of it.
func plain(ctx context.Context, err error) error {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case ctx.Err() != nil:
		return errors.New("the attempt was given up")
	case errors.Is(err, ErrAddress):
		return fmt.Errorf("%w: %s", ErrAddress, whyNot)
	case errors.As(err, &dns):
		return errors.New("the name of the receiver cannot be resolved")
	case errors.As(err, &certificate):
		return errors.New("the receiver's certificate is not trusted, or is not for this name")
	case errors.As(err, &network) && network.Timeout():
		return errors.New("the receiver did not answer in time")
	}
	return errors.New("the receiver cannot be reached, or broke off")
}
