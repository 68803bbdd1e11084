package leak

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// schedule gives the round keys of an AES key (FIPS 197 §5.2): first those for
// encryption, then those which the equivalent inverse cipher has in their place.
func schedule(key []byte) (rounds [][]byte) {
	words := expand(key)
	for i := 0; i+4 <= len(words); i += 4 {
		rounds = append(rounds, join(words[i:i+4]))
	}
	for i := 4; i+8 <= len(words); i += 4 {
		mixed := make([]uint32, 4)
		for j := range mixed {
			mixed[j] = inverseMix(words[i+j])
		}
		rounds = append(rounds, join(mixed))
	}
	return rounds
}

func expand(key []byte) []uint32 {
	n := len(key) / 4
	words := make([]uint32, 4*(n+7))
	for i := range n {
		words[i] = binary.BigEndian.Uint32(key[4*i:])
	}
	constant := byte(1)
	for i := n; i < len(words); i++ {
		w := words[i-1]
		switch {
		case i%n == 0:
			w = substitute(bits.RotateLeft32(w, 8)) ^ uint32(constant)<<24
			constant = double(constant)
		case n > 6 && i%n == 4:
			w = substitute(w)
		}
		words[i] = words[i-n] ^ w
	}
	return words
}

func join(words []uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// swapped gives each word of four bytes the other way round, as a machine has it
// that counts from the lowest.
func swapped(round []byte) []byte {
	round = slices.Clone(round)
	for word := range slices.Chunk(round, 4) {
		slices.Reverse(word)
	}
	return round
}

func substitute(w uint32) (out uint32) {
	for shift := 0; shift < 32; shift += 8 {
		out |= uint32(sbox(byte(w>>shift))) << shift
	}
	return out
}

// sbox is FIPS 197 §5.1.1: the inverse in the field, and an affine map.
func sbox(b byte) byte {
	inverse := byte(1)
	for range 254 { // b to the 254th
		inverse = times(inverse, b)
	}
	if b == 0 {
		inverse = 0
	}
	out := byte(0x63)
	for turn := range 5 {
		out ^= bits.RotateLeft8(inverse, turn)
	}
	return out
}

func inverseMix(w uint32) (out uint32) {
	factors := [4]byte{14, 11, 13, 9}
	for row := range 4 {
		var sum byte
		for column := range 4 {
			sum ^= times(byte(w>>(24-8*column)), factors[(column-row+4)%4])
		}
		out |= uint32(sum) << (24 - 8*row)
	}
	return out
}

// times multiplies in the field of AES.
func times(a, b byte) (product byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			product ^= a
		}
		a = double(a)
	}
	return product
}

func double(b byte) byte {
	if b&0x80 != 0 {
		return b<<1 ^ 0x1B
	}
	return b << 1
}
