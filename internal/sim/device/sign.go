package device

// Sign has the device's element sign a SHA-256 digest with its device key; see
// element.Element.Sign.
func (d *Device) Sign(digest [32]byte) (signature [64]byte, err error) {
	return d.element.Sign(digest)
}
