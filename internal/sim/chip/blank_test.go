package chip

import (
	"bytes"
	"crypto/aes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// What the tests configure a blank chip to, slot by slot.
var (
	testSlots = [Slots]uint16{
		0x20AF, // 0: private; signs all, its uses counted, may be drawn again
		0x8FC4, // 1: secret, read encrypted under 4
		0x64C7, // 2: private; agrees and signs, written encrypted under 4
		0x208F, // 3: secret that rolls: DeriveKey from itself
		0x0F8F, // 4: secret, always written
		0x0F0F, // 5: target of KDF
		0x4F8F, // 6
		0x44C4, // 7: read and written encrypted under 4
		0x0F0F, // 8: public key of the boot
		0x0F0F, // 9: what the boot keeps
		0x0F0F, // 10: limit of counter 0; AES with a latch
		0x0F0F, // 11: public key that validates
		0x0F8F, // 12: wants the host authorised by 4
		0x0F0F, // 13
		0x1F0B, // 14: public key to be validated by 11
		0x0F0F,
	}
	testKeys = [Slots]uint16{
		0x0033, 0x001C, 0x0033, 0x001C, 0x003C, 0x003E, 0x001C, 0x001C,
		0x0030, 0x003C, 0x003C, 0x0030, 0x049C, 0x1038, 0x0032, 0x0038,
	}
)

// provision brings a blank chip through its life: configured, locked, filled, locked.
func provision(t *testing.T, change func(*Image)) *Chip {
	t.Helper()
	c := New(Blank([SerialSize]byte(unhex(t, "0123456789abcdefee"))), Options{})
	conf := c.nv
	for i := range Slots {
		binary.LittleEndian.PutUint16(conf.config[atSlotConfig+2*i:], testSlots[i])
		binary.LittleEndian.PutUint16(conf.config[atKeyConfig+2*i:], testKeys[i])
	}
	binary.LittleEndian.PutUint16(conf.config[atChipOptions:], 0x4006) // IO key 4
	conf.config[atVolatileKey] = 0x84
	binary.LittleEndian.PutUint16(conf.config[atSecureBoot:], 0x8903) // digest kept in 9, key in 8
	if change != nil {
		change(&conf)
	}
	for at := 16; at < ConfigSize; at += 4 {
		if at == atUserExtra {
			continue
		}
		must(t, c, OpWrite, 0, uint16(at/4), conf.config[at:at+4]...)
	}
	refused(t, c, Refused, OpLock, 0, CRC(c.nv.config[:])^1)
	must(t, c, OpLock, 0, CRC(c.nv.config[:]))
	return c
}

// closeData locks the data zone, with or without its CRC.
func closeData(t *testing.T, c *Chip) *Chip {
	t.Helper()
	all := append(append([]byte{}, c.nv.data[:]...), c.nv.otp[:]...)
	must(t, c, OpLock, 1, CRC(all))
	return c
}

func TestBlankLife(t *testing.T) {
	c := New(Blank([SerialSize]byte{1, 0x23}), Options{})
	if got := must(t, c, OpRandom, 0, 0); hex.EncodeToString(got[:8]) != "ffff0000ffff0000" {
		t.Errorf("random numbers of an open chip: %x", got)
	}
	refused(t, c, Refused, OpRead, readSlot, 9<<3)
	refused(t, c, Refused, OpWrite, writeSlot, 9<<3, make([]byte, 32)...)
	refused(t, c, Refused, OpLock, 0x81, 0)
	refused(t, c, Refused, OpGenKey, 4, 0)
	refused(t, c, Refused, OpWrite, 0, 0, 1, 2, 3, 4)             // serial number
	refused(t, c, Refused, OpWrite, 0, atUserExtra/4, 1, 2, 3, 4) // locks
	refused(t, c, Refused, OpWrite, 0x80, 2<<3, make([]byte, 32)...)
	must(t, c, OpWrite, 0x80, 1<<3, c.nv.config[32:64]...)
	must(t, c, OpWrite, 0, atUseLock/4, 0xDA, 0, 0, 0)
	refused(t, c, Refused, OpLock, 0x80, 0) // the transport lock is not emulated
	must(t, c, OpWrite, 0, atUseLock/4, 0, 0, 0, 0)
	must(t, c, OpUpdateExtra, 0, 5)
	must(t, c, OpUpdateExtra, 0, 0)

	c = provision(t, nil)
	if got := must(t, c, OpRandom, 0, 0); bytes.Equal(got, must(t, c, OpRandom, 0, 0)) {
		t.Error("two random numbers are one")
	}
	refused(t, c, Refused, OpLock, 0x80, 0)
	refused(t, c, Refused, OpWrite, 0, 16/4, 1, 2, 3, 4)
	must(t, c, OpUpdateExtra, 1, 7)
	refused(t, c, Refused, OpUpdateExtra, 1, 8)
	// Open slots are written whole and in the clear, and not read.
	must(t, c, OpWrite, writeSlot, 7<<3, make([]byte, 32)...)
	refused(t, c, Refused, OpWrite, 0x02, 9<<3, 1, 2, 3, 4)
	refused(t, c, Refused, OpWrite, writeSlot, 0, make([]byte, 32)...) // private
	refused(t, c, Refused, OpRead, readSlot, 9<<3)
	must(t, c, OpWrite, 0x81, 0, randomBytes(32)...)
	refused(t, c, Refused, OpLock, 1, 0x1234)
	closeData(t, c)
	must(t, c, OpRead, 0x81, 0)
	refused(t, c, Refused, OpWrite, 0x81, 0, make([]byte, 32)...)
	refused(t, c, Refused, OpWrite, writeSlot, 7<<3, make([]byte, 32)...) // encrypted now
	must(t, c, OpLock, 9<<2|2, 0)
	refused(t, c, Refused, OpWrite, writeSlot, 9<<3, make([]byte, 32)...)
}

func TestCountersAndLimits(t *testing.T) {
	var m Image
	for _, n := range []uint32{0, 1, 15, 16, 17, 31, 32, 47, 48, 1000, maxCount - 1, maxCount} {
		m.setCounter(1, n)
		if got := m.getCounter(1); got != n {
			t.Errorf("counter %d reads %d", n, got)
		}
	}
	c := provision(t, func(m *Image) {
		m.config[atCountMatch] = 0xA1 // slot 10
		m.setCounter(1, maxCount-1)
	})
	limit := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 3), 3)
	must(t, c, OpWrite, writeSlot, 10<<3, append(limit, make([]byte, 24)...)...)
	closeData(t, c)
	must(t, c, OpGenKey, 4, 0) // is no use
	for range 2 {
		must(t, c, OpNonce, 3, 0, make([]byte, 32)...)
		must(t, c, OpSign, 0x80, 0)
	}
	if got := must(t, c, OpCounter, 0, 0); got[0] != 2 {
		t.Errorf("after two uses: %x", got)
	}
	must(t, c, OpCounter, 1, 0)
	must(t, c, OpNonce, 3, 0, make([]byte, 32)...)
	refused(t, c, Refused, OpSign, 0x80, 0)
	refused(t, c, Refused, OpCounter, 1, 0)
	must(t, c, OpCounter, 1, 1)
	refused(t, c, Refused, OpCounter, 1, 1) // it is at its end
	refused(t, c, BadParse, OpCounter, 2, 1)
	refused(t, c, BadParse, OpCounter, 0, 2)
}

