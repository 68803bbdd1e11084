package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// fake is a keyring that does what a test says.
type fake struct {
	keyring.Verbs
	verify func(ctx context.Context, ks joinery.KeySet, frame []byte) error
	token  string
	seal   func(in []keyring.RootsIn) ([]keyring.RootsOut, error)
	rewrap func(in []keyring.RewrapIn) ([]keyring.RootsOut, error)
}

func (f *fake) VerifyJoin(ctx context.Context, ks joinery.KeySet, frame []byte) error {
	return f.verify(ctx, ks, frame)
}

func (f *fake) CheckOwnerToken(_ context.Context, _ joinery.DeviceID, _ uint32, presented string) (bool, error) {
	return presented == f.token, nil
}

func (f *fake) OwnerToken(context.Context, joinery.DeviceID, uint32) (string, error) {
	return f.token, nil
}

func (f *fake) SealRoots(_ context.Context, _ seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error) {
	return f.seal(in)
}

func (f *fake) Generations() keyring.Generations {
	return keyring.Generations{JoinKEK: []uint32{1, 2}, Custody: 3, Transport: []string{"a", "b"}}
}

func (f *fake) Rewrap(_ context.Context, _ seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error) {
	return f.rewrap(in)
}

func (f *fake) TransportKey() seal.PublicKey { return seal.PublicKey{} }
func (f *fake) Masters() []keyring.Master {
	return []keyring.Master{{Name: "m", Profile: "p", KCV: "k"}}
}
func (f *fake) Custody() []keyring.Custody {
	return []keyring.Custody{{Origin: joinery.OriginSealed, Level: keyring.LevelECBOracle, Why: "because"}}
}

// streams gives the two ends of a stream that has buffers, as a socket has.
func streams(tb testing.TB) (net.Conn, net.Conn) {
	tb.Helper()
	l, err := net.Listen("unix", tb.TempDir()+"/s")
	check(tb, err)
	defer func() { _ = l.Close() }()
	a, err := net.Dial("unix", l.Addr().String())
	check(tb, err)
	b, err := l.Accept()
	check(tb, err)
	return a, b
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// serve gives a client of keys, and how serving ended.
func serve(tb testing.TB, keys keyring.Verbs) (*Client, <-chan error) {
	tb.Helper()
	here, there := streams(tb)
	ended := make(chan error, 1)
	go func() {
		s, err := AcceptClient(context.Background(), there, slog.New(slog.DiscardHandler))
		if err == nil {
			err = s.Serve(context.Background(), keys, Info{Backend: "fake", Token: "t"})
		}
		ended <- err
	}()
	c, err := Dial(context.Background(), here)
	check(tb, err)
	tb.Cleanup(func() { _ = c.Close() })
	return c, ended
}

func TestHello(t *testing.T) {
	c, ended := serve(t, &fake{})
	i := c.Info()
	if i.Backend != "fake" || i.Token != "t" || len(c.Masters()) != 1 || c.Masters()[0].KCV != "k" ||
		len(c.Custody()) != 1 || c.Custody()[0].Why != "because" || !c.TransportKey().IsZero() {
		t.Errorf("%+v", i)
	}
	check(t, c.Close())
	check(t, <-ended)
}

// Both sides refuse a foreign version, and say so.
func TestForeignVersion(t *testing.T) {
	foreign := append([]byte(magic), 0, Version+1)
	here, there := streams(t)
	go func() { _, _ = there.Write(frameOf(foreign)) }()
	_, err := Dial(context.Background(), here)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), fmt.Sprintf("version %d", Version+1)) {
		t.Errorf("the client: %v", err)
	}

	here, there = streams(t)
	_, err = here.Write(frameOf(foreign))
	check(t, err)
	if _, err := AcceptClient(context.Background(), there, nil); !errors.Is(err, ErrVersion) {
		t.Errorf("the server: %v", err)
	}
	answer, err := io.ReadAll(here)
	check(t, err)
	if !bytes.HasPrefix(answer[frameHead:], append([]byte(magic), 0, Version)) {
		t.Errorf("the client is not told: %q", answer)
	}

	here, there = streams(t)
	_, err = here.Write(frameOf([]byte("GET / HTTP/1.1\r\nHost: joinery\r\n")))
	check(t, err)
	if _, err := AcceptClient(context.Background(), there, nil); err == nil || !strings.Contains(err.Error(), "no keyring") {
		t.Errorf("somebody else: %v", err)
	}
}

