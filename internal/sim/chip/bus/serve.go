package bus

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Elements are the chips that a listener serves. Each connection talks to the first
// until it selects another.
type Elements interface {
	// First gives the one that a new connection talks to.
	First() *Bus
	// Find gives one by its name: DevEUI, serial number or place, whichever it has;
	// nil where there is none.
	Find(name string) *Bus
}

// One is Elements of one chip, which has no name.
func One(b *Bus) Elements { return one{b} }

type one struct{ b *Bus }

func (o one) First() *Bus              { return o.b }
func (one) Find(string) *Bus           { return nil }
func reader(c io.Reader) *bufio.Reader { return bufio.NewReaderSize(c, 256) }

// seat is a connection's place at a chip.
type seat struct {
	elements Elements
	bus      *Bus
	// used is that the connection spoke with the chip. Only such a one leaves anything
	// behind when it hangs up; who only knocked disturbs nobody.
	used bool
}

func sit(e Elements) seat { return seat{elements: e, bus: e.First()} }

// chip gives the bus of the chip, to speak with it.
func (s *seat) chip() *Bus {
	s.used = true
	return s.bus
}

// move goes to the chip of that name. It tells whether there is one.
func (s *seat) move(name string) bool {
	other := s.elements.Find(name)
	if other != nil && other != s.bus {
		s.leave()
		s.bus, s.used = other, false
	}
	return other != nil
}

func (s *seat) leave() {
	if s.used {
		s.bus.HangUp()
	}
}

// Protocol is how transactions travel over a connection, until it ends or ctx does.
type Protocol func(context.Context, io.ReadWriter, Elements) error

// Serve serves connections until ctx ends, and then closes all of them.
func Serve(ctx context.Context, l net.Listener, p Protocol, e Elements) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := accept(ctx, l)
		if conn == nil {
			return err
		}
		wg.Go(func() {
			hangUp := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer hangUp()
			defer func() { _ = conn.Close() }()
			_ = p(ctx, conn, e) // a connection that says nonsense is hung up
		})
	}
}

// acceptAgain is how long who finds no room for another connection waits.
const acceptAgain = 50 * time.Millisecond

// accept gives the next connection, and none when ctx ended or the listener was closed.
// Where the process or the machine has no descriptor left for one, those that there are
// go on, and it waits until they give theirs back.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil, nil
		case !full(err):
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(acceptAgain):
		}
	}
}