func TestNonceModes(t *testing.T) {
	c := closeData(t, provision(t, nil))
	given := randomBytes(20)
	for mode := range byte(2) {
		out := must(t, c, OpNonce, mode, 0, given...)
		if want := sum(out, given, []byte{0x16, mode, 0}); !bytes.Equal(c.ram.temp.value[:32], want) || c.ram.temp.given {
			t.Errorf("mode %d: another TempKey", mode)
		}
	}
	// TempKey in place of the random number; the answer is what becomes of it.
	before := bytes.Clone(c.ram.temp.value[:32])
	if got, want := must(t, c, OpNonce, 0, 0x8000, given...), sum(before, given, []byte{0x16, 0, 0}); !bytes.Equal(got, want) || !bytes.Equal(c.ram.temp.value[:32], want) {
		t.Error("calculated nonce")
	}
	c.Sleep()
	refused(t, c, Refused, OpNonce, 0, 0x8000, given...)
	wide := randomBytes(64)
	must(t, c, OpNonce, 0x23, 0, wide...)
	must(t, c, OpNonce, 0x63, 0, wide...)
	must(t, c, OpNonce, 0x83, 0, wide[:32]...)
	for place := range byte(4) {
		must(t, c, OpAES, place<<6, tempKeyID, wide[:16]...)
	}
	must(t, c, OpNonce, 3, 0, wide[:32]...)
	refused(t, c, Refused, OpAES, 0x80, tempKeyID, wide[:16]...)
	for _, mode := range []byte{2, 0xA3, 0xC3, 0x10} {
		refused(t, c, BadParse, OpNonce, mode, 0, wide...)
	}
	refused(t, c, BadParse, OpNonce, 0, 0, wide[:19]...)
	if got := must(t, c, OpInfo, 2, 0); got[1]&0x80 == 0 || got[0]&0x10 == 0 {
		t.Errorf("state %x", got)
	}
}

// MAC, and CheckMac of what a host computes; an authorisation opens a slot, and the
// latch.
func TestMACAndAuthorisation(t *testing.T) {
	c := provision(t, nil)
	key, aesKey := randomBytes(32), randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	must(t, c, OpWrite, writeSlot, 12<<3, aesKey...)
	must(t, c, OpWrite, writeSlot, 13<<3, aesKey...)
	closeData(t, c)
	challenge, sn := randomBytes(32), c.Serial()
	zero := make([]byte, 11)
	want := func(mode byte, first, second []byte) []byte {
		middle, end := zero[:4], zero[:2]
		if mode&0x40 != 0 {
			middle, end = sn[4:8], sn[2:4]
		}
		return sum(first, second, []byte{8, mode, 4, 0}, zero, sn[8:], middle, sn[:2], end)
	}
	for _, mode := range []byte{0x00, 0x40} {
		if got := must(t, c, OpMAC, mode, 4, challenge...); !bytes.Equal(got, want(mode, key, challenge)) {
			t.Errorf("MAC %02x", mode)
		}
	}
	temp := randomNonce(t, c)
	for mode, parts := range map[byte][2][]byte{0x41: {key, temp}, 0x43: {temp, temp}} {
		if got := must(t, c, OpMAC, mode, 4); !bytes.Equal(got, want(mode, parts[0], parts[1])) {
			t.Errorf("MAC %02x", mode)
		}
	}
	if got := must(t, c, OpMAC, 0x42, 4, challenge...); !bytes.Equal(got, want(0x42, temp, challenge)) {
		t.Error("MAC 42")
	}
	refused(t, c, Refused, OpMAC, 0x45, 4) // TempKey is random

	// The latch and slot 12 wait for the host.
	block := randomBytes(16)
	refused(t, c, Refused, OpAES, 0, 13, block...)
	refused(t, c, Refused, OpSHA, 4, 12)
	refused(t, c, Refused, OpInfo, 4, 3)
	other := randomBytes(13)
	checked := func(mode byte, challenge []byte) []byte {
		return sum(key, challenge, other[:4], zero[:8], other[4:7], sn[8:], other[7:11], sn[:2], other[11:])
	}
	check := func(mode byte, response []byte) Status {
		_, s := do(t, c, OpCheckMac, mode, 4, bytes.Join([][]byte{challenge, response, other}, nil)...)
		return s
	}
	if s := check(0, randomBytes(32)); s != Miscompare {
		t.Errorf("a wrong response: %v", s)
	}
	refused(t, c, Refused, OpSHA, 4, 12)
	if s := check(0, checked(0, challenge)); s != OK {
		t.Errorf("a right response: %v", s)
	}
	must(t, c, OpSHA, 4, 12)
	temp = randomNonce(t, c)
	if s := check(1, checked(1, temp)); s != OK {
		t.Errorf("a response over TempKey: %v", s)
	}
	if got := must(t, c, OpInfo, 4, 3); got[0] != 1 {
		t.Errorf("latch %x", got)
	}
	must(t, c, OpAES, 0, 13, block...)
	c.Sleep()
	must(t, c, OpAES, 0, 13, block...)   // the latch keeps
	refused(t, c, Refused, OpSHA, 4, 12) // the authorisation does not
	must(t, c, OpInfo, 4, 2)
	refused(t, c, Refused, OpAES, 0, 13, block...)
	c.latch = true
	c.PowerCycle()
	refused(t, c, Refused, OpAES, 0, 13, block...)
}

