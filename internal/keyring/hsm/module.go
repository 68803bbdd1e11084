package hsm

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// api is what the backend calls of PKCS #11. The client's context implements it,
// with direct calls for what carries secrets; between the two stands whatever delays calls or makes mechanisms missing.
type api interface {
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(s pkcs11.SessionHandle) error
	GetSessionInfo(s pkcs11.SessionHandle) (pkcs11.SessionInfo, error)
	LoginBytes(s pkcs11.SessionHandle, user uint, pin []byte) error

	FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(s pkcs11.SessionHandle) error
	GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	Value(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, out []byte) (int, error)
	CreateObject(s pkcs11.SessionHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error

	GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error
	Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error
	EncryptInto(s pkcs11.SessionHandle, plain, out []byte) (int, error)
	DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, o pkcs11.ObjectHandle) error
	Decrypt(s pkcs11.SessionHandle, cipher []byte) ([]byte, error)
}

// module is a loaded library. A process can start a library once only, so that
// all tokens of one share it; it ends with the last of them.
type module struct {
	name  [2]string // path and arguments
	ctx   *pkcs11.Ctx
	api   api
	args  cBuffer
	users int // guarded by modules.mu
}

var modules struct {
	mu   sync.Mutex
	open map[[2]string]*module
}

// openModule loads a library, or finds it loaded.
func openModule(path, args string) (*module, error) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	name := [2]string{path, args}
	m := modules.open[name]
	if m == nil {
		var err error
		if m, err = startModule(name); err != nil {
			return nil, err
		}
		if modules.open == nil {
			modules.open = map[[2]string]*module{}
		}
		modules.open[name] = m
	}
	m.users++
	return m, nil
}

func startModule(name [2]string) (*module, error) {
	if name[0] == "" {
		return nil, fmt.Errorf("%w: none is named", ErrModule)
	}
	ctx := pkcs11.New(name[0])
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s is not there, or is no PKCS #11 library", ErrModule, name[0])
	}
	calls, err := newDirect(ctx, name[0])
	if err != nil {
		ctx.Destroy()
		return nil, err
	}
	m := &module{name: name, ctx: ctx, api: calls}
	var options []pkcs11.InitializeOption
	if name[1] != "" {
		m.args = newCBuffer(len(name[1]) + 1)
		m.args.set([]byte(name[1]))
		options = append(options, pkcs11.InitializeWithReserved(unsafe.Pointer(unsafe.SliceData(m.args.bytes))))
	}
	if err := ctx.Initialize(options...); err != nil && !isAnswer(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		ctx.Destroy()
		return nil, fmt.Errorf("%w: %s: %w", ErrModule, name[0], err)
	}
	return m, nil
}

// release ends one use.
func (m *module) release() error {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	delete(modules.open, m.name)
	err := m.ctx.Finalize()
	m.ctx.Destroy()
	if m.args.bytes != nil {
		m.args.free()
	}
	if isAnswer(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return nil
	}
	return err
}

// slot finds the slot of the token with that label.
func slot(p api, label string) (uint, error) {
	slots, err := p.GetSlotList(true)
	if err != nil {
		return 0, failed("listing tokens", err)
	}
	found, n := uint(0), 0
	for _, s := range slots {
		info, err := p.GetTokenInfo(s)
		if err == nil && info.Label == label {
			found, n = s, n+1
		}
	}
	switch n {
	case 0:
		return 0, fmt.Errorf("%w: none of %d has the label %q", ErrNoToken, len(slots), label)
	case 1:
		return found, nil
	}
	return 0, fmt.Errorf("%w: %d tokens have the label %q", ErrNoToken, n, label)
}

// Flags of a token that say how its PIN stands.
const (
	flagLoginRequired = 0x00000004
	flagPINFinalTry   = 0x00020000
	flagPINLocked     = 0x00040000
)

// login logs the user in, by at most one try.
func login(p api, slot uint, s pkcs11.SessionHandle, pin []byte) error {
	info, err := p.GetTokenInfo(slot)
	if err != nil {
		return failed("asking for the token", err)
	}
	switch {
	case info.Flags&flagLoginRequired == 0:
		return nil
	case info.Flags&flagPINLocked != 0:
		return fmt.Errorf("%w: it is locked", ErrPIN)
	case info.Flags&flagPINFinalTry != 0:
		return fmt.Errorf("%w: one wrong PIN more would lock the token; log in once by its own tool first", ErrPIN)
	}
	err = p.LoginBytes(s, pkcs11.CKU_USER, pin)
	rv, _ := answer(err)
	switch {
	case isAnswer(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case wrongPIN[rv]:
		return fmt.Errorf("%w (%w)", ErrPIN, rv)
	}
	return failed("logging in", err)
}

// slow makes every call that works with keys take longer, as one over a network
// does.
type slow struct {
	api
	delay time.Duration
}

func (p slow) wait() { time.Sleep(p.delay) }

func (p slow) DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	p.wait()
	return p.api.DestroyObject(s, o)
}

func (p slow) DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	p.wait()
	return p.api.DeriveKey(s, m, base, t)
}

func (p slow) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	p.wait()
	return p.api.WrapKey(s, m, wrapping, key)
}

func (p slow) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, t []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	p.wait()
	return p.api.UnwrapKey(s, m, unwrapping, wrapped, t)
}

// SignInit and its like are not delayed: clients of networked tokens send them
// together with what follows.

func (p slow) Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error) {
	p.wait()
	return p.api.Sign(s, message)
}

func (p slow) EncryptInto(s pkcs11.SessionHandle, plain, out []byte) (int, error) {
	p.wait()
	return p.api.EncryptInto(s, plain, out)
}

func (p slow) Decrypt(s pkcs11.SessionHandle, cipher []byte) ([]byte, error) {
	p.wait()
	return p.api.Decrypt(s, cipher)
}

// errNoAnswer says that a token gave something of another length than it must.
var errNoAnswer = errors.New("hsm: the token gave a result of the wrong length")
