// Package bus is the wire between a host and an emulated chip: the I²C transactions of
// the chip, and the two forms in which bridges carry them, over TCP and Unix sockets.
// It works on transactions, not on bits: what a driver sees when it writes and reads.
//
// A chip wakes by a write to address 0, idles and sleeps by word addresses, does not
// acknowledge while it computes or sleeps, keeps its answer behind a read pointer that
// survives from one read to the next, and sleeps by itself when its watchdog ends.
package bus

import (
	"context"
	"sync"
	"time"

	"joinery/internal/sim/chip"
)

// Word addresses: the first byte of a write.
const (
	wordReset   = 0x00
	wordSleep   = 0x01
	wordIdle    = 0x02
	wordCommand = 0x03
)

// DefaultWatchdog is how long a chip stays awake.
const DefaultWatchdog = 1300 * time.Millisecond

// Options of New. The zero value is a chip that answers at once and never falls asleep
// by itself.
type Options struct {
	// Timing says how long a command takes; nil: no longer than it takes to compute.
	Timing func(chip.Opcode) time.Duration
	// Watchdog is after how long awake a chip sleeps; 0: never.
	Watchdog time.Duration
	// Faults says what goes wrong; nil: nothing.
	Faults Faults
	// Watch is called with each command that was carried out and its answer. It must
	// not keep them.
	Watch func(packet, answer []byte)
	// Now is the clock; nil is the machine's.
	Now func() time.Time
}

// Bus is an I²C bus with one chip on it. It is safe for concurrent use: several hosts
// share it as several masters do.
type Bus struct {
	// turn is whose command it is, among hosts whose bridge carries one out in one.
	turn sync.Mutex

	mu   sync.Mutex
	chip *chip.Chip
	o    Options

	awake bool
	// left is that a host hung up while the chip was awake.
	left    bool
	out     []byte
	pointer int
	free    time.Time // when the chip is done
	woken   time.Time
}

// New makes a bus with a chip that sleeps.
func New(c *chip.Chip, o Options) *Bus {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Bus{chip: c, o: o}
}

// Serial gives the chip's serial number.
func (b *Bus) Serial() [chip.SerialSize]byte { return b.chip.Serial() }

// Write is one write transaction: an address of 7 bits, and what follows it. It tells
// whether the chip acknowledged. Any write to address 0 wakes the chip and brings no
// data. The address is also taken shifted by one, as some boards pass it.
func (b *Bus) Write(address byte, data []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if address == 0 {
		return b.wake()
	}
	return b.write(address, data)
}

// Read is one read transaction of n bytes. ok tells whether the chip acknowledged;
// behind the end of its answer come FF.
func (b *Bus) Read(address byte, n int) (data []byte, ok bool) {
	return b.AppendRead(nil, address, n)
}

// AppendRead is Read that appends to dst, and nothing where the chip did not
// acknowledge.
func (b *Bus) AppendRead(dst []byte, address byte, n int) (data []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(dst, address, n)
}

// PowerCycle takes the chip's power away and gives it back.
func (b *Bus) PowerCycle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.powerLoss()
}

func (b *Bus) powerLoss() {
	b.chip.PowerCycle()
	b.awake, b.out, b.pointer, b.free = false, nil, 0, time.Time{}
}

// fault asks what goes wrong with a transaction.
func (b *Bus) fault(t Transaction) Fault {
	if b.o.Faults == nil {
		return Fault{}
	}
	f := b.o.Faults.Next(t)
	if f.Kind == PowerLoss {
		b.powerLoss()
	}
	return f
}

// HangUp says that a host went away. It may have been cut off anywhere; the next one
// then finds a chip that wakes as from idling, with all that it keeps over that. (On a
// board the chip would stay awake until its watchdog ends, and a microcontroller that
// was reset would have to wait for it.)
func (b *Bus) HangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = b.awake
}

// wake wakes the chip and puts the answer to that in its output. One that is awake
// keeps what it has.
func (b *Bus) wake() bool {
	b.tick()
	if b.left {
		b.awake, b.left = false, false
	}
	f := b.fault(Transaction{Kind: Wake, Awake: b.awake})
	if f.Kind == NACK {
		return false
	}
	if b.awake || f.Kind == WakeFailure {
		return b.awake
	}
	b.awake, b.woken = true, b.o.Now()
	b.out, b.pointer = chip.Awake.Packet(), 0
	switch f.Kind {
	case CommandError:
		b.out = f.Status.Packet()
	case CRCError:
		spoil(b.out)
	}
	b.free = time.Time{}
	if f.Delay > 0 {
		b.free = b.woken.Add(f.Delay)
	}
	return true
}

// tick ends the time awake when the watchdog does.
func (b *Bus) tick() {
	if b.awake && b.o.Watchdog > 0 && b.o.Now().Sub(b.woken) >= b.o.Watchdog {
		b.sleep()
	}
}

func (b *Bus) sleep() {
	b.chip.Sleep()
	b.awake, b.out, b.pointer = false, nil, 0
}

// listens tells whether the chip acknowledges its address now.
func (b *Bus) listens(address byte) bool {
	b.tick()
	own := b.chip.Address()
	return b.awake && (address == own || address == own<<1) && (b.free.IsZero() || !b.o.Now().Before(b.free))
}

