package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// NSConfig describes a simulated Network Server.
type NSConfig struct {
	Name  string
	NetID lorawan.NetID
	// NSID is sent as SenderNSID in 1.1 messages; zero: none is.
	NSID lorawan.EUI64
	// KEKs are the Network Server's own copies, by KEKLabel.
	KEKs map[string][]byte
	// Link leads to the Join Server with the Network Server's certificate.
	Link Way
	// Protocol is "1.0" (also for "") or "1.1".
	Protocol string
	Dialect  Dialect
	// Forgetful keeps nothing of devices: whether a SessionKeyID is new, or a
	// rejoin-request signed under a session, is then not checked. A million
	// devices fit into little memory so.
	Forgetful bool
}

// NS is a simulated Network Server: it forwards what devices send and checks
// what comes back. Safe for concurrent use; each device by one goroutine at a
// time.
type NS struct {
	name     string
	netID    lorawan.NetID
	nsid     lorawan.EUI64
	keks     keks
	link     Way
	protocol string
	dialect  Dialect
	// forgetful networks have no devices.
	forgetful bool

	mu      sync.Mutex
	devices map[lorawan.EUI64]*nsDevice
}

// NewNS makes a Network Server.
func NewNS(c NSConfig) (*NS, error) {
	protocol, err := parseProtocol(c.Protocol)
	if err != nil {
		return nil, fmt.Errorf("NS %s: %w", c.Name, err)
	}
	dialect := c.Dialect
	if dialect.Name == "" {
		if dialect, err = ParseDialect(""); err != nil {
			return nil, err
		}
	}
	n := &NS{
		name: c.Name, netID: c.NetID, link: c.Link, protocol: protocol, dialect: dialect,
		forgetful: c.Forgetful, devices: map[lorawan.EUI64]*nsDevice{},
	}
	if protocol == Protocol11 {
		n.nsid = c.NSID
		if dialect.only10 {
			return nil, fmt.Errorf("NS %s: %s speaks Backend Interfaces 1.0 only", c.Name, dialect.Name)
		}
		if dialect.needsNSID && n.nsid.IsZero() {
			return nil, fmt.Errorf("NS %s: %s sends an NSID with every 1.1 message: give one", c.Name, dialect.Name)
		}
	}
	if n.keks, err = newKEKs(c.KEKs, dialect.shortKEK); err != nil {
		return nil, fmt.Errorf("NS %s: %w", c.Name, err)
	}
	return n, nil
}

func parseProtocol(s string) (string, error) {
	switch s {
	case "", Protocol10:
		return Protocol10, nil
	case Protocol11:
		return Protocol11, nil
	}
	return "", errors.New("protocol: want 1.0 or 1.1")
}

// Name gives the name from the configuration.
func (n *NS) Name() string { return n.name }

// NetID gives the network's identifier.
func (n *NS) NetID() lorawan.NetID { return n.netID }

// Protocol gives the version of Backend Interfaces that n speaks.
func (n *NS) Protocol() string { return n.protocol }

// Dialect gives how n spells its messages.
func (n *NS) Dialect() Dialect { return n.dialect }

// Send posts any body over the Network Server's link, unchecked.
func (n *NS) Send(ctx context.Context, body []byte) (*Reply, error) { return n.link.Send(ctx, body) }

// JoinOptions say what a Network Server asks for and what must come of it. The
// zero value asks for a plain join that must succeed.
type JoinOptions struct {
	// Network is the highest version that the network speaks; zero: 1.1.
	Network lorawan.MACVersion
	// DevAddr is what the device gets; zero: one drawn in the network's range.
	DevAddr lorawan.DevAddr
	// DLSettings without OptNeg, which the versions decide.
	DLSettings lorawan.DLSettings
	RxDelay    uint8
	CFList     lorawan.CFList
	// Frame is sent instead of a fresh request of the device.
	Frame []byte
	// Alter may change what is sent; the checks look for what it left.
	Alter func(*Parameters)

	// Expect is the ResultCode that must come; "" is Success.
	Expect string
	// ClearKeys allows network session keys that are not wrapped.
	ClearKeys bool
	// AppSKey is how AppSKey must travel; "" allows all but in the clear.
	AppSKey AppSKeyWay
	// AS gets the AppSKey that came with the answer, and checks it.
	AS *AS
	// Lose loses the accept on air: the device stays as it is.
	Lose bool
	// Rekey says that an instruction to rekey must come in the place of CFList.
	Rekey bool
}

