package chip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// tempKeyID is the key number that means TempKey.
const tempKeyID = 0xFFFF

// Operations of AES, the lowest bits of p1; bits 6 and 7 say which 16 bytes of the
// slot are the key.
const (
	aesEncrypt = 0
	aesDecrypt = 1
	aesGFM     = 3
)

// aes is AES: one block under a slot's key or TempKey, or a multiplication in the
// field of GCM.
func (c *Chip) aes(q request) ([]byte, Status) {
	op := q.p1 & 7
	switch {
	case q.p1&0x38 != 0:
		return nil, BadParse
	case op == aesGFM && len(q.data) == 2*aes.BlockSize && q.p1 == aesGFM:
		return multiply(q.data[:aes.BlockSize], q.data[aes.BlockSize:]), OK
	case op != aesEncrypt && op != aesDecrypt, len(q.data) != aes.BlockSize:
		return nil, BadParse
	}
	block, s := c.aesKey(q.p2, int(q.p1>>6))
	if s != OK {
		return nil, s
	}
	out := make([]byte, aes.BlockSize)
	if op == aesEncrypt {
		block.Encrypt(out, q.data)
	} else {
		block.Decrypt(out, q.data)
	}
	return out, OK
}

// aesKey gives the cipher of 16 bytes of a slot or of TempKey.
func (c *Chip) aesKey(id uint16, place int) (cipher.Block, Status) {
	if c.nv.config[atAESEnable]&1 == 0 {
		return nil, Refused
	}
	if id == tempKeyID {
		if !c.ram.temp.valid || place >= 2 && !c.ram.temp.wide {
			return nil, Refused
		}
		return newAES(c.ram.temp.value[16*place:])
	}
	if id >= Slots {
		return nil, BadParse
	}
	slot, k := int(id), c.nv.keyConfig(int(id))
	switch {
	case 16*place+16 > SlotSize(slot):
		return nil, BadParse
	case k.private() || k.kind() != typeAES:
		return nil, Refused
	}
	if s := c.use(slot); s != OK {
		return nil, s
	}
	return newAES(c.nv.slot(slot)[16*place:])
}

func newAES(key []byte) (cipher.Block, Status) {
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		return nil, ECCFault // cannot be: the length is right
	}
	return block, OK
}

// multiply gives x · y in GF(2^128) as GCM does, the lowest bit first.
func multiply(x, y []byte) []byte {
	hi, lo := binary.BigEndian.Uint64(y), binary.BigEndian.Uint64(y[8:])
	var zHi, zLo uint64
	for i := range 128 {
		if x[i/8]&(0x80>>(i%8)) != 0 {
			zHi, zLo = zHi^hi, zLo^lo
		}
		carry := lo & 1
		lo = lo>>1 | hi<<63
		hi = hi>>1 ^ carry*(0xE1<<56)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, zHi), zLo)
}

// Modes of KDF: where the key is from, where the result goes, how it is made.
const (
	kdfFromTemp      = 0x00
	kdfFromTempUpper = 0x01
	kdfFromSlot      = 0x02
	kdfFromAlt       = 0x03
	kdfToTemp        = 0x00
	kdfToTempUpper   = 0x04
	kdfToSlot        = 0x08
	kdfToAlt         = 0x0C
	kdfOut           = 0x10
	kdfOutEncrypted  = 0x14
	kdfPRF           = 0x00
	kdfAES           = 0x20
	kdfHKDF          = 0x40
)