// A password that was checked brings the key behind it into TempKey, unless that key is
// kept from it.
func TestCheckMacCopies(t *testing.T) {
	for readKey, copied := range map[uint16]bool{0: true, 4: false} {
		c := provision(t, func(m *Image) {
			binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*5:], 0x8F80|readKey)
			binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*5:], 0x001C)
		})
		password, behind := randomBytes(32), randomBytes(32)
		must(t, c, OpWrite, writeSlot, 4<<3, password...)
		must(t, c, OpWrite, writeSlot, 5<<3, behind...)
		closeData(t, c)
		other, sn := make([]byte, 13), c.Serial()
		check := func(mode byte, second []byte) {
			t.Helper()
			response := sum(password, second, other[:4], other[:8], other[:3], sn[8:], other[:4], sn[:2], other[:2])
			must(t, c, OpCheckMac, mode, 4, bytes.Join([][]byte{second, response, other}, nil)...)
		}
		check(0, randomBytes(32)) // not in this mode
		refused(t, c, Refused, OpMAC, 3, 0)
		nonce := randomBytes(32)
		must(t, c, OpNonce, 3, 0, nonce...)
		for _, mode := range []byte{5, 1} {
			second := nonce
			if mode == 1 {
				second = randomNonce(t, c)
			}
			check(mode, second)
			if !copied {
				refused(t, c, Refused, OpMAC, 7, 0)
				continue
			}
			want := sum(behind, behind, []byte{8, 7, 0, 0}, zeros[:11], sn[8:], zeros[:4], sn[:2], zeros[:2])
			if got := must(t, c, OpMAC, 7, 0); !bytes.Equal(got, want) {
				t.Errorf("mode %d: TempKey is not the key behind the password's", mode)
			}
		}
	}
}

// A new I²C address holds from the next sleep on, and is given once.
func TestAddressIsGivenOnce(t *testing.T) {
	c := tnglora(t, Options{})
	must(t, c, OpUpdateExtra, 1, 0x6A)
	if got := c.Address(); got != 0x59 {
		t.Errorf("before it slept: %02x", got)
	}
	c.Sleep()
	if got := c.Address(); got != 0x35 {
		t.Errorf("after it slept: %02x", got)
	}
	refused(t, c, Refused, OpUpdateExtra, 1, 0x6C)
	if got := New(&c.nv, Options{}).Address(); got != 0x35 {
		t.Errorf("after the power came back: %02x", got)
	}
	c = provision(t, nil) // its ChipMode knows of no other address
	must(t, c, OpUpdateExtra, 1, 0x6A)
	c.Sleep()
	if got := c.Address(); got != 0x60 {
		t.Errorf("without the bit of ChipMode: %02x", got)
	}
}

func TestGenDigZones(t *testing.T) {
	c := provision(t, nil)
	key := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	closeData(t, c)
	sn, zero := sn3(c), make([]byte, 25)
	count := must(t, c, OpCounter, 1, 1)
	shared := randomBytes(32)
	for _, d := range []struct {
		name string
		zone byte
		p2   uint16
		data []byte
		want func(temp []byte) []byte
	}{
		{"configuration", 0, 1, nil, func(temp []byte) []byte { return sum(c.nv.config[32:64], []byte{0x15, 0, 1, 0}, sn, zero, temp) }},
		{"OTP", 1, 1, nil, func(temp []byte) []byte { return sum(c.nv.otp[32:], []byte{0x15, 1, 1, 0}, sn, zero, temp) }},
		{"slot", 2, 4, nil, func(temp []byte) []byte { return sum(key, []byte{0x15, 2, 4, 0}, sn, zero, temp) }},
		{"slot, four bytes for nothing", 2, 4, []byte{1, 2, 3, 4}, func(temp []byte) []byte { return sum(key, []byte{0x15, 2, 4, 0}, sn, zero, temp) }},
		{"shared nonce", 3, 0, shared, func(temp []byte) []byte { return sum(shared, []byte{0x15, 3, 0, 0}, sn, zero, temp) }},
		{"shared nonce behind", 3, 0x8001, shared, func(temp []byte) []byte { return sum(temp, []byte{0x15, 3, 1, 0}, sn, zero, shared) }},
		{"counter", 4, 1, nil, func(temp []byte) []byte {
			return sum(zero, make([]byte, 7), []byte{0x15, 4, 1, 0}, sn, []byte{0}, count, make([]byte, 20), temp)
		}},
		{"slot's configuration", 5, 14, nil, func(temp []byte) []byte {
			return sum(zero, make([]byte, 7), []byte{0x15, 5, 14, 0}, sn, []byte{0, 0x0B, 0x1F, 0x32, 0, 1}, make([]byte, 19), temp)
		}},
	} {
		temp := randomNonce(t, c)
		must(t, c, OpGenDig, d.zone, d.p2, d.data...)
		if !bytes.Equal(c.ram.temp.value[:32], d.want(temp)) {
			t.Errorf("%s: another digest", d.name)
		}
	}
	randomNonce(t, c)
	refused(t, c, BadParse, OpGenDig, 6, 0)
	refused(t, c, BadParse, OpGenDig, 3, 0, shared[:31]...)
	refused(t, c, BadParse, OpGenDig, 0, 4)
	refused(t, c, Refused, OpGenDig, 2, 0) // a private key
	c.Sleep()
	refused(t, c, Refused, OpGenDig, 0, 0)
}

