package leak

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Secrets are byte strings that must not turn up, in all forms in which they
// could. The zero Secrets has none.
type Secrets struct {
	begins []uint64          // a bit for each beginning of three bytes that a form has
	forms  map[uint64][]form // by their first eight bytes
	long   int               // how long the longest is
}

const shortest = 8 // what is shorter turns up by chance

func (s *Secrets) add(name string, text []byte) {
	if len(text) < shortest {
		panic("leak: " + name + " is too short to be searched for")
	}
	if s.forms == nil {
		s.forms, s.begins = map[uint64][]form{}, make([]uint64, 1<<24/64)
	}
	key := binary.LittleEndian.Uint64(text)
	if slices.ContainsFunc(s.forms[key], func(f form) bool { return bytes.Equal(f.text, text) }) {
		return // digits without letters look the same in both cases
	}
	begin := key & (1<<24 - 1)
	s.begins[begin/64] |= 1 << (begin % 64)
	s.forms[key] = append(s.forms[key], form{name, text})
	s.long = max(s.long, len(text))
}

// Found counts by name what was found.
type Found map[string]int

// In searches content.
func (s *Secrets) In(content []byte, hits Found) {
	s.each(content, func(_ int, f form) { hits[f.name]++ })
}

// each calls hit for every form in content.
func (s *Secrets) each(content []byte, hit func(at int, f form)) {
	if s.forms == nil {
		return
	}
	for i := 0; i+shortest <= len(content); i++ {
		key := binary.LittleEndian.Uint64(content[i:])
		begin := key & (1<<24 - 1)
		if s.begins[begin/64]&(1<<(begin%64)) == 0 {
			continue
		}
		for _, f := range s.forms[key] {
			if bytes.HasPrefix(content[i:], f.text) {
				hit(i, f)
			}
		}
	}
}

// String lists what was found, the first few by name.
func (f Found) String() string {
	const most = 12
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if len(lines) == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(f)-most))
			break
		}
		lines = append(lines, fmt.Sprintf("%s (%d times)", name, f[name]))
	}
	return strings.Join(lines, "; ")
}