// Result is one activation, or the attempt of one, with all that was checked.
type Result struct {
	Checks Checks
	// Sent is what was asked for, TransactionID the message's.
	Sent          Parameters
	TransactionID uint32
	// Request is the message, Reply what came back.
	Request []byte
	Reply   *Reply
	// ResultCode and Description are the answer's.
	ResultCode  string
	Description string
	Lifetime    uint32
	// Accepted is what the device took; Taken tells whether it did.
	Accepted device.Accepted
	Taken    bool
	// NetworkKEK is the KEKLabel of the network session keys, "" in the clear.
	NetworkKEK string
	// AppSKey is how it came; AppSKeyKEK under which label.
	AppSKey      AppSKeyWay
	AppSKeyKEK   string
	SessionKeyID []byte

	query  request
	answer *answer
}

// OK tells whether every check holds.
func (r *Result) OK() bool { return r.Checks.OK() }

// Err names the checks that do not hold; nil if all do.
func (r *Result) Err() error { return r.Checks.Err() }

// Join has a device join: it makes the device's join-request, unless o.Frame
// is given, sends it as JoinReq, checks the answer as Network Server, gives the
// accept to the device and compares keys. An error means that no answer came or
// that the device could not send; whatever is wrong with an answer stands in
// the Result's checks.
func (n *NS) Join(ctx context.Context, d *device.Device, o JoinOptions) (*Result, error) {
	frame := o.Frame
	if frame == nil {
		var err error
		if frame, err = d.JoinRequest(); err != nil {
			return nil, err
		}
	}
	version := d.MACVersion()
	if o.Network.Valid() {
		version = min(version, o.Network) // "highest common version" (TS002-1.0, MACVersion)
	}
	return n.activate(ctx, d, element.Join, joinReq, n.parameters(d, frame, version, o), o)
}

// Relay sends a join-request of a device that nobody simulates, as JoinReq, and checks
// the form of the answer. accept is the join-accept for that device, nil where it was
// refused. What the device does with it is the device's: keys are not compared.
func (n *NS) Relay(ctx context.Context, frame []byte, version lorawan.MACVersion, o JoinOptions) (r *Result, accept []byte, err error) {
	request, err := lorawan.ParseJoinRequest(frame)
	if err != nil {
		return nil, nil, err
	}
	p := n.parametersOf(request.DevEUI, frame, version, o)
	r = &Result{Sent: p, query: n.request(joinReq, request.JoinEUI)}
	if err := n.exchange(ctx, r, expected(o.Expect)); err != nil {
		return nil, nil, err
	}
	if r.answer != nil && r.ResultCode == ResultSuccess {
		accept = r.answer.PHYPayload
	}
	return r, accept, nil
}

// Rejoin has a device send a rejoin-request of a type; as Join otherwise. Where
// the Network Server knows the session, and a refusal is not what is wanted, it
// verifies the frame of types 0 and 2 before it asks the Join Server (TS002-1.0
// §11.4).
func (n *NS) Rejoin(ctx context.Context, d *device.Device, t lorawan.RejoinType, o JoinOptions) (*Result, error) {
	frame := o.Frame
	if frame == nil {
		var err error
		if frame, err = d.RejoinRequest(t); err != nil {
			return nil, err
		}
	}
	return n.activate(ctx, d, element.JoinType(t), rejoinReq, n.parameters(d, frame, lorawan.MAC1_1, o), o)
}

// JoinBody gives the JoinReq that Join would send for a frame, for tests that
// damage it.
func (n *NS) JoinBody(d *device.Device, frame []byte, o JoinOptions) []byte {
	p := n.parameters(d, frame, d.MACVersion(), o)
	q := n.request(joinReq, d.JoinEUI())
	return q.appendJoin(nil, &p)
}

func (n *NS) parameters(d *device.Device, frame []byte, version lorawan.MACVersion, o JoinOptions) Parameters {
	return n.parametersOf(d.DevEUI(), frame, version, o)
}

