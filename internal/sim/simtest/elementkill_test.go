package simtest_test

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/flash"
	"joinery/internal/sim/command"
)

// killedServe has the arguments of the `element serve` that is killed, in its process.
const killedServe = "JOINERY_TEST_KILLED_SERVE"

// A process that serves elements is killed at random instants while hosts send all
// commands that write: from locking a blank chip's configuration on, and to a TNGLORA.
// Whatever was answered is there, whole; of the one command that was not, all or
// nothing; and of other chips nothing else.
func TestElementKilled(t *testing.T) {
	if args := os.Getenv(killedServe); args != "" {
		cmd := command.New()
		cmd.SetArgs(strings.Fields(args))
		t.Fatal(cmd.Execute()) // it ends by being killed
	}
	rounds := 64
	switch {
	case os.Getenv("JOINERY_LONG") != "":
		rounds = 500
	case testing.Short():
		rounds = 16
	}
	k := newKilling(t)
	for range rounds {
		k.round()
		k.compare()
	}
	for _, g := range slices.Concat(k.blank, k.open, k.closed, k.lora) {
		if !k.wrote[g.name] {
			t.Errorf("%s never changed a chip's memory", g.name)
		}
	}
	if k.unanswered == 0 {
		t.Error("no kill left a command without its answer")
	}
	t.Logf("%d commands answered over %d kills, %d not; %d of these were done", k.answered, rounds, k.unanswered, k.done)
}

// killing is what was answered so far of the chips in a file, and what may be there of
// the command that was not.
type killing struct {
	t    *testing.T
	path string

	state []([]byte) // each chip's image, as its commands were answered
	// drawn is the public key of each chip's slot 0 that was answered last: the chip
	// draws it, so that nobody else knows what stands there.
	drawn [][]byte
	lost  *unanswered // the command without an answer

	blank, open, closed, lora []group
	wrote                     map[string]bool
	answered, unanswered      int
	done                      int

	boot, parent, child *ecdsa.PrivateKey
	secret              [32]byte // what slot 4 has, or 13 of a TNGLORA

	// Of a round.
	process *os.Process
	conn    net.Conn
	left    int // commands before the kill is prepared
	gone    bool
	at      int // the chip that is talked to
	group   string
	twin    *chip.Chip // carries out the same commands here
	numbers *bytes.Reader
}

// unanswered is a command that was sent and not answered: what the chip had been, and
// whether it draws a key.
type unanswered struct {
	at     int
	before []byte
	draws  bool
}

// group is a few commands that belong together, the last of which writes.
type group struct {
	name string
	do   func()
}

