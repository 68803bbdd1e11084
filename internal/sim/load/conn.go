package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"

	"joinery/internal/sim"
)

// Conn is one kept-alive HTTP/1.1 connection over mutual TLS: a sim.Way that
// costs a third of net/http's client, so that server and client can be compared
// on a processor each. One goroutine at a time.
type Conn struct {
	address string
	path    string
	host    string
	tls     *tls.Config
	timeout time.Duration

	open    *tls.Conn // nil: not connected
	in      *bufio.Reader
	out     []byte
	started bool // a request went out on the connection
	// sentAt is when the last request was to go out, answeredAt when the whole
	// answer was there.
	sentAt, answeredAt time.Time
	dials              uint64
}

// maxAnswer bounds an answer, in bytes: several times the longest one.
const maxAnswer = 64 << 10

// NewConn makes a connection to an https URL, not yet open.
func NewConn(to string, conf *tls.Config, timeout time.Duration) (*Conn, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("join server: want an https URL")
	}
	c := &Conn{address: u.Host, host: u.Host, path: u.RequestURI(), tls: conf.Clone(), timeout: timeout}
	if u.Port() == "" {
		c.address = net.JoinHostPort(u.Hostname(), "443")
	}
	if c.tls.ServerName == "" {
		c.tls.ServerName = u.Hostname()
	}
	return c, nil
}

// Connect opens the connection, unless it is open.
func (c *Conn) Connect(ctx context.Context) error {
	if c.open != nil {
		return nil
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: c.timeout}, Config: c.tls}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	raw, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	tlsConn, ok := raw.(*tls.Conn)
	if !ok {
		return errors.New("join server: no TLS connection")
	}
	c.open, c.started = tlsConn, false
	c.dials++
	if c.in == nil {
		c.in = bufio.NewReaderSize(tlsConn, 8<<10)
	} else {
		c.in.Reset(tlsConn)
	}
	return nil
}

// Close closes the connection; the next request opens another one.
func (c *Conn) Close() {
	if c.open != nil {
		_ = c.open.Close()
		c.open = nil
	}
}

// Send implements sim.Way. A connection that the server closed while it was idle
// is opened again, once, as every client does.
func (c *Conn) Send(ctx context.Context, body []byte) (*sim.Reply, error) {
	c.sentAt = time.Now()
	for {
		if err := c.Connect(ctx); err != nil {
			return nil, err
		}
		reused := c.started
		r, err := c.exchange(body)
		if err == nil {
			return r, nil
		}
		c.Close()
		if !reused || !errors.Is(err, errIdleClosed) {
			return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
		}
	}
}

// errNoAnswer says that no whole answer came.
var errNoAnswer = errors.New("join server")

// errIdleClosed says that the connection ended before the first byte of an
// answer.
var errIdleClosed = errors.New("connection closed by the server")

func (c *Conn) exchange(body []byte) (*sim.Reply, error) {
	c.out = append(c.out[:0], "POST "...)
	c.out = append(c.out, c.path...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.host...)
	c.out = append(c.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if err := c.open.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	c.started = true
	if _, err := c.open.Write(c.out); err != nil {
		return nil, fmt.Errorf("%w: %w", errIdleClosed, err)
	}
	if _, err := c.in.Peek(1); err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", errIdleClosed, err)
	}
	r, keep, err := readReply(c.in)
	c.answeredAt = time.Now()
	if err == nil && !keep {
		c.Close()
	}
	return r, err
}

var errReply = errors.New("not an HTTP answer")

// readReply reads one whole answer and tells whether the connection stays open.
func readReply(in *bufio.Reader) (r *sim.Reply, keep bool, err error) {
	line, err := readLine(in)
	if err != nil {
		return nil, false, err
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." {
		return nil, false, errReply
	}
	keep = line[7] == '1'
	r = &sim.Reply{}
	if r.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return nil, false, errReply
	}
	length, chunked := -1, false
	for {
		if line, err = readLine(in); err != nil {
			return nil, false, err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return nil, false, errReply
		}
		value = bytes.TrimSpace(value)
		switch {
		case is(name, "Content-Length"):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > maxAnswer {
				return nil, false, fmt.Errorf("%w: Content-Length", errReply)
			}
		case is(name, "Content-Type"):
			r.ContentType = string(value)
		case is(name, "Transfer-Encoding"):
			chunked = is(value, "chunked")
		case is(name, "Connection"):
			keep = keep && !is(value, "close")
		}
	}
	r.Body, err = readBody(in, length, chunked)
	return r, keep && (length >= 0 || chunked), err
}

func is(b []byte, name string) bool { return len(b) == len(name) && bytes.EqualFold(b, []byte(name)) }

// readLine reads a line of a head, without its end.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errReply, err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func readBody(in *bufio.Reader, length int, chunked bool) ([]byte, error) {
	if length >= 0 && !chunked {
		body := make([]byte, length)
		_, err := io.ReadFull(in, body)
		return body, err
	}
	var from io.Reader = in
	if chunked {
		from = httputil.NewChunkedReader(in)
	}
	body, err := io.ReadAll(io.LimitReader(from, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%w: longer than %d bytes", errReply, maxAnswer)
	}
	for chunked { // trailers, to the empty line
		line, err := readLine(in)
		if err != nil || len(line) == 0 {
			return body, err
		}
	}
	return body, nil
}