func (n *NS) parametersOf(devEUI lorawan.EUI64, frame []byte, version lorawan.MACVersion, o JoinOptions) Parameters {
	p := Parameters{
		MACVersion: version, PHYPayload: frame, DevEUI: devEUI, DevAddr: o.DevAddr,
		DLSettings: o.DLSettings &^ 0x80, RxDelay: o.RxDelay, CFList: o.CFList,
	}
	if version.NegotiatesOptions() {
		p.DLSettings |= 0x80
	}
	if p.DevAddr == (lorawan.DevAddr{}) {
		p.DevAddr = drawDevAddr(n.netID)
	}
	if o.Alter != nil {
		o.Alter(&p)
	}
	return p
}

func (n *NS) request(messageType string, joinEUI lorawan.EUI64) request {
	return request{
		dialect: &n.dialect, protocol: n.protocol, messageType: messageType, answerType: answerTo(messageType),
		transactionID: n.dialect.transactionID(), netID: &n.netID, nsid: n.nsid, joinEUI: joinEUI,
	}
}

// activate sends one JoinReq or RejoinReq and checks all that comes of it.
func (n *NS) activate(ctx context.Context, d *device.Device, t element.JoinType, messageType string, p Parameters, o JoinOptions) (*Result, error) {
	r := &Result{Checks: make(Checks, 0, 32), Sent: p, query: n.request(messageType, d.JoinEUI())}
	if session, joined := d.Session(); joined && expected(o.Expect) == ResultSuccess && (t == element.Rejoin0 || t == element.Rejoin2) {
		n.checkRejoin(&r.Checks, p, session.DevAddr)
	}
	if err := n.exchange(ctx, r, expected(o.Expect)); err != nil {
		return nil, err
	}
	if r.answer == nil || r.answer.ResultCode != ResultSuccess {
		return r, nil
	}
	var keys [keyNames][element.KeySize]byte
	defer clear(keys[:])
	n.checkAnswer(r, o, &keys)
	n.checkSessionKeyID(&r.Checks, p.DevEUI, r.answer.SessionKeyID)
	if !o.Lose {
		n.deliver(r, d, t, o, &keys)
	}
	if o.AS != nil && r.answer.Keys[appSKey] != nil {
		o.AS.checkEnvelope(&r.Checks, r.answer.Keys[appSKey], o.AppSKey == AppSKeyClear, r.deviceIfTaken(d))
	}
	if p.DLSettings.OptNeg() {
		n.remember(p.DevEUI, nsSession{devAddr: p.DevAddr, sNwkSIntKey: keys[sNwkSIntKey]})
	}
	return r, nil
}

func expected(code string) string {
	if code == "" {
		return ResultSuccess
	}
	return code
}

func (r *Result) deviceIfTaken(d *device.Device) *device.Device {
	if r.Taken && !r.Accepted.Rekeyed {
		return d
	}
	return nil
}

// exchange sends r.query with r.Sent and makes the checks of form.
func (n *NS) exchange(ctx context.Context, r *Result, expect string) (err error) {
	r.TransactionID = r.query.transactionID
	r.Request = r.query.appendJoin(make([]byte, 0, 512), &r.Sent)
	if r.Reply, err = n.link.Send(ctx, r.Request); err != nil {
		return err
	}
	r.answer = checkForm(&r.Checks, ByNS, &r.query, r.Reply, expect)
	if a := r.answer; a != nil {
		r.ResultCode, r.Description, r.SessionKeyID = a.ResultCode, a.Description, a.SessionKeyID
		if a.Lifetime != nil {
			r.Lifetime = *a.Lifetime
		}
	}
	return nil
}

// Repeat sends the request of an earlier result again, with a TransactionID of
// its own, as a Network Server does that missed the answer. The answer must be
// the same but for that id.
func (n *NS) Repeat(ctx context.Context, earlier *Result) (*Result, error) {
	return n.RepeatExpecting(ctx, earlier, earlier.ResultCode)
}

// RepeatExpecting is Repeat with the ResultCode that must come: a Join Server
// refuses what comes too late to be a repeat.
func (n *NS) RepeatExpecting(ctx context.Context, earlier *Result, expect string) (*Result, error) {
	if earlier.answer == nil {
		return nil, errors.New("repeat: the earlier request had no answer")
	}
	r := &Result{Sent: earlier.Sent, query: earlier.query}
	r.query.transactionID = n.dialect.transactionID()
	if err := n.exchange(ctx, r, expect); err != nil {
		return nil, err
	}
	if expect != earlier.ResultCode {
		return r, nil
	}
	r.Checks.add(ByNS, CheckSameAnswer, r.answer != nil && r.answer.same(earlier.answer))
	return r, nil
}