func TestEncryptedReadAndWrite(t *testing.T) {
	c := provision(t, nil)
	key, data := randomBytes(32), randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	must(t, c, OpWrite, writeSlot, 7<<3, data...)
	closeData(t, c)
	temp := session(t, c, 4, key, randomNonce(t, c))
	if got := must(t, c, OpRead, readSlot, 7<<3); !bytes.Equal(xor(got, temp), data) {
		t.Error("encrypted read")
	}
	next := randomBytes(32)
	temp = session(t, c, 4, key, randomNonce(t, c))
	must(t, c, OpWrite, 0xC2, 7<<3, append(xor(next, temp), sum(temp, []byte{0x12, 0xC2, 7 << 3, 0}, sn3(c), make([]byte, 25), next)...)...)
	if !bytes.Equal(c.nv.slot(7)[:32], next) {
		t.Error("encrypted write")
	}
	// A slot that rolls: from itself, without a MAC.
	old := bytes.Clone(c.nv.slot(3)[:32])
	temp = randomNonce(t, c)
	must(t, c, OpDeriveKey, 0, 3)
	if want := sum(old, []byte{0x1C, 0, 3, 0}, sn3(c), make([]byte, 25), temp); !bytes.Equal(c.nv.slot(3)[:32], want) {
		t.Error("rolled key")
	}
}

// put writes a public key as its slot wants it.
func put(public []byte) []byte {
	b := append(make([]byte, 4, 96), public[:32]...)
	b = append(append(b, 0, 0, 0, 0), public[32:]...)
	return append(b, make([]byte, 24)...)
}

// writePublic puts a public key into a slot that is open.
func writePublic(t *testing.T, c *Chip, slot uint16, public []byte) {
	t.Helper()
	for block := range uint16(3) {
		must(t, c, OpWrite, writeSlot, block<<8|slot<<3, put(public)[32*block:][:32]...)
	}
}

// configure gives a slot another configuration.
func (m *Image) configure(slot int, conf, key uint16) {
	binary.LittleEndian.PutUint16(m.config[atSlotConfig+2*slot:], conf)
	binary.LittleEndian.PutUint16(m.config[atKeyConfig+2*slot:], key)
}

// hmacOf is HMAC-SHA256.
func hmacOf(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

func newKey(t *testing.T) (scalar, public []byte) {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Bytes(), key.PublicKey().Bytes()[1:]
}

func TestKeysOnTheCurve(t *testing.T) {
	c := provision(t, nil)
	io := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, io...)
	scalar, public := newKey(t)
	must(t, c, OpPrivWrite, 0, 2, append(make([]byte, 4), scalar...)...)
	refused(t, c, Refused, OpPrivWrite, 0, 2, bytes.Repeat([]byte{0xFF}, 36)...) // no key of the curve
	refused(t, c, Refused, OpPrivWrite, 0, 4, make([]byte, 36)...)
	closeData(t, c)
	refused(t, c, Refused, OpPrivWrite, 0, 2, make([]byte, 36)...)
	if !bytes.Equal(must(t, c, OpGenKey, 0, 2), public) {
		t.Error("another public key")
	}

	// Encrypted PrivWrite.
	scalar, public = newKey(t)
	plain := append(make([]byte, 4), scalar...)
	temp := session(t, c, 4, io, randomNonce(t, c))
	cipher := append(xor(plain[:32], temp), xor(plain[32:], sum(temp))...)
	mac := sum(temp, []byte{0x46, 0x40, 2, 0}, sn3(c), make([]byte, 21), plain)
	must(t, c, OpPrivWrite, 0x40, 2, append(cipher, mac...)...)
	if !bytes.Equal(must(t, c, OpGenKey, 0, 2), public) {
		t.Error("another public key after PrivWrite")
	}
	session(t, c, 4, io, randomNonce(t, c))
	refused(t, c, Miscompare, OpPrivWrite, 0x40, 2, append(cipher, mac...)...)

	// GenKey with the digest of the public key.
	temp = randomNonce(t, c)
	public = must(t, c, OpGenKey, 8, 2)
	if want := sum(temp, []byte{0x40, 8, 2, 0}, sn3(c), make([]byte, 25), public); !bytes.Equal(c.ram.temp.value[:32], want) || !c.ram.temp.genKey {
		t.Error("GenKey 08: another digest")
	}
	c.Sleep()
	refused(t, c, Refused, OpGenKey, 8, 2)

	// Agreement in all directions.
	theirs, theirPublic := newKey(t)
	secretWith := func(public []byte) []byte { return agreed(t, theirs, public) }
	if !bytes.Equal(must(t, c, OpECDH, 0x0C, 2, theirPublic...), secretWith(public)) {
		t.Error("ECDH to the bus")
	}
	must(t, c, OpECDH, 0x08, 2, theirPublic...)
	if !bytes.Equal(c.ram.temp.value[:32], secretWith(public)) {
		t.Error("ECDH to TempKey")
	}
	must(t, c, OpECDH, 0x04, 2, theirPublic...)
	if !bytes.Equal(c.nv.slot(3)[:32], secretWith(public)) {
		t.Error("ECDH to the next slot")
	}
	once := must(t, c, OpGenKey, 4, tempKeyID)
	if !bytes.Equal(must(t, c, OpECDH, 0x0D, 0, theirPublic...), secretWith(once)) {
		t.Error("ECDH from TempKey")
	}
}

