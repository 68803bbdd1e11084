package remote

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// maxInFlight is how many requests a server works on at once; more wait in the
// socket.
const maxInFlight = 256

// Server is the worker's half of a connection.
type Server struct {
	conn net.Conn
	log  *slog.Logger
	in   inbox
	out  outbox

	first   chan error      // takes how the first request began to come
	wanted  context.Context // ends when the client is gone before that
	slots   chan struct{}   // one for each request that is worked on
	running sync.WaitGroup

	mu       sync.Mutex
	requests map[uint64]*request
	reason   error // why the connection was given up here
}

// AcceptClient hears what a client says first. It gives an error that wraps ErrVersion
// to one of another release, which is told so.
func AcceptClient(ctx context.Context, conn net.Conn, log *slog.Logger) (*Server, error) {
	s := &Server{
		conn: conn, log: log, in: inbox{from: conn}, out: outbox{to: conn},
		slots: make(chan struct{}, maxInFlight), requests: map[uint64]*request{},
	}
	if err := s.welcome(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ctx, gone := context.WithCancel(ctx)
	s.wanted, s.first = ctx, make(chan error, 1)
	go func() {
		err := s.in.await()
		if err != nil {
			gone()
		}
		s.first <- err
	}()
	return s, nil
}

// Wanted ends when the client is gone, while the keyring is being opened.
func (s *Server) Wanted() context.Context { return s.wanted }

// Refuse tells the client why no keyring is served, and ends the connection.
func (s *Server) Refuse(reason error) error {
	if err := s.answerHello(nil, reason); err != nil {
		return errors.Join(err, s.conn.Close())
	}
	<-s.wanted.Done() // the client closes first, so that nothing unread cuts our answer off
	return s.conn.Close()
}

// Serve answers requests until the client ends the connection, which gives nil,
// or ctx ends. It returns when the last answer is written or given up. Closing
// keys is the caller's.
func (s *Server) Serve(ctx context.Context, keys keyring.Verbs, info Info) error {
	info.Transport, info.Masters, info.Custody, info.Generations = keys.TransportKey(), keys.Masters(), keys.Custody(), keys.Generations()
	if err := s.answerHello(&info, nil); err != nil {
		return errors.Join(err, s.conn.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	err := <-s.first
	if err == nil {
		err = s.read(ctx, keys)
	}
	stop() // of requests in flight nobody wants an answer any more
	s.running.Wait()
	s.in.wipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != nil {
		return s.reason
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// fail gives the connection up.
func (s *Server) fail(reason error) {
	s.mu.Lock()
	if s.reason == nil {
		s.reason = reason
	}
	s.mu.Unlock()
	_ = s.conn.Close()
}

// read takes requests off the connection until that ends.
func (s *Server) read(ctx context.Context, keys keyring.Verbs) error {
	for {
		frame, err := s.in.frame(MaxFrame)
		if err != nil {
			return err
		}
		d := decoder{b: frame}
		id, verb, left := d.u64(), Verb(d.u8()), d.u32()
		switch {
		case d.bad, verb != cancel && (verb == 0 || verb >= verbs):
			return errMalformed
		case verb == cancel:
			s.cancel(id)
			continue
		}
		r := newRequest(ctx, id, verb, left, d.b)
		s.slots <- struct{}{}
		s.mu.Lock()
		_, twice := s.requests[id]
		s.requests[id] = r
		s.mu.Unlock()
		if twice {
			return errMalformed
		}
		s.running.Add(1)
		go s.work(keys, r)
	}
}

func (s *Server) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		r.ctx.end(context.Canceled)
	}
}

// request is one that is worked on.
type request struct {
	id   uint64
	verb Verb
	ctx  requestContext
	body []byte // its own
}

var requests = sync.Pool{New: func() any { return &request{} }}

func newRequest(ctx context.Context, id uint64, verb Verb, left uint32, body []byte) *request {
	r, ok := requests.Get().(*request)
	if !ok {
		r = &request{}
	}
	r.id, r.verb = id, verb
	r.body = append(r.body[:0], body...)
	r.ctx.Context = ctx
	if left > 0 {
		r.ctx.deadline = time.Now().Add(time.Duration(left) * time.Microsecond)
	}
	return r
}

// work answers one request.
func (s *Server) work(keys keyring.Verbs, r *request) {
	defer s.running.Done()
	if err := s.answer(keys, r); err != nil {
		s.fail(err)
	}
	s.mu.Lock()
	delete(s.requests, r.id) // nobody cancels it from here on
	s.mu.Unlock()
	<-s.slots
	clear(r.body)
	if cap(r.body) <= keptBuffer && r.ctx.idle() {
		*r = request{body: r.body[:0]}
		requests.Put(r)
	}
}

// answer does the verb and writes what came of it. The error says that the request
// is malformed.
func (s *Server) answer(keys keyring.Verbs, r *request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// What it says might tell of a key; where it was does not.
			s.log.Error("a verb of the keyring panicked", "verb", r.verb.String(), "stack", string(debug.Stack()))
			s.reply(r.id, errPanic, nil)
		}
	}()
	do := handlers[r.verb]
	return do(&call{s, keys, r, decoder{b: r.body}})
}

var errPanic = errors.New("keyring: a defect in its process; its log has the trace")

// call is a request as its handler sees it.
type call struct {
	s    *Server
	keys keyring.Verbs
	r    *request
	decoder
}

// reply writes an answer: an error, or what encode appends. Where the connection
// is broken nobody waits for it, and the reader notices.
func (s *Server) reply(id uint64, err error, encode func(*encoder)) {
	e := s.out.begin()
	e.u64(id)
	e.err(err)
	if err == nil && encode != nil {
		encode(e)
	}
	if errors.Is(s.out.end(), errTooLong) {
		s.reply(id, errTooLong, nil)
	}
}

// reply gives nil, as handlers do once they have answered.
func (c *call) reply(err error, encode func(*encoder)) error {
	c.s.reply(c.r.id, err, encode)
	return nil
}

// handlers read their arguments, do their verb and answer. Arguments that are no
// such end the connection.
var handlers = [verbs]func(*call) error{
	VerifyJoin: func(c *call) error {
		var ks joinery.KeySet
		c.keySet(&ks, false)
		frame := c.borrowed()
		if err := c.done(); err != nil {
			return err
		}
		return c.reply(c.keys.VerifyJoin(&c.r.ctx, ks, frame), nil)
	},
	VerifyRejoin: func(c *call) error {
		var ks joinery.KeySet
		c.keySet(&ks, false)
		frame := c.borrowed()
		sessions := make([]joinery.Activation, c.length(activationLen))
		for i := range sessions {
			c.activation(&sessions[i])
		}
		if err := c.done(); err != nil {
			return err
		}
		i, err := c.keys.VerifyRejoin(&c.r.ctx, ks, frame, sessions)
		return c.reply(err, func(e *encoder) { e.u32(uint32(i)) })
	},
	Accept: func(c *call) error {
		var r keyring.AcceptRequest
		c.acceptRequest(&r)
		if err := c.done(); err != nil {
			return err
		}
		answer, err := c.keys.Accept(&c.r.ctx, r)
		return c.reply(err, func(e *encoder) { e.answer(&answer) })
	},
	AppSKey: func(c *call) error {
		var ks joinery.KeySet
		var a joinery.Activation
		var as joinery.KEK
		c.keySet(&ks, false)
		c.activation(&a)
		c.kek(&as)
		if err := c.done(); err != nil {
			return err
		}
		key, err := c.keys.AppSKey(&c.r.ctx, ks, a, as)
		return c.reply(err, func(e *encoder) { e.envelope(&key) })
	},
	OwnerToken: func(c *call) error {
		id, generation := joinery.DeviceID(c.u64()), c.u32()
		if err := c.done(); err != nil {
			return err
		}
		token, err := c.keys.OwnerToken(&c.r.ctx, id, generation)
		return c.reply(err, func(e *encoder) { e.string(token) })
	},
	CheckOwnerToken: func(c *call) error {
		id, generation, presented := joinery.DeviceID(c.u64()), c.u32(), c.borrowedString()
		if err := c.done(); err != nil {
			return err
		}
		ok, err := c.keys.CheckOwnerToken(&c.r.ctx, id, generation, presented)
		return c.reply(err, func(e *encoder) { e.bool(ok) })
	},
	WebhookSecret: func(c *call) error {
		id, generation := joinery.WebhookID(c.u64()), c.u32()
		if err := c.done(); err != nil {
			return err
		}
		secret, err := c.keys.WebhookSecret(&c.r.ctx, id, generation)
		return c.reply(err, func(e *encoder) { e.string(secret) })
	},
	SignWebhook: func(c *call) error {
		id, generation, content := joinery.WebhookID(c.u64()), c.u32(), c.borrowed()
		if err := c.done(); err != nil {
			return err
		}
		signature, err := c.keys.SignWebhook(&c.r.ctx, id, generation, content)
		return c.reply(err, func(e *encoder) { e.string(signature) })
	},
	LogKey: func(c *call) error {
		generation := c.u32()
		if err := c.done(); err != nil {
			return err
		}
		public, err := c.keys.LogKey(&c.r.ctx, generation)
		return c.reply(err, func(e *encoder) { e.bytes(public) })
	},
	SignCheckpoint: func(c *call) error {
		generation, text := c.u32(), c.borrowed()
		if err := c.done(); err != nil {
			return err
		}
		signature, err := c.keys.SignCheckpoint(&c.r.ctx, generation, text)
		return c.reply(err, func(e *encoder) { e.bytes(signature) })
	},
	SealRoots: func(c *call) error {
		h := c.header()
		in := make([]keyring.RootsIn, c.length(rootsInLen))
		for i := range in {
			c.rootsIn(&in[i])
		}
		if err := c.done(); err != nil {
			return err
		}
		out, err := c.keys.SealRoots(&c.r.ctx, h, in)
		return c.reply(err, func(e *encoder) {
			e.length(len(out))
			for i := range out {
				e.rootsOut(&out[i])
			}
		})
	},
	Rewrap: func(c *call) error {
		h := c.header()
		in := make([]keyring.RewrapIn, c.length(rewrapInLen))
		for i := range in {
			c.rewrapIn(&in[i])
		}
		if err := c.done(); err != nil {
			return err
		}
		out, err := c.keys.Rewrap(&c.r.ctx, h, in)
		return c.reply(err, func(e *encoder) {
			e.length(len(out))
			for i := range out {
				e.rootsOut(&out[i])
			}
		})
	},
	Handover: func(c *call) error {
		to, err := seal.ParsePublicKeyDER(c.borrowed())
		if err != nil {
			return c.reply(keyring.ErrRequest, nil)
		}
		in := make([]keyring.HandoverIn, c.length(handoverInLen))
		for i := range in {
			c.handoverIn(&in[i])
		}
		if err := c.done(); err != nil {
			return err
		}
		h, rows, err := c.keys.Handover(&c.r.ctx, to, in)
		return c.reply(err, func(e *encoder) {
			e.header(&h)
			e.length(len(rows))
			for i := range rows {
				e.rootsIn(&keyring.RootsIn{Row: rows[i]})
			}
		})
	},
	SignStatement: func(c *call) error {
		content := c.borrowed()
		if err := c.done(); err != nil {
			return err
		}
		signature, public, err := c.keys.SignStatement(&c.r.ctx, content)
		return c.reply(err, func(e *encoder) {
			e.bytes(signature)
			e.bytes(public)
		})
	},
	AcceptHash: func(c *call) error {
		var ks joinery.KeySet
		var a joinery.Activation
		c.keySet(&ks, false)
		c.activation(&a)
		if err := c.done(); err != nil {
			return err
		}
		hash, err := c.keys.AcceptHash(&c.r.ctx, ks, a)
		return c.reply(err, func(e *encoder) { e.raw(hash[:]) })
	},
	AuthMAC: func(c *call) error {
		var ks joinery.KeySet
		c.keySet(&ks, false)
		if err := c.done(); err != nil {
			return err
		}
		mac, err := c.keys.AuthMAC(&c.r.ctx, ks)
		return c.reply(err, func(e *encoder) { e.raw(mac[:]) })
	},
	SealKEK: func(c *call) error {
		h, in, peer, version := c.header(), c.sealedKEK(), joinery.PeerID(c.u64()), c.u32()
		if err := c.done(); err != nil {
			return err
		}
		sealed, err := c.keys.SealKEK(&c.r.ctx, h, in, peer, version)
		return c.reply(err, func(e *encoder) { e.bytes(sealed) })
	},
	IsKEK: func(c *call) error {
		var kek joinery.KEK
		h, in := c.header(), c.sealedKEK()
		c.kek(&kek)
		if err := c.done(); err != nil {
			return err
		}
		ok, err := c.keys.IsKEK(&c.r.ctx, h, in, kek)
		return c.reply(err, func(e *encoder) { e.bool(ok) })
	},
	CheckKeySet: func(c *call) error {
		var ks joinery.KeySet
		c.keySet(&ks, true)
		if err := c.done(); err != nil {
			return err
		}
		return c.reply(c.keys.CheckKeySet(&c.r.ctx, ks), nil)
	},
	CheckKEK: func(c *call) error {
		var kek joinery.KEK
		c.kek(&kek)
		if err := c.done(); err != nil {
			return err
		}
		return c.reply(c.keys.CheckKEK(&c.r.ctx, kek), nil)
	},
	Ready: func(c *call) error {
		if err := c.done(); err != nil {
			return err
		}
		return c.reply(c.keys.Ready(&c.r.ctx), nil)
	},
	State: func(c *call) error {
		if err := c.done(); err != nil {
			return err
		}
		return c.reply(nil, func(e *encoder) { e.u64(uint64(resident())) })
	},
}
