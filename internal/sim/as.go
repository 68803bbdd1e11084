package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// ASConfig describes a simulated Application Server.
type ASConfig struct {
	Name string
	// ASID is its SenderID: text, agreed with the Join Server.
	ASID string
	// KEKs are the Application Server's own copies, by KEKLabel.
	KEKs map[string][]byte
	// Link leads to the Join Server with the Application Server's certificate;
	// nil for one that only opens what a network passes on.
	Link Way
	// Protocol is "1.0" (also for "") or "1.1".
	Protocol string
	Dialect  Dialect
}

// AS is a simulated Application Server. Safe for concurrent use.
type AS struct {
	name     string
	asID     string
	asIDJSON []byte
	keks     keks
	link     Way
	protocol string
	dialect  Dialect
}

// NewAS makes an Application Server.
func NewAS(c ASConfig) (*AS, error) {
	protocol, err := parseProtocol(c.Protocol)
	if err != nil {
		return nil, fmt.Errorf("AS %s: %w", c.Name, err)
	}
	if c.ASID == "" {
		return nil, fmt.Errorf("AS %s: it needs an AS-ID", c.Name)
	}
	dialect := c.Dialect
	if dialect.Name == "" {
		if dialect, err = ParseDialect(""); err != nil {
			return nil, err
		}
	}
	s := &AS{name: c.Name, asID: c.ASID, link: c.Link, protocol: protocol, dialect: dialect}
	if s.asIDJSON, err = jsontext.AppendQuote(nil, c.ASID); err != nil {
		return nil, fmt.Errorf("AS %s: AS-ID is not UTF-8", c.Name)
	}
	// Dialects are those of Network Servers; no Application Server is known
	// that cannot use a longer KEK.
	if s.keks, err = newKEKs(c.KEKs, false); err != nil {
		return nil, fmt.Errorf("AS %s: %w", c.Name, err)
	}
	return s, nil
}

// Name gives the name from the configuration.
func (s *AS) Name() string { return s.name }

// ASID gives the AS-ID.
func (s *AS) ASID() string { return s.asID }

// Send posts any body over the Application Server's link, unchecked.
func (s *AS) Send(ctx context.Context, body []byte) (*Reply, error) {
	if s.link == nil {
		return nil, fmt.Errorf("AS %s: no way to the Join Server", s.name)
	}
	return s.link.Send(ctx, body)
}

// FetchOptions say which AppSKey an Application Server asks for.
type FetchOptions struct {
	JoinEUI      lorawan.EUI64
	DevEUI       lorawan.EUI64
	SessionKeyID []byte
	// Device compares the key with its own, if its session is the one that
	// SessionKeyID names; nil compares with nothing.
	Device *device.Device
	// Expect is the ResultCode that must come; "" is Success.
	Expect string
	// ClearKey allows an AppSKey that is not wrapped.
	ClearKey bool
}

// Fetched is the answer to an AppSKeyReq, checked.
type Fetched struct {
	Checks      Checks
	Request     []byte
	Reply       *Reply
	ResultCode  string
	Description string
	KEK         string // KEKLabel, "" in the clear
}

// FetchAppSKey asks the Join Server for the AppSKey of a session.
func (s *AS) FetchAppSKey(ctx context.Context, o FetchOptions) (*Fetched, error) {
	q := request{
		dialect: &s.dialect, protocol: s.protocol, messageType: appSKeyReq, answerType: answerTo(appSKeyReq),
		transactionID: s.dialect.transactionID(), asID: s.asIDJSON, asIDText: s.asID, joinEUI: o.JoinEUI,
	}
	if len(o.SessionKeyID) == 0 {
		return nil, errors.New("AppSKey: no SessionKeyID to ask with")
	}
	f := &Fetched{Request: q.appendAppSKey(nil, o.DevEUI, o.SessionKeyID)}
	var err error
	if f.Reply, err = s.Send(ctx, f.Request); err != nil {
		return nil, err
	}
	c := &f.Checks
	a := checkForm(c, ByAS, &q, f.Reply, expected(o.Expect))
	if a == nil {
		return f, nil
	}
	f.ResultCode, f.Description = a.ResultCode, a.Description
	// DevEUI and SessionKeyID come back with a refusal, too: one client in the
	// field cannot read an answer without them.
	c.add(ByAS, CheckDevEUI, sameBinary(a.DevEUI, o.DevEUI[:]))
	c.add(ByAS, CheckSessionKeyEcho, bytes.Equal(a.SessionKeyID, o.SessionKeyID))
	if a.ResultCode != ResultSuccess {
		return f, nil
	}
	e := a.Keys[appSKey]
	if e == nil {
		c.add(ByAS, CheckAppSKeyOpens, false)
		c.because("there is none")
		return f, nil
	}
	f.KEK = e.KEKLabel
	s.checkEnvelope(c, e, o.ClearKey, o.Device)
	return f, nil
}

// checkEnvelope opens an AppSKey and compares it with the device's, unless d is
// nil.
func (s *AS) checkEnvelope(c *Checks, e *Envelope, clearOK bool, d *device.Device) {
	var key [element.KeySize]byte
	defer clear(key[:])
	if c.addErr(ByAS, CheckAppSKeyOpens, s.keks.open(e, clearOK, &key)) {
		if e.KEKLabel == "" {
			c.because("in the clear, as allowed")
		} else {
			c.because("under " + e.KEKLabel)
		}
	}
	if d != nil {
		c.add(ByAS, CheckAppSKey, d.HoldsSessionKey(element.AppSKey, key[:]))
	}
}