func TestVerify(t *testing.T) {
	c := provision(t, nil)
	io := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, io...)
	own := must(t, c, OpGenKey, 4, 0)
	parent := must(t, c, OpGenKey, 4, 2)
	writePublic(t, c, 11, parent)
	writePublic(t, c, 14, own)
	closeData(t, c)
	digest := randomBytes(32)
	sign := func(slot uint16) []byte {
		must(t, c, OpNonce, 3, 0, digest...)
		return must(t, c, OpSign, 0x80, slot)
	}
	bySlot2, bySlot0 := sign(2), sign(0)
	must(t, c, OpNonce, 3, 0, digest...)
	must(t, c, OpVerify, 0, 11, bySlot2...)
	refused(t, c, Miscompare, OpVerify, 0, 11, bySlot0...)
	must(t, c, OpVerify, 2, 4, append(bytes.Clone(bySlot0), own...)...)
	refused(t, c, Miscompare, OpVerify, 2, 4, append(bytes.Clone(bySlot0), parent...)...)
	refused(t, c, Refused, OpVerify, 2, 4, append(bytes.Clone(bySlot0), make([]byte, 64)...)...) // no point
	refused(t, c, BadParse, OpVerify, 2, 5, append(bytes.Clone(bySlot0), own...)...)
	refused(t, c, Refused, OpVerify, 0, 14, bySlot0...) // not validated

	// With a MAC over the system's nonce.
	nonce := randomBytes(32)
	must(t, c, OpNonce, 0x63, 0, append(bytes.Clone(digest), nonce...)...)
	got := must(t, c, OpVerify, 0xA2, 4, append(bytes.Clone(bySlot0), own...)...)
	if want := sum(io, digest, nonce, bySlot0, []byte{0x45, 0xA2, 4, 0}); !bytes.Equal(got, want) {
		t.Error("Verify's MAC")
	}

	// Validation: the parent's chip, which here is the same one, says what it knows of the
	// public key.
	validation := func(invalidate byte) []byte {
		must(t, c, OpNonce, 3, 0, digest...)
		must(t, c, OpGenKey, 0x10, 14, 0, 0, 0)
		temp := bytes.Clone(c.ram.temp.value[:32])
		other := []byte{invalidate, 2, 0, 0x0B, 0x1F, 0x32, 0, c.ram.temp.flags(), 0, 0}
		sn := c.Serial()
		tail := []byte{0, 0, 0, 0, 0, 0, 1, 0, 0}
		message := sum(temp, []byte{0x41}, other, sn[8:], tail[:4], sn[:2], tail[4:])
		keep := c.ram.temp
		must(t, c, OpNonce, 3, 0, message...)
		sig := must(t, c, OpSign, 0x80, 2)
		c.ram.temp = keep
		return append(append(sig, other...), tail...)
	}
	must(t, c, OpVerify, 3, 14, validation(0)...)
	must(t, c, OpNonce, 3, 0, digest...)
	must(t, c, OpVerify, 0, 14, bySlot0...)
	refused(t, c, Refused, OpWrite, writeSlot, 14<<3, make([]byte, 32)...) // while it is valid
	must(t, c, OpVerify, 7, 14, validation(1)...)
	must(t, c, OpNonce, 3, 0, digest...)
	refused(t, c, Refused, OpVerify, 0, 14, bySlot0...)
	must(t, c, OpWrite, writeSlot, 14<<3, put(own)[:32]...)
	if c.nv.slot(14)[0] != notValidated {
		t.Error("a written key is valid")
	}
	refused(t, c, Refused, OpVerify, 3, 14, make([]byte, 83)...) // no digest of the key
}

// An internal signature is of the 55 bytes that the chip says of itself.
func TestSignInternal(t *testing.T) {
	c := provision(t, func(m *Image) { binary.LittleEndian.PutUint16(m.config[atSlotConfig+4:], 0x64C7) })
	public := must(t, c, OpGenKey, 4, 2)
	closeData(t, c)
	randomNonce(t, c)
	refused(t, c, Refused, OpSign, 0x40, 2) // nothing of its own in TempKey
	must(t, c, OpGenDig, 5, 14)
	temp, sn := bytes.Clone(c.ram.temp.value[:32]), c.Serial()
	digest := sum(temp, []byte{0x41, 0x40, 2, 0, 0x0B, 0x1F, 0x32, 0, 14 | 1<<5, 0, 0}, sn[8:], sn[4:8], sn[:2], sn[2:4], []byte{1, 0, 0})
	if !verifies(t, public, digest, must(t, c, OpSign, 0x40, 2)) {
		t.Error("the signature is of something else")
	}
}

