package chip

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// example is one recorded command, packet and answer, of commands.txt.
type example struct {
	packet, answer []byte
}

func (e example) op() Opcode { return Opcode(e.packet[1]) }
func (e example) p1() byte   { return e.packet[2] }
func (e example) p2() uint16 { return binary.LittleEndian.Uint16(e.packet[3:]) }

// data is what the command brings, out what its answer does.
func (e example) data() []byte { return bytes.Clone(e.packet[5 : len(e.packet)-2]) }
func (e example) out() []byte  { return bytes.Clone(e.answer[1 : len(e.answer)-2]) }

// replay sends the recorded packet and wants the recorded answer, byte for byte.
func (e example) replay(t *testing.T, c *Chip) {
	t.Helper()
	if got := executeKept(t, c, e.packet); !bytes.Equal(got, e.answer) {
		t.Errorf("%v %02x: got %x, want %x", e.op(), e.p1(), got, e.answer)
	}
}

// refused sends the recorded packet, which this chip understands and has a reason not
// to do.
func (e example) refused(t *testing.T, c *Chip, want Status) {
	t.Helper()
	refused(t, c, want, e.op(), e.p1(), e.p2(), e.data()...)
}

// An example is replayed on a chip in which what its answer depends on was put: keys
// that are chosen, random numbers that were recorded. Of seven answers the recording
// does not say what they were made of: there the packet is carried out with other
// secrets, and all of the answer that does not hang on them is held against the
// recorded one.
var examples = map[[2]byte]struct {
	// unknown says why the recorded answer cannot come again; "" where it must.
	unknown string
	try     func(*testing.T, example)
}{
	{byte(OpInfo), infoRevision}: {try: func(t *testing.T, e example) { e.replay(t, tnglora(t, Options{})) }},
	{byte(OpCounter), 0}:         {try: func(t *testing.T, e example) { e.replay(t, tnglora(t, Options{})) }},
	{byte(OpSelfTest), 0x3B}:     {try: func(t *testing.T, e example) { e.replay(t, tnglora(t, Options{})) }},

	// The answer is the random number, and TempKey what both sides make of it.
	{byte(OpNonce), nonceRandom}: {try: func(t *testing.T, e example) {
		c := tnglora(t, Options{})
		c.rand = bytes.NewReader(append(e.out(), e.out()...)) // executeKept carries it out twice
		e.replay(t, c)
		want := sum(e.out(), e.data(), []byte{byte(OpNonce), nonceRandom, 0})
		if temp := c.ram.temp; !bytes.Equal(temp.value[:32], want) || !temp.valid || temp.given || temp.wide {
			t.Errorf("TempKey is %+v", temp)
		}
	}},
	{byte(OpNonce), nonceGiven | targetDigest}: {try: func(t *testing.T, e example) {
		c := tnglora(t, Options{})
		e.replay(t, c)
		if c.ram.digestLen != 32 || !bytes.Equal(c.ram.digest[:32], e.data()) || c.ram.temp.valid {
			t.Error("the digest buffer, and nothing else, has what was given")
		}
	}},

	{byte(OpDeriveKey), 0}: {try: func(t *testing.T, e example) {
		key := randomBytes(32)
		c := provision(t, func(m *Image) { m.configure(9, 0x208F, 0x001C) }) // rolls
		must(t, c, OpWrite, writeSlot, 9<<3, key...)
		closeData(t, c)
		e.refused(t, c, Refused) // TempKey holds nothing
		must(t, c, OpNonce, nonceGiven, 0, randomBytes(32)...)
		e.refused(t, c, Refused) // it holds what the host gave
		temp := randomNonce(t, c)
		e.replay(t, c)
		if want := sum(key, []byte{byte(OpDeriveKey), 0, 9, 0}, sn3(c), make([]byte, 25), temp); !bytes.Equal(c.nv.slot(9)[:32], want) || c.ram.temp.valid {
			t.Error("slot 9 rolled to another key, or TempKey is still there")
		}
	}},

	{byte(OpSHA), shaUpdate}: {try: func(t *testing.T, e example) {
		c := tnglora(t, Options{})
		e.refused(t, c, Refused) // nothing was begun
		must(t, c, OpSHA, shaStart, 0)
		e.replay(t, c)
		want := sha256.Sum256(e.data())
		if got := must(t, c, OpSHA, shaEnd|shaAnswerOnly, 0); !bytes.Equal(got, want[:]) {
			t.Error("another digest")
		}
	}},
	{byte(OpSHA), shaHMACStart}: {try: func(t *testing.T, e example) {
		c := provision(t, nil)
		key, message := randomBytes(32), randomBytes(20)
		must(t, c, OpWrite, writeSlot, 4<<3, key...)
		closeData(t, c)
		e.replay(t, c)
		if got := must(t, c, OpSHA, shaEnd|shaAnswerOnly, 20, message...); !bytes.Equal(got, hmacOf(key, message)) {
			t.Error("another HMAC")
		}
	}},

	{byte(OpGenKey), genDigestPublic}: {try: func(t *testing.T, e example) {
		c := provision(t, nil)
		_, public := newKey(t)
		writePublic(t, c, 14, public)
		closeData(t, c)
		e.refused(t, c, Refused) // TempKey holds nothing
		temp := randomNonce(t, c)
		e.replay(t, c)
		want := sum(temp, []byte{byte(OpGenKey)}, e.data(), sn3(c), make([]byte, 25), public)
		if k := c.ram.temp; !bytes.Equal(k.value[:32], want) || !k.genKey || k.slot != 14 || k.given {
			t.Errorf("TempKey is %+v", k)
		}
	}},
	{byte(OpECDH), ecdhAsSlot}: {try: func(t *testing.T, e example) {
		c := provision(t, nil)
		scalar, _ := newKey(t)
		must(t, c, OpPrivWrite, 0, 0, append(make([]byte, 4), scalar...)...)
		closeData(t, c)
		e.replay(t, c)
		if !bytes.Equal(c.nv.slot(1)[:32], agreed(t, scalar, e.data())) {
			t.Error("slot 1 has another secret")
		}
	}},
	{byte(OpSecureBoot), bootFull}: {try: func(t *testing.T, e example) {
		// One of the two keys under which the recorded signature is one of the recorded
		// digest: a signature tells them.
		public := unhex(t, "18e0b9423baed3224a0f7a868466772f0ee705612bc6ac2f0498650d844e3068"+
			"47478e7b3485d79ddcfd7ec34101e7d6639cfe2590395b1a5bc35e3bd114b9f2")
		c := provision(t, nil)
		writePublic(t, c, 8, public)
		e.refused(t, c, Refused) // the data zone is open
		closeData(t, c)
		e.replay(t, c)
		other := e.data()
		other[0] ^= 1
		refused(t, c, Miscompare, e.op(), e.p1(), e.p2(), other...)
	}},
	{byte(OpLock), lockNoCRC | lockConfig}: {try: func(t *testing.T, e example) {
		c := New(Blank([SerialSize]byte{1, 0x23}), Options{})
		e.replay(t, c)
		if !c.nv.configLocked() || c.nv.dataLocked() {
			t.Error("the configuration, and nothing else, is locked")
		}
		e.refused(t, c, Refused) // it is locked
	}},

	{byte(OpCheckMac), 0}: {"the key of slot 8, which the response was made with, was not recorded", func(t *testing.T, e example) {
		key, data := randomBytes(32), e.data()
		c := provision(t, func(m *Image) { m.configure(8, 0x8F8F, 0x001C) })
		must(t, c, OpWrite, writeSlot, 8<<3, key...)
		closeData(t, c)
		randomNonce(t, c)
		e.refused(t, c, Miscompare)
		if c.ram.temp.valid || c.ram.authorised != 0 {
			t.Error("TempKey outlived it, or the host is authorised")
		}
		sn := c.Serial()
		copy(data[32:], sum(key, data[:32], data[64:68], make([]byte, 8), data[68:71], sn[8:], data[71:75], sn[:2], data[75:]))
		again := example{Command(e.op(), e.p1(), e.p2(), data...), e.answer}
		again.replay(t, c)
		if c.ram.authorised != 8+1 {
			t.Error("the host is not authorised by slot 8")
		}
	}},
	{byte(OpKDF), kdfPRF | kdfOut}: {"what TempKey held was not recorded", func(t *testing.T, e example) {
		c := closeData(t, provision(t, nil))
		e.refused(t, c, Refused) // TempKey holds nothing
		key := randomBytes(32)
		must(t, c, OpNonce, nonceGiven, 0, key...)
		message := e.data()[4:]
		a1 := hmacOf(key, message)
		want := append(hmacOf(key, append(a1[:32:32], message...)), hmacOf(key, append(hmacOf(key, a1), message...))...)
		if got := must(t, c, e.op(), e.p1(), e.p2(), e.data()...); len(got) != len(e.out()) || !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
		if !bytes.Equal(c.ram.temp.value[:32], key) {
			t.Error("TempKey changed")
		}
	}},
	{byte(OpKDF), kdfAES | kdfOutEncrypted}: {"neither what TempKey held nor the IO key was recorded; the nonce behind was", func(t *testing.T, e example) {
		c := provision(t, nil)
		io, key, nonce := randomBytes(32), randomBytes(32), e.out()[32:]
		must(t, c, OpWrite, writeSlot, 4<<3, io...)
		closeData(t, c)
		must(t, c, OpNonce, nonceGiven, 0, key...)
		want := append(must(t, c, OpAES, aesEncrypt, tempKeyID, e.data()[4:]...), make([]byte, 16)...)
		c.rand = bytes.NewReader(append(nonce, nonce...))
		got := must(t, c, e.op(), e.p1(), e.p2(), e.data()...)
		if len(got) != 64 || !bytes.Equal(got[32:], nonce[:32]) {
			t.Errorf("got %x, want the nonce %x behind", got, nonce[:32])
		}
		if !bytes.Equal(xor(got[:32], sum(io, nonce[:16])), want) {
			t.Error("the output is not the block encrypted, with zeros behind, under the pad")
		}
	}},
	{byte(OpGenKey), genPublic}: {"the private key of slot 2 was not recorded; the answer is its public one", func(t *testing.T, e example) {
		if _, err := ecdh.P256().NewPublicKey(append([]byte{4}, e.out()...)); err != nil {
			t.Errorf("the answer is no point of the curve: %v", err)
		}
		c := provision(t, nil)
		e.refused(t, c, Refused) // no key is there
		scalar, public := newKey(t)
		must(t, c, OpPrivWrite, 0, 2, append(make([]byte, 4), scalar...)...)
		if got := must(t, c, e.op(), e.p1(), e.p2(), e.data()...); !bytes.Equal(got, public) || c.ram.temp.valid {
			t.Error("another public key, or one in TempKey")
		}
	}},
	{byte(OpSign), signExternal | signDigestBuf}: {"the private key of slot 2 and the digest were not recorded, and signatures are drawn", func(t *testing.T, e example) {
		c := provision(t, nil)
		public := must(t, c, OpGenKey, genPrivate, 2)
		closeData(t, c)
		temp := randomNonce(t, c)
		e.refused(t, c, Refused) // the digest buffer is empty
		digest := randomBytes(32)
		must(t, c, OpNonce, nonceGiven|targetDigest, 0, digest...)
		got := must(t, c, e.op(), e.p1(), e.p2(), e.data()...)
		if len(got) != len(e.out()) || !verifies(t, public, digest, got) {
			t.Errorf("%x is no signature of the digest", got)
		}
		if !bytes.Equal(c.ram.temp.value[:32], temp) || c.ram.digestLen != 32 {
			t.Error("TempKey or the digest buffer changed")
		}
	}},
	{byte(OpVerify), verifyMAC | verifyDigestBuf | verifyExternal}: {"neither the digest nor the IO key was recorded", func(t *testing.T, e example) {
		c := provision(t, nil)
		io := randomBytes(32)
		must(t, c, OpWrite, writeSlot, 4<<3, io...)
		public := must(t, c, OpGenKey, genPrivate, 2)
		closeData(t, c)
		e.refused(t, c, Refused) // the digest buffer is empty
		digest, nonce := randomBytes(32), randomBytes(32)
		must(t, c, OpNonce, nonceGiven|nonceWide|targetDigest, 0, append(bytes.Clone(digest), nonce...)...)
		e.refused(t, c, Miscompare) // a key of the curve, and a signature of something else
		sig := must(t, c, OpSign, signExternal|signDigestBuf, 2)
		got := must(t, c, e.op(), e.p1(), e.p2(), append(bytes.Clone(sig), public...)...)
		if len(got) != len(e.out()) || !bytes.Equal(got, sum(io, digest, nonce, sig, []byte{byte(OpVerify), e.p1(), 4, 0})) {
			t.Errorf("the MAC is %x", got)
		}
	}},
	{byte(OpWrite), flag32 | flagEncrypted | zoneData}: {"neither the session's nonce nor its key was recorded", func(t *testing.T, e example) {
		c := provision(t, func(m *Image) { m.configure(8, 0x44C4, 0x001C) }) // read and written encrypted under 4
		key, plain := randomBytes(32), randomBytes(32)
		must(t, c, OpWrite, writeSlot, 4<<3, key...)
		closeData(t, c)
		before := bytes.Clone(c.nv.slot(8))
		e.refused(t, c, Refused) // no session
		session(t, c, 4, key, randomNonce(t, c))
		e.refused(t, c, Miscompare)
		if !bytes.Equal(c.nv.slot(8), before) || c.ram.temp.valid {
			t.Error("a wrong MAC wrote, or left the session")
		}
		temp := session(t, c, 4, key, randomNonce(t, c))
		mac := sum(temp, []byte{byte(OpWrite), e.p1(), 8 << 3, 0}, sn3(c), make([]byte, 25), plain)
		again := example{Command(e.op(), e.p1(), e.p2(), append(xor(plain, temp), mac...)...), e.answer}
		again.replay(t, c)
		if !bytes.Equal(c.nv.slot(8)[:32], plain) {
			t.Error("something else was written")
		}
	}},
}

