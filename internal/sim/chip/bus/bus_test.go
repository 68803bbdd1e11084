package bus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"joinery/internal/sim/chip"
)

func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newChip makes the chip of the recording.
func newChip(t testing.TB) *chip.Chip {
	t.Helper()
	m := chip.TNGLORA([chip.SerialSize]byte(unhex(t, "01238ebe20080bd527")))
	for slot, data := range map[int][]byte{
		0:  unhex(t, "000102030405060708090A0B0C0D0E0F"+"2B7E151628AED2A6ABF7158809CF4F3C"),
		9:  append(unhex(t, "70B3D57ED0000000"), make([]byte, 64)...),
		10: append([]byte("0004A310001FF9DA"), make([]byte, 56)...),
	} {
		if err := m.SetSlot(slot, data); err != nil {
			t.Fatal(err)
		}
	}
	return chip.New(m, chip.Options{})
}

// host is a connection to a bus, for what a test sends and expects.
type host struct {
	io.ReadWriter
	t testing.TB
}

// connect runs a protocol over a pipe in memory.
func connect(t testing.TB, p Protocol, b *Bus) host {
	t.Helper()
	near, far := pipe()
	done := make(chan struct{})
	go func() { defer close(done); _ = p(t.Context(), far, One(b)) }()
	t.Cleanup(func() { _ = near.Close(); <-done })
	return host{near, t}
}

func pipe() (near, far *halfPipe) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return &halfPipe{r1, w2}, &halfPipe{r2, w1}
}

type halfPipe struct {
	*io.PipeReader
	*io.PipeWriter
}

func (h *halfPipe) Close() error { _ = h.PipeReader.Close(); return h.PipeWriter.Close() }

func (h host) exchange(request []byte, answer int) []byte {
	h.t.Helper()
	if _, err := h.Write(request); err != nil {
		h.t.Fatal(err)
	}
	b := make([]byte, answer)
	if _, err := io.ReadFull(h, b[:1]); err != nil {
		h.t.Fatal(err)
	}
	if b[0] == 0 {
		return b[:1]
	}
	if _, err := io.ReadFull(h, b[1:]); err != nil {
		h.t.Fatal(err)
	}
	return b
}

func frame(kind, address byte, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind, address}, uint16(len(data))), data...)
}

// step is a frame and its answer.
type step struct{ send, want []byte }

// over does a step over a connection.
func (s step) over(t *testing.T, c io.ReadWriter) {
	t.Helper()
	if got := (host{c, t}).exchange(s.send, len(s.want)); !bytes.Equal(got, s.want) {
		t.Fatalf("%x: got %x, want %x", s.send, got, s.want)
	}
}

// recorded gives the recorded transactions of a device that starts, joins, sends and
// receives.
func recorded(t *testing.T) (steps []step) {
	t.Helper()
	f, err := os.Open("../testdata/join-1.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		l := strings.Fields(s.Text())
		if len(l) == 0 || l[0] == "#" {
			continue
		}
		one := step{want: []byte{1}}
		switch l[0] {
		case "wake":
			one.send = frame('W', 0, nil)
		case "idle":
			one.send = frame('W', address, []byte{wordIdle})
		case "write":
			one.send = frame('W', address, append([]byte{wordCommand}, unhex(t, l[1])...))
		case "read":
			count, err := strconv.Atoi(l[1])
			if err != nil {
				t.Fatal(err)
			}
			one.send, one.want = []byte{'R', address, 0, byte(count)}, append(one.want, unhex(t, l[3])...)
		}
		steps = append(steps, one)
	}
	if len(steps) != 174 {
		t.Fatalf("%d transactions were recorded", len(steps))
	}
	return steps
}

// They get the recorded answers, byte for byte.
func TestRecordedTransactions(t *testing.T) {
	h := connect(t, I2C, New(newChip(t), Options{Watchdog: time.Minute}))
	for _, s := range recorded(t) {
		s.over(t, h)
	}
}

