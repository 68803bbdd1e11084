package chip

import "encoding/binary"

// Slots of an element that verifies firmware, beside those of a TNGLORA. It has no
// multicast keys: their slots are these.
const (
	SlotBootKey     = 11 // a private key that the chip uses only after a verified boot
	SlotBootDigest  = 12 // the digest of the image that was verified last
	SlotReleaseKey  = 15 // the maker's public key, under which images are verified
	BootCounter     = 1  // the monotonic counter against rollback
	slotIO          = 14
	secureBootByte0 = 0x1B // FullDig, verified boots open keys, a random nonce is a must
)

// SecureBoot turns the image of a TNGLORA into that of an element that verifies
// firmware: releaseKey is the maker's public key, X ‖ Y, bootKey a private key, 32
// bytes big-endian, and ioKey what protects the bus, 32 bytes, which the
// microcontroller has, too. What is changed of the configuration, in the order of the
// chip's memory:
//
//	bytes 42, 43  SlotConfig 11   8082: made and never written again; signs what the chip says itself
//	      44, 45  SlotConfig 12   8000: read by all, written by SecureBoot alone
//	      48, 49  SlotConfig 14   8F8F: never read, never written
//	      50, 51  SlotConfig 15   8000: read by all, never written
//	      70, 71  SecureBoot      FC1B: mode FullDig (3), SecureBootPersist (08), SecureBootRandNonce
//	                              (10); digest in slot 12, public key in slot 15
//	     118, 119 KeyConfig 11    1013: a private key on P-256, its public half may be asked for,
//	                              no use before a verified boot (PersistentDisable)
//	     120, 121 KeyConfig 12    001C: data
//	     126, 127 KeyConfig 15    0010: a public key on P-256
//
// Values are written high byte first here; memory has the low one first.
func (m *Image) SecureBoot(releaseKey [64]byte, bootKey, ioKey [32]byte) error {
	for slot, conf := range map[int][2]uint16{
		SlotBootKey: {0x8082, 0x1013}, SlotBootDigest: {0x8000, 0x001C}, slotIO: {0x8F8F, 0x007C}, SlotReleaseKey: {0x8000, 0x0010},
	} {
		binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*slot:], conf[0])
		binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*slot:], conf[1])
	}
	m.config[atSecureBoot], m.config[atSecureBoot+1] = secureBootByte0, SlotReleaseKey<<4|SlotBootDigest
	public := make([]byte, 72)
	copy(public[4:], releaseKey[:32])
	copy(public[40:], releaseKey[32:])
	for slot, b := range map[int][]byte{SlotBootDigest: make([]byte, 72), slotIO: ioKey[:], SlotReleaseKey: public} {
		if err := m.SetSlot(slot, b); err != nil {
			return err
		}
	}
	return m.SetPrivateKey(SlotBootKey, bootKey[:])
}