func (b *Bus) write(address byte, data []byte) bool {
	t := Transaction{Kind: Write}
	if len(data) > 2 && data[0] == wordCommand {
		t = Transaction{Kind: Command, Op: chip.Opcode(data[2]), Packet: data[1:]}
	}
	f := b.fault(t)
	if f.Kind == NACK || !b.listens(address) {
		return false
	}
	if len(data) == 0 {
		return true
	}
	switch data[0] {
	case wordReset:
		b.pointer = 0
	case wordSleep:
		b.sleep()
	case wordIdle:
		b.awake, b.out, b.pointer = false, nil, 0
	case wordCommand:
		b.execute(data[1:], f)
	default:
		return false
	}
	return true
}

// execute carries out a command and keeps its answer for reads. One that would take
// longer than the chip has until its watchdog is not begun.
func (b *Bus) execute(packet []byte, f Fault) {
	now, took := b.o.Now(), time.Duration(0)
	if b.o.Timing != nil && len(packet) > 1 {
		took = b.o.Timing(chip.Opcode(packet[1]))
	}
	answer := f.Status.Packet()
	switch {
	case b.o.Watchdog > 0 && now.Sub(b.woken)+took >= b.o.Watchdog:
		answer, took = chip.Watchdog.Packet(), 0
	case f.Kind != CommandError:
		answer = b.chip.Execute(packet)
		if b.o.Watch != nil {
			b.o.Watch(packet, answer)
		}
	}
	if f.Kind == CRCError {
		spoil(answer)
	}
	b.out, b.pointer = answer, 0
	b.free = time.Time{}
	if took += f.Delay; took > 0 {
		b.free = b.o.Now().Add(took)
	}
}

// spoil makes a packet's CRC wrong, or the last byte of some of one.
func spoil(packet []byte) {
	if len(packet) > 0 {
		packet[len(packet)-1] ^= 0x55
	}
}

func (b *Bus) read(dst []byte, address byte, n int) ([]byte, bool) {
	f := b.fault(Transaction{Kind: Read})
	if f.Kind == NACK || !b.listens(address) {
		return dst, false
	}
	there := b.out[min(b.pointer, len(b.out)):]
	there = there[:min(n, len(there))]
	dst = append(dst, there...)
	for range n - len(there) {
		dst = append(dst, 0xFF)
	}
	b.pointer += n
	if f.Kind == CRCError {
		spoil(dst[len(dst)-n:])
	}
	return dst, true
}

// Address gives the address of 7 bits that the chip answers to now.
func (b *Bus) Address() byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.chip.Address()
}

// Wake wakes the chip as a bridge does for its host, and gives what it says then; nil
// where it does not wake, or ctx ends. One that was awake says the same.
func (b *Bus) Wake(ctx context.Context) []byte {
	b.mu.Lock()
	b.tick()
	was := b.awake && !b.left
	woke := b.wake()
	b.mu.Unlock()
	switch {
	case !woke:
		return nil
	case was:
		return chip.Awake.Packet()
	}
	return b.Collect(ctx, chip.MaxResponse)
}

// Send wakes the chip if need be and writes to it, whatever its address is, as a bridge
// does for its host. It tells whether the chip acknowledged.
func (b *Bus) Send(ctx context.Context, data []byte) bool {
	return b.Wake(ctx) != nil && b.Tell(data)
}

// Tell is a write transaction to whatever address the chip has.
func (b *Bus) Tell(data []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(b.chip.Address(), data)
}

// Talk wakes the chip if need be, carries out one command and waits for its answer: as
// a bridge does for its host. nil where the chip does not answer, or ctx ends.
func (b *Bus) Talk(ctx context.Context, packet []byte) []byte {
	b.turn.Lock()
	defer b.turn.Unlock()
	if !b.Send(ctx, append([]byte{wordCommand}, packet...)) {
		return nil
	}
	return b.Collect(ctx, chip.MaxResponse)
}

// Collect waits until the chip is done and reads what it has to say and was not read
// yet, n bytes at most. nil where it has nothing to say, falls asleep, or ctx ends.
func (b *Bus) Collect(ctx context.Context, n int) []byte {
	for {
		b.mu.Lock()
		wait := b.busy()
		if wait <= 0 {
			break
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	defer b.mu.Unlock()
	f := b.fault(Transaction{Kind: Read})
	if f.Kind == NACK || !b.awake || b.pointer >= len(b.out) {
		return nil
	}
	there := b.out[b.pointer:]
	there = append([]byte{}, there[:min(n, len(there))]...)
	b.pointer += len(there)
	if f.Kind == CRCError {
		spoil(there)
	}
	return there
}

// busy gives how long a chip that is awake computes yet, but not more than until its
// watchdog; 0 of one that is done, or not awake.
func (b *Bus) busy() time.Duration {
	b.tick()
	if !b.awake || b.free.IsZero() {
		return 0
	}
	now := b.o.Now()
	wait := b.free.Sub(now)
	if b.o.Watchdog > 0 {
		wait = min(wait, b.o.Watchdog-now.Sub(b.woken))
	}
	return wait
}