// full tells whether an error says that there is no room now.
func full(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// Frames of I2C.
const (
	frameWrite  = 'W'
	frameRead   = 'R'
	frameSelect = 'S'

	maxFrame = 1024
)

// ErrFrame says that a connection sent what is no frame.
var ErrFrame = errors.New("bus: not a frame")

// I2C is the protocol of bare transactions. A frame has four bytes and data: what it
// is, the address of 7 bits, the length 2, big-endian.
//
//	57 address length data   write; answer 01, or 00 where it is not acknowledged
//	52 address length        read; answer 01 and that many bytes, or 00
//	53 00 length name        the connection talks to the element of that name from now
//	                         on; answer 01, or 00 where there is none
//
// A write to address 0, with or without data, wakes the chip. A host may send frames
// before it has the answers to those before: their answers come together.
func I2C(_ context.Context, conn io.ReadWriter, e Elements) error {
	t := newTalk(e)
	defer t.leave()
	for {
		n, err := conn.Read(t.space())
		for more := true; more; n = 0 {
			answer, wrong := t.take(n)
			if len(answer) > 0 {
				if _, err := conn.Write(answer); err != nil {
					return err
				}
			}
			if wrong != nil {
				return wrong
			}
			more = len(answer) >= enough
			t.answered(len(answer))
		}
		if err != nil {
			return err
		}
	}
}

// talk is a connection of bare transactions: which chip it talks to, what came of a
// frame that is not whole, what is not answered yet.
type talk struct {
	seat
	in, out []byte
}

const (
	// firstBuffer holds what a host sends for one command. Connections are many and
	// most of them say little at once.
	firstBuffer = 256
	// enough is how many bytes of answers go out before further frames are looked at.
	enough = 4096
)

func newTalk(e Elements) *talk {
	return &talk{seat: sit(e), in: make([]byte, 0, firstBuffer), out: make([]byte, 0, firstBuffer)}
}

// space gives where bytes that come are to be put: never none.
func (t *talk) space() []byte {
	if len(t.in) == cap(t.in) {
		t.in = append(make([]byte, 0, 2*(4+maxFrame)), t.in...) // more than a frame: take leaves less than one
	}
	return t.in[len(t.in):cap(t.in)]
}

// take carries out the frames that are whole, now that n bytes more are there, and
// gives the answers to them; where those are enough, further frames wait for another
// call. An error comes with the answers to the frames before.
func (t *talk) take(n int) (answer []byte, err error) {
	t.in = t.in[:len(t.in)+n]
	rest := t.in
	for len(t.out) < enough {
		var length int
		if length, err = frameLength(rest); err != nil || length == 0 || length > len(rest) {
			break
		}
		t.frame(rest[:length])
		rest = rest[length:]
	}
	t.in = t.in[:copy(t.in, rest)]
	return t.out, err
}

// answered says that n bytes of the answers went out.
func (t *talk) answered(n int) { t.out = t.out[:copy(t.out, t.out[n:])] }

// frameLength gives how long the frame is that b begins with; 0 where too little of it
// is there.
func frameLength(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	kind := b[0]
	if kind != frameRead && kind != frameWrite && kind != frameSelect {
		return 0, ErrFrame
	}
	if len(b) < 4 {
		return 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case length > maxFrame:
		return 0, ErrFrame
	case kind == frameRead:
		return 4, nil
	}
	return 4 + length, nil
}

// frame does one transaction.
func (t *talk) frame(f []byte) {
	at, ok := len(t.out), false
	t.out = append(t.out, 1)
	switch data := f[4:]; f[0] {
	case frameWrite:
		ok = t.chip().Write(f[1], data)
	case frameRead:
		t.out, ok = t.chip().AppendRead(t.out, f[1], int(binary.BigEndian.Uint16(f[2:])))
	case frameSelect:
		ok = t.move(string(data))
	}
	if !ok {
		t.out[at] = 0
	}
}

// Commands of the kit bridge, version 2.
const (
	bridgeVersion = 2
	bridgeSend    = 1
	bridgeReceive = 2
	bridgeWake    = 3
	bridgeIdle    = 4
	bridgeSleep   = 5

	wordAny = 0xFF // the word address of a send that leaves it to the bridge

	bridgeOK       = 0x00
	bridgeNoAnswer = 0xE7 // what host libraries call "no response"
	bridgeBad      = 0xE2 // "bad parameter"
)

// Bridge is the kit bridge's binary protocol, version 2: messages, before each its
// length in two bytes, big-endian. A message is 02, the command with the interface in
// its upper half, the address (7 bits, or shifted by one); behind a send the word
// address, FF for a command's, and a packet; behind a receive 00 and the length that is
// wanted, little-endian. The answer repeats the three bytes, then comes a status, and
// behind a receive what the chip says, from where the receive before left off. A send
// wakes a chip that is not awake.
func Bridge(ctx context.Context, conn io.ReadWriter, e Elements) error {
	in, at := reader(conn), sit(e)
	defer at.leave()
	for {
		var head [2]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint16(head[:]))
		if length < 3 || length > maxFrame {
			return ErrFrame
		}
		m := make([]byte, length)
		if _, err := io.ReadFull(in, m); err != nil {
			return err
		}
		if m[0] != bridgeVersion {
			return ErrFrame
		}
		status, data := bridge(ctx, at.chip(), m[1]&15, m[2], m[3:])
		answer := append(append([]byte{0, 0}, m[:3]...), status)
		answer = append(answer, data...)
		binary.BigEndian.PutUint16(answer, uint16(len(answer)-2))
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

// bridge does one message.
func bridge(ctx context.Context, b *Bus, command, address byte, rest []byte) (status byte, data []byte) {
	done := func(ok bool) byte {
		if ok {
			return bridgeOK
		}
		return bridgeNoAnswer
	}
	if own := b.Address(); address != own && address != own<<1 {
		return bridgeNoAnswer, nil
	}
	switch command {
	case bridgeSend:
		if len(rest) == 0 {
			return bridgeBad, nil
		}
		if rest[0] == wordAny {
			rest[0] = wordCommand
		}
		return done(b.Send(ctx, rest)), nil
	case bridgeReceive:
		wanted := maxFrame
		if len(rest) >= 3 {
			wanted = int(binary.LittleEndian.Uint16(rest[1:]))
		}
		data = b.Collect(ctx, wanted)
		return done(data != nil), data
	case bridgeWake:
		return done(b.Wake(ctx) != nil), nil
	case bridgeIdle:
		b.Tell([]byte{wordIdle})
		return bridgeOK, nil
	case bridgeSleep:
		b.Tell([]byte{wordSleep})
		return bridgeOK, nil
	}
	return bridgeBad, nil
}

// maxLine bounds a line of the kit protocol.
const maxLine = 512

// Kit is the kit protocol of text lines, of boards on a UART or USB. NULs between lines
// are skipped. Besides the protocol's own lines there is board:element(NAME), which
// selects an element.
func Kit(ctx context.Context, conn io.ReadWriter, e Elements) error {
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 256), maxLine)
	at := sit(e)
	defer at.leave()
	for lines.Scan() {
		line := strings.Trim(lines.Text(), "\x00\r ")
		if line == "" {
			continue
		}
		if _, err := io.WriteString(conn, kit(ctx, &at, line)+"\n"); err != nil {
			return err
		}
	}
	return lines.Err()
}

// argument gives what stands in the brackets behind a word.
func argument(line, word string) (string, bool) {
	rest, ok := strings.CutPrefix(line, word)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ")")
}

const (
	kitNoAnswer = "E7()" // to a line to which the chip does not answer
	kitNonsense = "03()" // to one that is none
)

// kit answers a line.
func kit(ctx context.Context, at *seat, line string) string {
	if name, ok := argument(line, "board:element("); ok {
		if at.move(name) {
			return "00()"
		}
		return "01()"
	}
	if n, ok := argument(line, "board:device("); ok {
		if n == "00" {
			return fmt.Sprintf("ECC608A TWI 00(%02X)", at.bus.Address()<<1)
		}
		return "no_device NA 00(00)"
	}
	packet := func(p []byte) string {
		if p == nil {
			return kitNoAnswer
		}
		return fmt.Sprintf("00(%X)", p)
	}
	_, verb, _ := strings.Cut(line, ":")
	switch {
	case strings.HasPrefix(verb, "physical:select("), strings.HasPrefix(verb, "physical:interface:"):
		return "00()"
	case verb == "w()":
		return packet(at.chip().Wake(ctx))
	case verb == "i()":
		at.chip().Tell([]byte{wordIdle})
		return "00()"
	case verb == "s()":
		at.chip().Tell([]byte{wordSleep})
		return "00()"
	}
	if digits, ok := argument(verb, "t("); ok {
		p, err := hex.DecodeString(digits)
		if err != nil {
			return kitNonsense
		}
		return packet(at.chip().Talk(ctx, p))
	}
	return kitNonsense
}
