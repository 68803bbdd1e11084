package leak

import (
	"crypto/aes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Every way in which a program would write a key is found.
func TestSearchFinds(t *testing.T) {
	secret := make([]byte, 16)
	rand.Read(secret)
	var s Secrets
	s.PlantKey("secret", secret)
	reversed := slices.Clone(secret)
	slices.Reverse(reversed)
	for order, b := range map[string][]byte{"": secret, "reversed ": reversed} {
		array := [16]byte(b)
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", string(b), "array", array)
		numbers, err := json.Marshal(array)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"raw": "x" + string(b), "%x": fmt.Sprintf("a%xb", b), "%X": fmt.Sprintf("A%XB", b), "% x": fmt.Sprintf("% x", b), "% X": fmt.Sprintf("% X", b),
			"%#x": fmt.Sprintf("%#x", b), "% #x": strings.ReplaceAll(fmt.Sprintf("% #x", b), " ", ", "),
			"%v": fmt.Sprintf("%v", b), "%d": fmt.Sprintf("%d", array), "%#v": fmt.Sprintf("%#v", b), "%#v of an array": fmt.Sprintf("%#v", array),
			"%q": fmt.Sprintf("%q", b), "JSON": string(numbers), "colons": strings.ReplaceAll(fmt.Sprintf("% x", b), " ", ":"),
			"log": log.String(),
		} {
			expect(t, &s, order+name, []byte(content), true)
		}
		for before := range 6 {
			content := append(make([]byte, before), append(slices.Clone(b), 7, 7)...)
			expect(t, &s, fmt.Sprint(order, "base64 at ", before), []byte(base64.StdEncoding.EncodeToString(content)), true)
			expect(t, &s, fmt.Sprint(order, "base64url at ", before), []byte(base64.RawURLEncoding.EncodeToString(content)), true)
		}
	}
	other := slices.Clone(secret)
	other[15] ^= 1
	expect(t, &s, "another key", other, false)
	expect(t, &s, "another key in digits", []byte(hex.EncodeToString(other)), false)
}

func expect(t *testing.T, s *Secrets, name string, content []byte, want bool) {
	t.Helper()
	hits := Found{}
	s.In(content, hits)
	if len(hits) > 0 != want {
		t.Errorf("%s: found %v in %q", name, hits, content)
	}
}

// The round keys are those of FIPS 197, appendix A.
func TestSchedule(t *testing.T) {
	for key, last := range map[string]string{
		"2b7e151628aed2a6abf7158809cf4f3c":                                 "d014f9a8c9ee2589e13f0cc8b6630ca6",
		"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b":                 "e98ba06f448c773c8ecc720401002202",
		"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4": "fe4890d1e6188d0b046df344706c631e",
	} {
		raw, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		rounds := schedule(raw)
		if got := hex.EncodeToString(rounds[len(raw)/4+6]); got != last {
			t.Errorf("%s: last round key %s", key, got)
		}
	}
}

// What Go's own AES keeps of a key is found, wherever round keys are.
func TestScheduleOfGo(t *testing.T) {
	if os.Getenv(childVar) != "" {
		child()
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of others")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestScheduleOfGo$")
	cmd.Env = append(os.Environ(), childVar+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = stdin.Close() }() // which ends it
	masked := make([]byte, 16)
	if _, err := stdout.Read(masked); err != nil {
		t.Fatal(err)
	}
	var s Secrets
	s.PlantKey("key", unmask(masked))
	c, err := s.InProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	for name := range c.In(Dumped()...) { // Go's heap, but for a chance
		if strings.Contains(name, "round key") {
			rounds++
		}
	}
	if rounds < 10 {
		t.Errorf("%d round keys found: %v", rounds, c)
	}
	canary := make([]byte, 16)
	rand.Read(canary)
	s.Plant("canary", canary)
	places, err := WithCanary(cmd.Process.Pid, canary, func() { c, err = s.InProcess(cmd.Process.Pid) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		if c.Hits[p]["canary, raw"] == 0 {
			t.Errorf("the canary in %s is not found", p)
		}
	}
	for _, p := range []Place{Program, Stack} {
		if !slices.Contains(places, p) {
			t.Errorf("there is no %s in %v", p, places)
		}
	}
}

const childVar = "JOINERY_TEST_LEAK"

// child expands a key, forgets the key itself, and waits.
func child() {
	key := make([]byte, 16)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		os.Exit(1)
	}
	masked := unmask(key)
	clear(key)
	_, _ = os.Stdout.Write(masked)
	_, _ = os.Stdin.Read(make([]byte, 1))
	block.Encrypt(key, key)
	os.Exit(0)
}

// unmask keeps a key out of the buffer of a pipe.
func unmask(b []byte) []byte {
	b = slices.Clone(b)
	for i := range b {
		b[i] ^= 0xA5
	}
	return b
}
