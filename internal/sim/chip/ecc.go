package chip

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"math/big"
)

// The two states of a public key that must be validated: the high four bits of its
// slot's first byte.
const (
	isValidated  = 0x50
	notValidated = 0xA0
)

func validated(slot []byte) bool { return slot[0]&0xF0 == isValidated }

// private gives the private key of a slot.
func (c *Chip) private(slot int) (*ecdh.PrivateKey, Status) {
	if k := c.nv.keyConfig(slot); !k.private() || k.kind() != typeP256 {
		return nil, Refused
	}
	key, err := ecdh.P256().NewPrivateKey(c.nv.slot(slot)[4:36])
	if err != nil {
		return nil, Refused
	}
	return key, OK
}

// tempPrivate gives the private key that GenKey left in TempKey.
func (c *Chip) tempPrivate() (*ecdh.PrivateKey, Status) {
	if !c.ram.temp.valid {
		return nil, Refused
	}
	key, err := ecdh.P256().NewPrivateKey(c.ram.temp.value[:32])
	if err != nil {
		return nil, Refused
	}
	return key, OK
}

// public gives the public key of a slot, X ‖ Y: each stands there behind four bytes.
func (c *Chip) public(slot int) ([]byte, Status) {
	k := c.nv.keyConfig(slot)
	if k.private() || k.kind() != typeP256 || SlotSize(slot) < 72 {
		return nil, Refused
	}
	b := c.nv.slot(slot)
	return append(append(make([]byte, 0, 64), b[4:36]...), b[40:72]...), OK
}

// Modes of GenKey.
const (
	genPublic       = 0x00
	genPrivate      = 0x04
	genDigest       = 0x08 // and the digest of the public key into TempKey
	genDigestPublic = 0x10 // only that, of the public key in a slot
)

// genKey is GenKey: it draws a private key, gives its public one, X ‖ Y, and puts the
// digest of a public key into TempKey. p2 FFFF is a key for once, in TempKey.
func (c *Chip) genKey(q request) ([]byte, Status) {
	if !c.nv.configLocked() {
		return nil, Refused
	}
	if q.p1 == genDigestPublic {
		return nil, c.digestPublic(q)
	}
	if q.p1&^(genPrivate|genDigest) != 0 || len(q.data) != 0 && len(q.data) != 3 {
		return nil, BadParse
	}
	if q.p2 == tempKeyID {
		return c.genTemp(q)
	}
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	k := c.nv.keyConfig(slot)
	switch {
	case !k.private() || k.kind() != typeP256, q.p1&genDigest != 0 && !c.ram.temp.valid:
		return nil, Refused
	case q.p1&genPrivate != 0:
		if s := c.drawPrivate(slot); s != OK {
			return nil, s
		}
	case !k.pubInfo():
		return nil, Refused
	}
	key, s := c.private(slot)
	if s != OK {
		return nil, s
	}
	public := key.PublicKey().Bytes()[1:]
	if q.p1&genDigest != 0 {
		c.keepDigest(q.header()[1:], slot, public)
	}
	return public, OK
}

// drawPrivate draws a private key into its slot. That is no use of the key that was
// there: it is not counted, and needs no latch.
func (c *Chip) drawPrivate(slot int) Status {
	k := c.nv.keyConfig(slot)
	switch {
	case c.nv.dataLocked() && !c.nv.slotConfig(slot).generates(), c.nv.slotLocked(slot):
		return Refused
	case k.reqAuth() && c.ram.authorised != k.authKey()+1:
		return Refused
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return ECCFault
	}
	clear(c.nv.slot(slot)[:4])
	copy(c.nv.slot(slot)[4:36], key.Bytes())
	return OK
}

// genTemp draws a key into TempKey, for one ECDH.
func (c *Chip) genTemp(q request) ([]byte, Status) {
	if q.p1 != genPrivate {
		return nil, BadParse
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, ECCFault
	}
	c.ram.temp = tempKey{valid: true}
	copy(c.ram.temp.value[:], key.Bytes())
	return key.PublicKey().Bytes()[1:], OK
}

// digestPublic puts the digest of a public key in a slot into TempKey; data is three
// bytes that stand for p1 and p2 in it.
func (c *Chip) digestPublic(q request) Status {
	slot, s := q.key()
	switch {
	case s != OK:
		return s
	case len(q.data) != 3:
		return BadParse
	case !c.ram.temp.valid:
		return Refused
	}
	public, s := c.public(slot)
	if s != OK {
		return s
	}
	c.keepDigest(q.data, slot, public)
	return OK
}

