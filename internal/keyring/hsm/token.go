package hsm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
	"joinery/internal/secret"
)

// Options say which token to open, and how.
type Options struct {
	// Module is the path of the token's PKCS #11 library, InitArgs what that
	// library wants to be told when it starts: nothing, for most.
	Module   string
	InitArgs string
	// Token is the token's label.
	Token string
	// PIN is the user's. Open keeps it in protected memory, since a login that was
	// lost is made again; the caller clears its own copy.
	PIN []byte
	// Sessions is how many operations the token is given at once, at most 256; 0 is
	// what fits how fast the token answers when it is opened.
	Sessions int
	// Delay makes every operation take longer, for measurements: as long as it
	// travels to a token behind a network.
	Delay time.Duration

	through      func(api) api // for tests: what stands before the library
	trustStorage bool          // for tests: serve imported roots though the template is not enforced
}

// Format implements fmt.Formatter, so that no verb prints the PIN.
func (o Options) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "token %q of %s", o.Token, o.Module)
}

// LogValue implements slog.LogValuer without the PIN.
func (o Options) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(o)) }

// MarshalJSON refuses: a PIN is in no file of ours.
func (o Options) MarshalJSON() ([]byte, error) {
	return nil, errors.New("hsm: options are not marshalled")
}

// Numbers of sessions where none is configured, as measured (docs/custody.md): a
// token in this process has locks of its own, and more sessions cost it speed; a
// token behind a network answers many at a time.
const (
	sessionsNear = 2
	sessionsFar  = 16
	// near is how fast a token answers that is in this process, or in this machine.
	near = 300 * time.Microsecond
)

// reopenPause is how long a token that could not be opened again is left alone.
const reopenPause = time.Second

// Token holds keys in a hardware token. It implements keyring.Token.
type Token struct {
	opt    Options
	module *module
	api    api
	memory *secret.Memory
	pin    secret.Key

	can     *capabilities
	custody []keyring.Custody
	masters []keyring.Master
	// begun is what was found when the token was opened: a login that is made again
	// uses no generation beyond it.
	begun objects

	conn atomic.Pointer[conn]

	mu     sync.Mutex // opening again
	tried  time.Time
	failed error // of the last try
	ended  error // nothing is tried any more
}

var _ keyring.Token = (*Token)(nil)

// Open logs in, finds all objects, probes what the token can do, and refuses one
// whose objects are not as they must be. Besides the errors of this package, those
// of the token.
func Open(ctx context.Context, opt Options) (t *Token, err error) {
	secret.Do(func() { t, err = open(ctx, opt) })
	return t, err
}

