// Package trial runs a firmware's join against an emulated element while everything
// goes wrong that can, once each, and says what the firmware did: joined all the same,
// failed and said so, or did worse. The worst is known from a driver that ignores the
// status of its AES commands: it reports success, and sends a MIC of zeros.
package trial

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"joinery/internal/sim/chip"
	"joinery/internal/sim/chip/bus"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// Firmware joins once with the element behind an address, HOST:PORT, and prints its
// join-request in hexadecimal digits. It tells of failure by its error.
type Firmware func(ctx context.Context, address string) (output []byte, err error)

// ErrCrashed is the error of a firmware that did not end by itself.
var ErrCrashed = errors.New("crashed")

// Setup is what a trial needs.
type Setup struct {
	Image    *chip.Image
	Firmware Firmware
	// Speak is how the firmware talks; nil is bus.I2C.
	Speak bus.Protocol
	// Address is where the element listens; "": a port of this machine that is free.
	Address string
	// Timeout is how long a run may take.
	Timeout time.Duration
	// Timing says how long commands take; nil: no longer than they take to compute.
	Timing func(chip.Opcode) time.Duration

	// wanted is what the clean run derived: what a join is not done without.
	wanted map[target]bool
}

// target is where KDF puts a key: the bits of the mode that say so, and the slot.
type target struct{ where, slot byte }

// toSlot are those bits where it is a slot.
const toSlot = 0x08

// targetOf gives where a packet of KDF puts its key: count, opcode, mode, source slot,
// target slot.
func targetOf(packet []byte) target { return target{packet[2] & 0x1C, packet[4]} }

// Verdict is what a firmware did.
type Verdict string

// The verdicts.
const (
	Joined   Verdict = "joined"    // with a right join-request
	Failed   Verdict = "failed"    // and said so
	WrongMIC Verdict = "wrong MIC" // sent a join-request that no server takes
	Silent   Verdict = "silent"    // says that it worked and sent nothing
	Ignored  Verdict = "ignored"   // says that it worked, but a key was never derived
	Hung     Verdict = "hung"      // did not end in time
	Crashed  Verdict = "crashed"   // by a signal
)

// Good tells whether a firmware may do that when its element fails.
func (v Verdict) Good() bool { return v == Joined || v == Failed }

// Run is one run of the firmware.
type Run struct {
	// Fault is the line of a script by which it happens again; "": none.
	Fault   string  `json:"fault"`
	Verdict Verdict `json:"verdict"`
	// Detail says more, for people.
	Detail string `json:"detail,omitempty"`
	// Warning is set where the session that was derived will not work, though nothing says
	// so: see NoAppSKey.
	Warning string `json:"warning,omitempty"`
	// Hits is how often the fault happened.
	Hits int `json:"hits"`

	counts  counts
	derived map[target]bool
}

// NoAppSKey is the warning about a firmware that derives the keys of the network, and none
// into slot 2. A widely used driver takes the AppSKey of LoRaWAN 1.1 for derived without
// a command: it joins, every MIC is right, and payloads go out under whatever slot 2 held.
const NoAppSKey = "it derived keys for the network, but none into slot 2 (AppSKey): with LoRaWAN 1.1 a driver that takes AppSKey " +
	"for derived without sending KDF; it joins, and the Application Server will read garbage"

// counts is what a run did on the bus.
type counts struct{ transactions, wakes, commands int }

// joinRequest finds a join-request in a firmware's output.
var joinRequest = regexp.MustCompile(`\b00[0-9A-Fa-f]{44}\b`)

// Clean runs the firmware with nothing going wrong. It must join: else there is
// nothing to try. The runs after it have to derive what it derived.
func (s *Setup) Clean(ctx context.Context) (Run, error) {
	s.wanted = nil
	r, err := s.Run(ctx, "")
	if err == nil && r.Verdict != Joined {
		err = fmt.Errorf("the firmware does not join when nothing goes wrong: %s %s", r.Verdict, r.Detail)
	}
	s.wanted = r.derived
	return r, err
}

// Run runs the firmware once against a fresh chip, with one fault.
func (s *Setup) Run(ctx context.Context, fault string) (r Run, err error) {
	script, err := bus.ParseScript(bytes.NewReader([]byte(fault)))
	if err != nil {
		return r, err
	}
	c := chip.New(s.Image, chip.Options{})
	o := &observer{faults: script, derived: map[target]bool{}}
	wire := bus.New(c, bus.Options{Faults: o, Watch: o.watch, Timing: s.Timing, Watchdog: bus.DefaultWatchdog})
	address := s.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return r, err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	speak := s.Speak
	if speak == nil {
		speak = bus.I2C
	}
	go func() { done <- bus.Serve(serving, l, speak, bus.One(wire)) }()
	running, cancel := context.WithTimeout(ctx, s.Timeout)
	output, failure := s.Firmware(running, l.Addr().String())
	hung := running.Err() != nil && ctx.Err() == nil
	cancel()
	stop()
	if err := errors.Join(<-done, ctx.Err()); err != nil {
		return r, err
	}
	r = Run{Fault: fault, Hits: script.Hits(), counts: o.counts, derived: o.derived}
	r.Verdict, r.Detail = s.judge(output, failure, o)
	if r.Verdict == Joined && o.noAppSKey() {
		r.Warning = NoAppSKey
	}
	if hung {
		r.Verdict, r.Detail = Hung, fmt.Sprintf("did not end within %v", s.Timeout)
	}
	return r, nil
}