// keepDigest makes TempKey SHA-256(TempKey 32 ‖ 40 ‖ other 3 ‖ SN[8] ‖ SN[0:2] ‖ 25
// zeros ‖ X ‖ Y).
func (c *Chip) keepDigest(other []byte, slot int, public []byte) {
	sum := c.digestOf(c.ram.temp.value[:32], []byte{byte(OpGenKey)}, other, c.serial3(), zeros[:25], public)
	c.ram.temp = tempKey{valid: true, given: c.ram.temp.given, genKey: true, noMac: c.ram.temp.noMac, slot: slot}
	copy(c.ram.temp.value[:], sum[:])
}

// Modes of Sign.
const (
	signInvalidate = 0x01
	signDigestBuf  = 0x20
	signSerial     = 0x40
	signExternal   = 0x80
)

// sign is Sign with the private key of slot p2: of a digest that the host gave, in
// TempKey or the message digest buffer, or of what the chip itself made of its state
// by GenDig or GenKey. The answer is r ‖ s.
func (c *Chip) sign(q request) ([]byte, Status) {
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	if q.p1&^(signInvalidate|signDigestBuf|signSerial|signExternal) != 0 || len(q.data) != 0 {
		return nil, BadParse
	}
	conf := c.nv.slotConfig(slot)
	var digest [32]byte
	if q.p1&signExternal != 0 {
		if !conf.signsExternal() {
			return nil, Refused
		}
		if digest, s = c.message(q.p1&signDigestBuf != 0); s != OK {
			return nil, s
		}
	} else {
		if !conf.signsInternal() || q.p1&signDigestBuf != 0 || !c.ram.temp.valid || !c.ram.temp.genDig && !c.ram.temp.genKey {
			return nil, Refused
		}
		digest = c.ownMessage(q)
	}
	key, s := c.private(slot)
	if s != OK {
		return nil, s
	}
	if s := c.use(slot); s != OK {
		return nil, s
	}
	if q.p1&signDigestBuf == 0 {
		c.ram.temp = tempKey{}
	}
	return signature(key.Bytes(), digest[:])
}

func signature(scalar, digest []byte) ([]byte, Status) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return nil, ECCFault
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		return nil, ECCFault
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out, OK
}

// message gives the digest that the host put into TempKey or the message digest
// buffer.
func (c *Chip) message(inBuffer bool) (digest [32]byte, s Status) {
	switch {
	case inBuffer && c.ram.digestLen >= 32:
		return [32]byte(c.ram.digest[:32]), OK
	case !inBuffer && c.ram.temp.valid:
		return [32]byte(c.ram.temp.value[:32]), OK
	}
	return digest, Refused
}

// ownMessage gives the digest of the 55 bytes that the chip says of itself: TempKey 32
// ‖ 41 ‖ p1 ‖ p2 ‖ SlotConfig 2 ‖ KeyConfig 2 ‖ TempKey's flags ‖ 0 ‖ 0 ‖ SN[8] ‖
// SN[4:8] ‖ SN[0:2] ‖ SN[2:4] ‖ not locked ‖ validated ‖ 0.
func (c *Chip) ownMessage(q request) [32]byte {
	t, sn := &c.ram.temp, c.nv.Serial()
	middle, end := zeros[:4], zeros[:2]
	if q.p1&signSerial != 0 {
		middle, end = sn[4:8], sn[2:4]
	}
	k := c.nv.keyConfig(t.slot)
	valid := byte(0)
	if !k.private() && k.kind() == typeP256 && k.pubInfo() && validated(c.nv.slot(t.slot)) {
		valid = 1
	}
	return c.digestOf(t.value[:32], q.header(), c.nv.config[atSlotConfig+2*t.slot:][:2], c.nv.config[atKeyConfig+2*t.slot:][:2],
		[]byte{t.flags(), 0, 0}, sn[8:], middle, sn[:2], end, []byte{c.openBit(t.slot), valid, 0})
}

// Modes of Verify.
const (
	verifyStored     = 0
	verifyExternal   = 2
	verifyValidate   = 3
	verifyInvalidate = 7
	verifyDigestBuf  = 0x20
	verifyMAC        = 0x80
)

