package lab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/silicon"
	"joinery/lorawan"
)

// Lab is an open sim.json with the state of its devices. One invocation has it
// at a time; the next one waits.
type Lab struct {
	// Elsewhere, unless it is nil, is told of each device that Device opens, by its
	// place over all silicon files: who keeps counters of his own raises those that
	// he moved.
	Elsewhere func(place int, s *device.State) error

	config    *Config
	recipient *silicon.Recipient // nil where there is no silicon
	state     *state
	links     []*sim.Link
}

// Open reads the configuration, opens the recipient key and takes the state.
func Open(configFile string) (*Lab, error) {
	c, err := readConfig(configFile)
	if err != nil {
		return nil, err
	}
	var recipient *silicon.Recipient
	if c.RecipientKey != "" {
		if recipient, err = silicon.LoadRecipient(c.RecipientKey); err != nil {
			return nil, err
		}
	}
	s, err := openState(c.State)
	if err != nil {
		return nil, err
	}
	return &Lab{config: c, recipient: recipient, state: s}, nil
}

// Close closes connections and lets the next invocation in.
func (l *Lab) Close() error {
	for _, link := range l.links {
		link.Close()
	}
	return l.state.close()
}

// PeerOptions say how a Network Server or Application Server speaks.
type PeerOptions struct {
	// Protocol is "1.0" (also for "") or "1.1".
	Protocol string
	// Dialect is a name that sim.ParseDialect knows.
	Dialect string
	// NSID overrides the one in sim.json, if not zero.
	NSID lorawan.EUI64
	// Forgetful makes a Network Server that keeps nothing of devices.
	Forgetful bool
	// Way makes the way to the Join Server at url, with a client certificate;
	// nil makes a sim.Link.
	Way func(url string, conf *tls.Config) (sim.Way, error)
}

// NS makes the Network Server of a name; "" is the first in sim.json.
func (l *Lab) NS(name string, o PeerOptions) (*sim.NS, error) {
	for _, c := range l.config.NS {
		if name != "" && c.Name != name {
			continue
		}
		dialect, err := sim.ParseDialect(o.Dialect)
		if err != nil {
			return nil, err
		}
		nsid, err := c.nsid()
		if err != nil {
			return nil, err
		}
		if !o.NSID.IsZero() {
			nsid = o.NSID
		}
		link, err := l.way(c.Cert, c.Key, o)
		if err != nil {
			return nil, fmt.Errorf("ns %s: %w", c.Name, err)
		}
		return sim.NewNS(sim.NSConfig{
			Name: c.Name, NetID: c.NetID, NSID: nsid, KEKs: plain(c.KEKs), Link: link,
			Protocol: o.Protocol, Dialect: dialect, Forgetful: o.Forgetful,
		})
	}
	return nil, fmt.Errorf("no ns is called %q; there are: %s", name, names(l.config.NS, func(c NSConfig) string { return c.Name }))
}

// HomeNS gives the name of the first Network Server of sim.json: the one that
// devices are taken to be bound to.
func (l *Lab) HomeNS() string { return l.config.NS[0].Name }

// AS makes the Application Server of a name; "" is the first in sim.json, nil
// if there is none.
func (l *Lab) AS(name string, o PeerOptions) (*sim.AS, error) {
	for _, c := range l.config.AS {
		if name != "" && c.Name != name {
			continue
		}
		dialect, err := sim.ParseDialect(o.Dialect)
		if err != nil {
			return nil, err
		}
		link, err := l.way(c.Cert, c.Key, o)
		if err != nil {
			return nil, fmt.Errorf("as %s: %w", c.Name, err)
		}
		return sim.NewAS(sim.ASConfig{Name: c.Name, ASID: c.ASID, KEKs: plain(c.KEKs), Link: link, Protocol: o.Protocol, Dialect: dialect})
	}
	if name == "" {
		return nil, nil
	}
	return nil, fmt.Errorf("no as is called %q; there are: %s", name, names(l.config.AS, func(c ASConfig) string { return c.Name }))
}

func plain(keks map[string]KEK) map[string][]byte {
	m := make(map[string][]byte, len(keks))
	for label, kek := range keks {
		m[label] = kek
	}
	return m
}

// way makes a way to the Join Server under a client certificate.
func (l *Lab) way(certFile, keyFile string, o PeerOptions) (sim.Way, error) {
	if err := silicon.CheckPrivate(keyFile); err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	pem, err := os.ReadFile(l.config.ServerCA)
	if err != nil {
		return nil, fmt.Errorf("serverCA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("serverCA: no certificate in " + l.config.ServerCA)
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if o.Way != nil {
		return o.Way(l.config.JoinServer, conf)
	}
	link := sim.NewLink(l.config.JoinServer, conf, 0)
	l.links = append(l.links, link)
	return link, nil
}

// HomeNetID gives the NetID of that Network Server.
func (l *Lab) HomeNetID() lorawan.NetID { return l.config.NS[0].NetID }