func frameOf(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// Why a keyring is not served comes through as it is.
func TestRefused(t *testing.T) {
	here, there := streams(t)
	go func() {
		s, err := AcceptClient(context.Background(), there, nil)
		if err == nil {
			_ = s.Refuse(fmt.Errorf("%w: token x", keyring.ErrPIN))
		}
	}()
	_, err := Dial(context.Background(), here)
	if !errors.Is(err, keyring.ErrPIN) || !strings.Contains(err.Error(), "token x") {
		t.Error(err)
	}

	here, there = streams(t)
	check(t, there.Close())
	if _, err := Dial(context.Background(), here); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("nobody there: %v", err)
	}
	here, _ = streams(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, here); !errors.Is(err, keyring.ErrToken) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("somebody silent: %v", err)
	}
}

// While the keyring is opened the server notices that nobody wants it any more.
func TestWanted(t *testing.T) {
	here, there := streams(t)
	dial, stop := context.WithCancel(t.Context())
	go func() { _, _ = Dial(dial, here) }()
	s, err := AcceptClient(context.Background(), there, nil)
	check(t, err)
	if s.Wanted().Err() != nil {
		t.Fatal("it is not wanted from the beginning")
	}
	stop()
	select {
	case <-s.Wanted().Done():
	case <-time.After(10 * time.Second):
		t.Error("nobody noticed")
	}
}

// Each error is on this side what it was on the other.
func TestErrors(t *testing.T) {
	var give error
	c, _ := serve(t, &fake{verify: func(context.Context, joinery.KeySet, []byte) error { return give }})
	for _, want := range known {
		for _, give = range []error{want, fmt.Errorf("so it was: %w", want), fmt.Errorf("%w and %w", want, lorawan.ErrFrame)} {
			err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil)
			for _, other := range known {
				if errors.Is(err, other) != errors.Is(give, other) {
					t.Errorf("%q is %q: %v on the other side, %v on this one", give, other, errors.Is(give, other), errors.Is(err, other))
				}
			}
			if err.Error() != give.Error() {
				t.Errorf("%q became %q", give, err)
			}
		}
	}
	give = errors.New("CKR_DEVICE_ERROR\n\x00" + strings.Repeat("ü", maxErrorText))
	err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil)
	if text := err.Error(); !strings.HasPrefix(text, "CKR_DEVICE_ERROR  ü") || len(text) > maxErrorText+3 {
		t.Errorf("%d bytes: %.40q", len(text), text)
	}
}