// The power goes before any transaction of them: the chip is silent until it is woken,
// and all of it is done from the beginning.
func TestPowerLossAnywhere(t *testing.T) {
	steps := recorded(t)
	for cut := range steps {
		b := New(newChip(t), Options{})
		h := connect(t, I2C, b)
		for _, s := range steps[:cut] {
			s.over(t, h)
		}
		b.PowerCycle()
		if lost := steps[cut]; lost.send[1] != 0 {
			step{lost.send, []byte{0}}.over(t, h)
		}
		for _, s := range steps {
			s.over(t, h)
		}
	}
}

// clock is a clock that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

const address = 0x59

// command writes a command and reads its answer.
func command(t *testing.T, b *Bus, op chip.Opcode, p1 byte, p2 uint16, data ...byte) ([]byte, error) {
	t.Helper()
	if !b.Write(address, append([]byte{wordCommand}, chip.Command(op, p1, p2, data...)...)) {
		t.Fatalf("%v was not acknowledged", op)
	}
	count, ok := b.Read(address, 1)
	if !ok {
		t.Fatalf("%v: its answer was not acknowledged", op)
	}
	rest, _ := b.Read(address, int(count[0])-1)
	return chip.Answer(append(count, rest...))
}

func TestWakeIdleSleep(t *testing.T) {
	b := New(newChip(t), Options{})
	if b.Write(address, []byte{wordCommand}) {
		t.Error("a sleeping chip acknowledges")
	}
	if _, ok := b.Read(address, 4); ok {
		t.Error("a sleeping chip gives data")
	}
	// A wake with a data byte, which as a word address would mean sleep.
	b.Write(0, []byte{1})
	if got, _ := b.Read(address, 4); !bytes.Equal(got, chip.Awake.Packet()) {
		t.Errorf("after the wake: %x", got)
	}
	nonce := make([]byte, 32)
	if _, err := command(t, b, chip.OpNonce, 3, 0, nonce...); err != nil {
		t.Fatal(err)
	}
	state := func() byte {
		t.Helper()
		got, err := command(t, b, chip.OpInfo, 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		return got[1] & 0x80
	}
	b.Write(address, []byte{wordIdle})
	if b.Write(address, []byte{wordReset}) {
		t.Error("an idle chip acknowledges")
	}
	b.Write(0, nil)
	if state() == 0 {
		t.Error("TempKey is gone after idling")
	}
	b.Write(address, []byte{wordSleep})
	b.Write(0, nil)
	if state() != 0 {
		t.Error("TempKey outlived sleep")
	}
}

func TestOutputAndPointer(t *testing.T) {
	b := New(newChip(t), Options{})
	b.Write(0, nil)
	b.Write(address, append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...))
	read := func(n int) string { got, _ := b.Read(address, n); return hex.EncodeToString(got) }
	if got := read(1) + read(3); got != "07000060" {
		t.Errorf("two reads gave %s", got)
	}
	// A wake of one that is awake keeps output and pointer.
	b.Write(0, nil)
	if got := read(5); got != "028038ffff" {
		t.Errorf("the rest and what is behind the end: %s", got)
	}
	b.Write(address, []byte{wordReset})
	if got := read(7); got != "07000060028038" {
		t.Errorf("after a reset of the pointer: %s", got)
	}
	// Bytes behind the count are ignored.
	b.Write(address, append(append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...), 1, 2, 3))
	if got := read(7); got != "07000060028038" {
		t.Errorf("with bytes behind the packet: %s", got)
	}
	broken := chip.Command(chip.OpInfo, 0, 0)
	broken[5] ^= 1
	b.Write(address, append([]byte{wordCommand}, broken...))
	if got := read(4); got != "04ff0142" {
		t.Errorf("a command with a wrong CRC: %s", got)
	}
}

func TestAddresses(t *testing.T) {
	b := New(newChip(t), Options{})
	b.Write(0, nil)
	for a, want := range map[byte]bool{0x59: true, 0xB2: true, 0x2C: false, 0x60: false, 0x58: false} {
		if _, ok := b.Read(a, 1); ok != want {
			t.Errorf("address %02x: acknowledged %t", a, ok)
		}
	}
}

