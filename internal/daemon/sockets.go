package daemon

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"

	"joinery/internal/api"
	"joinery/internal/config"
	"joinery/internal/handover"
)

// Names of sockets, in socket units and between servers.
const (
	socketInterop  = "interop"
	socketOperator = "api-socket"
	socketAPI      = "api"
	socketAPITLS   = "api-tls"
	socketOps      = "ops"
	socketHandover = "handover"
)

// socketNames are those that a door serves.
var socketNames = []string{socketInterop, socketOperator, socketAPI, socketAPITLS, socketOps}

// bind gives every socket that c wants, or none: inherited ones, and new ones
// where there is none or where it is bound elsewhere. Inherited ones that are
// not wanted are left to whoever else has them.
func bind(c config.Config, inherited []handover.Socket) (sockets []handover.Socket, err error) {
	byName := map[string]handover.Socket{}
	for _, s := range inherited {
		byName[s.Name] = s
	}
	defer func() {
		for _, left := range byName {
			err = errors.Join(err, left.Close())
		}
		if err != nil {
			handover.CloseAll(sockets)
			sockets = nil
		}
	}()
	for _, want := range wanted(c) {
		if want.address == "" {
			continue
		}
		if s, ok := byName[want.name]; ok && (s.Kept || want.isAt(s.Addr())) {
			delete(byName, want.name)
			sockets = append(sockets, s)
			continue
		}
		l, err := want.listen(want.address)
		if err != nil {
			return sockets, err
		}
		listener, ok := l.(handover.Listener)
		if !ok {
			return sockets, errors.Join(fmt.Errorf("%s: a listener of type %T cannot be handed over", want.name, l), l.Close())
		}
		sockets = append(sockets, handover.Socket{Name: want.name, Listener: listener})
	}
	return sockets, nil
}

// wish is a socket that a configuration asks for.
type wish struct {
	name    string
	address string // "" is none
	isAt    func(net.Addr) bool
	listen  func(address string) (net.Listener, error)
}

func wanted(c config.Config) []wish {
	handoverPath := c.API.HandoverSocket()
	return []wish{
		{socketInterop, c.Interop.Address, sameTCP(c.Interop.Address), named("interop.address", listenTCP)},
		{socketOperator, c.API.Socket, samePath(c.API.Socket), func(path string) (net.Listener, error) {
			if err := c.API.CheckSocket(); err != nil {
				return nil, err
			}
			return api.ListenSocket(path)
		}},
		{socketHandover, handoverPath, samePath(handoverPath), named("socket for a successor", api.ListenSocket)},
		{socketAPI, c.API.Address, sameTCP(c.API.Address), named("api.address", api.ListenLoopback)},
		{socketAPITLS, c.API.TLS.Address, sameTCP(c.API.TLS.Address), named("api.tls.address", listenTCP)},
		{socketOps, c.Ops.Address, sameTCP(c.Ops.Address), named("ops.address", listenTCP)},
	}
}

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }

func named(name string, listen func(string) (net.Listener, error)) func(string) (net.Listener, error) {
	return func(address string) (net.Listener, error) {
		l, err := listen(address)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return l, nil
	}
}

func samePath(path string) func(net.Addr) bool {
	return func(a net.Addr) bool {
		u, ok := a.(*net.UnixAddr)
		return ok && filepath.Clean(u.Name) == filepath.Clean(path)
	}
}

// sameTCP tells whether a bound address is what a configured one asks for. Port
// 0 asks for any.
func sameTCP(address string) func(net.Addr) bool {
	return func(a net.Addr) bool {
		bound, ok := a.(*net.TCPAddr)
		if !ok {
			return false
		}
		asked, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return false
		}
		host := len(asked.IP) == 0 && bound.IP.IsUnspecified() || asked.IP.Equal(bound.IP)
		return host && (asked.Port == 0 || asked.Port == bound.Port)
	}
}

// addrOf is where the named socket is bound; nil where there is none.
func (p *Program) addrOf(name string) net.Addr {
	for _, s := range p.sockets {
		if s.Name == name {
			return s.Addr()
		}
	}
	return nil
}

// given tells what became of a server's sockets: once a successor has them, a
// path may lead to that one; once they are closed here, nobody gets them.
type given struct {
	mu     sync.Mutex
	away   bool
	closed bool
}

// giveSockets gives the sockets to a successor.
func (p *Program) giveSockets() ([]handover.Socket, error) {
	p.given.mu.Lock()
	defer p.given.mu.Unlock()
	if p.given.closed {
		return nil, errors.New("the server is stopping")
	}
	p.given.away = true
	return p.sockets, nil
}

// closeSockets lets nobody connect here any more, but on the socket named. Those
// that the service manager keeps go on to queue who does. Paths stay where a
// successor ever had the sockets, even one that failed as far as we know: one
// that is merely slow would serve where nobody finds it. A path to nobody harms
// no one, and the next server replaces it.
func (p *Program) closeSockets(but string) {
	p.given.mu.Lock()
	defer p.given.mu.Unlock()
	p.given.closed = true
	for _, s := range p.sockets {
		switch {
		case s.Name == but:
		case p.given.away:
			_ = s.Leave()
		default:
			_ = s.Close()
		}
	}
}

// leaveSockets leaves them to a successor.
func (p *Program) leaveSockets() {
	for _, s := range p.sockets {
		_ = s.Leave()
	}
}

// describe names the address of a socket for the log.
func (p *Program) describe(name string) string {
	a := p.addrOf(name)
	if a == nil {
		return "off"
	}
	if u, ok := a.(*net.UnixAddr); ok {
		return strconv.Quote(u.Name)
	}
	return a.String()
}