// verify is Verify of a signature, r ‖ s, which data begins with: under the public key
// in slot p2, or under one that follows. Or it validates and invalidates the public
// key in slot p2, by a signature under the key that its configuration names. With a
// MAC, the answer is SHA-256(IO key ‖ digest ‖ system nonce 32 ‖ signature ‖ 45 ‖ p1 ‖
// p2), the nonce standing in the second half of the message digest buffer.
func (c *Chip) verify(q request) ([]byte, Status) {
	if q.p1&^(7|verifyDigestBuf|verifyMAC) != 0 || len(q.data) < 64 {
		return nil, BadParse
	}
	switch q.p1 & 7 {
	case verifyStored, verifyExternal:
		return c.verifyMessage(q)
	case verifyValidate, verifyInvalidate:
		return nil, c.validate(q)
	}
	return nil, BadParse
}

func (c *Chip) verifyMessage(q request) ([]byte, Status) {
	var public []byte
	if q.p1&7 == verifyExternal {
		if len(q.data) != 128 || q.p2 != typeP256 {
			return nil, BadParse
		}
		public = q.data[64:]
	} else {
		slot, s := q.key()
		if s != OK {
			return nil, s
		}
		if len(q.data) != 64 {
			return nil, BadParse
		}
		if public, s = c.trusted(slot); s != OK {
			return nil, s
		}
	}
	digest, s := c.message(q.p1&verifyDigestBuf != 0)
	if s != OK {
		return nil, s
	}
	if s := c.verified(public, digest[:], q.data[:64]); s != OK || q.p1&verifyMAC == 0 {
		return nil, s
	}
	key, s := c.ioKey()
	if s != OK {
		return nil, s
	}
	if q.p1&verifyDigestBuf == 0 || c.ram.digestLen < 64 {
		return nil, Refused
	}
	sum := c.digestOf(key, digest[:], c.ram.digest[32:], q.data[:64], q.header())
	return sum[:], OK
}

// trusted gives the public key of a slot, if it may verify.
func (c *Chip) trusted(slot int) ([]byte, Status) {
	public, s := c.public(slot)
	if s != OK {
		return nil, s
	}
	if c.nv.keyConfig(slot).pubInfo() && !validated(c.nv.slot(slot)) {
		return nil, Refused
	}
	return public, c.use(slot)
}

// verified checks a signature. A key that is no point of the curve is refused.
func (c *Chip) verified(public, digest, sig []byte) Status {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, public...))
	if err != nil {
		return Refused
	}
	if !ecdsa.Verify(key, digest, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:64])) {
		return Miscompare
	}
	return OK
}

// validate marks the public key in slot p2 as one that may verify, or no longer may.
// The signature, under the key in the slot that ReadKey names, is of what the Sign
// command of a chip says of that key: data is signature 64 and 19 bytes of that
// message; TempKey is the digest that GenKey made of the key.
func (c *Chip) validate(q request) Status {
	slot, s := q.key()
	if s != OK {
		return s
	}
	if len(q.data) != 64+19 || q.p1&(verifyDigestBuf|verifyMAC) != 0 {
		return BadParse
	}
	k, t, other := c.nv.keyConfig(slot), &c.ram.temp, q.data[64:]
	if k.private() || k.kind() != typeP256 || !k.pubInfo() || !t.valid || !t.genKey || t.slot != slot {
		return Refused
	}
	parent, s := c.trusted(c.nv.slotConfig(slot).readKey())
	if s != OK {
		return s
	}
	sn := c.nv.Serial()
	digest := c.digestOf(t.value[:32], []byte{byte(OpSign)}, other[:10], sn[8:], other[10:14], sn[:2], other[14:])
	if s := c.verified(parent, digest[:], q.data[:64]); s != OK {
		return s
	}
	mark := byte(isValidated)
	if q.p1&7 == verifyInvalidate {
		mark = notValidated
	}
	b := c.nv.slot(slot)
	b[0] = b[0]&0x0F | mark
	return OK
}

// Modes of ECDH.
const (
	ecdhFromTemp  = 0x01
	ecdhEncrypted = 0x02
	ecdhTargets   = 0x0C
	ecdhAsSlot    = 0x00 // as the slot's configuration says
	ecdhToSlot    = 0x04
	ecdhToTemp    = 0x08
	ecdhOut       = 0x0C
)

