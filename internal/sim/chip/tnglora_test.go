package chip

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math/big"
	"testing"
)

// do executes a command and gives data and status.
func do(t testing.TB, c *Chip, op Opcode, p1 byte, p2 uint16, data ...byte) ([]byte, Status) {
	t.Helper()
	out, err := Answer(executeKept(t, c, Command(op, p1, p2, data...)))
	var s Status
	if err != nil && !errors.As(err, &s) {
		t.Fatal(err)
	}
	return out, s
}

func must(t testing.TB, c *Chip, op Opcode, p1 byte, p2 uint16, data ...byte) []byte {
	t.Helper()
	out, s := do(t, c, op, p1, p2, data...)
	if s != OK {
		t.Fatalf("%v %02x %04x: %v", op, p1, p2, s)
	}
	return out
}

func refused(t testing.TB, c *Chip, want Status, op Opcode, p1 byte, p2 uint16, data ...byte) {
	t.Helper()
	if out, s := do(t, c, op, p1, p2, data...); s != want {
		t.Errorf("%v %02x %04x: got %x, %v, want %v", op, p1, p2, out, s, want)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// sum is SHA-256 over all parts.
func sum(parts ...[]byte) []byte {
	s := sha256.Sum256(bytes.Join(parts, nil))
	return s[:]
}

// sn3 gives SN[8] ‖ SN[0:2].
func sn3(c *Chip) []byte { sn := c.Serial(); return []byte{sn[8], sn[0], sn[1]} }

// randomNonce has TempKey drawn, and gives what the host computes of it.
func randomNonce(t testing.TB, c *Chip) []byte {
	t.Helper()
	given := randomBytes(20)
	return sum(must(t, c, OpNonce, 0, 0, given...), given, []byte{0x16, 0, 0})
}

// session mixes the key of a slot into TempKey, and gives what the host has then.
func session(t testing.TB, c *Chip, slot uint16, key, temp []byte) []byte {
	t.Helper()
	must(t, c, OpGenDig, 2, slot)
	return sum(key, []byte{0x15, 2, byte(slot), 0}, sn3(c), make([]byte, 25), temp)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	subtle.XORBytes(out, a, b)
	return out
}

const readSlot, writeSlot = 0x82, 0x82

// withIOKey gives slot 14 a key that the test knows.
func withIOKey(t testing.TB, c *Chip) []byte {
	t.Helper()
	key := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 14<<3, key...)
	return key
}

func TestSlot0Roots(t *testing.T) {
	c := tnglora(t, Options{})
	before := c.nv
	refused(t, c, Refused, OpRead, readSlot, 0)
	refused(t, c, Refused, OpRead, 0x02, 0)
	refused(t, c, Refused, OpWrite, writeSlot, 0, make([]byte, 32)...)
	refused(t, c, Refused, OpWrite, 0xC2, 0, make([]byte, 64)...)
	refused(t, c, Refused, OpKDF, 0x2A, 0, make([]byte, 20)...) // as a target
	refused(t, c, Refused, OpKDF, 0x32, 0, make([]byte, 20)...) // to the bus, in the clear
	refused(t, c, Refused, OpPrivWrite, 0, 0, make([]byte, 36)...)
	refused(t, c, Refused, OpGenKey, 4, 0)
	refused(t, c, Refused, OpMAC, 0, 0, make([]byte, 32)...)
	refused(t, c, Refused, OpSHA, 4, 0)
	refused(t, c, Refused, OpLock, 0x02, 0)
	withIOKey(t, c)
	session(t, c, 14, c.nv.slot(14)[:32], randomNonce(t, c))
	refused(t, c, Refused, OpRead, readSlot, 0) // not encrypted either
	// AES reaches both halves, and no further.
	for place := range byte(2) {
		must(t, c, OpAES, place<<6, 0, make([]byte, 16)...)
	}
	refused(t, c, BadParse, OpAES, 0x80, 0, make([]byte, 16)...)
	if *(*[36]byte)(c.nv.slot(0)) != *(*[36]byte)(before.slot(0)) {
		t.Error("a root key changed")
	}
}

// DeriveKey into slot 0 wants the MAC, the nonce of the mode, and a TempKey.
func TestSlot0DeriveKey(t *testing.T) {
	c := tnglora(t, Options{})
	k13 := randomBytes(32)
	if err := c.nv.SetSlot(13, k13); err != nil {
		t.Fatal(err)
	}
	mac := sum(k13, []byte{0x1C, 4, 0, 0}, sn3(c))
	refused(t, c, Refused, OpDeriveKey, 4, 0, mac...)
	temp := randomBytes(32)
	given := func() { must(t, c, OpNonce, 3, 0, temp...) }
	given()
	refused(t, c, Refused, OpDeriveKey, 4, 0)
	refused(t, c, Refused, OpDeriveKey, 0, 0, mac...)
	refused(t, c, Miscompare, OpDeriveKey, 4, 0, randomBytes(32)...)
	refused(t, c, Refused, OpDeriveKey, 4, 2, mac...) // no other slot derives
	must(t, c, OpDeriveKey, 4, 0, mac...)
	if want := sum(k13, []byte{0x1C, 4, 0, 0}, sn3(c), make([]byte, 25), temp); !bytes.Equal(c.nv.slot(0)[:32], want) {
		t.Error("other roots than the formula gives")
	}
	refused(t, c, Refused, OpDeriveKey, 4, 0, mac...) // TempKey was used up
	// With a random nonce, mode 0 and its own MAC.
	temp = randomNonce(t, c)
	must(t, c, OpDeriveKey, 0, 0, sum(k13, []byte{0x1C, 0, 0, 0}, sn3(c))...)
	if want := sum(k13, []byte{0x1C, 0, 0, 0}, sn3(c), make([]byte, 25), temp); !bytes.Equal(c.nv.slot(0)[:32], want) {
		t.Error("other roots than the formula gives, with a random nonce")
	}
}

// deviceKey puts a key into slot 1.
func deviceKey(t testing.TB, c *Chip) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nv.SetPrivateKey(1, key.Bytes()); err != nil {
		t.Fatal(err)
	}
	return key
}

