package leak

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Place is whose memory a piece of memory is, as well as can be told from outside.
type Place string

// Places. A program with C in it has memory of both worlds: Go's heap, in which
// are the stacks of goroutines, and the program's own variables are ours; what
// the C library hands out, the variables of libraries, and the stacks on which
// threads run C are those of the libraries.
const (
	GoHeap     Place = "Go's heap and stacks"
	GoRuntime  Place = "Go's runtime"
	Program    Place = "the program's variables"
	CHeap      Place = "C's heap"
	Library    Place = "variables of libraries"
	Stack      Place = "the first thread's stack"
	Other      Place = "C's other memory and threads' stacks"
	Undumpable Place = "kept out of dumps" // by its owner, who protects it
)

// Region is a piece of memory to which its process may write.
type Region struct {
	From, To uint64
	Place    Place
	Name     string // as the kernel tells it
	Shared   bool   // with other processes, or a file
}

// Regions lists the writable memory of a process.
func Regions(pid int) ([]Region, error) {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, err
	}
	all, err := mappings(pid)
	if err != nil {
		return nil, err
	}
	var stack uint64
	for _, m := range all {
		if m.Name == "[stack]" {
			stack = m.From
		}
	}
	var list []Region
	before := mapping{} // variables without value follow the file's
	for _, m := range all {
		file := ""
		if before.To == m.From && filepath.IsAbs(before.Name) && strings.Contains(before.rights, "w") {
			file = before.Name
		}
		before = m
		if !strings.Contains(m.rights, "w") {
			continue
		}
		m.Place = placeOf(m.Region, program, file, stack)
		if m.undumped {
			m.Place = Undumpable
		}
		list = append(list, m.Region)
	}
	return list, nil
}

// mapping is a region of any kind.
type mapping struct {
	Region
	rights   string
	undumped bool
}

func mappings(pid int) (all []mapping, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m, ok := parseHead(lines.Text()); ok {
			all = append(all, m)
		}
		if flags, is := strings.CutPrefix(lines.Text(), "VmFlags:"); is && len(all) > 0 {
			all[len(all)-1].undumped = slices.Contains(strings.Fields(flags), "dd")
		}
	}
	return all, lines.Err()
}

// parseHead reads the first of the lines about a mapping.
func parseHead(line string) (m mapping, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return m, false
	}
	if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.From, &m.To); err != nil {
		return m, false
	}
	m.rights, m.Name = fields[1], strings.Join(fields[5:], " ")
	m.Shared = strings.Contains(m.rights, "s")
	return m, true
}

// far is how far from the first thread's stack the kernel places nothing: it leaves
// some room below that, and begins up to 2^28 pages further down (mmap_base in
// arch/x86/mm/mmap.c). Go's heap is at an address of its own, at random.
const far = 1<<40 + 1<<37

// placeOf judges a region by its name, where the kernel tells one, and by where it
// is. Go's heap is taken for C's other memory where chance puts it near that, once
// in a hundred processes.
func placeOf(r Region, program, before string, stack uint64) Place {
	adjoins := r.Name == "" && before != ""
	switch {
	case strings.HasPrefix(r.Name, "[anon: Go: heap"):
		return GoHeap
	case strings.HasPrefix(r.Name, "[anon: Go:"):
		return GoRuntime
	case r.Name == program, adjoins && before == program:
		return Program
	case r.Name == "[heap]":
		return CHeap
	case r.Name == "[stack]":
		return Stack
	case filepath.IsAbs(r.Name), adjoins:
		return Library
	case r.Name == "" && r.To+far < stack:
		return GoHeap
	}
	return Other
}

// Census is what a search of a process found, and what it searched.
type Census struct {
	Hits     map[Place]Found
	Searched map[Place]int // bytes
}

// InProcess searches all memory of a process to which it may write. Memory that
// not even the kernel gives out is counted as not searched.
func (s *Secrets) InProcess(pid int) (c Census, err error) {
	regions, err := Regions(pid)
	if err != nil {
		return c, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return c, err
	}
	defer func() { _ = mem.Close() }()
	c = Census{Hits: map[Place]Found{}, Searched: map[Place]int{}}
	for _, r := range regions {
		hits := Found{}
		c.Searched[r.Place] += s.inRegion(mem, r, hits)
		for name, n := range hits {
			if c.Hits[r.Place] == nil {
				c.Hits[r.Place] = Found{}
			}
			c.Hits[r.Place][name] += n
		}
	}
	return c, nil
}

// inRegion searches a region piece by piece, and gives how much of it there was.
func (s *Secrets) inRegion(mem *os.File, r Region, hits Found) (searched int) {
	const piece = 1 << 20
	buf := make([]byte, piece+s.long)
	for at := r.From; at < r.To; at += piece {
		n := min(int(r.To-at), len(buf))
		if _, err := mem.ReadAt(buf[:n], int64(at)); err != nil {
			continue // gone meanwhile, or never readable
		}
		s.each(buf[:n], func(i int, f form) {
			if i < piece { // else it is in the next piece, too
				hits[f.name]++
			}
		})
		searched += min(n, piece)
	}
	return searched
}

// In gives what was found in some places.
func (c Census) In(places ...Place) Found {
	all := Found{}
	for _, p := range places {
		for name, n := range c.Hits[p] {
			all[name] += n
		}
	}
	return all
}

// Ours are the places of Go and of the program itself.
func Ours() []Place { return []Place{GoHeap, GoRuntime, Program} }

// Libraries are the places of C: of a token's library, the C library, and of what
// calls them.
func Libraries() []Place { return []Place{CHeap, Library, Stack, Other} }

// Dumped are all places that a core dump holds.
func Dumped() []Place { return append(Ours(), Libraries()...) }

// String tells place by place what was searched and how much was found.
func (c Census) String() string {
	var parts []string
	for _, p := range append(Dumped(), Undumpable) {
		if c.Searched[p] == 0 && len(c.Hits[p]) == 0 {
			continue
		}
		n := 0
		for _, times := range c.Hits[p] {
			n += times
		}
		parts = append(parts, fmt.Sprintf("%s: %d KiB, %d hits", p, c.Searched[p]>>10, n))
	}
	return strings.Join(parts, "; ")
}