// kdf is KDF. p2 is source slot ‖ target slot, data is details, 4 bytes
// little-endian, and the message: 16 bytes for AES, else as many as the last byte of
// the details says.
//
//	AES   details say which 16 bytes of the source are the key; the result is
//	      AES(message) ‖ 16 zeros
//	PRF   P_SHA256 of TLS 1.2; details say how long the key is and whether the result
//	      has 32 or 64 bytes
//	HKDF  HMAC-SHA256(key, message); details say where the message is, or that the
//	      key is zeros
func (c *Chip) kdf(q request) ([]byte, Status) {
	if len(q.data) < 4 || q.p1&0x80 != 0 {
		return nil, BadParse
	}
	details, message := binary.LittleEndian.Uint32(q.data), q.data[4:]
	// The target is looked at first: a key whose uses are counted loses none for a
	// result that has no place.
	if s := c.kdfTarget(q); s != OK {
		return nil, s
	}
	var result []byte
	var s Status
	switch q.p1 & 0x60 {
	case kdfAES:
		result, s = c.kdfByAES(q, details, message)
	case kdfPRF:
		result, s = c.kdfByPRF(q, details, message)
	case kdfHKDF:
		result, s = c.kdfByHMAC(q, details, message)
	default:
		return nil, BadParse
	}
	if s != OK {
		return nil, s
	}
	return c.kdfPut(q, result)
}

// kdfTarget tells whether the result may go where it is to go.
func (c *Chip) kdfTarget(q request) Status {
	switch q.p1 & 0x1C {
	case kdfToTemp, kdfToTempUpper, kdfToAlt:
		return OK
	case kdfToSlot:
		slot := int(q.p2 >> 8)
		if slot >= Slots {
			return BadParse
		}
		k := c.nv.keyConfig(slot)
		if !c.nv.dataLocked() || k.private() || k.kind() == typeP256 || !k.pubInfo() || c.nv.slotLocked(slot) {
			return Refused
		}
		return OK
	case kdfOut:
		if c.nv.options().kdf() != outClear {
			return Refused
		}
		return OK
	case kdfOutEncrypted:
		if c.nv.options().kdf() > outEncrypted {
			return Refused
		}
		_, s := c.ioKey()
		return s
	}
	return BadParse
}

// kdfSource gives the key that a result is made of: at least 32 bytes. PRF and HKDF are
// HMACs, and have no slot's key that MAC may not use.
func (c *Chip) kdfSource(q request) ([]byte, Status) {
	switch q.p1 & 3 {
	case kdfFromTemp:
		if !c.ram.temp.valid {
			return nil, Refused
		}
		if c.ram.temp.wide {
			return c.ram.temp.value[:], OK
		}
		return c.ram.temp.value[:32], OK
	case kdfFromTempUpper:
		if !c.ram.temp.valid || !c.ram.temp.wide {
			return nil, Refused
		}
		return c.ram.temp.value[32:], OK
	case kdfFromAlt:
		if !c.ram.altValid {
			return nil, Refused
		}
		return c.ram.alt[:], OK
	}
	slot := int(q.p2 & 0xFF)
	if slot >= Slots {
		return nil, BadParse
	}
	k := c.nv.keyConfig(slot)
	if k.private() || k.kind() == typeP256 || (q.p1&0x60 == kdfAES) != (k.kind() == typeAES) {
		return nil, Refused
	}
	if q.p1&0x60 != kdfAES && c.nv.slotConfig(slot).noMac() {
		return nil, Refused
	}
	if s := c.use(slot); s != OK {
		return nil, s
	}
	return c.nv.slot(slot), OK
}

func (c *Chip) kdfByAES(q request, details uint32, message []byte) ([]byte, Status) {
	if len(message) != aes.BlockSize || details > 3 {
		return nil, BadParse
	}
	if !c.nv.options().kdfAES() || c.nv.config[atAESEnable]&1 == 0 {
		return nil, Refused
	}
	key, s := c.kdfSource(q)
	if s != OK {
		return nil, s
	}
	at := 16 * int(details)
	if at+16 > len(key) {
		return nil, BadParse
	}
	block, s := newAES(key[at:])
	if s != OK {
		return nil, s
	}
	out := make([]byte, 32)
	block.Encrypt(out, message)
	return out, OK
}

func (c *Chip) kdfByPRF(q request, details uint32, message []byte) ([]byte, Status) {
	if len(message) != int(details>>24) {
		return nil, BadParse
	}
	key, s := c.kdfSource(q)
	if s != OK {
		return nil, s
	}
	length := 16 * (1 + int(details&3))
	if length > len(key) {
		return nil, BadParse
	}
	size := 32
	if details&0x100 != 0 {
		size = 64
	}
	return prf(key[:length], message, size), OK
}