// judge says what a run came to.
func (s *Setup) judge(output []byte, failure error, o *observer) (Verdict, string) {
	frames := joinRequest.FindAll(output, -1)
	for _, text := range frames {
		frame, err := hex.DecodeString(string(text))
		if err != nil {
			continue
		}
		if err := s.verify(frame); err != nil {
			detail := fmt.Sprintf("sent %s", text)
			if bytes.HasSuffix(text, []byte("00000000")) {
				detail += ": a MIC of zeros, the status of AES was ignored"
			} else {
				detail += ": a MIC that is not the element's, one of its errors was ignored"
			}
			return WrongMIC, detail
		}
	}
	switch {
	case errors.Is(failure, ErrCrashed):
		return Crashed, failure.Error()
	case failure != nil:
		return Failed, failure.Error()
	case len(frames) == 0:
		return Silent, "ended with success, and printed no join-request"
	}
	for t, done := range o.derived {
		if !done {
			return Ignored, "ended with success, though KDF failed and was not sent again" + t.missing()
		}
	}
	for t := range s.wanted {
		if !o.derived[t] {
			return Ignored, "ended with success, and never sent a KDF that it sends when nothing goes wrong" + t.missing()
		}
	}
	return Joined, ""
}

// verify checks the MIC of a join-request by the element itself.
func (s *Setup) verify(frame []byte) error {
	e, err := element.OnChip(chip.New(s.Image, chip.Options{}), false)
	if err != nil {
		return err
	}
	end := len(frame) - lorawan.MICLen
	return e.VerifyCMAC(element.NwkKey, nil, frame[:end], lorawan.MIC(frame[end:]))
}

// missing says what a firmware lacks that derived nothing there.
func (t target) missing() string {
	if t.where != toSlot {
		return ": a key is missing"
	}
	return fmt.Sprintf(": the key of slot %d is missing", t.slot)
}

// observer counts what happens on the bus, and remembers which keys were derived.
type observer struct {
	faults *bus.Script
	counts counts
	// derived tells of each target of a KDF that was sent whether the last one was
	// carried out.
	derived map[target]bool
}

// noAppSKey tells whether keys were derived into slots 3 to 5, and none into slot 2.
func (o *observer) noAppSKey() bool {
	d := o.derived
	return (d[target{toSlot, 3}] || d[target{toSlot, 4}] || d[target{toSlot, 5}]) && !d[target{toSlot, 2}]
}

// Next implements bus.Faults.
func (o *observer) Next(t bus.Transaction) bus.Fault {
	o.counts.transactions++
	switch t.Kind {
	case bus.Wake:
		o.counts.wakes++
	case bus.Command:
		o.counts.commands++
	}
	if t.Op == chip.OpKDF && len(t.Packet) > 4 {
		o.derived[targetOf(t.Packet)] = false
	}
	return o.faults.Next(t)
}

// watch sees commands that were carried out.
func (o *observer) watch(packet, answer []byte) {
	if _, err := chip.Answer(answer); err == nil && chip.Opcode(packet[1]) == chip.OpKDF {
		o.derived[targetOf(packet)] = true
	}
}

// Faults gives what can go wrong in a run like the clean one: everything for ever,
// then each fault at each place. step thins the places: one in so many.
func Faults(clean Run, step int) (list []string) {
	list = []string{
		"AES every error 0F", "KDF every error 0F", "Read every error 0F", "command every crc", "wake every no-wake",
		"wake every crc", "transaction every nack",
	}
	step = max(step, 1)
	each := func(n int, lines ...string) {
		for _, line := range lines {
			for i := 1; i <= n; i += step {
				list = append(list, fmt.Sprintf(line, i))
			}
		}
	}
	each(clean.counts.commands, "command %d error 0F", "command %d error 05", "command %d crc", "command %d slow 300ms")
	each(clean.counts.wakes, "wake %d no-wake", "wake %d crc")
	each(clean.counts.transactions, "transaction %d power-loss", "transaction %d nack", "transaction %d+60 nack")
	return list
}
