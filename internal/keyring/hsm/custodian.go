package hsm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"joinery/internal/cmac"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/keyring/lwcrypto"
	"joinery/internal/seal"
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
	exportKey  handle
	signer     exportfile.Signer
	vault      *vault // nil: none
	serverConn *conn
}

// prepareServer finds the key that signs exports, and what the token wraps by.
func (t *custodyToken) prepareServer(ctx context.Context) error {
	c, err := t.server.live()
	if err != nil {
		return err
	}
	t.serverConn = c
	return c.use(ctx, func(s *session) (err error) {
		t.signer = c.objects.signer
		if t.signer.IsZero() {
			return fmt.Errorf("%w: there is no %s, which signs exports; run the ceremony's plan again, it adds what is missing", ErrObject, labelExport)
		}
		if t.exportKey, err = findOne(s, pkcs11.CKO_PRIVATE_KEY, labelExport); err != nil {
			return err
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

// Signer implements keyring.CustodyToken.
func (t *custodyToken) Signer() exportfile.Signer { return t.signer }

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
func (t *custodyToken) Sign(ctx context.Context, hash [sha256.Size]byte) (signature [exportfile.SignatureLen]byte, err error) {
	err = t.serverConn.use(ctx, func(s *session) error {
		return failed("signing with "+labelExport, s.sign(mechECDSA, t.exportKey, hash[:], signature[:]))
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

// tryCustody finds out whether a custody key opens what it must, such that it can
// leave, and by which algorithms the token wraps.
func tryCustody(s *session, p pair) (can capabilities, outs []string, err error) {
	k := newKnown(2 * lwcrypto.BlockLen)
	defer k.wipe()
	pr := &custodyProber{prober{s: s, pair: p}, p}
	if err := pr.opens(k); err != nil {
		return can, nil, err
	}
	pr.can.cmac = pr.tries(func() error { return pr.with(k, k.signsLike(s), maySign) })
	pr.can.encrypt = pr.tries(func() error { return pr.with(k, k.encryptsLike(s), mayEncrypt) })
	if !pr.can.macs() && pr.gone == nil {
		return can, nil, fmt.Errorf("%w: what the custody key opens cannot make its key check value", ErrObject)
	}
	pr.can.derive = pr.can.cmac && pr.tries(func() error {
		child := k.under(seal.MACKeyBlocks())
		defer child.wipe()
		return pr.with(k, func(h handle) error { return pr.derivesLike(h, seal.MACKeyBlocks(), child) }, mayDerive)
	})
	pr.can.keyWrap = pr.tries(func() error { return pr.wraps(k) })
	for _, alg := range []string{seal.AlgRSAOAEP256, seal.AlgRSAOAEP} {
		if pr.tries(func() error { return pr.goesOutBy(k, alg) }) {
			outs = append(outs, alg)
		}
	}
	return pr.can, outs, pr.gone
}

// custodyProber tries with what the custody key opens, for that is all that comes in
// under it: sensitive and extractable.
type custodyProber struct {
	prober
	custody pair
}

// open opens a known key under the custody key as one that can leave.
func (p *custodyProber) open(k known, alg string, t template) (handle, error) {
	public, err := seal.NewPublicKeyFor(p.custody.key.RSA(), alg)
	if err != nil {
		return 0, err
	}
	wrapped, err := public.EncryptOAEP(k.value)
	if err != nil {
		return 0, err
	}
	return p.s.api.UnwrapKey(p.s.handle, oaep(alg), p.custody.private, wrapped, t)
}

// with calls f with a known key that has these rights.
func (p *custodyProber) with(k known, f func(handle) error, rights ...right) error {
	h, err := p.open(k, p.custody.key.Alg(), sessionKey(true, rights...))
	if err != nil {
		return err
	}
	defer func() { _ = p.s.destroy(h) }()
	return f(h)
}

// opens tells custody keys of early ceremonies, which let nothing out, from those
// that do not open at all.
func (p *custodyProber) opens(k known) error {
	alg := p.custody.key.Alg()
	h, err := p.open(k, alg, sessionKey(true))
	if err == nil {
		can, leavesErr := p.s.is(h, pkcs11.CKA_EXTRACTABLE)
		if err := errors.Join(leavesErr, p.s.destroy(h)); err != nil {
			return err
		}
		if can {
			return nil
		}
		return ErrCustodyTemplate
	}
	if rv, ok := answer(err); ok && lost[rv] {
		return err
	}
	if h, hiddenErr := p.open(k, alg, sessionKey(false)); hiddenErr == nil {
		return errors.Join(ErrCustodyTemplate, p.s.destroy(h))
	}
	return fmt.Errorf("%w: it opens nothing by %s (%w)", ErrObject, alg, err)
}

// wraps tries key wrap under a known key.
func (p *custodyProber) wraps(k known) error {
	inner := newKnown(lwcrypto.BlockLen)
	defer inner.wipe()
	want, err := seal.WrapKey(nil, k.cipher.Block, inner.value)
	if err != nil {
		return err
	}
	return p.with(k, func(kek handle) error {
		return p.with(inner, func(h handle) error {
			have, err := p.s.wrap(kek, h)
			return errors.Join(err, equal(have, want))
		})
	}, mayWrap)
}

// goesOutBy tells whether the token truly wraps by an algorithm: what it made opens
// to the same key by the algorithm that the custody key is for, or by this one.
func (p *custodyProber) goesOutBy(k known, alg string) error {
	use, like := p.shows(k)
	back, err := p.open(k, alg, sessionKey(true, use)) // it opens by this algorithm
	if err != nil {
		return err
	}
	err = like(back)
	_ = p.s.destroy(back)
	if err != nil {
		return err
	}
	return p.with(k, func(h handle) error {
		wrapped, err := p.s.api.WrapKey(p.s.handle, oaep(alg), p.custody.public, h)
		if err != nil {
			return err
		}
		back, err := p.s.api.UnwrapKey(p.s.handle, oaep(alg), p.custody.private, wrapped, sessionKey(true, use))
		if err != nil {
			return err
		}
		defer func() { _ = p.s.destroy(back) }()
		return like(back)
	})
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
		d, err = b.derived.wrap(s, about, roots, func(r keyring.RootSource) (handle, error) {
			block, err := r.Derivation.Block()
			if err != nil {
				return 0, err
			}
			m, ok := b.token.serverConn.objects.masters[r.Master]
			if !ok {
				return 0, keyring.ErrUnknownMaster
			}
			return s.derive(m.handle, block[:], ofLen(t.can.exported(), lwcrypto.BlockLen))
		})
		return err
	})
	return d, err
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
			block, err := sources[i].Derivation.Block()
			if err != nil {
				return err
			}
			m, ok := b.token.serverConn.objects.masters[sources[i].Master]
			if !ok {
				return keyring.ErrUnknownMaster
			}
			roots[name] = &block
			if err := s.encrypt(m.handle, block[:]); err != nil {
				return failed("deriving a root key", err)
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

// outlet is a recipient's key in one token, by which root keys leave it.
type outlet struct {
	can      *capabilities
	wrapping exportfile.Wrapping
	public   handle
	// A file key for form seal, and the key of its MACs.
	fileKey, macKey handle
	header          *seal.Header
}

func openOutlet(s *session, can *capabilities, to exportfile.Recipient, w exportfile.Wrapping) (o *outlet, err error) {
	key, err := to.TransportKey()
	if err != nil {
		return nil, err
	}
	o = &outlet{can: can, wrapping: w}
	defer func() {
		if err != nil {
			o.close(s)
		}
	}()
	if o.public, err = s.api.CreateObject(s.handle, publicKey("joinery recipient", key, false)); err != nil {
		return nil, failed("bringing the recipient's key into the token", err)
	}
	if w.Form != exportfile.FormSeal {
		return o, nil
	}
	if o.fileKey, err = s.api.GenerateKey(s.handle, mechNewAES, ofLen(sessionKey(true, mayWrap, mayDerive), masterLen)); err != nil {
		return nil, failed("drawing a file key", err)
	}
	wrapped, err := s.api.WrapKey(s.handle, oaep(w.Alg), o.public, o.fileKey)
	if err != nil {
		return nil, failed("wrapping the file key", err)
	}
	o.header = &seal.Header{Format: seal.Format, KID: key.KID(), Alg: w.Alg, Wrap: seal.WrapA256KW, Key: wrapped}
	if o.macKey, err = s.derive(o.fileKey, seal.MACKeyBlocks(), can.macKey); err != nil {
		return nil, failed("deriving the key of MACs", err)
	}
	return o, nil
}

// wrap makes a device of its root keys, each of which open gives and which are gone
// afterwards.
func (o *outlet) wrap(s *session, about exportfile.Metadata, roots []keyring.RootSource, open func(keyring.RootSource) (handle, error)) (d exportfile.Device, err error) {
	d.Metadata = about
	for i, name := range about.Roots() {
		k, err := o.wrapOne(s, name, roots[i], open)
		if err != nil {
			return exportfile.Device{}, err
		}
		d.Keys = append(d.Keys, k)
	}
	if o.header == nil {
		return d, nil
	}
	d.Seal = o.header
	mac, err := s.cmac(o.macKey, d.Row().Item().MACInput())
	d.MAC = mac[:]
	return d, failed("making the MAC of a row", err)
}

func (o *outlet) wrapOne(s *session, name string, source keyring.RootSource, open func(keyring.RootSource) (handle, error)) (k exportfile.Key, err error) {
	root, err := open(source)
	if err != nil {
		return k, err
	}
	defer func() { _ = s.destroy(root) }()
	kcv, err := o.kcv(s, root)
	if err != nil {
		return k, failed("making a key check value", err)
	}
	var wrapped []byte
	if o.header != nil {
		wrapped, err = s.wrap(o.fileKey, root)
		if err == nil && len(wrapped) != lwcrypto.WrappedKeyLen {
			err = keyring.ErrIntegrity // not a key of 16 bytes
		}
	} else {
		wrapped, err = s.api.WrapKey(s.handle, oaep(o.wrapping.Alg), o.public, root)
	}
	return exportfile.NewKey(name, kcv, wrapped), failed("wrapping a root key for its recipient", err)
}

// kcv makes the key check value in the token.
func (o *outlet) kcv(s *session, root handle) (string, error) {
	zero := make([]byte, lwcrypto.BlockLen)
	var mac [lwcrypto.BlockLen]byte
	var err error
	if o.can.cmac {
		mac, err = s.cmac(root, zero)
	} else {
		mac, err = new(cmac.CMAC).Sum(ecb{s, root}, zero)
	}
	return exportfile.FormatKCV(mac), err
}

func (o *outlet) close(s *session) {
	for _, h := range []handle{o.public, o.fileKey, o.macKey} {
		if h != 0 {
			_ = s.destroy(h)
		}
	}
}
