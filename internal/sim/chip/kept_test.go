package chip

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
)

// changed is which commands changed a chip's memory in the tests of this package.
var changed = map[Opcode]bool{}

// writers are the commands that can.
var writers = []Opcode{
	OpWrite, OpLock, OpCounter, OpUpdateExtra, OpDeriveKey, OpKDF, OpGenKey, OpPrivWrite, OpECDH, OpVerify, OpSecureBoot,
	OpSign, // a use of a key whose uses are counted
}

// executeKept executes a command of any test as if the power or the process were lost
// in it, and then in earnest.
//
// Lost before its change was kept, nothing of it is there, and it is not answered as
// done. Answered, all of it was kept before.
func executeKept(t testing.TB, c *Chip, packet []byte) []byte {
	t.Helper()
	before := c.nv
	var unkept error
	if Opcode(packet[1]) != OpSHA { // its state is not copied with the chip
		lost := *c
		lost.save = func(*Image) error { return errors.New("lost") }
		_, unkept = Answer(lost.Execute(packet))
		if lost.nv != before {
			t.Errorf("%v: a change that was not kept is there", Opcode(packet[1]))
		}
	}
	kept, save := before, c.save
	c.save = func(m *Image) error {
		kept = *m
		if save != nil {
			return save(m)
		}
		return nil
	}
	answer := c.Execute(packet)
	c.save = save
	if c.nv != kept {
		t.Errorf("%v: answered before its change was kept", Opcode(packet[1]))
	}
	if c.nv != before {
		if Opcode(packet[1]) != OpSHA && !errors.Is(unkept, Health) {
			t.Errorf("%v: not kept, and answered with %v", Opcode(packet[1]), unkept)
		}
		changed[Opcode(packet[1])] = true
	}
	return answer
}

// All commands that write were tried so, unless some tests only were run.
func TestMain(m *testing.M) {
	code := m.Run()
	whole := true
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		whole = whole && flag.Lookup(name).Value.String() == ""
	}
	for _, op := range writers {
		if whole && code == 0 && !changed[op] {
			fmt.Printf("FAIL: no test has %v change the memory\n", op)
			code = 1
		}
	}
	os.Exit(code)
}
