package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"joinery"
)

// BasePath is where the API begins on a server.
const BasePath = "/api/v1"

// OrganisationHeader lets an operator act for an organisation; its value is the
// organisation's id.
const OrganisationHeader = "Joinery-Organisation"

// RequestIDHeader names a request, in the request, in its answer and in the
// server's log.
const RequestIDHeader = "X-Request-Id"

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// Options says how to reach a server. Either Socket or Server is set.
type Options struct {
	// Socket is the path of the operator socket.
	Socket string
	// Server is the base URL, "https://js.example.com" or, on the same machine
	// only, "http://127.0.0.1:8080".
	Server string
	// APIKey is the text of an API key. It is needed with Server.
	APIKey string
	// Organisation is for which organisation an operator acts; zero for none.
	Organisation joinery.OrgID
	// TLS configures connections to an https Server; nil for the system's CAs.
	TLS *tls.Config
	// UserAgent is sent with each request.
	UserAgent string
}

// Client speaks to one server. It may be used by several goroutines.
type Client struct {
	http *http.Client
	base string
	opt  Options
}

// New makes a client; it connects with the first request.
func New(opt Options) (*Client, error) {
	transport := &http.Transport{
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute,
		TLSClientConfig:       opt.TLS,
		ForceAttemptHTTP2:     true,
	}
	base := "http://joinery"
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch {
	case opt.Socket != "" && opt.Server != "":
		return nil, errors.New("give a socket or a server, not both")
	case opt.Socket != "":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", opt.Socket)
		}
	case opt.Server != "":
		u, err := checkServer(opt)
		if err != nil {
			return nil, err
		}
		transport.DialContext = dialer.DialContext
		transport.Proxy = http.ProxyFromEnvironment
		base = u
	default:
		return nil, errors.New("give the server's address or the path of its operator socket")
	}
	return &Client{
		http: &http.Client{Transport: transport, CheckRedirect: refuseRedirect},
		base: base + BasePath,
		opt:  opt,
	}, nil
}

// checkServer refuses an address over which an API key would travel readable,
// or without a key to send.
func checkServer(opt Options) (string, error) {
	u, err := url.Parse(opt.Server)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("server: want a base URL, as in https://js.example.com")
	}
	switch u.Scheme {
	case "https":
	case "http":
		if !isLoopback(u.Hostname()) {
			return "", errors.New("server: an API key may travel over plain http on this machine only (127.0.0.1, ::1 or localhost); use https")
		}
	default:
		return "", errors.New("server: want a URL that begins with https:// or http://")
	}
	if opt.APIKey == "" {
		return "", errors.New("server: an API key is needed; make one on the operator socket with 'joinctl key make'")
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func isLoopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// refuseRedirect keeps the API key from following a redirect elsewhere.
func refuseRedirect(*http.Request, []*http.Request) error {
	return errors.New("the server redirects; use the address that it redirects to")
}

// do sends one request and reads the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any, opts ...CallOption) error {
	req, err := c.newRequest(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	o := optionsOf(opts)
	maps.Copy(req.Header, o.header)
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return readProblem(res)
	}
	if o.etag != nil {
		*o.etag = res.Header.Get("ETag")
	}
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("read the server's answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) newRequest(ctx context.Context, method, path string, query url.Values, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.opt.UserAgent != "" {
		req.Header.Set("User-Agent", c.opt.UserAgent)
	}
	if c.opt.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.opt.APIKey)
	}
	if c.opt.Organisation != 0 {
		req.Header.Set(OrganisationHeader, c.opt.Organisation.String())
	}
	return req, nil
}

// ErrUnreachable is wrapped by errors of requests that got no answer.
var ErrUnreachable = errors.New("no answer from the server")

func (c *Client) unreachable(err error) error {
	where := c.opt.Server
	if c.opt.Socket != "" {
		where = c.opt.Socket
	}
	// The URL of *url.Error would repeat identifiers; its cause says enough.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, where, err)
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