func newKilling(t *testing.T) *killing {
	k := &killing{t: t, path: filepath.Join(t.TempDir(), "elements"), wrote: map[string]bool{}}
	for _, key := range []**ecdsa.PrivateKey{&k.boot, &k.parent, &k.child} {
		var err error
		if *key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = rand.Read(k.secret[:])
	images := []*chip.Image{
		chip.Blank([chip.SerialSize]byte{1, 0x23, 7: 1, 8: 0xEE}), chip.Blank([chip.SerialSize]byte{1, 0x23, 7: 2, 8: 0xEE}),
		chip.TNGLORA([chip.SerialSize]byte{1, 0x23, 7: 3, 8: 0x27}),
	}
	if err := images[2].SetSlot(13, k.secret[:]); err != nil {
		t.Fatal(err)
	}
	if err := flash.Create(k.path, images); err != nil {
		t.Fatal(err)
	}
	for _, m := range images {
		k.state = append(k.state, binaryOf(t, m))
	}
	k.drawn = make([][]byte, len(images))
	k.groups()
	return k
}

func binaryOf(t *testing.T, m *chip.Image) []byte {
	t.Helper()
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// round starts the process, talks to chips until it is killed, and waits for its end.
func (k *killing) round() {
	socket := filepath.Join(filepath.Dir(k.path), "socket")
	cmd := exec.Command(os.Args[0], "-test.run=^TestElementKilled$")
	cmd.Env = append(os.Environ(), killedServe+"=element serve --json --state "+k.path+" --i2c unix:"+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if door := bufio.NewScanner(out); !door.Scan() || !strings.Contains(door.Text(), socket) {
		k.t.Fatalf("no door: %q", door.Text())
	}
	if k.conn, err = net.Dial("unix", socket); err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = k.conn.Close() }()
	if err := k.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		k.t.Fatal(err)
	}
	k.process, k.gone, k.lost, k.left = cmd.Process, false, nil, 1+mathrand.IntN(150)
	for !k.gone {
		k.talkTo(mathrand.IntN(len(k.state)))
		for n := mathrand.IntN(8); n >= 0 && !k.gone; n-- {
			groups := k.closed
			switch config := k.state[k.at]; {
			case k.at == 2:
				groups = k.lora
			case config[87] == 0x55:
				groups = k.blank
			case config[86] == 0x55:
				groups = k.open
			}
			g := k.oneOf(groups)
			k.group = g.name
			g.do()
		}
	}
}

// oneOf draws a group. What locks a zone is the last of those before, and waits until
// each of these has written: no chip is open again.
func (k *killing) oneOf(groups []group) group {
	g := groups[mathrand.IntN(len(groups))]
	if strings.HasPrefix(g.name, "Lock of the") {
		for _, before := range groups {
			if before.name != g.name && !k.wrote[before.name] {
				return before
			}
		}
	}
	return g
}

// talkTo selects a chip, which its host left asleep.
func (k *killing) talkTo(at int) {
	if k.twin != nil && !k.gone { // the one before
		k.exchange(append(frameOf('W', 0), frameOf('W', k.twin.Address(), 1)...), 2)
		k.twin.Sleep()
	}
	name := fmt.Sprintf("#%d", at)
	k.exchange(append([]byte{'S', 0, 0, byte(len(name))}, name...), 1)
	var m chip.Image
	if err := m.UnmarshalBinary(k.state[at]); err != nil {
		k.t.Fatal(err)
	}
	k.at, k.numbers = at, bytes.NewReader(nil)
	k.twin = chip.New(&m, chip.Options{Rand: k.numbers, Save: func(m *chip.Image) error {
		k.state[at] = binaryOf(k.t, m)
		return nil
	}})
}

func frameOf(kind, address byte, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind, address}, uint16(len(data))), data...)
}

// exchange sends frames and reads n bytes of answers; nil when the process is gone.
func (k *killing) exchange(frames []byte, n int) []byte {
	if k.gone {
		return nil
	}
	answer := make([]byte, n)
	_, err := k.conn.Write(frames)
	if err == nil {
		if _, err = io.ReadFull(k.conn, answer); err == nil {
			return answer
		}
	}
	// What was not acknowledged is shorter, and waited for in vain.
	if errors.Is(err, os.ErrDeadlineExceeded) {
		k.t.Fatalf("%s: an answer of %d bytes did not come", k.group, n)
	}
	k.gone = true
	return nil
}