func open(ctx context.Context, opt Options) (*Token, error) {
	t, err := start(opt)
	if err != nil {
		return nil, err
	}
	if err := t.begin(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// start loads the library and puts the PIN away; it does not log in.
func start(opt Options) (*Token, error) {
	if opt.Sessions < 0 || opt.Sessions > maxSessions {
		return nil, fmt.Errorf("%w: %d sessions; want 1 to %d, or 0", keyring.ErrRequest, opt.Sessions, maxSessions)
	}
	m, err := openModule(opt.Module, opt.InitArgs)
	if err != nil {
		return nil, err
	}
	t := &Token{module: m, api: m.api}
	if t.memory, err = secret.NewMemory(); err != nil {
		return nil, errors.Join(err, m.release())
	}
	if t.pin, err = t.memory.Key(bytes.Clone(opt.PIN)); err != nil {
		return nil, errors.Join(err, t.memory.Close(), m.release())
	}
	opt.PIN = nil
	t.opt = opt
	if opt.through != nil {
		t.api = opt.through(t.api)
	}
	if opt.Delay > 0 {
		t.api = slow{t.api, opt.Delay}
	}
	return t, nil
}

// begin logs in and looks at the token for the first time.
func (t *Token) begin(ctx context.Context) error {
	c, err := t.connect()
	if err != nil {
		return err
	}
	t.conn.Store(c)
	t.begun = c.objects
	err = c.use(ctx, func(s *session) error {
		p, err := probe(s, c.objects)
		if err != nil {
			return err
		}
		if p.can.enforced && !p.joinKEKsHide {
			return ErrTemplate
		}
		if err := c.objects.checkBirths(s, p.births); err != nil {
			return err
		}
		if t.opt.trustStorage {
			p.can.enforced = true
		}
		t.can = p.can.complete()
		t.custody = t.can.levels()
		t.masters, err = describeMasters(s, t.can, c.objects.masters)
		return err
	})
	if err != nil || t.opt.Sessions > 0 {
		return err
	}
	if t.opt.Sessions, err = t.fitting(ctx); err != nil {
		return err
	}
	return c.add(t.opt.Sessions - 1)
}

// Sessions tells how many operations the token is given at once.
func (t *Token) Sessions() int { return t.opt.Sessions }

// fitting measures how fast the token answers, and gives the number of sessions
// that fits.
func (t *Token) fitting(ctx context.Context) (int, error) {
	fastest := time.Hour
	for range 5 {
		begun := time.Now()
		if err := t.Check(ctx); err != nil && !refused(err) {
			return 0, err
		}
		fastest = min(fastest, time.Since(begun))
	}
	if fastest < near {
		return sessionsNear, nil
	}
	return sessionsFar, nil
}

// connect logs in and finds the objects.
func (t *Token) connect() (c *conn, err error) {
	err = t.pin.Use(func(pin []byte) error {
		c, err = connect(t.api, t.opt.Token, pin, 0, max(t.opt.Sessions, 1))
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.use(context.Background(), func(s *session) (err error) {
		c.objects, err = findObjects(s)
		return err
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// live gives the login, made again if it was lost: by one try, whose failure
// stands for a moment, and for ever where it was the PIN's.
func (t *Token) live() (*conn, error) {
	if c := t.conn.Load(); !c.isLost() {
		return c, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conn.Load()
	switch {
	case !c.isLost():
		return c, nil // somebody else was faster
	case t.ended != nil:
		return nil, t.ended
	case t.failed != nil && time.Since(t.tried) < reopenPause:
		return nil, t.failed
	}
	c.close()
	fresh, err := t.connect()
	if err == nil {
		if err = fresh.objects.keepTo(&t.begun); err != nil {
			fresh.close()
		}
	}
	t.tried, t.failed = time.Now(), nil
	if err != nil {
		t.failed = fmt.Errorf("%w: %w", keyring.ErrToken, err)
		if errors.Is(err, ErrPIN) {
			t.ended = t.failed
		}
		return nil, t.failed
	}
	t.conn.Store(fresh)
	return fresh, nil
}

// use calls f, which needs no handle of an earlier operation, with a session. If
// the login turns out to be lost, it is made again and f is called once more.
func (t *Token) use(ctx context.Context, f func(c *conn, s *session) error) error {
	for again := false; ; again = true {
		c, err := t.live()
		if err != nil {
			return err
		}
		err = c.use(ctx, func(s *session) error { return f(c, s) })
		if again || !errors.Is(err, keyring.ErrToken) {
			return err
		}
	}
}

// Masters implements keyring.Token.
func (t *Token) Masters() []keyring.Master { return slices.Clone(t.masters) }

// Custody implements keyring.Token.
func (t *Token) Custody() []keyring.Custody { return slices.Clone(t.custody) }

// Generations implements keyring.Token: those that there were when the token was
// opened.
func (t *Token) Generations() keyring.Generations { return t.begun.generations() }

// TransportKey implements keyring.Intake.
func (t *Token) TransportKey() seal.PublicKey { return t.begun.newestTransport().key }

// Check implements keyring.Token: it has the token make a MAC.
func (t *Token) Check(ctx context.Context) error {
	_, err := t.MAC(ctx, keyring.RowMAC, []byte("check"))
	return err
}

// Ended tells why the token will not be tried again before the process starts
// anew: a wrong PIN. It is nil as long as it may.
func (t *Token) Ended() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Close implements keyring.Token.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = keyring.ErrClosed
	if c := t.conn.Load(); c != nil {
		c.close()
	}
	return errors.Join(t.memory.Close(), t.module.release())
}

// DeriveRoot implements keyring.Vault.
func (t *Token) DeriveRoot(ctx context.Context, name string, d keyring.Derivation) (k keyring.Key, err error) {
	block, err := d.Block()
	if err != nil {
		return nil, err
	}
	template := t.can.derivedRoot
	if d.Rekey {
		template = t.can.derived[keyring.UseRekey]
	}
	err = t.use(ctx, func(c *conn, s *session) error {
		m, ok := c.objects.masters[name]
		switch {
		case !ok:
			return keyring.ErrUnknownMaster
		case t.can.derive:
			h, err := s.derive(m.handle, block[:], template)
			k = newRoot(c, t.can, h)
			return err
		}
		// Level in-memory.
		root := &hostKey{conn: c, raw: block}
		if err := s.encrypt(m.handle, root.raw[:]); err != nil {
			root.Destroy()
			return failed("deriving a root key", err)
		}
		k = root
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// OpenRoot implements keyring.Vault.
func (t *Token) OpenRoot(ctx context.Context, blob []byte) (k keyring.Key, err error) {
	if !t.can.servesSealed() {
		return nil, keyring.ErrNotServed
	}
	generation, blob, err := keyring.SplitGeneration(blob)
	if err != nil {
		return nil, err
	}
	wrapped, ok := bytes.CutPrefix(blob, []byte{keyring.FormatKeyWrap})
	if !ok || len(wrapped) != lwcrypto.WrappedKeyLen {
		return nil, keyring.ErrIntegrity
	}
	err = t.use(ctx, func(c *conn, s *session) error {
		kek, known := c.objects.joinKEK(generation)
		if !known {
			return keyring.ErrIntegrity
		}
		h, err := s.unwrap(kek, wrapped, t.can.root)
		k = newRoot(c, t.can, h)
		return err
	})
	if err != nil {
		return nil, integrity(err)
	}
	return k, nil
}

// integrity names the refusal of a blob. Which answer a token gives to a damaged
// one is its own affair.
func integrity(err error) error {
	if refused(err) {
		return fmt.Errorf("%w (%w)", keyring.ErrIntegrity, err)
	}
	return err
}

// OpenKEK implements keyring.Vault.
func (t *Token) OpenKEK(_ context.Context, blob []byte) (keyring.WrappingKey, error) {
	w := &wrappingKey{token: t, blob: bytes.Clone(blob)}
	for again := false; ; again = true {
		c, err := t.live()
		if err != nil {
			return nil, err
		}
		_, err = w.handleIn(c)
		if err == nil {
			return w, nil
		}
		if again || !errors.Is(err, keyring.ErrToken) {
			return nil, err
		}
	}
}

// openKEK unwraps a peer's KEK into the session whose objects stay.
func (t *Token) openKEK(c *conn, blob []byte) (h handle, err error) {
	wrapped, ok := bytes.CutPrefix(blob, []byte{keyring.FormatKeyWrap})
	if !ok || !isWrappedKEK(wrapped) {
		return 0, keyring.ErrIntegrity
	}
	err = c.keep(func(s *session) error {
		h, err = s.unwrap(c.objects.storageKEK, wrapped, t.can.peerKEK)
		return err
	})
	return h, integrity(err)
}

// isWrappedKEK tells whether wrapped is as long as an AES key under key wrap.
func isWrappedKEK(wrapped []byte) bool {
	switch len(wrapped) - seal.WrapOverhead {
	case 16, 24, 32:
		return true
	}
	return false
}

// MAC implements keyring.Vault.
func (t *Token) MAC(ctx context.Context, which keyring.MACKey, msg []byte) (mac [32]byte, err error) {
	if which != keyring.RowMAC && which != keyring.OwnerTokens {
		return mac, keyring.ErrRequest
	}
	err = t.use(ctx, func(c *conn, s *session) (err error) {
		h := c.objects.rowMAC
		if which == keyring.OwnerTokens {
			h = c.objects.ownerTokens
		}
		mac, err = s.hmac(h, msg)
		return err
	})
	return mac, err
}

// describeMasters gives name, profile and key check value of every master key.
func describeMasters(s *session, can *capabilities, masters map[string]master) ([]keyring.Master, error) {
	var list []keyring.Master
	for name, m := range masters {
		if m.profile != keyring.ProfileECBv1 {
			return nil, fmt.Errorf("%w: %s%s has a derivation profile (CKA_ID) that this version does not know", ErrObject, labelMaster, name)
		}
		kcv, err := can.keyCheckValue(s, m.handle)
		if err != nil {
			return nil, failed(labelMaster+name, err)
		}
		list = append(list, keyring.Master{Name: name, Profile: m.profile, KCV: kcv})
	}
	slices.SortFunc(list, func(a, b keyring.Master) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}
