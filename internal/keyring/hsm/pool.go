package hsm

import (
	"context"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"joinery/internal/keyring"
)

// maxSessions bounds how many sessions are opened.
const maxSessions = 256

// conn is everything that lives as long as one login: sessions, and the handles of
// the objects that stay. It is lost as a whole, and another one is opened.
type conn struct {
	api   api
	slot  uint
	flags uint
	free  chan *session
	gone  chan struct{} // closed when the login is lost, or the token closed
	once  sync.Once

	// keeper holds the session objects that stay: peers' KEKs. No other session
	// may, since one that failed is closed, with what was made in it.
	keeping sync.Mutex
	keeper  *session

	objects objects
}

// connect opens n sessions and logs in. A caller that gets an error has nothing
// to close.
func connect(p api, label string, pin []byte, flags uint, n int) (*conn, error) {
	c := &conn{api: p, flags: flags, free: make(chan *session, maxSessions), gone: make(chan struct{})}
	if err := c.open(label, pin, n); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) open(label string, pin []byte, n int) (err error) {
	if c.slot, err = slot(c.api, label); err != nil {
		return err
	}
	if c.keeper, err = openSession(c.api, c.slot, c.flags); err != nil {
		return err
	}
	if err := login(c.api, c.slot, c.keeper.handle, pin); err != nil {
		return err
	}
	return c.add(n)
}

// add opens n sessions more.
func (c *conn) add(n int) error {
	for range n {
		s, err := openSession(c.api, c.slot, c.flags)
		if err != nil {
			return err
		}
		c.free <- s
	}
	return nil
}

// lose makes an end of c: whoever waits for a session of it fails, and sessions in
// use are closed when they come back.
func (c *conn) lose() {
	c.once.Do(func() { close(c.gone) })
	for {
		select {
		case s := <-c.free:
			s.close()
		default:
			return
		}
	}
}

// close ends c when nobody uses it.
func (c *conn) close() {
	c.lose()
	c.keeping.Lock()
	defer c.keeping.Unlock()
	if c.keeper != nil {
		c.keeper.close()
		c.keeper = nil
	}
}

func (c *conn) isLost() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

var errLost = fmt.Errorf("%w: the session was lost", keyring.ErrToken)

// use calls f with a session of its own. An error of a lost session wraps
// keyring.ErrToken, and then c is lost.
func (c *conn) use(ctx context.Context, f func(*session) error) error {
	var s *session
	select {
	case s = <-c.free:
	default:
		select {
		case s = <-c.free:
		case <-c.gone:
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.giveBack(s, f(s))
}

// giveBack ends the use of a session whose outcome was err.
func (c *conn) giveBack(s *session, err error) error {
	if err != nil {
		s, err = c.judge(s, err)
	}
	if s != nil {
		c.free <- s // there is room for every session
	}
	if c.isLost() {
		c.lose() // what came back after it was emptied
	}
	return err
}

// judge finds out whether a failure is one of the session. It gives the session
// that may go on, nil for none.
func (c *conn) judge(s *session, err error) (*session, error) {
	rv, ok := answer(err)
	if !ok {
		return s, err
	}
	if lost[rv] || !s.alive() {
		s.close()
		c.lose()
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	if !s.begun {
		return s, err
	}
	s.close()
	fresh, openErr := openSession(c.api, c.slot, c.flags)
	if openErr != nil {
		c.lose()
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	return fresh, err
}

// keep calls f with the session whose objects stay.
func (c *conn) keep(f func(*session) error) error {
	c.keeping.Lock()
	defer c.keeping.Unlock()
	if c.keeper == nil || c.isLost() {
		return errLost
	}
	err := f(c.keeper)
	if rv, ok := answer(err); ok && (lost[rv] || c.keeper.begun || !c.keeper.alive()) {
		c.lose()
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// discard destroys a session object that is no longer needed. What a lost session
// had is gone with it.
func (c *conn) discard(h handle) {
	_ = c.use(context.Background(), func(s *session) error { return s.destroy(h) })
}

// writable is the flag of a session that may change token objects. Serving takes
// none such.
const writable = pkcs11.CKF_RW_SESSION
