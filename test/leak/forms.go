package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// form is one way to write a secret.
type form struct {
	name string // of the secret and how it is written
	text []byte
}

// Plant adds a secret in every form: raw and as text of all kinds, in its own
// order and in that of LoRaWAN, which sends keys' neighbours backwards.
func (s *Secrets) Plant(name string, secret []byte) {
	s.plantOrder(name, secret)
	backwards := slices.Clone(secret)
	slices.Reverse(backwards)
	s.plantOrder(name+", reversed", backwards)
}

// PlantKey is Plant for an AES key, whose round keys tell as much as itself.
func (s *Secrets) PlantKey(name string, key []byte) {
	s.Plant(name, key)
	for i, round := range schedule(key) {
		s.add(fmt.Sprintf("%s, round key %d", name, i), round)
		s.add(fmt.Sprintf("%s, round key %d, words swapped", name, i), swapped(round))
	}
}

// PlantText adds a secret that is text, also in lower case.
func (s *Secrets) PlantText(name, secret string) {
	s.Plant(name, []byte(secret))
	if lower := strings.ToLower(secret); lower != secret {
		s.Plant(name+", lower case", []byte(lower))
	}
}

func (s *Secrets) plantOrder(name string, b []byte) {
	s.add(name+", raw", b)
	digits := hex.EncodeToString(b)
	for _, text := range []string{digits, strings.ToUpper(digits)} {
		s.add(name+", hexadecimal", []byte(text))
		for _, between := range []string{":", " ", "-"} {
			s.add(name+", hexadecimal with "+strconv.Quote(between), []byte(separated(text, "", between)))
		}
		s.add(name+", hexadecimal with \\x", []byte(separated(text, `\x`, "")))
		s.add(name+", hexadecimal with 0x", []byte(separated(text, "0x", ", ")))
	}
	s.add(name+", %#v", bytes.TrimSuffix(bytes.TrimPrefix(fmt.Appendf(nil, "%#v", b), []byte("[]byte{")), []byte("}")))
	for _, between := range []string{" ", ",", ", "} {
		s.add(name+", decimal with "+strconv.Quote(between), []byte(decimal(b, between)))
	}
	if quoted := strings.Trim(strconv.Quote(string(b)), `"`); quoted != string(b) {
		s.add(name+", quoted", []byte(quoted))
	}
	for before := range 3 {
		padded := append(make([]byte, before), b...)
		// Only whole characters that no neighbour has a part in.
		from, to := (before*8+5)/6, len(padded)*8/6
		s.add(name+", base64", []byte(base64.RawStdEncoding.EncodeToString(padded)[from:to]))
		s.add(name+", base64url", []byte(base64.RawURLEncoding.EncodeToString(padded)[from:to]))
	}
}

// separated puts text before each pair of digits, and between the pairs.
func separated(digits, before, between string) string {
	var pairs []string
	for pair := range slices.Chunk([]byte(digits), 2) {
		pairs = append(pairs, before+string(pair))
	}
	return strings.Join(pairs, between)
}

// decimal writes bytes as %v does.
func decimal(b []byte, between string) string {
	numbers := make([]string, len(b))
	for i, n := range b {
		numbers[i] = strconv.Itoa(int(n))
	}
	return strings.Join(numbers, between)
}