// Many requests are in flight on one connection, and answered in any order.
func TestPipelining(t *testing.T) {
	const many = 100
	var inside sync.WaitGroup
	inside.Add(many)
	c, _ := serve(t, &fake{verify: func(_ context.Context, ks joinery.KeySet, _ []byte) error {
		inside.Done()
		inside.Wait() // until all are here
		if ks.ID%2 == 0 {
			return keyring.ErrMIC
		}
		return nil
	}})
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			err := c.VerifyJoin(t.Context(), joinery.KeySet{ID: joinery.KeySetID(i)}, nil)
			if wrong := i%2 == 0; errors.Is(err, keyring.ErrMIC) != wrong || (err != nil) != wrong {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	all.Wait()
}

// Deadlines and cancellation reach the other side, also where nothing waits for
// them but a look at Err.
func TestContexts(t *testing.T) {
	ended := make(chan error, 1)
	var deadline atomic.Bool
	c, _ := serve(t, &fake{verify: func(ctx context.Context, ks joinery.KeySet, _ []byte) error {
		_, has := ctx.Deadline()
		deadline.Store(has)
		if ks.ID == 1 {
			<-ctx.Done()
		}
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		ended <- ctx.Err()
		return ctx.Err()
	}})
	for _, id := range []joinery.KeySetID{1, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if err := c.VerifyJoin(ctx, joinery.KeySet{ID: id}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) || deadline.Load() {
			t.Errorf("the other side: %v, deadline %v", err, deadline.Load())
		}
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := c.VerifyJoin(ctx, joinery.KeySet{ID: id}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("late: %v", err)
		}
		cancel()
		if err := <-ended; err == nil || !deadline.Load() {
			t.Errorf("the other side: %v, deadline %v", err, deadline.Load())
		}
	}
	// The connection goes on.
	if ok, err := c.CheckOwnerToken(t.Context(), 1, 1, ""); err != nil || !ok {
		t.Error(ok, err)
	}
}

// Who is asked for the last time finishes what it has; who is closed does not.
func TestRetireAndClose(t *testing.T) {
	inside, leave := make(chan bool), make(chan bool)
	c, ended := serve(t, &fake{verify: func(ctx context.Context, _ joinery.KeySet, _ []byte) error {
		inside <- true
		select {
		case <-leave:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	answers := make(chan error, 2)
	ask := func() { answers <- c.VerifyJoin(context.Background(), joinery.KeySet{}, nil) }
	go ask()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Retire(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("retired with a request in flight: %v", err)
	}
	if err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil); !errors.Is(err, ErrRetired) {
		t.Errorf("a request after that: %v", err)
	}
	leave <- true
	check(t, <-answers)
	check(t, c.Retire(t.Context()))
	check(t, c.Close())
	check(t, <-ended)
	if err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("a request after Close: %v", err)
	}

	c, ended = serve(t, &fake{verify: c2verify(inside)})
	go ask()
	<-inside
	check(t, c.Close())
	if err := <-answers; !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("in flight at Close: %v", err)
	}
	check(t, <-ended)
}

func c2verify(inside chan bool) func(context.Context, joinery.KeySet, []byte) error {
	return func(ctx context.Context, _ joinery.KeySet, _ []byte) error {
		inside <- true
		<-ctx.Done()
		return ctx.Err()
	}
}

// Where the connection breaks, all that is in flight is lost, and said so.
func TestLost(t *testing.T) {
	inside := make(chan bool)
	here, there := streams(t)
	go func() {
		s, err := AcceptClient(context.Background(), there, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = s.Serve(context.Background(), &fake{verify: c2verify(inside)}, Info{})
		}
	}()
	c, err := Dial(t.Context(), here)
	check(t, err)
	answers := make(chan error, 1)
	go func() { answers <- c.VerifyJoin(context.Background(), joinery.KeySet{}, nil) }()
	<-inside
	check(t, there.Close())
	if err := <-answers; !errors.Is(err, ErrLost) || !errors.Is(err, keyring.ErrToken) {
		t.Error(err)
	}
	<-c.Lost()
	if err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil); !errors.Is(err, ErrLost) {
		t.Errorf("after that: %v", err)
	}
}

// A verb that panics fails by itself, and what the panic says is not told.
func TestPanic(t *testing.T) {
	c, _ := serve(t, &fake{verify: func(context.Context, joinery.KeySet, []byte) error { panic("a key") }})
	if err := c.VerifyJoin(t.Context(), joinery.KeySet{}, nil); err == nil || strings.Contains(err.Error(), "a key") {
		t.Error(err)
	}
	if _, err := c.CheckOwnerToken(t.Context(), 1, 1, ""); err != nil {
		t.Errorf("the connection did not outlive it: %v", err)
	}
}

// What is too long for a frame is refused by itself, there and back; long lists
// are cut.
func TestLongMessages(t *testing.T) {
	var requests atomic.Int64
	c, _ := serve(t, &fake{
		token:  strings.Repeat("x", MaxFrame),
		verify: func(_ context.Context, _ joinery.KeySet, frame []byte) error { return nil },
		seal: func(in []keyring.RootsIn) ([]keyring.RootsOut, error) {
			requests.Add(1)
			out := make([]keyring.RootsOut, len(in))
			for i := range out {
				out[i].Nwk.Use = []byte{byte(in[i].KeySet), byte(in[i].KeySet >> 8)}
			}
			return out, nil
		},
	})
	if err := c.VerifyJoin(t.Context(), joinery.KeySet{}, make([]byte, MaxFrame)); !errors.Is(err, keyring.ErrRequest) {
		t.Errorf("a long request: %v", err)
	}
	if _, err := c.OwnerToken(t.Context(), 1, 1); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long answer: %v", err)
	}
	check(t, c.VerifyJoin(t.Context(), joinery.KeySet{}, make([]byte, MaxFrame-100)))
	for _, n := range []int{0, 1, sealedRows, 3 * sealedRows / 2} {
		requests.Store(0)
		in := make([]keyring.RootsIn, n)
		for i := range in {
			in[i].KeySet = joinery.KeySetID(i)
		}
		if n == 1 {
			in[0].Row.UsedDevNonces = make([]lorawan.DevNonce, 1<<16)
		}
		out, err := c.SealRoots(t.Context(), seal.Header{}, in)
		check(t, err)
		if len(out) != n || requests.Load() != int64(max(1, (n+sealedRows-1)/sealedRows)) {
			t.Errorf("%d rows: %d results of %d requests", n, len(out), requests.Load())
		}
		for i := range out {
			if !bytes.Equal(out[i].Nwk.Use, []byte{byte(i), byte(i >> 8)}) {
				t.Fatalf("row %d got another's result", i)
			}
		}
	}
}

