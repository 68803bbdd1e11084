package bus

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/chip"
)

func script(t *testing.T, text string) *Script {
	t.Helper()
	s, err := ParseScript(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each fault does what it says, and the bus is well again after it.
func TestFaults(t *testing.T) {
	info := append([]byte{wordCommand}, chip.Command(chip.OpInfo, 0, 0)...)
	well := func(b *Bus) bool {
		b.Write(0, nil)
		ok := b.Write(address, info)
		got, _ := b.Read(address, 7)
		return ok && bytes.Equal(got, unhex(t, "07000060028038"))
	}
	for text, want := range map[string]func(b *Bus) bool{
		"wake 1 no-wake": func(b *Bus) bool { return !b.Write(0, nil) && !b.Write(address, info) },
		"wake 1 crc": func(b *Bus) bool {
			b.Write(0, nil)
			got, _ := b.Read(address, 4)
			_, err := chip.Answer(got)
			return errors.Is(err, chip.BadCRC)
		},
		"transaction 2+3 nack": func(b *Bus) bool {
			b.Write(0, nil)
			for range 3 {
				if b.Write(address, info) {
					return false
				}
			}
			return b.Write(address, info)
		},
		"Info 1 error 0F": func(b *Bus) bool {
			b.Write(0, nil)
			_, err := command(t, b, chip.OpInfo, 0, 0)
			return errors.Is(err, chip.Refused)
		},
		"command every crc": func(b *Bus) bool {
			b.Write(0, nil)
			_, err := command(t, b, chip.OpInfo, 0, 0)
			b.o.Faults = nil
			return errors.Is(err, chip.BadCRC)
		},
		"wake 1 error 07 # the chip's self-test failed": func(b *Bus) bool {
			b.Write(0, nil)
			got, _ := b.Read(address, 4)
			_, err := chip.Answer(got)
			return errors.Is(err, chip.SelfTested)
		},
		"wake 2 nack # though it is awake": func(b *Bus) bool { return b.Write(0, nil) && !b.Write(0, nil) },
		"read 2 crc # and the answer is whole when it is read again": func(b *Bus) bool {
			b.Write(0, nil)
			b.Write(address, info)
			good, _ := b.Read(address, 7)
			b.Write(address, []byte{wordReset})
			bad, _ := b.Read(address, 7)
			b.Write(address, []byte{wordReset})
			again, _ := b.Read(address, 7)
			_, err := chip.Answer(bad)
			return errors.Is(err, chip.BadCRC) && bytes.Equal(good, again)
		},
		"read 1 crc # over a bridge": func(b *Bus) bool {
			_, err := chip.Answer(b.Wake(t.Context()))
			return errors.Is(err, chip.BadCRC)
		},
		"read 1 power-loss # between the command and its answer": func(b *Bus) bool {
			b.Write(0, nil)
			b.Write(address, info)
			_, ok := b.Read(address, 7)
			return !ok
		},
	} {
		b := New(newChip(t), Options{Faults: script(t, text)})
		if !want(b) {
			t.Errorf("%s: did not happen", text)
		}
		if !well(b) {
			t.Errorf("%s: the chip is not well after it", text)
		}
	}
	c := &clock{time.Unix(0, 0)}
	b := New(newChip(t), Options{Now: c.Now, Faults: script(t, "Info 1 slow 300ms")})
	b.Write(0, nil)
	b.Write(address, info)
	if _, ok := b.Read(address, 1); ok {
		t.Error("a slow answer is there at once")
	}
	c.now = c.now.Add(300 * time.Millisecond)
	if _, ok := b.Read(address, 1); !ok {
		t.Error("a slow answer never comes")
	}
}

// A fault that does nothing, since the chip was awake before, did not happen.
func TestFaultsOfWhoIsAwake(t *testing.T) {
	for text, want := range map[string]int{"wake 2 no-wake": 0, "wake 2 crc": 0, "wake 2 slow 1s": 0, "wake 2 error 07": 0, "wake 2 nack": 1, "wake 2 power-loss": 1} {
		s := script(t, text)
		b := New(newChip(t), Options{Faults: s})
		b.Write(0, nil)
		b.Write(0, nil)
		if s.Hits() != want {
			t.Errorf("%s: happened %d times, want %d", text, s.Hits(), want)
		}
	}
}

// A command that met an error was not carried out.
func TestCommandErrorDoesNothing(t *testing.T) {
	b := New(newChip(t), Options{Faults: script(t, "Counter 2 error 05")})
	b.Write(0, nil)
	for i, want := range []byte{1, 0, 2} {
		got, err := command(t, b, chip.OpCounter, 1, 1)
		if i == 1 {
			if !errors.Is(err, chip.ECCFault) {
				t.Errorf("got %v", err)
			}
		} else if err != nil || got[0] != want {
			t.Errorf("count %d: %x, %v", i, got, err)
		}
	}
}

func TestScriptRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"AES 1": "want WHAT WHICH FAULT", "Foo 1 nack": "neither transaction", "AES 0 nack": "neither every", "AES 1+0 nack": "neither every",
		"AES x nack": "neither every", "AES 1 explode": "no fault", "AES 1 error": "two hexadecimal digits", "AES 1 error 00": "two hexadecimal digits",
		"AES 1 slow": "want how long", "AES 1 slow 0s": "want how long", "read 3 slow 300ms": "slow does nothing to read", "write 1 crc": "nothing to write",
		"transaction 5 slow 1s": "nothing to transaction", "transaction 5 crc": "crc is for", "read 1 error 0F": "nothing to read",
		"command 1 no-wake": "no-wake for wake", "AES 1 no-wake": "nothing to AES", "write 1 no-wake": "nothing", "AES 1 nack now": "too many words", "\nAES 1 slow -1s": "line 2",
	} {
		if _, err := ParseScript(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	s := script(t, "AES 2+* crc\ncommand 1 nack")
	got := []FaultKind{}
	for range 3 {
		got = append(got, s.Next(Transaction{Kind: Command, Op: chip.OpAES}).Kind)
	}
	if !slices.Equal(got, []FaultKind{NACK, CRCError, CRCError}) || s.Hits() != 3 {
		t.Errorf("got %v, %d hits", got, s.Hits())
	}
}

// A seed gives the same faults again, another one others.
func TestRandomFaults(t *testing.T) {
	draw := func(seed uint64) (list []Fault) {
		f := NewRandom(seed, 5)
		for i := range 400 {
			list = append(list, f.Next(Transaction{Kind: TransactionKind(1 + i%4), Op: chip.OpAES}))
		}
		return list
	}
	a := draw(1)
	if !slices.Equal(a, draw(1)) || slices.Equal(a, draw(2)) {
		t.Error("the faults do not follow from the seed")
	}
	seen := map[FaultKind]int{}
	for i, f := range a {
		seen[f.Kind]++
		if kind := TransactionKind(1 + i%4); !f.fits(kind) {
			t.Errorf("drew %+v, which does nothing to a transaction of kind %d", f, kind)
		}
	}
	for k := None; k <= CommandError; k++ {
		if seen[k] == 0 {
			t.Errorf("fault %d never happens", k)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("AES 2 error 0F\nwake 1+3 no-wake\ncommand every slow 3ms # why")
	f.Fuzz(func(_ *testing.T, text string) {
		if s, err := ParseScript(strings.NewReader(text)); err == nil {
			s.Next(Transaction{Kind: Command, Op: chip.OpAES})
		}
	})
}