func TestBusyAndWatchdog(t *testing.T) {
	c := &clock{time.Unix(0, 0)}
	b := New(newChip(t), Options{Now: c.Now, Timing: Longest, Watchdog: DefaultWatchdog})
	b.Write(0, nil)
	b.Write(address, append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...))
	c.now = c.now.Add(4 * time.Millisecond)
	if _, ok := b.Read(address, 1); ok || b.Write(address, []byte{wordReset}) {
		t.Error("a busy chip acknowledges")
	}
	c.now = c.now.Add(time.Millisecond)
	if got, _ := b.Read(address, 1); !bytes.Equal(got, []byte{7}) {
		t.Errorf("when it is done: %x", got)
	}
	b.Write(address, append([]byte{wordCommand}, chip.Command(chip.OpNonce, 3, 0, make([]byte, 32)...)...))
	c.now = c.now.Add(DefaultWatchdog)
	if _, ok := b.Read(address, 1); ok {
		t.Error("the chip outlives its watchdog")
	}
	b.Write(0, nil)
	b.Write(address, append([]byte{wordCommand}, chip.Command(chip.OpInfo, 2, 0)...))
	c.now = c.now.Add(10 * time.Millisecond)
	if got, _ := b.Read(address, 7); got[2] != 0 {
		t.Errorf("TempKey outlived the watchdog: %x", got)
	}
	// A command that would not be done in time is not begun.
	b.Write(address, []byte{wordIdle})
	b.Write(0, nil)
	c.now = c.now.Add(DefaultWatchdog - 165*time.Millisecond)
	derive := chip.Command(chip.OpKDF, 0x2A, 0x0200, append([]byte{1, 0, 0, 0, 2}, make([]byte, 15)...)...)
	b.Write(address, append([]byte{wordCommand}, derive...))
	if got, _ := b.Read(address, 4); hex.EncodeToString(got) != "04ee3141" {
		t.Errorf("a command too late: %x", got)
	}
	b.Write(address, append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...))
	// A wake while it computes is ignored, and so is who asks for sleep.
	if !b.Write(0, nil) || b.Write(address, []byte{wordSleep}) {
		t.Error("a busy chip took a word address")
	}
	c.now = c.now.Add(5 * time.Millisecond)
	if got, _ := b.Read(address, 7); hex.EncodeToString(got) != "07000060028038" {
		t.Errorf("after a wake while it was busy: %x", got)
	}
	// Who idles in time starts it anew.
	for range 3 {
		c.now = c.now.Add(DefaultWatchdog / 2)
		b.Write(address, []byte{wordIdle})
		b.Write(0, nil)
	}
	if _, ok := b.Read(address, 4); !ok {
		t.Error("the watchdog did not start anew")
	}
}

// A host may send the next frames before it has the answers.
func TestFramesAtOnce(t *testing.T) {
	h := connect(t, I2C, New(newChip(t), Options{}))
	all := append(frame('W', 0, nil), frame('W', address, append([]byte{3}, chip.Command(chip.OpInfo, 0, 0)...))...)
	all = append(append(all, 'R', address, 0, 7), 'W', address) // the last one is not whole
	go func() { _, _ = h.Write(all) }()
	got := make([]byte, 10)
	if _, err := io.ReadFull(h, got); err != nil || hex.EncodeToString(got) != "010101"+"07000060028038" {
		t.Errorf("got %x, %v", got, err)
	}
}