func TestSHA(t *testing.T) {
	c := provision(t, nil)
	key := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, key...)
	closeData(t, c)
	text := randomBytes(64*3 + 17)
	run := func(start byte, p2 uint16, end byte, between func()) []byte {
		t.Helper()
		must(t, c, OpSHA, start, p2)
		for i := 0; i < 192; i += 64 {
			must(t, c, OpSHA, 1, 64, text[i:i+64]...)
			if between != nil {
				between()
			}
		}
		return must(t, c, OpSHA, end, 17, text[192:]...)
	}
	want := sha256.Sum256(text)
	for _, end := range []byte{0x02, 0x42, 0xC2} {
		if got := run(0, 0, end, nil); !bytes.Equal(got, want[:]) {
			t.Errorf("SHA, end %02x", end)
		}
	}
	if !bytes.Equal(c.ram.temp.value[:32], want[:]) || !bytes.Equal(c.ram.digest[:32], want[:]) {
		t.Error("the digest is not where it should be kept")
	}
	// The context out, something else between, and in again.
	swap := func() {
		ctx := must(t, c, OpSHA, 6, 0)
		must(t, c, OpSHA, 0, 0)
		c.Sleep()
		must(t, c, OpSHA, 7, uint16(len(ctx)), ctx...)
	}
	if got := run(0, 0, 0xC2, swap); !bytes.Equal(got, want[:]) {
		t.Error("SHA over a context")
	}
	h := hmac.New(sha256.New, key)
	h.Write(text)
	for _, between := range []func(){nil, swap} {
		if got := run(4, 4, 0xC2, between); !bytes.Equal(got, h.Sum(nil)) {
			t.Error("HMAC")
		}
	}
	refused(t, c, Refused, OpSHA, 1, 64, text[:64]...)
	refused(t, c, Refused, OpSHA, 6, 0)
	refused(t, c, BadParse, OpSHA, 7, 0, text[:10]...)
	must(t, c, OpSHA, 0, 0)
	refused(t, c, BadParse, OpSHA, 1, 64, text[:63]...)
	refused(t, c, BadParse, OpSHA, 2, 3, text[:4]...)
}

// PRF by the vector that goes around for P_SHA256, the others by package hmac.
func TestKDF(t *testing.T) {
	c := provision(t, nil)
	secret := randomBytes(32)
	must(t, c, OpWrite, writeSlot, 4<<3, secret...)
	closeData(t, c)
	key := unhex(t, "9bbe436ba940f017b17652849a71db35")
	seed := append([]byte("test label"), unhex(t, "a0ba9f936cda311827a6f796ffd5198c")...)
	want := unhex(t, "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab")
	must(t, c, OpNonce, 3, 0, append(key, make([]byte, 16)...)...)
	prfData := append([]byte{0, 1, 0, byte(len(seed))}, seed...)
	if got := must(t, c, OpKDF, 0x10, 0, prfData...); !bytes.Equal(got, want) {
		t.Error("PRF to the bus")
	}
	out := must(t, c, OpKDF, 0x14, 0, prfData...)
	for i := range 2 {
		if block := xor(out[32*i:32*i+32], sum(secret, out[64+16*i:80+16*i])); !bytes.Equal(block, want[32*i:32*i+32]) {
			t.Errorf("PRF, encrypted, block %d", i)
		}
	}
	prfData[1] = 0
	must(t, c, OpKDF, 0x08, 0x0500, prfData...)
	if !bytes.Equal(c.nv.slot(5)[:32], want[:32]) {
		t.Error("PRF to a slot")
	}
	refused(t, c, BadParse, OpKDF, 0x10, 0, append([]byte{2, 0, 0, byte(len(seed))}, seed...)...) // TempKey has no 48 bytes
	refused(t, c, BadParse, OpKDF, 0x10, 0, prfData[:20]...)

	message := randomBytes(16)
	for name, k := range map[string]struct {
		details, key, message []byte
	}{
		"input":    {[]byte{2, 0, 0, 16}, secret, message},
		"zero key": {[]byte{6, 0, 0, 16}, make([]byte, 32), message},
		"a slot":   {[]byte{0, 5, 0, 20}, secret, want[:20]},
		"TempKey":  {[]byte{1, 0, 0, 16}, secret, key},
	} {
		data := k.details
		if name == "input" || name == "zero key" {
			data = append(data, message...)
		}
		if got := must(t, c, OpKDF, 0x52, 4, data...); !bytes.Equal(got, hmacOf(k.key, k.message)) {
			t.Errorf("HKDF of %s", name)
		}
	}
	refused(t, c, Refused, OpKDF, 0x53, 0, append([]byte{2, 0, 0, 16}, message...)...) // no alternate key
	must(t, c, OpNonce, 0x83, 0, secret...)
	must(t, c, OpKDF, 0x53, 0, append([]byte{2, 0, 0, 16}, message...)...)
	refused(t, c, BadParse, OpKDF, 0x70, 0, append([]byte{2, 0, 0, 16}, message...)...)
}

// The multiplication of GCM, by test case 2 of its specification.
func TestGFM(t *testing.T) {
	c := closeData(t, provision(t, nil))
	data := unhex(t, "66e94bd4ef8a2c3b884cfa59ca342b2e"+"0388dace60b6a392f328c2b971b2fe78")
	if got := hex.EncodeToString(must(t, c, OpAES, 3, 0, data...)); got != "5e2ec746917062882c85b0685353deb7" {
		t.Errorf("got %s", got)
	}
	key := randomBytes(32)
	must(t, c, OpNonce, 3, 0, key...)
	block := randomBytes(16)
	if got := must(t, c, OpAES, 1, tempKeyID, must(t, c, OpAES, 0, tempKeyID, block...)...); !bytes.Equal(got, block) {
		t.Error("decrypted is not what was encrypted")
	}
	refused(t, c, BadParse, OpAES, 2, tempKeyID, block...)
	refused(t, c, Refused, OpAES, 0, 4, block...) // no key for AES
}