// After an answer no buffer of either side holds what was in it.
func TestBuffersAreCleared(t *testing.T) {
	const secret = "MARKEDOWNERTOKEN"
	here, there := streams(t)
	ended := make(chan *Server, 1)
	go func() {
		s, err := AcceptClient(context.Background(), there, nil)
		if err == nil {
			_ = s.Serve(context.Background(), &fake{token: secret}, Info{})
		}
		ended <- s
	}()
	c, err := Dial(t.Context(), here)
	check(t, err)
	for range 3 {
		token, err := c.OwnerToken(t.Context(), 1, 1)
		check(t, err)
		if ok, err := c.CheckOwnerToken(t.Context(), 1, 1, token); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	check(t, c.Close())
	s := <-ended
	whole := func(b []byte) []byte { return b[:cap(b)] }
	for name, buffer := range map[string][]byte{
		"client in": c.in.buf, "client out": whole(c.out.e.b), "client spare": whole(c.out.spare),
		"server in": s.in.buf, "server out": whole(s.out.e.b), "server spare": whole(s.out.spare),
	} {
		if bytes.Contains(buffer, []byte(secret)) {
			t.Errorf("%s still holds it", name)
		}
	}
	for range 8 {
		if x, ok := exchanges.Get().(*exchange); ok && bytes.Contains(whole(x.body), []byte(secret)) {
			t.Error("an answer that was read still holds it")
		}
		if r, ok := requests.Get().(*request); ok && bytes.Contains(whole(r.body), []byte(secret)) {
			t.Error("a request that was answered still holds it")
		}
	}
}

// Frames come in any pieces, and leave nothing behind.
func TestFrames(t *testing.T) {
	var sent bytes.Buffer
	var want [][]byte
	for i, n := range []int{0, 1, 500, keptBuffer, 3, MaxFrame, 7, 2 * keptBuffer, 1} {
		body := bytes.Repeat([]byte{byte('a' + i)}, n)
		want = append(want, body)
		sent.Write(frameOf(body))
	}
	for _, piece := range []int{1, 3, 4096, 1 << 22} {
		in := inbox{from: &pieces{bytes.NewReader(sent.Bytes()), piece}}
		for i, body := range want {
			got, err := in.frame(MaxFrame)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("frame %d in pieces of %d: %d bytes, %v", i, piece, len(got), err)
			}
		}
		if _, err := in.frame(MaxFrame); !errors.Is(err, io.EOF) {
			t.Errorf("the end: %v", err)
		}
		if left := bytes.Trim(in.buf, "\x00"); len(left) > 0 {
			t.Errorf("in pieces of %d something is left: %d bytes", piece, len(left))
		}
	}
	in := inbox{from: bytes.NewReader(sent.Bytes()[:frameHead+2])}
	if _, err := in.frame(MaxFrame); err != nil {
		t.Error(err)
	}
	if _, err := in.frame(MaxFrame); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
	in = inbox{from: bytes.NewReader(binary.BigEndian.AppendUint32(nil, MaxFrame+1))}
	if _, err := in.frame(MaxFrame); !errors.Is(err, errMalformed) || len(in.buf) > keptBuffer {
		t.Errorf("too long: %v", err)
	}
}

type pieces struct {
	from io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.from.Read(b[:min(p.size, len(b))]) }

// What is no request ends the connection, whatever it is, and nothing panics.
func FuzzRequests(f *testing.F) {
	for _, verb := range append(Verbs(), cancel, 0, verbs) {
		f.Add(uint8(verb), []byte{})
		f.Add(uint8(verb), bytes.Repeat([]byte{0xFF}, 300))
		f.Add(uint8(verb), make([]byte, 300))
	}
	var e encoder
	e.acceptRequest(&keyring.AcceptRequest{Frame: make([]byte, 23), Session: &joinery.Activation{}})
	f.Add(uint8(Accept), e.b)
	keys := &refusing{}
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, verb uint8, body []byte) {
		if len(body) > 1<<16 {
			return
		}
		here, there := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			s, err := AcceptClient(context.Background(), there, log)
			if err == nil {
				err = s.Serve(context.Background(), keys, Info{})
			}
			ended <- err
		}()
		c, err := Dial(context.Background(), here)
		check(t, err)
		e := c.out.begin()
		e.u64(1)
		e.u8(verb)
		e.u32(0)
		e.raw(body)
		c.mu.Lock()
		x := &exchange{done: make(chan struct{}, 1)}
		c.lastID, c.waiting[1] = 1, x
		c.mu.Unlock()
		_ = c.out.end()
		if Verb(verb) != cancel {
			<-x.done // answered, or lost
			if x.err != nil && !errors.Is(x.err, ErrLost) {
				t.Error(x.err)
			}
			if x.err == nil && errors.Is((&decoder{b: x.body}).err(), errPanic) {
				t.Error("it panicked")
			}
		}
		_ = c.Close()
		if err := <-ended; err != nil && !errors.Is(err, errMalformed) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}

