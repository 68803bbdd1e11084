package device

import (
	"errors"
	"fmt"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// acceptOrder is the order in which a device tries what an accept may answer;
// a stack cannot see it from the frame, only a right MIC tells.
var acceptOrder = [...]element.JoinType{element.Join, element.Rejoin0, element.Rejoin1, element.Rejoin2}

// Indexes of acceptOrder.
const (
	waitJoin    = 0
	waitRejoin0 = 1
)

// Accepted is a join-accept that the device took.
type Accepted struct {
	Type   element.JoinType
	OptNeg bool
	lorawan.JoinAccept
	// Rekeyed: the accept carried an instruction to rekey, and the device obeyed.
	// It has no session now and joins at the new Join Server.
	Rekeyed bool
}

// HandleAccept processes a received join-accept as device stacks do: frame,
// MIC by each request that waits, JoinNonce, keys. The state changes, and is
// saved, only if all of it is right; a device whose state could not be saved
// keeps its old session. An accept that carries an instruction to rekey begins
// no session, where the element can obey; see Rekey.
func (d *Device) HandleAccept(phy []byte) (Accepted, error) {
	if len(phy) != lorawan.JoinAcceptLen && len(phy) != lorawan.JoinAcceptCFListLen || phy[0] != lorawan.MHDRJoinAccept {
		return Accepted{}, ErrFrame
	}
	a, err := d.open(phy)
	if err != nil {
		return Accepted{}, err
	}
	if err := d.checkJoinNonce(a); err != nil {
		return a, err
	}
	if r, ok := a.CFList.Rekey(); ok && a.Type == element.Join && d.canRekey() {
		a.Rekeyed = true
		return a, d.rekey(r, a.JoinNonce)
	}
	session := Session{
		Type: a.Type, OptNeg: a.OptNeg, JoinEUI: d.state.JoinEUI, Count: d.count(a.Type),
		JoinNonce: a.JoinNonce, NetID: a.NetID, DevAddr: a.DevAddr,
		DLSettings: a.DLSettings, RxDelay: a.RxDelay,
	}
	next := d.state
	next.JoinNonce = a.JoinNonce
	next.NextRJCount0 = 0 // TS001-1.1 §6.2.4.1
	next.Session = &session
	if err := d.save(next); err != nil {
		return Accepted{}, err
	}
	clear(d.waiting[:])
	return a, d.deriveSessionKeys(session)
}

// open finds the request that an accept answers and gives the accept's fields.
func (d *Device) open(phy []byte) (Accepted, error) {
	verdict := ErrUnsolicited
	for i, t := range acceptOrder {
		if !d.waiting[i] {
			continue
		}
		plain, optNeg, err := d.element.ProcessJoinAccept(d.accept[:0], t, d.state.JoinEUI, d.count(t), phy)
		switch {
		case err == nil:
			fields, err := lorawan.ParseJoinAccept(plain)
			if err != nil {
				return Accepted{}, fmt.Errorf("%w: %w", ErrFrame, err)
			}
			return Accepted{Type: t, OptNeg: optNeg, JoinAccept: fields}, nil
		case errors.Is(err, element.ErrVersion):
			return Accepted{}, ErrVersion
		case errors.Is(err, element.ErrMIC):
			verdict = ErrMIC
		default:
			return Accepted{}, fmt.Errorf("device %v: %w", d.state.DevEUI, err)
		}
	}
	return Accepted{}, verdict
}

// count gives the DevNonce or RJcount of the last request of a type; only asked
// for requests that went out.
func (d *Device) count(t element.JoinType) uint16 {
	switch t {
	case element.Rejoin0, element.Rejoin2:
		return uint16(d.state.NextRJCount0 - 1)
	case element.Rejoin1:
		return uint16(d.state.NextRJCount1 - 1)
	}
	return uint16(d.state.LastDevNonce)
}

// checkJoinNonce: above the last one in 1.1 (TS001-1.1 §6.2.3), another than
// the last one in 1.0.x, where it need not count (TS001-1.0.3 §6.2.5). The
// memory of a new device is 0, so 0 is refused by both.
func (d *Device) checkJoinNonce(a Accepted) error {
	if a.OptNeg && a.JoinNonce <= d.state.JoinNonce || a.JoinNonce == d.state.JoinNonce {
		return fmt.Errorf("%w: got %d, had %d", ErrJoinNonce, a.JoinNonce, d.state.JoinNonce)
	}
	return nil
}
