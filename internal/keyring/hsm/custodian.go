package hsm

import (
	"context"
	"crypto/aes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/secret"
)

// ErrCustodyTemplate says that the custody key opens root keys such that they can never leave
// the token: an early ceremony made it so.
var ErrCustodyTemplate = errors.New("what the custody key opens can never leave its token: it was made by a version without exports; make a new one in a ceremony, and import the key lists again")

// CustodianOptions say which tokens to open for an export or a rotation.
type CustodianOptions struct {
	// Server is the Join Server's token: master keys, the row MAC key, the key that
	// signs exports. Without it (no Module) root keys can only be sealed anew, for a
	// server that checks by itself.
	Server Options
	// Custody is the token that has the custody key, opened with its own PIN. Without
	// it only derived key sets are exported.
	Custody Options
}

// OpenCustodian logs in to the tokens, in a process that is not the server's, and
// tries out what they can do.
func OpenCustodian(ctx context.Context, opt CustodianOptions) (c keyring.Custodian, err error) {
	if opt.Server.Module == "" && opt.Custody.Module == "" {
		return nil, fmt.Errorf("%w: no token is named", keyring.ErrRequest)
	}
	secret.Do(func() { c, err = openCustodian(ctx, opt) })
	return c, err
}

func openCustodian(ctx context.Context, opt CustodianOptions) (_ keyring.Custodian, err error) {
	t := &custodyToken{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if opt.Server.Module != "" {
		opt.Server.Sessions = 1
		if t.server, err = open(ctx, opt.Server); err != nil {
			return nil, err
		}
		if err := t.prepareServer(ctx); err != nil {
			return nil, err
		}
	}
	if opt.Custody.Module != "" {
		opt.Custody.Sessions = 1
		if t.vault, err = openVault(ctx, opt.Custody); err != nil {
			return nil, fmt.Errorf("custody token: %w", err)
		}
	}
	return keyring.NewCustodian(t), nil
}

// custodyToken is a keyring.CustodyToken over two tokens, which share nothing: a root
// key is wrapped in the one in which it is.
type custodyToken struct {
	server     *Token // nil: none
	outs       []string
	signing    []signing // the newest last
	vault      *vault    // nil: none
	serverConn *conn
}

// signing is a key that signs exports.
type signing struct {
	private handle
	public  exportfile.Signer
}

// prepareServer finds the key that signs exports, and what the token wraps by.
func (t *custodyToken) prepareServer(ctx context.Context) error {
	c, err := t.server.live()
	if err != nil {
		return err
	}
	t.serverConn = c
	return c.use(ctx, func(s *session) (err error) {
		keys, err := s.generations(labelExport, classesOf[labelExport]...)
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			return fmt.Errorf("%w: there is no %s, which signs exports; run the ceremony's plan again, it adds what is missing", ErrObject, labelExport)
		}
		for _, g := range keys {
			public, err := readSigner(s, g)
			if err != nil {
				return err
			}
			t.signing = append(t.signing, signing{g.handles[1], public})
		}
		p := &prober{s: s, pair: c.objects.newestTransport()}
		_, t.outs = p.algorithms(p.pair.key.RSA())
		return p.gone
	})
}

// Generations implements keyring.CustodyToken.
func (t *custodyToken) Generations() (list []uint32) {
	if t.vault == nil {
		return nil
	}
	for _, p := range t.vault.pairs {
		list = append(list, p.number)
	}
	return list
}

// Signers implements keyring.CustodyToken.
func (t *custodyToken) Signers() (list []exportfile.Signer) {
	for _, s := range t.signing {
		list = append(list, s.public)
	}
	return list
}

// Checks implements keyring.CustodyToken.
func (t *custodyToken) Checks() bool { return t.server != nil }

// Wrappings implements keyring.CustodyToken: what all tokens at hand can make.
func (t *custodyToken) Wrappings() (list []exportfile.Wrapping) {
	for _, w := range exportfile.AllWrappings() {
		if (t.server == nil || canWrap(t.outs, t.server.can, w)) && (t.vault == nil || canWrap(t.vault.outs, t.vault.can, w)) {
			list = append(list, w)
		}
	}
	return list
}

func canWrap(outs []string, can *capabilities, w exportfile.Wrapping) bool {
	switch w.Form {
	case exportfile.FormRaw:
		return slices.Contains(outs, w.Alg)
	case exportfile.FormSeal:
		return slices.Contains(outs, w.Alg) && can.keyWrap && can.derive && can.cmac
	}
	return false // a token knows nothing of JWE
}

// MAC implements keyring.CustodyToken.
func (t *custodyToken) MAC(ctx context.Context, msg []byte) ([sha256.Size]byte, error) {
	return t.server.MAC(ctx, keyring.RowMAC, msg)
}

