package device

import (
	"crypto/sha256"
	"encoding/binary"

	"joinery/internal/evidence"
)

// possessionDomain is what stands in front of what an element signs to show that it
// is there; said here once more, so that server and simulator check each other.
const possessionDomain = "joinery attestation possession 1\x00"

// Possess answers a challenge with the device key: evidence of level L1, compact.
// digest and counter are what the software says of itself; the element signs whatever
// it is given. How the element is asked is behind Sign, and nowhere else.
func (d *Device) Possess(challenge [32]byte, digest [32]byte, counter uint32) ([]byte, error) {
	joinEUI, devEUI := d.JoinEUI(), d.DevEUI()
	message := append([]byte(possessionDomain), challenge[:]...)
	message = append(append(message, joinEUI[:]...), devEUI[:]...)
	message = binary.BigEndian.AppendUint32(append(message, digest[:]...), counter)
	p := evidence.Possession{Tag: [evidence.TagLen]byte(challenge[:]), Digest: digest, Counter: counter}
	var err error
	p.Signature, err = d.Sign(sha256.Sum256(message))
	return p.Bytes(), err
}
