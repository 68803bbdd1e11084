package fault

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// secrets are byte strings that must not turn up, in all forms in which they
// could, by their first eight bytes.
type secrets struct {
	begins [1 << 16]bool
	forms  map[uint64][]form
}

type form struct {
	name string // of the secret and how it is written
	text []byte
}

// plant adds a secret in every form: raw, in hexadecimal digits of both cases,
// and as it looks within base64 of both alphabets, wherever it begins there.
func (s *secrets) plant(name string, secret []byte) {
	s.add(name+", raw", secret)
	s.add(name+", hexadecimal", []byte(hex.EncodeToString(secret)))
	s.add(name+", HEXADECIMAL", bytes.ToUpper([]byte(hex.EncodeToString(secret))))
	for before := range 3 {
		padded := append(make([]byte, before), secret...)
		// Only whole characters that no neighbour has a part in.
		from, to := (before*8+5)/6, len(padded)*8/6
		s.add(name+", base64", []byte(base64.RawStdEncoding.EncodeToString(padded)[from:to]))
		s.add(name+", base64url", []byte(base64.RawURLEncoding.EncodeToString(padded)[from:to]))
	}
}

// plantText adds a secret that is text, also in lower case.
func (s *secrets) plantText(name, secret string) {
	s.plant(name, []byte(secret))
	s.plant(name+", lower case", []byte(strings.ToLower(secret)))
}

func (s *secrets) add(name string, text []byte) {
	if s.forms == nil {
		s.forms = map[uint64][]form{}
	}
	s.begins[binary.LittleEndian.Uint16(text)] = true
	key := binary.LittleEndian.Uint64(text)
	s.forms[key] = append(s.forms[key], form{name, text})
}

// found counts by name what was found.
type found map[string]int

// in searches content.
func (s *secrets) in(content []byte, hits found) {
	for i := 0; i+8 <= len(content); i++ {
		if !s.begins[binary.LittleEndian.Uint16(content[i:])] {
			continue
		}
		for _, f := range s.forms[binary.LittleEndian.Uint64(content[i:])] {
			if bytes.HasPrefix(content[i:], f.text) {
				hits[f.name]++
			}
		}
	}
}

func (f found) String() string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		lines = append(lines, fmt.Sprintf("%s (%d times)", name, f[name]))
	}
	return strings.Join(lines, "; ")
}

// inMemory searches all of a process that a core dump would hold: what it may
// write to and did not exclude (flag dd). It gives how many bytes those are.
func (s *secrets) inMemory(t *testing.T, pid int, hits found) (searched int) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	ok(t, err)
	defer func() { _ = mem.Close() }()
	const chunk, overlap = 1 << 20, 256
	buf := make([]byte, chunk+overlap)
	for _, r := range dumpedRegions(t, pid) {
		for at := r[0]; at < r[1]; at += chunk {
			n := min(int(r[1]-at), len(buf))
			if _, err := mem.ReadAt(buf[:n], int64(at)); err != nil {
				break // gone meanwhile
			}
			s.in(buf[:n], hits)
			searched += min(n, chunk)
		}
	}
	return searched
}

func dumpedRegions(t *testing.T, pid int) (regions [][2]uintptr) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	ok(t, err)
	defer func() { _ = f.Close() }()
	var from, to uintptr
	var access string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var begin, end uintptr
		var rights string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &rights); n == 3 {
			from, to, access = begin, end, rights
			continue
		}
		if flags, is := strings.CutPrefix(lines.Text(), "VmFlags:"); is && strings.HasPrefix(access, "rw") && !slices.Contains(strings.Fields(flags), "dd") {
			regions = append(regions, [2]uintptr{from, to})
		}
	}
	ok(t, lines.Err())
	return regions
}

func TestSearchFinds(t *testing.T) {
	secret := []byte("0123456789abcdef")
	var s secrets
	s.plant("secret", secret)
	for name, content := range map[string]string{
		"raw":         "x" + string(secret),
		"hexadecimal": hex.EncodeToString(append([]byte{1}, secret...)),
		"base64 at 0": base64.StdEncoding.EncodeToString(append([]byte(nil), append(secret, 7)...)),
		"base64 at 1": base64.StdEncoding.EncodeToString(append([]byte{9}, append(secret, 7, 7)...)),
		"base64 at 2": base64.URLEncoding.EncodeToString(append([]byte{9, 9}, append(secret, 7)...)),
		"base64 at 5": base64.URLEncoding.EncodeToString(append([]byte("hello"), append(secret, 7)...)),
	} {
		hits := found{}
		s.in([]byte(content), hits)
		if len(hits) == 0 {
			t.Errorf("%s: not found in %q", name, content)
		}
	}
	hits := found{}
	s.in([]byte("0123456789abcdeg"), hits)
	if len(hits) != 0 {
		t.Errorf("found what is not there: %v", hits)
	}
}