func TestKit(t *testing.T) {
	h := connect(t, Kit, New(newChip(t), Options{}))
	in := bufio.NewReader(h)
	for _, l := range []struct{ say, want string }{
		{"board:device(00)", "ECC608A TWI 00(B2)"}, {"board:device(01)", "no_device NA 00(00)"},
		{"E:physical:interface:i2c", "00()"}, {"E:physical:select(B2)", "00()"},
		{"E:w()", "00(04113343)"}, {"E:t(0730000000035D)", "00(07000060028038)"}, {"E:i()", "00()"}, {"E:s()", "00()"},
		{"\x00\x00E:w()\x00", "00(04113343)"}, {"E:w()", "00(04113343)"},
		{"E:t(07)", "00(04FF0142)"}, {"E:t(xx)", "03()"}, {"nonsense", "03()"}, {"board:element(other)", "01()"},
	} {
		if _, err := io.WriteString(h, l.say+"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); got != l.want+"\n" {
			t.Errorf("%q: got %q, %v, want %q", l.say, got, err, l.want)
		}
	}
}

func TestBridge(t *testing.T) {
	h := connect(t, Bridge, New(newChip(t), Options{}))
	for _, m := range []struct{ say, want string }{
		{"0213b2", "0213b200"}, {"0211b2ff07028000 0009ad", "0211b200"},
		{"0212b200c000", "0212b200" + "2301238ebe0000600220080bd527011100b20000018fbd858fce0fce0fce0fce0f75a6"},
		{"0214b2", "0214b200"}, {"0215b2", "0215b200"}, {"0211b2ff0730000000035d", "0211b200"},
		{"0212b2000300", "0212b200070000"}, {"0219b2", "0219b2e2"}, {"0211b2", "0211b2e2"},
	} {
		if got := h.said(t, strings.ReplaceAll(m.say, " ", "")); got != m.want {
			t.Errorf("%s: got %s, want %s", m.say, got, m.want)
		}
	}
}

// said is what a host sends and gets by the bridge.
func (h host) said(t *testing.T, say string) string {
	t.Helper()
	m := unhex(t, say)
	if _, err := h.Write(append([]byte{0, byte(len(m))}, m...)); err != nil {
		t.Fatal(err)
	}
	var head [2]byte
	if _, err := io.ReadFull(h, head[:]); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(h, got); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(got)
}

