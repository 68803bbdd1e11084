package interop

import (
	"crypto/tls"
	"os"
	"sync"
	"time"
)

// clientConn is a connection as net/http has it. While a request is answered,
// net/http looks out for a client that goes away: a goroutine reads one byte, until
// a deadline in the past calls it off. With TLS that is a tenth of what a join
// costs, and tells what nobody wants to know: there is an answer within
// AnswerTimeout, and what is on disk counts, whoever still waits for it. So from
// where the request was read, that one byte is waited for, and not asked for.
type clientConn struct {
	*tls.Conn
	held *heldConn

	mu        sync.Mutex
	answering bool          // the request was read, and the look-out does not ask
	asking    bool          // the look-out asks: it was there before
	calledOff chan struct{} // takes a token
}

func newClientConn(conn *tls.Conn, held *heldConn) *clientConn {
	return &clientConn{Conn: conn, held: held, calledOff: make(chan struct{}, 1)}
}

// beginAnswer tells that a request was read to its end: nothing is read before the
// deadline of the next one is set, but by a look-out.
func (c *clientConn) beginAnswer() {
	c.mu.Lock()
	c.answering = !c.asking
	c.mu.Unlock()
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	if len(p) > 1 {
		return c.Conn.Read(p)
	}
	c.mu.Lock()
	wait := c.answering
	c.asking = !wait
	c.mu.Unlock()
	if wait {
		<-c.calledOff
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.asking = false
	c.mu.Unlock()
	return n, err
}

// SetReadDeadline implements net.Conn. net/http sets one in the past to call off a
// look-out, none when that has ended, and one to come for the next request.
func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	wait := c.answering
	switch {
	case !wait:
	case t.IsZero():
		c.answering = false
	case t.After(time.Now()):
		c.answering, wait = false, false
	default:
		select {
		case c.calledOff <- struct{}{}:
		default:
		}
	}
	c.mu.Unlock()
	if wait {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}
