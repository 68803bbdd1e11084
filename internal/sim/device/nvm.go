package device

import (
	"fmt"
	"slices"

	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// State is what a device keeps in non-volatile memory. It holds counters and
// identifiers and no key: session keys are derived again from the roots in the
// element.
type State struct {
	JoinEUI    lorawan.EUI64      `json:"joinEUI"`
	DevEUI     lorawan.EUI64      `json:"devEUI"`
	MACVersion lorawan.MACVersion `json:"macVersion"`

	// NextDevNonce is the DevNonce of the next join-request of a device that
	// counts; 65,536 when none is left.
	NextDevNonce uint32 `json:"nextDevNonce"`
	// LastDevNonce is that of the last join-request: an accept is checked and
	// keys are derived with it.
	LastDevNonce lorawan.DevNonce `json:"lastDevNonce"`
	// UsedDevNonces are those of a device that draws them, in rising order.
	UsedDevNonces []lorawan.DevNonce `json:"usedDevNonces,omitempty"`
	// JoinNonce is that of the last accept that the device took; 0 before.
	JoinNonce lorawan.JoinNonce `json:"joinNonce"`
	// NextRJCount0 starts anew in each session, NextRJCount1 never does
	// (TS001-1.1 §6.2.4); 65,536 when none is left.
	NextRJCount0 uint32 `json:"nextRJCount0"`
	NextRJCount1 uint32 `json:"nextRJCount1"`

	// Session is nil before the first join.
	Session *Session `json:"session,omitempty"`

	// Rekeyed is every instruction to rekey by which the element derived, oldest
	// first. In a chip that is one memory with the keys; here keys are made anew
	// from those of the factory each time that the device starts.
	Rekeyed []Rekeyed `json:"rekeyed,omitempty"`
	// AuthMAC is what an element of rekeying profile M wants before it derives; it
	// is brought to the device before an instruction can be obeyed.
	AuthMAC []byte `json:"authMAC,omitempty"`
}

// Rekeyed is one instruction to rekey that was obeyed.
type Rekeyed struct {
	JoinEUI lorawan.EUI64  `json:"joinEUI"`
	Cookie  lorawan.Cookie `json:"cookie"`
}

// Session is an activation as the device knows it: everything that its keys
// derive from, but for the roots.
type Session struct {
	// Type is 255 for a join, else the type of the rejoin.
	Type    element.JoinType `json:"type"`
	OptNeg  bool             `json:"optNeg"`
	JoinEUI lorawan.EUI64    `json:"joinEUI"`
	// Count is the DevNonce of a join, the RJcount of a rejoin.
	Count      uint16             `json:"count"`
	JoinNonce  lorawan.JoinNonce  `json:"joinNonce"`
	NetID      lorawan.NetID      `json:"netID"`
	DevAddr    lorawan.DevAddr    `json:"devAddr"`
	DLSettings lorawan.DLSettings `json:"dlSettings"`
	RxDelay    uint8              `json:"rxDelay"`
}

// Clone gives a copy that shares nothing with s.
func (s State) Clone() State {
	s.UsedDevNonces, s.Rekeyed, s.AuthMAC = slices.Clone(s.UsedDevNonces), slices.Clone(s.Rekeyed), slices.Clone(s.AuthMAC)
	if s.Session != nil {
		session := *s.Session
		s.Session = &session
	}
	return s
}

// NVM is a device's non-volatile memory. Save returns when the state would
// outlive a power cut; only then does the frame that caused it leave. It must
// not keep what State points to.
type NVM interface {
	Save(State) error
}

// afterLast is the next value of a 16-bit counter that is used up.
const afterLast = 1 << 16

// check refuses what no device could have saved.
func (s State) check() error {
	switch {
	case !s.MACVersion.Valid():
		return fmt.Errorf("device %v: no MACVersion", s.DevEUI)
	case s.NextDevNonce > afterLast || s.NextRJCount0 > afterLast || s.NextRJCount1 > afterLast:
		return fmt.Errorf("device %v: a counter is beyond 16 bits", s.DevEUI)
	case s.JoinNonce > lorawan.MaxJoinNonce:
		return fmt.Errorf("device %v: JoinNonce is beyond 24 bits", s.DevEUI)
	case !slices.IsSorted(s.UsedDevNonces):
		return fmt.Errorf("device %v: used DevNonces are not in order", s.DevEUI)
	case s.Session != nil && s.Session.OptNeg && !s.MACVersion.NegotiatesOptions():
		return fmt.Errorf("device %v: a 1.1 session on a %v device", s.DevEUI, s.MACVersion)
	}
	return nil
}