// What a bridge does besides: an answer by parts, word addresses without a packet, a
// chip at another address, which nobody there answers to; one whose address was changed
// answers to the old one until it slept.
func TestBridgeAddresses(t *testing.T) {
	b := New(chip.New(chip.Blank([chip.SerialSize]byte{1, 0x23, 8: 0xEE}), chip.Options{}), Options{})
	h, in := connect(t, Bridge, b), connect(t, Kit, b)
	kit := bufio.NewReader(in)
	device := func() string {
		t.Helper()
		if _, err := io.WriteString(in, "board:device(00)\n"); err != nil {
			t.Fatal(err)
		}
		line, err := kit.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	if got := device(); got != "ECC608A TWI 00(C0)\n" {
		t.Errorf("the chip is %q", got)
	}
	change := "0211c0ff" + hex.EncodeToString(chip.Command(chip.OpWrite, 0, 4, 0xD4, 0, 0, 1)) // the word with I2C_Address
	for _, m := range [][2]string{
		{"0213b2", "0213b2e7"}, {"0211b2ff0730000000035d", "0211b2e7"}, {"0212b200c000", "0212b2e7"}, {"0215b2", "0215b2e7"},
		{"021360", "02136000"}, // 7 bits
		{"0211c0ff0730000000035d", "0211c000"}, {"0212c0000100", "0212c00007"}, {"0212c0000600", "0212c000000060028038"},
		{"0212c0000600", "0212c0e7"}, // nothing more
		{"0211c000", "0211c000"}, {"0212c000c000", "0212c00007000060028038"},
		{"0211c001", "0211c000"}, {"0212c000c000", "0212c0e7"}, // sleep
		{change, "0211c000"}, {"0212c000c000", "0212c00004000340"}, {"0211c002", "0211c000"}, {"0213c0", "0213c000"},
		{"0215c0", "0215c000"}, {"0213c0", "0213c0e7"}, {"0213d4", "0213d400"},
	} {
		if got := h.said(t, m[0]); got != m[1] {
			t.Errorf("%s: got %s, want %s", m[0], got, m[1])
		}
	}
	if got := device(); got != "ECC608A TWI 00(D4)\n" {
		t.Errorf("the chip is now %q", got)
	}
}

// Hosts whose bridges carry out a command in one do not come between each other, however
// long it takes.
func TestKitTurns(t *testing.T) {
	b := New(newChip(t), Options{Timing: Fixed(200 * time.Microsecond)})
	var wg sync.WaitGroup
	for say, want := range map[string]string{
		"E:t(0730000000035D)": "00(07000060028038)\n",
		"E:t(070280000009AD)": "00(2301238EBE0000600220080BD527011100B20000018FBD858FCE0FCE0FCE0FCE0F75A6)\n",
	} {
		h := connect(t, Kit, b)
		wg.Go(func() {
			in := bufio.NewReader(h)
			for range 20 {
				if _, err := io.WriteString(h, say+"\n"); err != nil {
					t.Error(err)
				}
				if got, err := in.ReadString('\n'); got != want {
					t.Errorf("%s: got %q, %v", say, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// fullListener is a listener of a process that has no descriptors left, now and then.
type fullListener struct {
	net.Listener
	left int
}

func (l *fullListener) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// Who finds no room for another connection waits, and serves on; it ends when it is
// told to, also while a chip takes an hour for its answer.
func TestServeGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	b := New(newChip(t), Options{Faults: script(t, "command 2 slow 1h")})
	go func() { done <- Serve(ctx, &fullListener{l, 2}, Kit, One(b)) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range 2 {
		if _, err := io.WriteString(c, "E:t(0730000000035D)\n"); err != nil {
			t.Fatal(err)
		}
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "00(07000060028038)\n" {
		t.Errorf("got %q, %v", line, err)
	}
	for { // until it computes
		b.mu.Lock()
		busy := b.busy() > 0
		b.mu.Unlock()
		if busy {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// join11 is what a driver does in a 1.1 join, with or without the AppSKey, and an
// uplink after it.
func join11(t *testing.T, b *Bus, nonce byte, appSKey bool) {
	t.Helper()
	b.Write(0, nil)
	kdf := func(target, block, purpose byte) {
		data := make([]byte, 20)
		data[0], data[4], data[5] = block, purpose, nonce
		if _, err := command(t, b, chip.OpKDF, 0x2A, uint16(target)<<8, data...); err != nil {
			t.Fatal(err)
		}
	}
	if appSKey {
		kdf(2, 0, 2)
	}
	kdf(3, 1, 4)
	kdf(5, 1, 1)
	kdf(4, 1, 3)
	for range 2 {
		if _, err := command(t, b, chip.OpAES, 0, 2, make([]byte, 16)...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppSKeyWatch(t *testing.T) {
	warned := 0
	w := &AppSKeyWatch{Warn: func() { warned++ }}
	b := New(newChip(t), Options{Watch: w.Watch})
	join11(t, b, 1, true)
	if warned != 0 {
		t.Error("warned of a device that derives its AppSKey")
	}
	join11(t, b, 2, false)
	if warned != 1 {
		t.Errorf("warned %d times of one join without AppSKey", warned)
	}
	join11(t, b, 3, false)
	if warned != 2 {
		t.Errorf("warned %d times of two such joins", warned)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{'W', 0, 0, 0, 'R', 0x59, 0, 4})
	f.Add(append(frame('W', 0, nil), frame('W', 0x59, append([]byte{3}, chip.Command(chip.OpInfo, 0, 0)...))...))
	f.Add([]byte{0, 3, 2, 0x13, 0xB2, 0, 6, 2, 0x12, 0xB2, 0, 0xC0, 0})
	f.Add([]byte("E:w()\nE:t(0730000000035D)\nboard:device(00)\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, p := range []Protocol{I2C, Bridge, Kit} {
			b := New(newChip(t), Options{})
			var out bytes.Buffer
			if err := p(t.Context(), struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(in), &out}, One(b)); err == nil && len(in) > 0 && out.Len() > (len(in)+1)*2000 {
				t.Fatal("more came out than could")
			}
		}
	})
}