// command sends a command, with its wake and its idle, to the chip and to its twin. It
// gives the data of the answer; nil when the process is gone.
func (k *killing) command(op chip.Opcode, p1 byte, p2 uint16, data ...byte) []byte {
	if k.gone {
		return nil
	}
	if k.left--; k.left == 0 {
		go func(p *os.Process, wait time.Duration) {
			time.Sleep(wait)
			_ = p.Kill()
		}(k.process, time.Duration(mathrand.IntN(1000))*time.Microsecond)
	}
	packet, own := chip.Command(op, p1, p2, data...), k.twin.Address()
	frames := slices.Concat(frameOf('W', 0), frameOf('W', own, append([]byte{3}, packet...)...), []byte{'R', own, 0, chip.MaxResponse}, frameOf('W', own, 2))
	got := k.exchange(frames, 1+1+1+chip.MaxResponse+1)
	before := k.state[k.at]
	if got == nil {
		k.numbers.Reset(make([]byte, 32))
		k.twin.Execute(packet)
		k.unanswered++
		k.lost = &unanswered{at: k.at, before: before, draws: op == chip.OpGenKey && p1 == 4}
		return nil
	}
	k.answered++
	answer := got[3 : 3+int(got[3])]
	if op == chip.OpNonce && p1 == 0 {
		k.numbers.Reset(answer[1:33]) // the twin draws what the chip drew
	}
	twin := k.twin.Execute(packet)
	if draws := op == chip.OpGenKey && p1 == 4; draws {
		k.drawn[k.at] = bytes.Clone(answer[1:65])
	} else if op != chip.OpSign && !bytes.Equal(answer, twin) {
		k.t.Fatalf("%s: %v answers %x, its twin %x", k.group, op, answer, twin)
	}
	if !bytes.Equal(k.state[k.at], before) {
		k.wrote[k.group] = true
	}
	out, _ := chip.Answer(answer)
	return out
}

// compare opens the file as the next process will, and holds what is there against what
// was answered.
func (k *killing) compare() {
	f, err := flash.Open(k.path, false)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for i := range k.state {
		m, err := f.Image(i)
		if err != nil {
			k.t.Fatal(err)
		}
		got, lost := binaryOf(k.t, m), k.lost
		if lost != nil && lost.at != i {
			lost = nil
		}
		there := bytes.Equal(withoutDrawn(got), withoutDrawn(k.state[i]))
		if lost != nil && !there {
			there = bytes.Equal(withoutDrawn(got), withoutDrawn(lost.before))
		} else if lost != nil && !bytes.Equal(lost.before, k.state[i]) {
			k.done++
		}
		if !there {
			k.t.Fatalf("chip %d, after %s: its memory is neither that of what was answered nor that of one command more", i, k.group)
		}
		if k.drawn[i] != nil {
			public, err := chip.Answer(chip.New(m, chip.Options{}).Execute(chip.Command(chip.OpGenKey, 0, 0)))
			switch {
			case err != nil:
				k.t.Fatalf("chip %d: no key is left in slot 0: %v", i, err)
			case bytes.Equal(public, k.drawn[i]):
			case lost == nil || !lost.draws:
				k.t.Fatalf("chip %d: slot 0 has another key than the one that was answered", i)
			default:
				k.drawn[i] = public
			}
		}
		k.state[i] = got
	}
	k.twin = nil
}

// withoutDrawn is an image without slot 0 of a chip that draws a key there.
func withoutDrawn(image []byte) []byte {
	if image[12] == 0x27 { // SN[8] of the TNGLORA
		return image
	}
	slot0 := chip.ConfigSize + chip.OTPSize
	return slices.Concat(image[:slot0], make([]byte, 36), image[slot0+36:])
}

// host's side of the chip's formulas.

func (k *killing) sn() []byte { sn := k.twin.Serial(); return []byte{sn[8], sn[0], sn[1]} }

func hash(parts ...[]byte) []byte {
	s := sha256.Sum256(bytes.Join(parts, nil))
	return s[:]
}

