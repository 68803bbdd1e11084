package bus

import (
	"time"

	"joinery/internal/sim/chip"
)

// longest is how long each command takes at most, in milliseconds, by the host
// libraries' tables for the slowest clock.
var longest = map[chip.Opcode]time.Duration{
	chip.OpAES: 27, chip.OpCheckMac: 40, chip.OpCounter: 25, chip.OpDeriveKey: 50, chip.OpECDH: 75, chip.OpGenDig: 25,
	chip.OpGenKey: 115, chip.OpInfo: 5, chip.OpKDF: 165, chip.OpLock: 35, chip.OpMAC: 55, chip.OpNonce: 20,
	chip.OpPrivWrite: 50, chip.OpRandom: 23, chip.OpRead: 5, chip.OpSecureBoot: 80, chip.OpSelfTest: 250,
	chip.OpSHA: 36, chip.OpSign: 115, chip.OpUpdateExtra: 10, chip.OpVerify: 105, chip.OpWrite: 45,
}

// Longest is a Timing: each command takes as long as the chip may need.
func Longest(op chip.Opcode) time.Duration { return longest[op] * time.Millisecond }

// Fixed gives a Timing by which every command takes as long.
func Fixed(d time.Duration) func(chip.Opcode) time.Duration {
	return func(chip.Opcode) time.Duration { return d }
}
