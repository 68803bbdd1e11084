package leak

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// WithCanary stops a process, puts text into the middle of its memory of each
// place, calls f, and puts everything back: so a search shows that it finds what
// is there. It gives the places.
func WithCanary(pid int, text []byte, f func()) (places []Place, err error) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)) }()
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = mem.Close() }()
	regions, err := Regions(pid)
	if err != nil {
		return nil, err
	}
	done := map[Place]bool{}
	for _, r := range regions {
		if done[r.Place] || r.Shared { // others have what is shared, too
			continue
		}
		undo := plantAt(mem, int64(r.From+(r.To-r.From)/2), text)
		if undo == nil {
			continue
		}
		done[r.Place] = true
		places = append(places, r.Place)
		defer undo()
	}
	f()
	return places, nil
}

// plantAt overwrites a piece of memory and gives what puts it back; nil where
// there is no getting at it.
func plantAt(mem *os.File, at int64, text []byte) (undo func()) {
	was := make([]byte, len(text))
	if _, err := mem.ReadAt(was, at); err != nil || bytes.Equal(was, text) {
		return nil
	}
	if _, err := mem.WriteAt(text, at); err != nil {
		return nil
	}
	return func() { _, _ = mem.WriteAt(was, at) } // the process would notice
}
