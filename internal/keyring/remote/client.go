package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Client is the server's half: a keyring whose keys are in another process. It is
// safe for concurrent use.
type Client struct {
	conn net.Conn
	in   inbox
	out  outbox
	info Info

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]*exchange
	ended   error         // set: no request begins any more
	empty   chan struct{} // closed when ended is set and nothing waits any more
	lost    chan struct{} // closed when the connection has ended
}

var _ keyring.Verbs = (*Client)(nil)

// Dial greets the worker at the other end of conn and waits until it has opened
// its keyring. It takes conn over. The error is the worker's own where that
// cannot open it; see keyring.ErrPIN.
func Dial(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn: conn, in: inbox{from: conn}, out: outbox{to: conn},
		waiting: map[uint64]*exchange{}, empty: make(chan struct{}), lost: make(chan struct{}),
	}
	if err := c.hello(ctx); err != nil {
		return nil, errors.Join(err, closed(conn.Close()))
	}
	go c.read()
	return c, nil
}

// closed lets an error pass but that something was closed before.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Info is what the worker told of itself.
func (c *Client) Info() Info { return c.info }

// Lost is closed when the connection has ended, for whatever reason.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// ErrRetired is what a request gets that came after Retire: it was not begun.
var ErrRetired = fmt.Errorf("%w: its process is being replaced", keyring.ErrToken)