func verifies(t testing.TB, public, digest, sig []byte) bool {
	t.Helper()
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, public...))
	if err != nil {
		t.Fatal(err)
	}
	return ecdsa.Verify(key, digest, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// The device key signs what the host asks and agrees, its secret encrypted; it is
// there for ever and says nothing of the chip's state.
func TestSlot1DeviceKey(t *testing.T) {
	c := tnglora(t, Options{})
	refused(t, c, Refused, OpGenKey, 0, 1) // no key yet
	key := deviceKey(t, c)
	public := must(t, c, OpGenKey, 0, 1)
	if !bytes.Equal(public, key.PublicKey().Bytes()[1:]) {
		t.Error("the public key is another one")
	}
	digest := randomBytes(32)
	refused(t, c, Refused, OpSign, 0x80, 1)
	must(t, c, OpNonce, 3, 0, digest...)
	if !verifies(t, public, digest, must(t, c, OpSign, 0x80, 1)) {
		t.Error("signature of TempKey")
	}
	refused(t, c, Refused, OpSign, 0x80, 1) // it was used up
	must(t, c, OpNonce, 0x43, 0, digest...)
	for range 2 {
		if !verifies(t, public, digest, must(t, c, OpSign, 0xA0, 1)) {
			t.Error("signature of the message digest buffer")
		}
	}
	randomNonce(t, c)
	must(t, c, OpGenDig, 0, 0)
	refused(t, c, Refused, OpSign, 0x40, 1) // internal
	refused(t, c, Refused, OpGenKey, 4, 1)
	refused(t, c, Refused, OpRead, readSlot, 1<<3)
	refused(t, c, Refused, OpWrite, writeSlot, 1<<3, make([]byte, 32)...)
	refused(t, c, Refused, OpPrivWrite, 0, 1, make([]byte, 36)...)
	refused(t, c, Refused, OpPrivWrite, 0x40, 1, make([]byte, 68)...)
	if got := must(t, c, OpInfo, 1, 1); got[0] != 1 {
		t.Errorf("Info of the key: %x", got)
	}

	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs := other.PublicKey().Bytes()[1:]
	refused(t, c, Refused, OpECDH, 0x00, 1, theirs...)
	refused(t, c, Refused, OpECDH, 0x0C, 1, theirs...)
	io := withIOKey(t, c)
	out := must(t, c, OpECDH, 0x0E, 1, theirs...)
	secret, err := key.ECDH(other.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(xor(out[:32], sum(io, out[32:48])), secret) {
		t.Error("another secret")
	}
	refused(t, c, Refused, OpECDH, 0x0E, 1, make([]byte, 64)...) // no point of the curve
}

func testSessionSlot(t *testing.T, slot uint16) {
	c := tnglora(t, Options{})
	key := randomBytes(32)
	must(t, c, OpWrite, writeSlot, slot<<3, key...)
	refused(t, c, Refused, OpWrite, 0x02, slot<<3, make([]byte, 4)...) // secrets in whole blocks only
	refused(t, c, Refused, OpRead, readSlot, slot<<3)
	io := withIOKey(t, c)
	must(t, c, OpNonce, 3, 0, randomBytes(32)...)
	refused(t, c, Refused, OpRead, readSlot, slot<<3) // no session
	temp := session(t, c, 14, io, randomNonce(t, c))
	refused(t, c, Refused, OpRead, 0x02, slot<<3) // not four bytes
	if got := must(t, c, OpRead, readSlot, slot<<3); !bytes.Equal(xor(got, temp), key) {
		t.Error("the encrypted read gives something else")
	}
	refused(t, c, Refused, OpRead, readSlot, slot<<3) // a session serves once
	must(t, c, OpKDF, 0x2A, slot<<8, make([]byte, 20)...)
	refused(t, c, Refused, OpLock, byte(slot)<<2|2, 0)
	refused(t, c, Refused, OpDeriveKey, 4, slot)
	refused(t, c, Refused, OpGenKey, 4, slot)
}

func TestSlot2AppSKey(t *testing.T)      { testSessionSlot(t, 2) }
func TestSlot3NwkSEncKey(t *testing.T)   { testSessionSlot(t, 3) }
func TestSlot4SNwkSIntKey(t *testing.T)  { testSessionSlot(t, 4) }
func TestSlot5FNwkSIntKey(t *testing.T)  { testSessionSlot(t, 5) }
func TestSlot6JSIntKey(t *testing.T)     { testSessionSlot(t, 6) }
func TestSlot7JSEncKey(t *testing.T)     { testSessionSlot(t, 7) }
func TestSlot11McAppSKey(t *testing.T)   { testSessionSlot(t, 11) }
func TestSlot12McNwkSKey(t *testing.T)   { testSessionSlot(t, 12) }
func TestSlot8Certificates(t *testing.T) { testOpenSlot(t, 8, true) }
func TestSlot9JoinEUI(t *testing.T)      { testOpenSlot(t, 9, false) }
func TestSlot10DevEUI(t *testing.T)      { testOpenSlot(t, 10, true) }
func TestSlot15Reserved(t *testing.T)    { testClosedSlot(t, 15) }
func TestSlot13IsNeverRead(t *testing.T) { testClosedSlot(t, 13) }

// testOpenSlot: read and written by everybody, until it is locked where it can be.
func testOpenSlot(t *testing.T, slot uint16, lockable bool) {
	c := tnglora(t, Options{})
	last := uint16(SlotSize(int(slot))-1) / 32
	data := randomBytes(32)
	for block := range last + 1 {
		must(t, c, OpWrite, writeSlot, block<<8|slot<<3, data...)
	}
	if got := must(t, c, OpRead, readSlot, slot<<3); !bytes.Equal(got, data) {
		t.Error("something else stands there")
	}
	rest := SlotSize(int(slot)) - 32*int(last)
	if got := must(t, c, OpRead, readSlot, last<<8|slot<<3); !bytes.Equal(got, append(data[:rest:rest], make([]byte, 32-rest)...)) {
		t.Errorf("the last block is %x", got)
	}
	must(t, c, OpWrite, 0x02, slot<<3|1, 1, 2, 3, 4)
	if got := must(t, c, OpRead, 0x02, slot<<3|1); !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("four bytes are %x", got)
	}
	refused(t, c, BadParse, OpRead, readSlot, (last+1)<<8|slot<<3)
	refused(t, c, Refused, OpKDF, 0x2A, slot<<8, make([]byte, 20)...)
	if !lockable {
		refused(t, c, Refused, OpLock, byte(slot)<<2|2, 0)
		return
	}
	must(t, c, OpLock, byte(slot)<<2|2, 0)
	refused(t, c, Refused, OpLock, byte(slot)<<2|2, 0)
	refused(t, c, Refused, OpWrite, writeSlot, slot<<3, data...)
	must(t, c, OpRead, readSlot, slot<<3)
}

// testClosedSlot: neither read nor written in the clear.
func testClosedSlot(t *testing.T, slot uint16) {
	c := tnglora(t, Options{})
	io := withIOKey(t, c)
	session(t, c, 14, io, randomNonce(t, c))
	refused(t, c, Refused, OpRead, readSlot, slot<<3)
	refused(t, c, Refused, OpRead, 0x02, slot<<3)
	refused(t, c, Refused, OpWrite, writeSlot, slot<<3, make([]byte, 32)...)
	refused(t, c, Refused, OpWrite, 0x02, slot<<3, make([]byte, 4)...)
	refused(t, c, Refused, OpKDF, 0x2A, slot<<8, make([]byte, 20)...)
	refused(t, c, Refused, OpLock, byte(slot)<<2|2, 0)
}

// The key of slot 13 is replaced by a block that is encrypted under itself, which its
// holder can make without the chip: the nonce need not be random.
func TestSlot13EncryptedWrite(t *testing.T) {
	c := tnglora(t, Options{})
	k13, next := randomBytes(32), randomBytes(32)
	if err := c.nv.SetSlot(13, k13); err != nil {
		t.Fatal(err)
	}
	refused(t, c, Refused, OpMAC, 0, 13, make([]byte, 32)...) // NoMac
	nonce, other := randomBytes(32), []byte{0x15, 2, 13, 0}
	temp := sum(k13, other, sn3(c), make([]byte, 25), nonce)
	block := append(xor(next, temp), sum(temp, []byte{0x12, writeSlot, 13 << 3, 0}, sn3(c), make([]byte, 25), next)...)
	refused(t, c, Refused, OpWrite, writeSlot, 13<<3, block...) // no session
	begin := func() {
		must(t, c, OpNonce, 3, 0, nonce...)
		must(t, c, OpGenDig, 2, 13, other...)
	}
	must(t, c, OpNonce, 3, 0, nonce...)
	refused(t, c, BadParse, OpGenDig, 2, 13) // its four bytes are missing
	begin()
	wrong := bytes.Clone(block)
	wrong[40] ^= 1
	refused(t, c, Miscompare, OpWrite, writeSlot, 13<<3, wrong...)
	if !bytes.Equal(c.nv.slot(13)[:32], k13) {
		t.Error("a wrong MAC wrote")
	}
	begin()
	must(t, c, OpWrite, writeSlot, 13<<3, block...)
	if !bytes.Equal(c.nv.slot(13)[:32], next) {
		t.Error("another key stands there")
	}
}

// Slot 14 is written by everybody until it is locked, read by nobody, and mixed only
// with a nonce that the chip drew.
func TestSlot14IOKey(t *testing.T) {
	c := tnglora(t, Options{})
	io := withIOKey(t, c)
	refused(t, c, Refused, OpRead, readSlot, 14<<3)
	must(t, c, OpNonce, 3, 0, randomBytes(32)...)
	refused(t, c, Refused, OpGenDig, 2, 14)
	session(t, c, 14, io, randomNonce(t, c))
	refused(t, c, Refused, OpRead, readSlot, 14<<3)
	must(t, c, OpLock, 14<<2|2, 0)
	refused(t, c, Refused, OpWrite, writeSlot, 14<<3, io...)
}

// What KDF makes leaves the chip encrypted under slot 14 only.
func TestKDFOutput(t *testing.T) {
	c := tnglora(t, Options{})
	io := withIOKey(t, c)
	block := randomBytes(16)
	want := append(must(t, c, OpAES, 0x40, 0, block...), make([]byte, 16)...)
	data := append([]byte{1, 0, 0, 0}, block...)
	refused(t, c, Refused, OpKDF, 0x32, 0, data...)
	out := must(t, c, OpKDF, 0x36, 0, data...)
	if len(out) != 64 || !bytes.Equal(xor(out[:32], sum(io, out[32:48])), want) {
		t.Error("the encrypted output is something else")
	}
	must(t, c, OpKDF, 0x22, 0, data...) // to TempKey, and on from there
	if got := must(t, c, OpAES, 0, tempKeyID, block...); bytes.Equal(got, want[:16]) {
		t.Error("TempKey is not the result")
	}
	refused(t, c, BadParse, OpKDF, 0x2A, 0x0200, append([]byte{2, 0, 0, 0}, block...)...) // no third key in slot 0
	refused(t, c, BadParse, OpKDF, 0x2A, 0x1000, data...)
}

func TestConfigurationIsLocked(t *testing.T) {
	c := tnglora(t, Options{})
	refused(t, c, Refused, OpWrite, 0x00, 16>>2, 1, 2, 3, 4)
	refused(t, c, Refused, OpWrite, 0x81, 0, make([]byte, 32)...)
	refused(t, c, Refused, OpLock, 0x80, 0)
	refused(t, c, Refused, OpLock, 0x81, 0)
	if got := must(t, c, OpRead, 0x81, 0); !bytes.HasPrefix(got, []byte(OTPTheThings)) {
		t.Errorf("programme code: %x", got)
	}
	if got := must(t, c, OpRead, 0x00, 87>>2); got[2] != 0 || got[3] != 0 {
		t.Errorf("locks: %x", got)
	}
}