// Each recorded command of the modes that no join has: form, CRC, and all of the answer
// that can be known.
func TestRecordedExamples(t *testing.T) {
	unknown := 0
	list := lines(t, "commands.txt")
	for _, l := range list {
		e := example{unhex(t, l[0]), unhex(t, l[1])}
		t.Run(e.op().String()+hex.EncodeToString(e.packet[2:3]), func(t *testing.T) {
			for _, p := range [][]byte{e.packet, e.answer} {
				if end := len(p) - 2; int(p[0]) != len(p) || CRC(p[:end]) != binary.LittleEndian.Uint16(p[end:]) {
					t.Errorf("%x: count or CRC", p)
				}
			}
			if again := Command(e.op(), e.p1(), e.p2(), e.data()...); !bytes.Equal(again, e.packet) {
				t.Errorf("got %x, want %x", again, e.packet)
			}
			do, known := examples[[2]byte{e.packet[1], e.packet[2]}]
			if !known {
				t.Fatal("nothing says what this answer depends on")
			}
			if do.unknown != "" {
				unknown++
			}
			do.try(t, e)
		})
	}
	if len(list) != 19 || len(list) != len(examples) || unknown != 7 {
		t.Errorf("%d examples, %d of them with unknown secrets", len(list), unknown)
	}
}