// ecdh is ECDH of a private key, in slot p2 or TempKey, with the public key X ‖ Y. The
// secret, the X of the point, goes into the slot behind, into TempKey, or out.
func (c *Chip) ecdh(q request) ([]byte, Status) {
	if q.p1&^(ecdhFromTemp|ecdhEncrypted|ecdhTargets) != 0 || len(q.data) != 64 {
		return nil, BadParse
	}
	target := q.p1 & ecdhTargets
	key, s := c.ecdhKey(q, &target)
	if s != OK {
		return nil, s
	}
	other, err := ecdh.P256().NewPublicKey(append([]byte{4}, q.data...))
	if err != nil {
		return nil, Refused
	}
	secret, err := key.ECDH(other)
	if err != nil {
		return nil, ECCFault
	}
	switch target {
	case ecdhToTemp:
		c.ram.temp = tempKey{valid: true, given: true}
		copy(c.ram.temp.value[:], secret)
		return nil, OK
	case ecdhToSlot:
		return nil, c.ecdhPut(int(q.p2)|1, secret)
	}
	switch prot := c.nv.options().ecdh(); {
	case q.p1&ecdhEncrypted != 0 && prot <= outEncrypted:
		return c.sealed(secret)
	case q.p1&ecdhEncrypted == 0 && prot == outClear:
		return secret, OK
	}
	return nil, Refused
}

// ecdhKey gives the private key, and where its configuration decides on the target,
// that.
func (c *Chip) ecdhKey(q request, target *byte) (*ecdh.PrivateKey, Status) {
	if q.p1&ecdhFromTemp != 0 {
		if *target == ecdhAsSlot || *target == ecdhToSlot {
			return nil, BadParse
		}
		return c.tempPrivate()
	}
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	conf := c.nv.slotConfig(slot)
	if !conf.agrees() {
		return nil, Refused
	}
	if *target == ecdhAsSlot {
		*target = ecdhOut
		if conf.agreesInside() {
			*target = ecdhToSlot
		}
	}
	key, s := c.private(slot)
	if s != OK {
		return nil, s
	}
	return key, c.use(slot)
}

// ecdhPut writes a secret into a slot for keys.
func (c *Chip) ecdhPut(slot int, secret []byte) Status {
	k := c.nv.keyConfig(slot)
	if k.private() || k.kind() == typeP256 || c.nv.slotLocked(slot) || !c.nv.slotConfig(slot).secret() {
		return Refused
	}
	copy(c.nv.slot(slot), secret)
	return OK
}

// privWrite is PrivWrite: data is 36 bytes, four of zeros and a private key, and a MAC
// of 32. Encrypted, the first 32 bytes are XOR TempKey and the others XOR the first
// ones of SHA-256(TempKey); the MAC is SHA-256(TempKey ‖ 46 ‖ p1 ‖ p2 ‖ SN[8] ‖ SN[0:2]
// ‖ 21 zeros ‖ plaintext 36). In the clear it works until the data zone is locked.
func (c *Chip) privWrite(q request) ([]byte, Status) {
	slot, s := q.key()
	if s != OK {
		return nil, s
	}
	if q.p1&^flagEncrypted != 0 || len(q.data) != 36 && len(q.data) != 68 {
		return nil, BadParse
	}
	k, conf := c.nv.keyConfig(slot), c.nv.slotConfig(slot)
	sealed := q.p1&flagEncrypted != 0
	switch {
	case !c.nv.configLocked(), !k.private(), k.kind() != typeP256, c.nv.slotLocked(slot):
		return nil, Refused
	case c.nv.dataLocked() && (!sealed || !conf.writeEncrypted()):
		return nil, Refused
	case sealed && (len(q.data) != 68 || !c.authorisedBy(conf.writeKey())):
		return nil, Refused
	}
	plain := append([]byte{}, q.data[:36]...)
	defer clear(plain)
	if sealed {
		temp := c.ram.temp.value[:32]
		pad := c.digestOf(temp)
		subtle.XORBytes(plain, plain, temp)
		subtle.XORBytes(plain[32:], plain[32:], pad[:4])
		mac := c.digestOf(temp, q.header(), c.serial3(), zeros[:21], plain)
		c.ram.temp = tempKey{}
		if subtle.ConstantTimeCompare(mac[:], q.data[36:]) != 1 {
			return nil, Miscompare
		}
	}
	if _, err := ecdh.P256().NewPrivateKey(plain[4:]); err != nil {
		return nil, Refused
	}
	copy(c.nv.slot(slot), plain)
	return nil, OK
}