// refusing is a keyring with nothing in it.
type refusing struct{ keyring.Verbs }

func (*refusing) TransportKey() seal.PublicKey { return seal.PublicKey{} }
func (*refusing) Masters() []keyring.Master    { return nil }
func (*refusing) Custody() []keyring.Custody   { return nil }
func (*refusing) VerifyJoin(context.Context, joinery.KeySet, []byte) error {
	return keyring.ErrMIC
}

func (*refusing) VerifyRejoin(context.Context, joinery.KeySet, []byte, []joinery.Activation) (int, error) {
	return 0, keyring.ErrMIC
}

func (*refusing) Accept(context.Context, keyring.AcceptRequest) (keyring.Answer, error) {
	return keyring.Answer{}, keyring.ErrMIC
}

func (*refusing) AppSKey(context.Context, joinery.KeySet, joinery.Activation, joinery.KEK) (keyring.Envelope, error) {
	return keyring.Envelope{}, keyring.ErrNoKEK
}

func (*refusing) OwnerToken(context.Context, joinery.DeviceID, uint32) (string, error) {
	return "", nil
}

func (*refusing) CheckOwnerToken(context.Context, joinery.DeviceID, uint32, string) (bool, error) {
	return false, nil
}

func (*refusing) LogKey(context.Context, uint32) ([]byte, error) { return nil, nil }

func (*refusing) SignCheckpoint(context.Context, uint32, []byte) ([]byte, error) { return nil, nil }

func (*refusing) WebhookSecret(context.Context, joinery.WebhookID, uint32) (string, error) {
	return "", nil
}

func (*refusing) SignWebhook(context.Context, joinery.WebhookID, uint32, []byte) (string, error) {
	return "", nil
}

func (*refusing) SealRoots(_ context.Context, _ seal.Header, in []keyring.RootsIn) ([]keyring.RootsOut, error) {
	return make([]keyring.RootsOut, len(in)), nil
}

func (*refusing) Rewrap(_ context.Context, _ seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error) {
	return make([]keyring.RootsOut, len(in)), nil
}

func (*refusing) Generations() keyring.Generations { return keyring.Generations{} }

func (*refusing) SealKEK(context.Context, seal.Header, seal.SealedKEK, joinery.PeerID, uint32) (joinery.Sealed, error) {
	return nil, keyring.ErrTransport
}

func (*refusing) IsKEK(context.Context, seal.Header, seal.SealedKEK, joinery.KEK) (bool, error) {
	return false, keyring.ErrTransport
}
func (*refusing) CheckKeySet(context.Context, joinery.KeySet) error { return nil }
func (*refusing) CheckKEK(context.Context, joinery.KEK) error       { return nil }
func (*refusing) Ready(context.Context) error                       { return nil }

// Whatever a worker answers, its client does not panic.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{0xFF}, 200))
	var e encoder
	e.err(fmt.Errorf("so %w", keyring.ErrMIC))
	f.Add(e.b)
	e = encoder{}
	e.err(nil)
	e.answer(&keyring.Answer{PHYPayload: make([]byte, 33), AppSKey: keyring.Envelope{KEKLabel: "l", AESKey: make([]byte, 24)}})
	f.Add(e.b)
	e = encoder{}
	e.err(nil)
	e.info(&Info{Custody: (&fake{}).Custody(), Masters: (&fake{}).Masters()})
	f.Add(e.b)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func(*decoder){
			func(d *decoder) { d.answer(&keyring.Answer{}, "l") },
			func(d *decoder) { d.rootsOut(&keyring.RootsOut{}) },
			func(d *decoder) { d.envelope(&keyring.Envelope{}) },
			func(d *decoder) { _ = d.info() },
			func(d *decoder) { _ = d.greeting() },
		} {
			d := decoder{b: bytes.Clone(body)}
			if d.err() == nil {
				decode(&d)
			}
			_ = d.done()
		}
	})
}