func TestSecureBoot(t *testing.T) {
	scalar, public := newKey(t)
	signed := func(digest []byte) []byte {
		t.Helper()
		sig, s := signature(scalar, digest)
		if s != OK {
			t.Fatal(s)
		}
		return append(bytes.Clone(digest), sig...)
	}
	boots := func(kind uint16) (*Chip, []byte) {
		c := provision(t, func(m *Image) { binary.LittleEndian.PutUint16(m.config[atSecureBoot:], 0x8908|kind) })
		io := randomBytes(32)
		must(t, c, OpWrite, writeSlot, 4<<3, io...)
		writePublic(t, c, 8, public)
		return closeData(t, c), io
	}
	digest, other := randomBytes(32), randomBytes(32)
	for kind := uint16(1); kind <= 3; kind++ {
		c, io := boots(kind)
		must(t, c, OpSecureBoot, 5, 0, signed(digest)...)
		if !c.latch {
			t.Error("success did not set the latch")
		}
		refused(t, c, Miscompare, OpSecureBoot, 5, 0, append(bytes.Clone(other), signed(digest)[32:]...)...)
		if c.latch {
			t.Error("failure left the latch")
		}
		if kind == bootBoth {
			refused(t, c, Refused, OpSecureBoot, 7, 0, signed(digest)...)
			refused(t, c, Refused, OpSecureBoot, 6, 0, digest...)
			continue
		}
		refused(t, c, Miscompare, OpSecureBoot, 6, 0, digest...)
		must(t, c, OpSecureBoot, 7, 0, signed(digest)...)
		must(t, c, OpSecureBoot, 6, 0, digest...)
		refused(t, c, Miscompare, OpSecureBoot, 6, 0, other...)
		refused(t, c, Miscompare, OpSecureBoot, 7, 0, append(bytes.Clone(other), signed(digest)[32:]...)...)
		must(t, c, OpSecureBoot, 6, 0, digest...) // what is kept stayed

		temp := randomNonce(t, c)
		k := sum(io, temp)
		request := signed(digest)
		copy(request, xor(digest, k))
		got := must(t, c, OpSecureBoot, 0x85, 0, request...)
		if want := sum(k, digest, request[32:], []byte{0x80, 0x85, 0, 0}); !bytes.Equal(got, want) {
			t.Error("the MAC of a full boot")
		}
		k = sum(io, randomNonce(t, c))
		if got := must(t, c, OpSecureBoot, 0x86, 0, xor(digest, k)...); !bytes.Equal(got, sum(k, digest, []byte{0x80, 0x86, 0, 0})) {
			t.Error("the MAC of a stored boot")
		}
		refused(t, c, Refused, OpSecureBoot, 0x86, 0, xor(digest, k)...) // the nonce was used

		must(t, c, OpSecureBoot, 0x46, 0, digest...)
		refused(t, c, Refused, OpSecureBoot, 6, 0, digest...)
		c.Sleep()
		refused(t, c, Refused, OpSecureBoot, 6, 0, digest...)
		c.PowerCycle()
		must(t, c, OpSecureBoot, 6, 0, digest...)
	}
	c, _ := boots(bootDisabled)
	refused(t, c, Refused, OpSecureBoot, 5, 0, signed(digest)...)
	refused(t, c, BadParse, OpSecureBoot, 4, 0, signed(digest)...)
}

