package load

import "joinery/lorawan"

// drawn gives the nth DevNonce, from 0, of a device that does not count. Devices
// of LoRaWAN 1.0.3 and before draw them at random (TS001-1.0.3 §6.2.4), and the
// better ones remember what they used. This order looks as random to a server
// and never repeats, so that its place is all there is to remember: a Feistel
// network over the 16 bits, keyed by the device.
func drawn(devEUI lorawan.EUI64, n uint16) lorawan.DevNonce {
	key := devEUI.Uint64()
	left, right := byte(n>>8), byte(n)
	for round := range uint64(4) {
		left, right = right, left^mixed(key, round<<8|uint64(right))
	}
	return lorawan.DevNonce(left)<<8 | lorawan.DevNonce(right)
}

// mixed gives a byte in which every bit of both depends on all of theirs
// (splitmix64's finish).
func mixed(key, v uint64) byte {
	x := key + v*0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return byte(x ^ x>>31)
}