// prf is P_SHA256 (RFC 5246 §5), of which 32 or 64 bytes are taken.
func prf(key, seed []byte, size int) (out []byte) {
	h := hmac.New(sha256.New, key)
	sum := func(parts ...[]byte) []byte {
		h.Reset()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	for a := seed; len(out) < size; {
		a = sum(a)
		out = append(out, sum(a, seed)...)
	}
	return out
}

// Where the message of HKDF is, in the details.
const (
	messageInSlot  = 0
	messageInTemp  = 1
	messageInInput = 2
	messageWithIV  = 3
	keyIsZeros     = 4
)

func (c *Chip) kdfByHMAC(q request, details uint32, input []byte) ([]byte, Status) {
	length := int(details >> 24)
	message, s := c.kdfMessage(details, input, length)
	if s != OK {
		return nil, s
	}
	key := zeros[:32]
	if details&keyIsZeros == 0 {
		if key, s = c.kdfSource(q); s != OK {
			return nil, s
		}
		key = key[:32]
	}
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil), OK
}

// kdfMessage gives the message of HKDF. One "with IV" must have the two bytes that the
// configuration says where it says. No key is a message: under a key that the host
// knows, zeros for one, what comes out would tell it byte by byte.
func (c *Chip) kdfMessage(details uint32, input []byte, length int) ([]byte, Status) {
	switch from := details & 3; from {
	case messageInInput, messageWithIV:
		if len(input) != length {
			return nil, BadParse
		}
		at := int(c.nv.config[atKdfIvLoc])
		if from == messageWithIV && (at+2 > length || [2]byte(input[at:at+2]) != [2]byte(c.nv.config[atKdfIvStr:])) {
			return nil, Refused
		}
		return input, OK
	case messageInTemp:
		if !c.ram.temp.valid || length > 32 && !c.ram.temp.wide || length > 64 {
			return nil, Refused
		}
		return c.ram.temp.value[:length], OK
	}
	slot := int(details>>8) & 15
	if length > SlotSize(slot) {
		return nil, BadParse
	}
	conf, k := c.nv.slotConfig(slot), c.nv.keyConfig(slot)
	if k.private() || k.kind() == typeAES || conf.secret() || conf.noMac() {
		return nil, Refused
	}
	return c.nv.slot(slot)[:length], c.use(slot)
}

// kdfPut brings a result of 32 or 64 bytes to its place.
func (c *Chip) kdfPut(q request, result []byte) ([]byte, Status) {
	switch q.p1 & 0x1C {
	case kdfToTemp:
		c.ram.temp = tempKey{valid: true, given: true, wide: len(result) == 64}
		copy(c.ram.temp.value[:], result)
	case kdfToTempUpper:
		if len(result) != 32 || !c.ram.temp.valid {
			return nil, Refused
		}
		c.ram.temp.wide, c.ram.temp.given = true, true
		copy(c.ram.temp.value[32:], result)
	case kdfToAlt:
		if len(result) != 32 {
			return nil, Refused
		}
		c.ram.altValid = true
		copy(c.ram.alt[:], result)
	case kdfToSlot:
		target := c.nv.slot(int(q.p2 >> 8))
		if len(result) > len(target) {
			return nil, Refused
		}
		copy(target, result)
	case kdfOut:
		return result, OK
	default:
		return c.sealed(result)
	}
	return nil, OK
}

// sealed encrypts a secret for the bus: block i of 32 bytes XOR SHA-256(IO key ‖
// nonce[16i:16i+16]), and the nonce of 32 bytes behind.
func (c *Chip) sealed(secret []byte) ([]byte, Status) {
	key, s := c.ioKey()
	if s != OK {
		return nil, s
	}
	nonce := make([]byte, 32)
	if s := c.draw(nonce); s != OK {
		return nil, s
	}
	out := make([]byte, len(secret), len(secret)+32)
	for i := 0; i < len(secret); i += 32 {
		pad := c.digestOf(key, nonce[i/2:i/2+16])
		subtle.XORBytes(out[i:i+32], secret[i:i+32], pad[:])
	}
	return append(out, nonce...), OK
}