// Sign implements keyring.CustodyToken.
func (t *custodyToken) Sign(ctx context.Context, by exportfile.Signer, hash [sha256.Size]byte) (signature [exportfile.SignatureLen]byte, err error) {
	i := slices.IndexFunc(t.signing, func(s signing) bool { return s.public == by })
	if i < 0 {
		return signature, keyring.ErrRequest
	}
	err = t.serverConn.use(ctx, func(s *session) error {
		return failed("signing with "+labelExport, s.sign(mechECDSA, t.signing[i].private, hash[:], signature[:]))
	})
	return signature, err
}

// Close implements keyring.CustodyToken.
func (t *custodyToken) Close() (err error) {
	if t.vault != nil {
		err = t.vault.close()
	}
	if t.server != nil {
		err = errors.Join(err, t.server.Close())
	}
	return err
}

// vault is the token of the custody role.
type vault struct {
	token *Token // its login; it has none of a server's objects
	conn  *conn
	pairs []pair
	can   *capabilities
	outs  []string
	// opened is the template of a root key that a custody key opened: it can make its
	// key check value, and be wrapped.
	opened template
}

func openVault(ctx context.Context, opt Options) (*vault, error) {
	t, err := start(opt)
	if err != nil {
		return nil, err
	}
	v := &vault{token: t}
	err = t.pin.Use(func(pin []byte) (err error) {
		v.conn, err = connect(t.api, opt.Token, pin, 0, 1)
		return err
	})
	if err == nil {
		t.conn.Store(v.conn)
		err = v.conn.use(ctx, v.prepare)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return v, nil
}

func (v *vault) close() error { return v.token.Close() }

// prepare finds the custody keys and tries each out with throw-away keys.
func (v *vault) prepare(s *session) (err error) {
	if v.pairs, err = bothHalves(s, labelCustody); err != nil {
		return err
	}
	var can capabilities
	for i, p := range v.pairs {
		one, outs, err := tryCustody(s, p)
		if err != nil {
			return failed(generationLabel(labelCustody, p.number), err)
		}
		if i == 0 {
			can, v.outs = one, outs
		}
	}
	v.can = can.complete()
	v.opened = v.can.exported()
	return nil
}

// exported is the template of a root key on its way out: sensitive, and extractable
// until it is destroyed; it makes its key check value and does nothing else.
func (c *capabilities) exported() template {
	if c.cmac {
		return sessionKey(true, maySign)
	}
	return sessionKey(true, mayEncrypt)
}

// fitsCustody refuses a custody pair under which keys come in such that they can
// never leave.
func (a *admin) fitsCustody(label string) error {
	var p pair
	var err error
	if p.private, err = findOne(a.s, pkcs11.CKO_PRIVATE_KEY, label); err != nil {
		return err
	}
	if p.public, err = findOne(a.s, pkcs11.CKO_PUBLIC_KEY, label); err != nil {
		return err
	}
	if p.key, err = readPublic(a.s, p.public); err != nil {
		return err
	}
	k := newKnown(2 * lwcrypto.BlockLen)
	defer k.wipe()
	return failed(label, (&custodyProber{prober{s: a.s, pair: p}, p}).opens(k))
}

// OpenExport implements keyring.CustodyToken.
func (t *custodyToken) OpenExport(_ context.Context, to exportfile.Recipient, w exportfile.Wrapping) (keyring.CustodyBatch, error) {
	b := &custodyBatch{token: t, to: to, wrapping: w}
	return b, nil
}

// custodyBatch is a keyring.CustodyBatch: a recipient's key in each of the tokens
// where it was needed.
type custodyBatch struct {
	token    *custodyToken
	to       exportfile.Recipient
	wrapping exportfile.Wrapping

	derived, sealed *outlet
	memory          *exportfile.Wrapper // for a token that cannot derive
}

// Wrap implements keyring.CustodyBatch.
func (b *custodyBatch) Wrap(ctx context.Context, about exportfile.Metadata, roots []keyring.RootSource) (d exportfile.Device, err error) {
	if len(roots) == 0 || len(roots) != len(about.Roots()) {
		return d, keyring.ErrRequest
	}
	if len(roots[0].Blob) > 0 {
		return b.wrapSealed(ctx, about, roots)
	}
	t := b.token.server
	switch {
	case t == nil:
		return d, keyring.ErrRequest
	case !t.can.derive:
		return b.wrapInMemory(ctx, about, roots)
	}
	err = b.token.serverConn.use(ctx, func(s *session) error {
		if b.derived == nil {
			if b.derived, err = openOutlet(s, t.can, b.to, b.wrapping); err != nil {
				return err
			}
		}
		d, err = b.derived.wrap(s, about, roots, func(r keyring.RootSource) (handle, error) { return b.derive(s, r) })
		return err
	})
	return d, err
}

// derive derives a root key such that it can leave, in as many steps as it takes; the
// keys between are gone afterwards, and never could leave.
func (b *custodyBatch) derive(s *session, r keyring.RootSource) (h handle, err error) {
	m, err := b.master(r)
	if err != nil {
		return 0, err
	}
	block, err := r.Derivation.Block()
	if err != nil {
		return 0, err
	}
	h = m
	for i, next := range append([]lwcrypto.Block{block}, r.Steps...) {
		base, can := h, b.token.server.can
		template := can.derived[keyring.UseRekey]
		if i == len(r.Steps) {
			template = ofLen(can.exported(), lwcrypto.BlockLen)
		}
		h, err = s.derive(base, next[:], template)
		if base != m {
			_ = s.destroy(base)
		}
		if err != nil {
			return 0, err
		}
	}
	return h, nil
}

// master finds the master key of a source. No token derives as a chip of profile M
// does.
func (b *custodyBatch) master(r keyring.RootSource) (handle, error) {
	if r.Chip != nil {
		return 0, keyring.ErrNotServed
	}
	m, ok := b.token.serverConn.objects.masters[r.Master]
	if !ok {
		return 0, keyring.ErrUnknownMaster
	}
	return m.handle, nil
}

func (b *custodyBatch) wrapSealed(ctx context.Context, about exportfile.Metadata, roots []keyring.RootSource) (d exportfile.Device, err error) {
	v := b.token.vault
	if v == nil {
		return d, keyring.ErrOtherCustody
	}
	err = v.conn.use(ctx, func(s *session) error {
		if b.sealed == nil {
			if b.sealed, err = openOutlet(s, v.can, b.to, b.wrapping); err != nil {
				return err
			}
		}
		d, err = b.sealed.wrap(s, about, roots, func(r keyring.RootSource) (handle, error) { return v.open(s, r) })
		return err
	})
	return d, err
}

// open opens a custody blob such that it can leave.
func (v *vault) open(s *session, r keyring.RootSource) (handle, error) {
	i := slices.IndexFunc(v.pairs, func(p pair) bool { return p.number == r.Generation })
	if i < 0 || len(r.Blob) == 0 {
		return 0, keyring.ErrOtherCustody
	}
	alg := v.pairs[i].key.Alg()
	if r.Blob[0] != formatOf(alg) {
		return 0, fmt.Errorf("%w: it is not sealed by %s", keyring.ErrOtherCustody, alg)
	}
	h, err := s.api.UnwrapKey(s.handle, oaep(alg), v.pairs[i].private, r.Blob[1:], v.opened)
	if rv, ok := answer(err); ok && !lost[rv] {
		return 0, fmt.Errorf("%w (%w)", keyring.ErrOtherCustody, err)
	}
	return h, err
}

// wrapInMemory is for derived key sets at level in-memory: the token gives the root
// key itself, and it is wrapped here.
func (b *custodyBatch) wrapInMemory(ctx context.Context, about exportfile.Metadata, sources []keyring.RootSource) (d exportfile.Device, err error) {
	if b.memory == nil {
		if b.memory, err = exportfile.NewWrapper(b.to, b.wrapping); err != nil {
			return d, err
		}
	}
	roots := map[string]*[lwcrypto.BlockLen]byte{}
	defer func() {
		for _, r := range roots {
			clear(r[:])
		}
	}()
	err = b.token.serverConn.use(ctx, func(s *session) error {
		for i, name := range about.Roots() {
			m, err := b.master(sources[i])
			if err != nil {
				return err
			}
			block, err := sources[i].Derivation.Block()
			if err != nil {
				return err
			}
			roots[name] = &block
			if err := s.encrypt(m, block[:]); err != nil {
				return failed("deriving a root key", err)
			}
			for _, step := range sources[i].Steps {
				c, err := aes.NewCipher(block[:])
				if err != nil {
					return err
				}
				c.Encrypt(block[:], step[:])
				secret.WipeBlock(c)
			}
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	bytesOf := func(name string) []byte {
		if r := roots[name]; r != nil {
			return r[:]
		}
		return nil
	}
	return b.memory.Wrap(about, bytesOf(exportfile.NwkKey), bytesOf(exportfile.AppKey))
}

// Close implements keyring.CustodyBatch.
func (b *custodyBatch) Close() {
	if b.memory != nil {
		b.memory.Wipe()
	}
	for o, c := range map[*outlet]func() *conn{
		b.derived: func() *conn { return b.token.serverConn }, b.sealed: func() *conn { return b.token.vault.conn },
	} {
		if o != nil {
			_ = c().use(context.Background(), func(s *session) error {
				o.close(s)
				return nil
			})
		}
	}
}
