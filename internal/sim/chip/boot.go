package chip

import (
	"crypto/subtle"
	"encoding/binary"
)

// secureBootConfig is the 16 bits that say how SecureBoot works, and with which slots.
type secureBootConfig uint16

func (m *Image) secureBoot() secureBootConfig {
	return secureBootConfig(binary.LittleEndian.Uint16(m.config[atSecureBoot:]))
}

// Kinds of secure boot: what is kept in the slot beside the public key.
const (
	bootDisabled  = 0
	bootBoth      = 1 // nothing: each boot brings a signature
	bootSignature = 2
	bootDigest    = 3
)

func (b secureBootConfig) kind() int      { return int(b & 3) }
func (b secureBootConfig) latches() bool  { return b&(1<<3) != 0 } // success sets PersistentLatch
func (b secureBootConfig) random() bool   { return b&(1<<4) != 0 } // wants a random nonce
func (b secureBootConfig) kept() int      { return int(b>>8) & 15 }
func (b secureBootConfig) publicKey() int { return int(b>>12) & 15 }

// Modes of SecureBoot.
const (
	bootFull      = 5
	bootStored    = 6
	bootCopy      = 7
	bootProhibit  = 0x40 // no other SecureBoot before the next power cycle
	bootEncrypted = 0x80 // the digest comes encrypted, and a MAC answers
)

// secureBoot is SecureBoot: data is the SHA-256 digest of the firmware, and but for
// mode 6 the signature of it, r ‖ s. Full verifies the signature under the public key
// in the configured slot; Stored compares with the digest, or verifies the signature,
// that a Copy kept before; Copy is Full and keeps it. Encrypted, the digest is XOR K =
// SHA-256(IO key ‖ TempKey), and success answers SHA-256(K ‖ digest ‖ signature, where
// one was sent ‖ 80 ‖ p1 ‖ p2).
func (c *Chip) secureBoot(q request) ([]byte, Status) {
	conf, mode := c.nv.secureBoot(), q.p1&7
	if q.p1&0x38 != 0 || mode < bootFull || q.p2 != 0 {
		return nil, BadParse
	}
	length := 32 + 64
	if mode == bootStored {
		length = 32
	}
	switch {
	case len(q.data) != length:
		return nil, BadParse
	case !c.nv.dataLocked(), c.bootDone, conf.kind() == bootDisabled, conf.kind() == bootBoth && mode != bootFull:
		return nil, Refused
	case conf.random() && q.p1&bootEncrypted == 0:
		return nil, Refused
	}
	digest, k := [32]byte(q.data), [32]byte{}
	if q.p1&bootEncrypted != 0 {
		key, s := c.ioKey()
		if s != OK {
			return nil, s
		}
		if t := &c.ram.temp; !t.valid || conf.random() && t.given {
			return nil, Refused
		}
		k = c.digestOf(key, c.ram.temp.value[:32])
		c.ram.temp = tempKey{}
		subtle.XORBytes(digest[:], digest[:], k[:])
	}
	s := c.boot(conf, mode, digest, q.data[32:])
	if conf.latches() {
		c.latch = s == OK
	}
	if q.p1&bootProhibit != 0 {
		c.bootDone = true
	}
	if s != OK || q.p1&bootEncrypted == 0 {
		return nil, s
	}
	sum := c.digestOf(k[:], digest[:], q.data[32:], q.header())
	return sum[:], OK
}

// boot verifies a digest, and keeps what Copy keeps.
func (c *Chip) boot(conf secureBootConfig, mode byte, digest [32]byte, sig []byte) Status {
	kept := c.nv.slot(conf.kept())
	if mode == bootStored {
		if conf.kind() == bootDigest {
			if subtle.ConstantTimeCompare(kept[:32], digest[:]) != 1 {
				return Miscompare
			}
			return OK
		}
		if len(kept) < 64 {
			return Refused
		}
		sig = kept[:64]
	}
	public, s := c.trusted(conf.publicKey())
	if s != OK {
		return s
	}
	if s := c.verified(public, digest[:], sig); s != OK || mode != bootCopy {
		return s
	}
	if conf.kind() == bootDigest {
		copy(kept, digest[:])
		return OK
	}
	if len(kept) < 64 {
		return Refused
	}
	copy(kept, sig)
	return OK
}
