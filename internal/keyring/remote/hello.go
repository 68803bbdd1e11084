package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"joinery"
	"joinery/internal/exportfile"
	"joinery/internal/keyring"
	"joinery/internal/seal"
)

// Version is that of the protocol: of verbs, values and numbers of errors.
const Version = 4

// magic tells a keyring's process from whatever else may be on a socket.
const magic = "joinery keyring\x00"

// Lengths of the longest hello of either side.
const (
	maxClientHello = 64
	maxServerHello = 64 << 10
)

// Info is what a worker tells of itself once its keyring is open.
type Info struct {
	// Backend names what holds the keys: "soft", "pkcs11".
	Backend string
	// Token names it more closely, for people.
	Token string
	// The keyring's own; see there.
	Transport seal.PublicKey
	Masters   []keyring.Master
	Custody   []keyring.Custody
	// Generations are those of the token's storage keys.
	Generations keyring.Generations
}

func (e *encoder) info(i *Info) {
	e.string(i.Backend)
	e.string(i.Token)
	e.length(len(i.Custody))
	for _, c := range i.Custody {
		e.u8(uint8(c.Origin))
		e.string(c.Profile)
		e.u8(uint8(c.Level))
		e.bool(c.Served)
		e.string(c.Why)
	}
	e.bytes(i.Transport.MarshalDER())
	e.length(len(i.Masters))
	for _, m := range i.Masters {
		e.string(m.Name)
		e.string(m.Profile)
		e.string(m.KCV)
	}
	e.generations(&i.Generations)
}

func (e *encoder) generations(g *keyring.Generations) {
	e.u32(g.Custody)
	e.length(len(g.JoinKEK))
	for _, n := range g.JoinKEK {
		e.u32(n)
	}
	e.length(len(g.Transport))
	for _, kid := range g.Transport {
		e.string(kid)
	}
	e.bytes(g.Export.MarshalDER())
}

func (d *decoder) generations() (g keyring.Generations) {
	g.Custody = d.u32()
	for range d.length(4) {
		g.JoinKEK = append(g.JoinKEK, d.u32())
	}
	for range d.length(1) {
		g.Transport = append(g.Transport, d.string())
	}
	if der := d.borrowed(); len(der) > 0 {
		var err error
		if g.Export, err = exportfile.ParseSignerDER(der); err != nil {
			d.bad = true
		}
	}
	return g
}

func (d *decoder) info() (i Info) {
	i.Backend, i.Token = d.string(), d.string()
	i.Custody = make([]keyring.Custody, d.length(5))
	for n := range i.Custody {
		i.Custody[n] = keyring.Custody{
			Origin: joinery.Origin(d.u8()), Profile: d.string(),
			Level: keyring.Level(d.u8()), Served: d.bool(), Why: d.string(),
		}
	}
	if der := d.borrowed(); len(der) > 0 {
		var err error
		if i.Transport, err = seal.ParsePublicKeyDER(der); err != nil {
			d.bad = true
		}
	}
	i.Masters = make([]keyring.Master, d.length(3))
	for n := range i.Masters {
		i.Masters[n] = keyring.Master{Name: d.string(), Profile: d.string(), KCV: d.string()}
	}
	i.Generations = d.generations()
	return i
}

// greet says hello.
func (o *outbox) greet() error {
	e := o.begin()
	e.raw([]byte(magic))
	e.u16(Version)
	return o.end()
}

// greeting reads the beginning of the other side's hello.
func (d *decoder) greeting() error {
	if !bytes.Equal(d.take(len(magic)), []byte(magic)) {
		return errors.New("whoever is on the other end of the socket is no keyring of Joinery")
	}
	if v := d.u16(); d.bad || v != Version {
		return fmt.Errorf("%w: it speaks version %d of their protocol, and this program version %d; install joinery and joinery-hsm of one release",
			ErrVersion, v, Version)
	}
	return nil
}

// welcome reads a client's hello. A foreign version is told ours.
func (s *Server) welcome() error {
	frame, err := s.in.frame(maxClientHello)
	if err != nil {
		return err
	}
	d := decoder{b: frame}
	if err := d.greeting(); err != nil {
		if errors.Is(err, ErrVersion) {
			err = errors.Join(err, s.out.greet())
		}
		return err
	}
	return d.done()
}

// answerHello tells the client that the keyring is open, or why it is not.
func (s *Server) answerHello(info *Info, reason error) error {
	e := s.out.begin()
	e.raw([]byte(magic))
	e.u16(Version)
	e.err(reason)
	if reason == nil {
		e.info(info)
	}
	return s.out.end()
}

// hello is the client's side of it.
func (c *Client) hello(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	err := c.out.greet()
	var frame []byte
	if err == nil {
		frame, err = c.in.frame(maxServerHello)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: its process does not open it in time: %w", keyring.ErrToken, context.Cause(ctx))
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: its process ended before it had opened it; its log says why", keyring.ErrToken)
	case err != nil:
		return fmt.Errorf("%w: %w", keyring.ErrToken, err)
	}
	d := decoder{b: frame}
	if err := d.greeting(); err != nil {
		return err
	}
	if reason := d.err(); reason != nil {
		return reason
	}
	c.info = d.info()
	return d.done()
}