func drawn(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func xored(a, b []byte) []byte {
	out := make([]byte, len(a))
	subtle.XORBytes(out, a, b)
	return out
}

func publicOf(key *ecdsa.PrivateKey) []byte {
	b, err := key.PublicKey.Bytes()
	if err != nil {
		panic(err) // a key of the curve
	}
	return b[1:]
}

func signedBy(key *ecdsa.PrivateKey, digest []byte) []byte {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		panic(err) // a key of the curve
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

// session has TempKey become a session under slot 4, and gives it.
func (k *killing) session() []byte {
	nonce := drawn(32)
	k.command(chip.OpNonce, 3, 0, nonce...)
	k.command(chip.OpGenDig, 2, 4)
	return hash(k.secret[:], []byte{0x15, 2, 4, 0}, k.sn(), make([]byte, 25), nonce)
}

// What the blank chips are configured to.
var (
	killedSlots = [chip.Slots]uint16{
		0x20AF, 0x8FC4, 0x64C7, 0x208F, 0x0F8F, 0x0F0F, 0xB48F, 0x44C4, 0x0F0F, 0x0F0F, 0x0F0F, 0x0F0F, 0x0F8F, 0x0F0F, 0x1F0B, 0x0F0F,
	}
	killedKeys = [chip.Slots]uint16{
		0x0033, 0x001C, 0x0033, 0x001C, 0x003C, 0x003E, 0x001C, 0x001C, 0x0030, 0x003C, 0x003C, 0x0030, 0x003C, 0x003C, 0x0032, 0x003C,
	}
)

const clear32 = 0x82 // a slot's block of 32 bytes, in the clear

// groups makes what hosts do to a chip whose configuration is open, whose data is, and
// to one that is closed; and to a TNGLORA.
func (k *killing) groups() {
	public := func(slot uint16, key *ecdsa.PrivateKey) {
		b := append(make([]byte, 4), publicOf(key)[:32]...)
		b = append(append(append(b, 0, 0, 0, 0), publicOf(key)[32:]...), make([]byte, 24)...)
		for block := range uint16(3) {
			k.command(chip.OpWrite, clear32, block<<8|slot<<3, b[32*block:][:32]...)
		}
	}
	genKey := group{"GenKey", func() { k.command(chip.OpGenKey, 4, 0) }}
	count := group{"Counter", func() { k.command(chip.OpCounter, 1, uint16(mathrand.IntN(2))) }}
	k.blank = []group{
		{"UpdateExtra while open", func() { k.command(chip.OpUpdateExtra, 0, uint16(mathrand.IntN(3))) }},
		{"Write of the configuration", func() { k.command(chip.OpWrite, 0, 72/4, drawn(4)...) }},
		{"Lock of the configuration", func() {
			config := bytes.Clone(k.state[k.at][:chip.ConfigSize])
			config[19] = byte(k.at) // one of the two may be given another address
			for i := range chip.Slots {
				binary.LittleEndian.PutUint16(config[20+2*i:], killedSlots[i])
				binary.LittleEndian.PutUint16(config[96+2*i:], killedKeys[i])
			}
			binary.LittleEndian.PutUint16(config[70:], 0x8903) // SecureBoot: digest in 9, key in 8
			binary.LittleEndian.PutUint16(config[90:], 0x4006) // IO key 4
			for _, at := range []uint16{16, 20, 24, 28, 68, 72, 88, 92} {
				k.command(chip.OpWrite, 0, at/4, config[at:at+4]...)
			}
			k.command(chip.OpWrite, 0x80, 1<<3, config[32:64]...)
			k.command(chip.OpWrite, 0x80, 3<<3, config[96:]...)
			k.command(chip.OpUpdateExtra, 0, 0)
			k.command(chip.OpLock, 0, chip.CRC(k.state[k.at][:chip.ConfigSize]))
		}},
	}
	k.open = []group{
		{"Write of one-time programmable bytes", func() { k.command(chip.OpWrite, 0x81, 0, drawn(32)...) }},
		{"PrivWrite while open", func() {
			k.command(chip.OpPrivWrite, 0, 2, append(make([]byte, 4), scalar()...)...)
		}},
		{"Lock of the data", func() {
			k.command(chip.OpPrivWrite, 0, 2, append(make([]byte, 4), scalar()...)...)
			k.command(chip.OpGenKey, 4, 0)
			k.command(chip.OpWrite, clear32, 4<<3, k.secret[:]...)
			public(8, k.boot)
			public(11, k.parent)
			public(14, k.child)
			k.command(chip.OpLock, 0x81, 0)
		}},
	}
	k.closed = []group{
		genKey, count,
		{"UpdateExtra", func() { k.command(chip.OpUpdateExtra, byte(mathrand.IntN(2)), 0x6A) }},
		{"Write", func() { k.command(chip.OpWrite, clear32, 10<<3, drawn(32)...) }},
		{"Write of four bytes", func() { k.command(chip.OpWrite, 0x02, 10<<3|1, drawn(4)...) }},
		{"Lock of a slot", func() { k.command(chip.OpLock, 13<<2|2, 0) }},
		{"Write, encrypted", func() {
			temp, plain := k.session(), drawn(32)
			mac := hash(temp, []byte{0x12, 0xC2, 7 << 3, 0}, k.sn(), make([]byte, 25), plain)
			k.command(chip.OpWrite, 0xC2, 7<<3, append(xored(plain, temp), mac...)...)
		}},
		{"PrivWrite", func() {
			temp, plain := k.session(), append(make([]byte, 4), scalar()...)
			mac := hash(temp, []byte{0x46, 0x40, 2, 0}, k.sn(), make([]byte, 21), plain)
			k.command(chip.OpPrivWrite, 0x40, 2, slices.Concat(xored(plain[:32], temp), xored(plain[32:], hash(temp)), mac)...)
		}},
		{"DeriveKey 00", func() {
			k.command(chip.OpNonce, 0, 0, drawn(20)...)
			k.command(chip.OpDeriveKey, 0, 3)
		}},
		{"DeriveKey 04", func() {
			k.command(chip.OpNonce, 3, 0, drawn(32)...)
			k.command(chip.OpDeriveKey, 4, 6, hash(k.secret[:], []byte{0x1C, 4, 6, 0}, k.sn())...)
		}},
		{"KDF", func() {
			k.command(chip.OpNonce, 3, 0, drawn(32)...)
			k.command(chip.OpKDF, 0x28, 0x0500, append([]byte{0, 0, 0, 0}, drawn(16)...)...)
		}},
		{"ECDH", func() {
			k.command(chip.OpECDH, 4, 2, publicOf(k.child)...)
			k.command(chip.OpNonce, 3, 0, drawn(32)...)
		}},
		{"Sign", func() {
			k.command(chip.OpNonce, 3, 0, drawn(32)...)
			k.command(chip.OpSign, 0x80, 0)
		}},
		{"Verify", func() {
			nonce, other := drawn(32), make([]byte, 19)
			k.command(chip.OpNonce, 3, 0, nonce...)
			k.command(chip.OpGenKey, 0x10, 14, 0, 0, 0)
			temp := hash(nonce, []byte{0x40, 0, 0, 0}, k.sn(), make([]byte, 25), publicOf(k.child))
			sn := k.sn()
			digest := hash(temp, []byte{0x41}, other[:10], sn[:1], other[10:14], sn[1:], other[14:])
			k.command(chip.OpVerify, byte(3+4*mathrand.IntN(2)), 14, append(signedBy(k.parent, digest), other...)...)
		}},
		{"SecureBoot", func() {
			digest := drawn(32)
			k.command(chip.OpSecureBoot, 7, 0, append(digest, signedBy(k.boot, digest)...)...)
		}},
	}
	k.lora = []group{
		count,
		{"KDF of a session key", func() {
			k.command(chip.OpKDF, 0x2A, uint16(2+mathrand.IntN(6))<<8, append([]byte{1, 0, 0, 0}, drawn(16)...)...)
		}},
		{"DeriveKey of the roots", func() {
			k.command(chip.OpNonce, 3, 0, drawn(32)...)
			k.command(chip.OpDeriveKey, 4, 0, hash(k.secret[:], []byte{0x1C, 4, 0, 0}, k.sn())...)
		}},
		{"Write of the JoinEUI", func() { k.command(chip.OpWrite, clear32, 9<<3, drawn(32)...) }},
	}
}

// scalar draws a private key.
func scalar() []byte {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the machine draws
	}
	return key.Bytes()
}