// Retire lets no request begin any more, and waits for those that have. Close
// comes after it.
func (c *Client) Retire(ctx context.Context) error {
	c.end(ErrRetired)
	select {
	case <-c.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection, and with it the worker. What is in flight fails with
// keyring.ErrClosed.
func (c *Client) Close() error {
	c.end(keyring.ErrClosed)
	err := closed(c.conn.Close())
	<-c.lost
	return err
}

// end lets no request begin any more, and says why.
func (c *Client) end(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil && len(c.waiting) == 0 {
		close(c.empty)
	}
	if c.ended == nil || errors.Is(reason, keyring.ErrClosed) {
		c.ended = reason
	}
}

// exchange is one request and its answer.
type exchange struct {
	done chan struct{} // takes one: the answer is there, or err
	body []byte
	err  error
}

var exchanges = sync.Pool{New: func() any { return &exchange{done: make(chan struct{}, 1)} }}

// begin notes a request.
func (c *Client) begin() (uint64, *exchange, error) {
	x, ok := exchanges.Get().(*exchange)
	if !ok {
		x = &exchange{done: make(chan struct{}, 1)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return 0, nil, c.ended
	}
	c.lastID++
	c.waiting[c.lastID] = x
	return c.lastID, x, nil
}

// leave takes a request off the list; false where it was not there any more.
func (c *Client) leave(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drop(id) != nil
}

func (c *Client) drop(id uint64) *exchange {
	x := c.waiting[id]
	if x == nil {
		return nil
	}
	delete(c.waiting, id)
	if c.ended != nil && len(c.waiting) == 0 {
		close(c.empty)
	}
	return x
}

// read gives answers to those who wait, until the connection ends.
func (c *Client) read() {
	err := c.readAnswers()
	c.in.wipe()
	_ = c.conn.Close()
	reason := ErrLost
	if errors.Is(err, errMalformed) {
		reason = fmt.Errorf("%w: %w", ErrLost, err)
	}
	c.end(reason)
	c.mu.Lock()
	if errors.Is(c.ended, keyring.ErrClosed) {
		reason = c.ended
	}
	for id := range c.waiting {
		x := c.drop(id)
		x.err = reason
		x.done <- struct{}{}
	}
	c.mu.Unlock()
	close(c.lost)
}

func (c *Client) readAnswers() error {
	for {
		frame, err := c.in.frame(MaxFrame)
		if err != nil {
			return err
		}
		d := decoder{b: frame}
		id := d.u64()
		if d.bad {
			return errMalformed
		}
		c.mu.Lock()
		if id == 0 || id > c.lastID {
			c.mu.Unlock()
			return errMalformed
		}
		x := c.drop(id) // nil: nobody waits any more
		c.mu.Unlock()
		if x != nil {
			x.body = append(x.body[:0], d.b...)
			x.done <- struct{}{}
		}
	}
}

// maxLeft is the longest time that a request can name.
const maxLeft = time.Hour

// do asks for a verb: encode appends its arguments, decode takes the answer.
func (c *Client) do(ctx context.Context, verb Verb, encode func(*encoder), decode func(*decoder)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	left := uint32(0)
	if deadline, ok := ctx.Deadline(); ok {
		left = uint32(max(time.Microsecond, min(time.Until(deadline), maxLeft)) / time.Microsecond)
	}
	id, x, err := c.begin()
	if err != nil {
		return err
	}
	e := c.out.begin()
	e.u64(id)
	e.u8(uint8(verb))
	e.u32(left)
	if encode != nil {
		encode(e)
	}
	if err := c.out.end(); err != nil {
		if c.leave(id) {
			return c.unsent(err)
		}
		<-x.done // the reader was quicker to notice
		return x.err
	}
	select {
	case <-x.done:
	case <-ctx.Done():
		if c.leave(id) {
			c.cancel(id)
			return ctx.Err()
		}
		<-x.done // the answer came at this very moment
	}
	return c.take(x, decode)
}

// unsent is why a request could not be sent: the connection is lost, or it is too
// long, which is its own fault.
func (c *Client) unsent(err error) error {
	if errors.Is(err, errTooLong) {
		return fmt.Errorf("%w: %w", keyring.ErrRequest, err)
	}
	_ = c.conn.Close() // so that the reader notices as well
	return ErrLost
}

func (c *Client) cancel(id uint64) {
	e := c.out.begin()
	e.u64(id)
	e.u8(uint8(cancel))
	e.u32(0)
	_ = c.out.end() // where it is lost, so is the request
}

// take reads an answer and clears it.
func (c *Client) take(x *exchange, decode func(*decoder)) error {
	if x.err != nil {
		return x.err
	}
	d := decoder{b: x.body}
	err := d.err()
	if err == nil && decode != nil {
		decode(&d)
	}
	clear(x.body)
	if bad := d.done(); bad != nil {
		_ = c.conn.Close()
		return fmt.Errorf("%w: %w", ErrLost, bad)
	}
	if cap(x.body) <= keptBuffer {
		exchanges.Put(x)
	}
	return err
}

// VerifyJoin is the verb of that name; see keyring.Keyring, as for all below.
func (c *Client) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error {
	return c.do(ctx, VerifyJoin, func(e *encoder) {
		e.keySet(&ks, false)
		e.bytes(frame)
	}, nil)
}

// VerifyRejoin is the verb of that name.
func (c *Client) VerifyRejoin(ctx context.Context, ks joinery.KeySet, frame []byte, sessions []joinery.Activation) (session int, err error) {
	err = c.do(ctx, VerifyRejoin, func(e *encoder) {
		e.keySet(&ks, false)
		e.bytes(frame)
		e.length(len(sessions))
		for i := range sessions {
			e.activation(&sessions[i])
		}
	}, func(d *decoder) {
		session = int(d.u32())
		if session > 0 && session >= len(sessions) {
			session, d.bad = 0, true
		}
	})
	return session, err
}

// Accept is the verb of that name.
func (c *Client) Accept(ctx context.Context, r keyring.AcceptRequest) (answer keyring.Answer, err error) {
	err = c.do(ctx, Accept, func(e *encoder) { e.acceptRequest(&r) },
		func(d *decoder) { d.answer(&answer, r.NSKEK.Label, r.ASKEK.Label) })
	if err != nil {
		return keyring.Answer{}, err
	}
	return answer, nil
}

// AppSKey is the verb of that name.
func (c *Client) AppSKey(ctx context.Context, ks joinery.KeySet, a joinery.Activation, as joinery.KEK) (key keyring.Envelope, err error) {
	err = c.do(ctx, AppSKey, func(e *encoder) {
		e.keySet(&ks, false)
		e.activation(&a)
		e.kek(&as)
	}, func(d *decoder) {
		d.envelope(&key, as.Label)
		key.AESKey = append([]byte(nil), key.AESKey...)
	})
	return key, err
}

// AcceptHash is the verb of that name.
func (c *Client) AcceptHash(ctx context.Context, ks joinery.KeySet, a joinery.Activation) (hash [32]byte, err error) {
	err = c.do(ctx, AcceptHash, func(e *encoder) {
		e.keySet(&ks, false)
		e.activation(&a)
	}, func(d *decoder) { copy(hash[:], d.take(len(hash))) })
	return hash, err
}

// OwnerToken is the verb of that name.
func (c *Client) OwnerToken(ctx context.Context, id joinery.DeviceID, generation uint32) (token string, err error) {
	err = c.do(ctx, OwnerToken, func(e *encoder) {
		e.u64(uint64(id))
		e.u32(generation)
	}, func(d *decoder) { token = d.string() })
	return token, err
}

// CheckOwnerToken is the verb of that name.
func (c *Client) CheckOwnerToken(ctx context.Context, id joinery.DeviceID, generation uint32, presented string) (ok bool, err error) {
	err = c.do(ctx, CheckOwnerToken, func(e *encoder) {
		e.u64(uint64(id))
		e.u32(generation)
		e.string(presented)
	}, func(d *decoder) { ok = d.bool() })
	return ok && err == nil, err
}

// LogKey is the verb of that name.
func (c *Client) LogKey(ctx context.Context, generation uint32) (public []byte, err error) {
	err = c.do(ctx, LogKey, func(e *encoder) { e.u32(generation) }, func(d *decoder) { public = []byte(d.string()) })
	return public, err
}

// SignCheckpoint is the verb of that name.
func (c *Client) SignCheckpoint(ctx context.Context, generation uint32, text []byte) (signature []byte, err error) {
	err = c.do(ctx, SignCheckpoint, func(e *encoder) {
		e.u32(generation)
		e.bytes(text)
	}, func(d *decoder) { signature = []byte(d.string()) })
	return signature, err
}

// WebhookSecret is the verb of that name.
func (c *Client) WebhookSecret(ctx context.Context, id joinery.WebhookID, generation uint32) (secret string, err error) {
	err = c.do(ctx, WebhookSecret, func(e *encoder) {
		e.u64(uint64(id))
		e.u32(generation)
	}, func(d *decoder) { secret = d.string() })
	return secret, err
}

// SignWebhook is the verb of that name.
func (c *Client) SignWebhook(ctx context.Context, id joinery.WebhookID, generation uint32, content []byte) (signature string, err error) {
	err = c.do(ctx, SignWebhook, func(e *encoder) {
		e.u64(uint64(id))
		e.u32(generation)
		e.bytes(content)
	}, func(d *decoder) { signature = d.string() })
	return signature, err
}

// Bounds of what is sealed with one request: rows, for the answer, and bytes.
const (
	sealedRows  = 256
	sealedBytes = MaxFrame / 2
)

// SealRoots is the verb of that name. A long list goes in several requests.
func (c *Client) SealRoots(ctx context.Context, h seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error) {
	return manyRows(ctx, c, SealRoots, h, in, rootsInSize, (*encoder).rootsIn)
}

// Rewrap is the verb of that name. A long list goes in several requests.
func (c *Client) Rewrap(ctx context.Context, h seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error) {
	return manyRows(ctx, c, Rewrap, h, in, rewrapInSize, (*encoder).rewrapIn)
}

// Handover is the verb of that name, for at most as many key sets as go into one
// request: 256.
func (c *Client) Handover(ctx context.Context, to seal.PublicKey, in []keyring.HandoverIn) (h seal.Header, rows []seal.SealedRow, err error) {
	err = c.do(ctx, Handover, func(e *encoder) {
		e.bytes(to.MarshalDER())
		e.length(len(in))
		for i := range in {
			e.handoverIn(&in[i])
		}
	}, func(d *decoder) {
		h = d.header()
		h.Key = bytes.Clone(h.Key)
		rows = make([]seal.SealedRow, d.length(rootsInLen))
		for i := range rows {
			var row keyring.RootsIn
			d.rootsIn(&row)
			rows[i] = row.Row
			r := &rows[i]
			r.NwkKey, r.AppKey, r.MAC = bytes.Clone(r.NwkKey), bytes.Clone(r.AppKey), bytes.Clone(r.MAC)
		}
	})
	return h, rows, err
}

// SignStatement is the verb of that name.
func (c *Client) SignStatement(ctx context.Context, content []byte) (signature, public []byte, err error) {
	err = c.do(ctx, SignStatement, func(e *encoder) { e.bytes(content) }, func(d *decoder) { signature, public = d.bytes(), d.bytes() })
	return signature, public, err
}

// AuthMAC is the verb of that name.
func (c *Client) AuthMAC(ctx context.Context, ks joinery.KeySet) (mac [32]byte, err error) {
	err = c.do(ctx, AuthMAC, func(e *encoder) { e.keySet(&ks, false) }, func(d *decoder) { copy(mac[:], d.take(len(mac))) })
	return mac, err
}

// manyRows does a verb that seals many rows, in as many requests as they need.
func manyRows[T any](ctx context.Context, c *Client, verb Verb, h seal.Header, in []T, size func(*T) int, encode func(*encoder, *T)) (out []keyring.RootsOut, err error) {
	out = make([]keyring.RootsOut, 0, len(in))
	for first := true; first || len(in) > 0; first = false {
		n, total := 0, 0
		for n < len(in) && n < sealedRows && (n == 0 || total+size(&in[n]) <= sealedBytes) {
			total += size(&in[n])
			n++
		}
		if out, err = someRows(ctx, c, verb, h, in[:n], encode, out); err != nil {
			return nil, err
		}
		in = in[n:]
	}
	return out, nil
}

func someRows[T any](ctx context.Context, c *Client, verb Verb, h seal.Header, in []T, encode func(*encoder, *T), out []keyring.RootsOut) ([]keyring.RootsOut, error) {
	err := c.do(ctx, verb, func(e *encoder) {
		e.header(&h)
		e.length(len(in))
		for i := range in {
			encode(e, &in[i])
		}
	}, func(d *decoder) {
		if d.length(rootsOutLen) != len(in) {
			d.bad = true
		}
		for range in {
			var r keyring.RootsOut
			d.rootsOut(&r)
			out = append(out, r)
		}
	})
	return out, err
}

// SealKEK is the verb of that name.
func (c *Client) SealKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, peer joinery.PeerID, version uint32) (sealed joinery.Sealed, err error) {
	err = c.do(ctx, SealKEK, func(e *encoder) {
		e.header(&h)
		e.sealedKEK(&in)
		e.u64(uint64(peer))
		e.u32(version)
	}, func(d *decoder) { sealed = d.bytes() })
	return sealed, err
}

// IsKEK is the verb of that name.
func (c *Client) IsKEK(ctx context.Context, h seal.Header, in seal.SealedKEK, kek joinery.KEK) (ok bool, err error) {
	err = c.do(ctx, IsKEK, func(e *encoder) {
		e.header(&h)
		e.sealedKEK(&in)
		e.kek(&kek)
	}, func(d *decoder) { ok = d.bool() })
	return ok && err == nil, err
}

// CheckKeySet is the verb of that name.
func (c *Client) CheckKeySet(ctx context.Context, ks joinery.KeySet) error {
	return c.do(ctx, CheckKeySet, func(e *encoder) { e.keySet(&ks, true) }, nil)
}

// CheckKEK is the verb of that name.
func (c *Client) CheckKEK(ctx context.Context, kek joinery.KEK) error {
	return c.do(ctx, CheckKEK, func(e *encoder) { e.kek(&kek) }, nil)
}

// Generations are what the worker said at the beginning.
func (c *Client) Generations() keyring.Generations { return c.info.Generations }

// TransportKey is what the worker said at the beginning.
func (c *Client) TransportKey() seal.PublicKey { return c.info.Transport }

// Masters is what the worker said at the beginning.
func (c *Client) Masters() []keyring.Master { return slices.Clone(c.info.Masters) }

// Custody is what the worker said at the beginning.
func (c *Client) Custody() []keyring.Custody { return slices.Clone(c.info.Custody) }

// Ready is the verb of that name.
func (c *Client) Ready(ctx context.Context) error { return c.do(ctx, Ready, nil, nil) }

// Resident asks the worker how much memory it has, in bytes; 0 where that cannot
// be known.
func (c *Client) Resident(ctx context.Context) (bytes int64, err error) {
	err = c.do(ctx, State, nil, func(d *decoder) { bytes = int64(d.u64()) })
	return bytes, err
}
