package bus

import "joinery/internal/sim/chip"

// The slots of a TNGLORA chip that a session's keys live in.
const (
	slotAppSKey     = 2
	slotNwkSEncKey  = 3
	slotFNwkSIntKey = 5
)

// AppSKeyWatch finds devices that encrypt application payloads under a key that no join
// derived. A widely used driver takes the derivation of AppSKey from AppKey, which is
// that of LoRaWAN 1.1, for done without sending a command: MIC and network keys are
// right, so nobody notices, and payloads go out under whatever slot 2 held.
type AppSKeyWatch struct {
	// Warn is called once for each join after which slot 2 is used so.
	Warn func()

	network, app, warned [3]byte // JoinNonces, of the last derivations
	has                  struct{ network, app, warned bool }
}

// Watch takes a command and its answer; it is for Options.Watch of one bus.
func (w *AppSKeyWatch) Watch(packet, answer []byte) {
	if len(packet) < chip.MinCommand {
		return
	}
	op, p1, target, source := chip.Opcode(packet[1]), packet[2], packet[4], packet[3]
	if _, err := chip.Answer(answer); err != nil {
		return
	}
	switch {
	case op == chip.OpKDF && p1 == 0x2A && len(packet) >= 13:
		nonce := [3]byte(packet[10:13]) // behind the header of 5, details of 4 and the purpose
		switch {
		case target == slotAppSKey:
			w.app, w.has.app = nonce, true
		case target >= slotNwkSEncKey && target <= slotFNwkSIntKey:
			w.network, w.has.network = nonce, true
		}
	case op == chip.OpAES && source == slotAppSKey && target == 0:
		if !w.has.network || w.has.app && w.app == w.network || w.has.warned && w.warned == w.network {
			return
		}
		w.warned, w.has.warned = w.network, true
		w.Warn()
	}
}
