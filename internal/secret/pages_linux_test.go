package secret

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// What the kernel itself says of our pages: locked, not dumped, and not, or
// empty, in a forked child.
func TestKernelProtectsPages(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func(int) (region, error)
		want  Protection
		flags []string
	}{
		// dd: not dumped, lo: locked, dc: not copied to a child, wf: wiped in a child
		{"anonymous", anonymousRegion, Locked, []string{"dd", "lo", "wf"}},
		{"best", newRegion, Locked, []string{"dd", "lo"}},
	} {
		r, err := c.make(regionSize)
		if err != nil {
			t.Fatal(err)
		}
		if r.protection < c.want {
			t.Fatalf("%s: %s", c.name, r.protection)
		}
		flags := flagsOf(t, r.pages)
		if r.protection == Hidden {
			c.flags = append(c.flags, "dc")
		}
		for _, f := range c.flags {
			if !slices.Contains(flags, f) {
				t.Errorf("%s (%s): flag %s is missing in %v", c.name, r.protection, f, flags)
			}
		}
		if err := r.unmap(); err != nil {
			t.Error(err)
		}
	}
}

// Hidden pages cannot be read from outside of the process's own code.
func TestHiddenPagesCannotBeRead(t *testing.T) {
	m := newMemory(t)
	k := newKey(t, m, []byte("canary canary ca"))
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	buf := make([]byte, 16)
	n, err := mem.ReadAt(buf, int64(uintptr(unsafe.Pointer(unsafe.SliceData(k.s.held.bytes)))))
	readable := err == nil && n == len(buf)
	if want := m.Protection() < Hidden; readable != want {
		t.Errorf("protection is %q, and reading through /proc/self/mem gives %d bytes, %v", m.Protection(), n, err)
	}
}

func flagsOf(t *testing.T, pages []byte) []string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	start := uintptr(unsafe.Pointer(unsafe.SliceData(pages)))
	inside := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); n == 2 {
			inside = from <= start && start < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping at %x", start)
	return nil
}
