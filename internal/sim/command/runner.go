package command

import (
	"context"
	"errors"
	"fmt"

	"joinery/internal/sim"
	"joinery/internal/sim/device"
	"joinery/internal/sim/lab"
	"joinery/lorawan"
)

// runner does steps with one device, one network and one application, and
// writes the report.
type runner struct {
	dev *lab.Device
	ns  *sim.NS
	as  *sim.AS // nil: none
	// home is set if the network is the one that the device is bound to.
	home bool
	// expect is the ResultCode that the user wants of the first step.
	expect  string
	options sim.JoinOptions
	last    *sim.Result
	report  report
}

// The steps by name, as --then takes them.
const (
	stepJoin     = "join"
	stepRepeat   = "repeat"
	stepReplay   = "replay"
	stepWrongMIC = "wrong-mic"
	stepAppSKey  = "appskey"
	stepRejoin0  = "rejoin0"
	stepRejoin1  = "rejoin1"
	stepRejoin2  = "rejoin2"
)

// do runs the steps in order; a step in which a check fails is the last.
func (r *runner) do(ctx context.Context, steps []string) error {
	for _, name := range steps {
		if err := r.step(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !r.report.OK {
			return nil
		}
		// A user who expects Success says that this network is the home.
		r.home = r.home || r.expect == sim.ResultSuccess
		r.expect = ""
	}
	return nil
}

func (r *runner) step(ctx context.Context, name string) error {
	switch name {
	case stepJoin:
		return r.join(ctx, r.expected(sim.ResultSuccess))
	case stepRepeat:
		return r.repeat(ctx)
	case stepReplay:
		return r.replay(ctx)
	case stepWrongMIC:
		return r.wrongMIC(ctx)
	case stepAppSKey:
		return r.appSKey(ctx)
	case stepRejoin0:
		return r.rejoin(ctx, lorawan.Rejoin0)
	case stepRejoin1:
		return r.rejoin(ctx, lorawan.Rejoin1)
	case stepRejoin2:
		return r.rejoin(ctx, lorawan.Rejoin2)
	}
	return errors.New("no such step: want join, repeat, replay, wrong-mic, appskey, rejoin0, rejoin1 or rejoin2")
}

// expected gives the code that must come: what the user said, else, from a
// network that the device is not bound to, UnknownDevEUI, whatever the device.
func (r *runner) expected(atHome string) string {
	switch {
	case r.expect != "":
		return r.expect
	case !r.home:
		return sim.ResultUnknownDevEUI
	}
	return atHome
}

func (r *runner) join(ctx context.Context, expect string) error {
	frame, err := r.dev.JoinRequest()
	if err != nil {
		return err
	}
	return r.send(ctx, frame, expect, fmt.Sprintf("Device %v joins network %v", r.dev.DevEUI(), r.ns.NetID()), "saves its counter, then sends a join-request")
}

// replay sends the last join-request again, as who recorded it on the air
// would: another network address makes it another request, so that the server
// cannot take it for a Network Server that missed its answer.
func (r *runner) replay(ctx context.Context) error {
	if r.dev.LastJoinRequest() == nil {
		if err := r.join(ctx, r.expected(sim.ResultSuccess)); err != nil || !r.report.OK {
			return err
		}
	}
	title := fmt.Sprintf("The last join-request of device %v is replayed", r.dev.DevEUI())
	return r.send(ctx, r.dev.LastJoinRequest(), r.expected(sim.ReplayCode(r.ns.Protocol())), title, "is silent; its last join-request was recorded on the air")
}

// wrongMIC sends a fresh join-request with one bit of its MIC flipped.
func (r *runner) wrongMIC(ctx context.Context) error {
	frame, err := r.dev.JoinRequest()
	if err != nil {
		return err
	}
	frame[len(frame)-1] ^= 1
	title := fmt.Sprintf("A join-request of device %v has a wrong MIC", r.dev.DevEUI())
	return r.send(ctx, frame, r.expected(sim.ResultMICFailed), title, "sends a join-request, one bit of its MIC flipped on the way")
}

func (r *runner) send(ctx context.Context, frame []byte, expect, title, did string) error {
	o := r.options
	o.Frame, o.Expect = frame, expect
	result, err := r.ns.Join(ctx, r.dev.Device, o)
	if err != nil {
		return err
	}
	return r.tell(result, title, did)
}

func (r *runner) rejoin(ctx context.Context, t lorawan.RejoinType) error {
	frame, err := r.dev.RejoinRequest(t)
	if err != nil {
		if errors.Is(err, device.ErrNoRejoin) {
			return fmt.Errorf("%w: join a 1.1 network first (--mac 1.1 --network 1.1)", err)
		}
		return err
	}
	o := r.options
	o.Frame, o.Expect = frame, r.expected(sim.ResultSuccess)
	result, err := r.ns.Rejoin(ctx, r.dev.Device, t, o)
	if err != nil {
		return err
	}
	return r.tell(result, fmt.Sprintf("Device %v rejoins network %v, type %d", r.dev.DevEUI(), r.ns.NetID(), t), "saves its counter, then sends a rejoin-request")
}

// repeat sends the last request again as its Network Server would that missed
// the answer.
func (r *runner) repeat(ctx context.Context) error {
	if r.last == nil {
		return errors.New("nothing was sent in this invocation that could be repeated")
	}
	result, err := r.ns.Repeat(ctx, r.last)
	if err != nil {
		return err
	}
	s := step{Title: "The Network Server missed the answer and asks again"}
	s.tell("NS", "sends the same request as before, TransactionID %d", result.TransactionID)
	s.tell("Join Server", "%s", outcome(result.ResultCode, result.Description))
	s.Checks = result.Checks
	r.report.add(s)
	return nil
}

func (r *runner) appSKey(ctx context.Context) error {
	if r.as == nil {
		return errors.New("sim.json has no as")
	}
	if r.dev.SessionKeyID() == nil {
		return errors.New("the device's session has no SessionKeyID: the server gave none, or the device never joined")
	}
	f, err := r.as.FetchAppSKey(ctx, sim.FetchOptions{
		JoinEUI: r.dev.JoinEUI(), DevEUI: r.dev.DevEUI(), SessionKeyID: r.dev.SessionKeyID(), Device: r.dev.Device,
		Expect: r.expect, ClearKey: r.options.AppSKey == sim.AppSKeyClear,
	})
	if err != nil {
		return err
	}
	s := step{Title: fmt.Sprintf("Application Server %s fetches the AppSKey of device %v", r.as.ASID(), r.dev.DevEUI())}
	s.tell("AS", "asks for SessionKeyID %X", r.dev.SessionKeyID())
	s.tell("Join Server", "%s", outcome(f.ResultCode, f.Description))
	s.Checks = f.Checks
	r.report.add(s)
	return nil
}

// tell reports an activation and remembers what the next invocation needs.
func (r *runner) tell(result *sim.Result, title, did string) error {
	r.last = result
	s := step{Title: title, Checks: result.Checks}
	p := result.Sent
	s.tell("device", "LoRaWAN %v, %s, %s: %X", r.dev.MACVersion(), did, counter(p.PHYPayload), p.PHYPayload)
	cfList := "no CFList"
	if p.CFList.IsPresent() {
		cfList = "a CFList"
	}
	s.tell("NS", "%s asks over Backend Interfaces %s (%s), TransactionID %d: MACVersion %v, DevAddr %v, DLSettings %02X, RxDelay %d, %s",
		r.ns.Name(), r.ns.Protocol(), r.ns.Dialect().Name, result.TransactionID, p.MACVersion, p.DevAddr, byte(p.DLSettings), p.RxDelay, cfList)
	s.tell("Join Server", "%s", outcome(result.ResultCode, result.Description))
	if result.ResultCode == sim.ResultSuccess {
		tellKeys(&s, result)
	}
	if result.Accepted.Rekeyed {
		s.tell("device", "is told to rekey: derives new root keys inside its element, forgets its session and asks for JoinEUI %v from now on", r.dev.JoinEUI())
	} else if result.Taken {
		s.tell("device", "takes the accept: JoinNonce %d, DevAddr %v, NetID %v, session of LoRaWAN %s",
			result.Accepted.JoinNonce, result.Accepted.DevAddr, result.Accepted.NetID, layout(result.Accepted.OptNeg))
	}
	r.report.add(s)
	return r.dev.Remember(r.ns, result)
}

// counter names the number in a request.
func counter(phy []byte) string {
	if f, err := lorawan.ParseJoinRequest(phy); err == nil {
		return fmt.Sprintf("DevNonce %d", f.DevNonce)
	}
	f, err := lorawan.ParseRejoinRequest(phy)
	if err != nil {
		return "no counter"
	}
	return fmt.Sprintf("RJcount %d", f.RJCount)
}

func tellKeys(s *step, result *sim.Result) {
	network := "in the clear"
	if result.NetworkKEK != "" {
		network = "wrapped under KEK " + result.NetworkKEK
	}
	app := "not there"
	switch result.AppSKey {
	case sim.AppSKeyWrapped:
		app = "wrapped under KEK " + result.AppSKeyKEK + ", closed to the network"
	case sim.AppSKeyClear:
		app = "in the clear: the network can read the application's data"
	case sim.AppSKeyByID:
		app = "kept back, to be fetched by SessionKeyID"
	}
	id := "no SessionKeyID"
	if len(result.SessionKeyID) > 0 {
		id = fmt.Sprintf("SessionKeyID %X", result.SessionKeyID)
	}
	s.tell("Join Server", "network session keys %s; AppSKey %s; %s; Lifetime %d s", network, app, id, result.Lifetime)
}

func layout(optNeg bool) string {
	if optNeg {
		return "1.1"
	}
	return "1.0.x"
}

// outcome is what a Join Server said.
func outcome(code, description string) string {
	switch {
	case code == "":
		return "gave no readable answer"
	case code == sim.ResultSuccess:
		return "answers Success"
	case description == "":
		return "refuses: " + code
	}
	return "refuses: " + code + ", " + description
}