// agreed is the secret of two keys of the curve, by package ecdh.
func agreed(t *testing.T, scalar, public []byte) []byte {
	t.Helper()
	key, err := ecdh.P256().NewPrivateKey(scalar)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ecdh.P256().NewPublicKey(append([]byte{4}, public...))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.ECDH(theirs)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// What chip libraries ask of a chip besides what the other tests do, mode by mode: each
// row prepares, and names what must come out, to the bus or in a place.
func TestModes(t *testing.T) {
	c := provision(t, func(m *Image) {
		for at, v := range map[int]uint16{
			atSlotConfig + 2*6: 0x0F8F, atKeyConfig + 2*6: 0x0033, // private: agrees, into 7
			atKeyConfig + 2*10: 0x0038, // keys for AES
		} {
			binary.LittleEndian.PutUint16(m.config[at:], v)
		}
	})
	io, aesKeys := randomBytes(32), randomBytes(64)
	must(t, c, OpWrite, writeSlot, 4<<3, io...)
	must(t, c, OpWrite, writeSlot, 10<<3, aesKeys[:32]...)
	must(t, c, OpWrite, writeSlot, 1<<8|10<<3, aesKeys[32:64]...)
	toBus, _ := newKey(t)
	inside, _ := newKey(t)
	must(t, c, OpPrivWrite, 0, 2, append(make([]byte, 4), toBus...)...)
	must(t, c, OpPrivWrite, 0, 6, append(make([]byte, 4), inside...)...)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := signer.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	verifier := whole[1:]
	writePublic(t, c, 11, verifier)
	// One-time programmable bytes are written before they are locked, and whole blocks of
	// them: four bytes are refused, then as later.
	otp := randomBytes(32)
	must(t, c, OpWrite, 0x81, 0, otp...)
	refused(t, c, Refused, OpWrite, 0x01, 1, 1, 2, 3, 4)
	closeData(t, c)
	refused(t, c, Refused, OpWrite, 0x01, 1, 1, 2, 3, 4)
	if got := must(t, c, OpRead, 0x01, 1); !bytes.Equal(got, otp[4:8]) {
		t.Errorf("one-time programmable bytes: %x", got)
	}

	temp, alt, digest, nonce := randomBytes(64), randomBytes(32), randomBytes(32), randomBytes(32)
	message, block := randomBytes(24), randomBytes(16)
	_, theirs := newKey(t)
	enc := func(key []byte) []byte {
		k, err := aes.NewCipher(key[:16])
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 32)
		k.Encrypt(out, block)
		return out
	}
	dec := func(key []byte) []byte {
		k, err := aes.NewCipher(key[:16])
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 16)
		k.Decrypt(out, block)
		return out
	}
	prf := func(key, seed []byte) []byte { // RFC 5246 §5: A(1) = HMAC(seed), then HMAC(A(1) ‖ seed)
		a1 := hmacOf(key, seed)
		a2 := hmacOf(key, a1)
		return append(hmacOf(key, append(bytes.Clone(a1), seed...)), hmacOf(key, append(bytes.Clone(a2), seed...))...)
	}
	sign := func(digest []byte) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, signer, digest)
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	sig, wrong := sign(digest), sign(alt)
	verifyMAC := func(mode byte, key uint16) []byte {
		return sum(io, digest, nonce, sig, []byte{byte(OpVerify), mode, byte(key), 0})
	}

	hkdf := append([]byte{messageInInput, 0, 0, byte(len(message))}, message...)
	byAES := func(place byte) []byte { return append([]byte{place, 0, 0, 0}, block...) }
	byPRF := func(length, size byte) []byte { return append([]byte{length, size, 0, byte(len(message))}, message...) }
	inTemp := func() []byte { return c.ram.temp.value[:32] }
	inTempWhole := func() []byte { return c.ram.temp.value[:] }
	inSlot := func(slot int) func() []byte { return func() []byte { return c.nv.slot(slot)[:32] } }
	opened := func(out []byte) []byte { // of what left the chip encrypted under the IO key
		n := len(out) - 32
		for i := 0; i < n; i += 32 {
			copy(out[i:], xor(out[i:i+32], sum(io, out[n+i/2:n+i/2+16])))
		}
		return out[:n]
	}
	bare := func(out []byte) []byte { return out }
	for _, m := range []struct {
		name string
		op   Opcode
		p1   byte
		p2   uint16
		data []byte
		// out reads the answer, in the place; one of them, or neither where the status is
		// all.
		out  func([]byte) []byte
		in   func() []byte
		want []byte
	}{
		{"PRF, the alternate key to TempKey", OpKDF, 0x03, 0, byPRF(1, 0), nil, inTemp, prf(alt, message)[:32]},
		{"PRF, 64 bytes", OpKDF, 0x03, 0, byPRF(1, 1), nil, inTempWhole, prf(alt, message)},
		{"PRF, a key of 16", OpKDF, 0x03, 0, byPRF(0, 0), nil, inTemp, prf(alt[:16], message)[:32]},
		{"KDF by AES, the alternate key to TempKey", OpKDF, 0x23, 0, byAES(1), nil, inTemp, enc(alt[16:])},
		{"KDF by AES, TempKey to a slot", OpKDF, 0x28, 0x0500, byAES(3), nil, inSlot(5), enc(temp[48:])},
		{"KDF by AES, TempKey to the bus", OpKDF, 0x30, 0, byAES(0), bare, nil, enc(temp)},
		{"KDF by AES, encrypted", OpKDF, 0x34, 0, byAES(2), opened, nil, enc(temp[32:])},
		{"HKDF, the alternate key to TempKey", OpKDF, 0x43, 0, hkdf, nil, inTemp, hmacOf(alt, message)},
		{"HKDF, TempKey to a slot", OpKDF, 0x48, 0x0500, hkdf, nil, inSlot(5), hmacOf(temp[:32], message)},
		{"HKDF, TempKey to the bus", OpKDF, 0x50, 0, hkdf, bare, nil, hmacOf(temp[:32], message)},
		{"HKDF, encrypted", OpKDF, 0x54, 0, hkdf, opened, nil, hmacOf(temp[:32], message)},
		{"ECDH as the slot says, to the bus", OpECDH, 0x00, 2, theirs, bare, nil, agreed(t, toBus, theirs)},
		{"ECDH as the slot says, into the next", OpECDH, 0x00, 6, theirs, nil, inSlot(7), agreed(t, inside, theirs)},
		{"Verify, a stored key, the digest buffer", OpVerify, 0x20, 11, sig, nil, nil, nil},
		{"Verify, a key that comes along, the digest buffer", OpVerify, 0x22, 4, append(bytes.Clone(sig), verifier...), nil, nil, nil},
		{"Verify with its MAC", OpVerify, 0xA0, 11, sig, bare, nil, verifyMAC(0xA0, 11)},
		{"AES decrypts under a slot's second key", OpAES, 0x41, 10, block, bare, nil, dec(aesKeys[16:])},
		{"third key", OpAES, 0x81, 10, block, bare, nil, dec(aesKeys[32:])},
		{"fourth key", OpAES, 0xC1, 10, block, bare, nil, dec(aesKeys[48:])},
		{"TempKey's fourth", OpAES, 0xC1, tempKeyID, block, bare, nil, dec(temp[48:])},
		{"SelfTest of random numbers", OpSelfTest, 0x01, 0, nil, nil, nil, nil},
		{"of signatures", OpSelfTest, 0x04, 0, nil, nil, nil, nil},
		{"of agreement", OpSelfTest, 0x08, 0, nil, nil, nil, nil},
		{"of AES", OpSelfTest, 0x10, 0, nil, nil, nil, nil},
		{"of SHA", OpSelfTest, 0x20, 0, nil, nil, nil, nil},
	} {
		must(t, c, OpNonce, 0x23, 0, temp...)
		must(t, c, OpNonce, 0x83, 0, alt...)
		must(t, c, OpNonce, 0x63, 0, append(bytes.Clone(digest), nonce...)...)
		answer, got := must(t, c, m.op, m.p1, m.p2, m.data...), []byte(nil)
		switch {
		case m.out != nil:
			got = m.out(answer)
		case len(answer) != 0:
			t.Errorf("%s: the bus has %x", m.name, answer)
		case m.in != nil:
			got = m.in()
		}
		if !bytes.Equal(got, m.want) {
			t.Errorf("%s: got %x, want %x", m.name, got, m.want)
		}
	}
	for _, v := range []struct {
		p1   byte
		p2   uint16
		data []byte
	}{{0x20, 11, wrong}, {0xA0, 11, wrong}, {0x22, 4, append(bytes.Clone(wrong), verifier...)}} {
		refused(t, c, Miscompare, OpVerify, v.p1, v.p2, v.data...)
	}
	refused(t, c, BadParse, OpSelfTest, 0x40, 0)
	refused(t, c, Refused, OpInfo, infoGPIO, 0) // on I²C there is no pin
	refused(t, c, Refused, OpInfo, infoGPIO, 3)
}
