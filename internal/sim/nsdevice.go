package sim

import (
	"crypto/aes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"

	"joinery/internal/sim/aesmode"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// nsDevice is what a Network Server keeps of a device.
type nsDevice struct {
	sessions     []nsSession // newest first
	sessionKeyID []byte
}

// nsSession is a 1.1 session as far as rejoin-requests go.
type nsSession struct {
	devAddr      lorawan.DevAddr
	sNwkSIntKey  [element.KeySize]byte
	nextRJCount0 uint32
}

// keptSessions is how many a Network Server keeps of a device: the accept of a
// newer one may have been lost.
const keptSessions = 4

func (n *NS) device(devEUI lorawan.EUI64) *nsDevice {
	if n.devices[devEUI] == nil {
		n.devices[devEUI] = &nsDevice{}
	}
	return n.devices[devEUI]
}

func (n *NS) remember(devEUI lorawan.EUI64, s nsSession) {
	if n.forgetful {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.device(devEUI)
	d.sessions = slices.Insert(d.sessions, 0, s)
	d.sessions = d.sessions[:min(len(d.sessions), keptSessions)]
}

func (n *NS) checkSessionKeyID(c *Checks, devEUI lorawan.EUI64, id []byte) {
	if len(id) == 0 || n.forgetful {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.device(devEUI)
	c.add(ByNS, CheckSessionKeyID, !slices.Equal(d.sessionKeyID, id))
	d.sessionKeyID = id
}

// drawDevAddr draws an address of a network: the NetID's type in unary, the low
// bits of its identifier (NwkID), the rest at random (TS002-1.0, "DevAddr
// Assignment").
func drawDevAddr(netID lorawan.NetID) (a lorawan.DevAddr) {
	nwkIDBits := [8]int{6, 6, 9, 11, 12, 13, 15, 17}
	kind := int(netID[0] >> 5)
	id := uint32(netID[0]&0x1F)<<16 | uint32(netID[1])<<8 | uint32(netID[2])
	bits := nwkIDBits[kind]
	prefix := (uint32(1)<<kind - 1) << 1 // kind ones and a zero
	free := 32 - (kind + 1) - bits
	v := prefix<<(32-(kind+1)) | (id&(1<<bits-1))<<free | rand.Uint32()&(1<<free-1)
	binary.BigEndian.PutUint32(a[:], v)
	return a
}

// checkRejoin verifies a rejoin-request of type 0 or 2 as the network that
// holds the session does: MIC under its SNwkSIntKey, RJcount0 not used before
// (TS001-1.1 §6.2.4.1). A network that does not hold the session of devAddr,
// because it forgot or was never the home, makes no check.
func (n *NS) checkRejoin(c *Checks, p Parameters, devAddr lorawan.DevAddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.devices[p.DevEUI]
	if d == nil || !slices.ContainsFunc(d.sessions, func(s nsSession) bool { return s.devAddr == devAddr }) {
		return
	}
	c.addErr(ByNS, CheckRejoinMIC, d.takeRejoin(p.PHYPayload))
}

// takeRejoin finds the session that signed a frame and moves its RJcount0.
func (d *nsDevice) takeRejoin(phy []byte) error {
	f, err := lorawan.ParseRejoinRequest(phy)
	if err != nil {
		return err
	}
	for i := range d.sessions {
		s := &d.sessions[i]
		block, err := aes.NewCipher(s.sNwkSIntKey[:])
		if err != nil {
			return err
		}
		var sum [aes.BlockSize]byte
		aesmode.NewCMAC(block).Sum(&sum, nil, phy[:len(phy)-lorawan.MICLen])
		if lorawan.MIC(sum[:lorawan.MICLen]) != f.MIC {
			continue
		}
		if uint32(f.RJCount) < s.nextRJCount0 {
			return errors.New("RJcount0 was used before")
		}
		s.nextRJCount0 = uint32(f.RJCount) + 1
		return nil
	}
	return errors.New("no session has its key")
}
