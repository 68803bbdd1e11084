package load

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Processes are processes and all that descend from them, as /proc shows them:
// with the process id of a database's first process, all that serve its
// connections count, too. Linux only.
type Processes []int

// Usage is what processes have used.
type Usage struct {
	// CPU is user and system time, of children that ended, too.
	CPU time.Duration
	// RSS and PeakRSS are bytes of memory now and at most, of each process,
	// added up. Memory that processes share counts more than once.
	RSS, PeakRSS int64
}

// tick is the unit of times in /proc/PID/stat: 1/100 s on every Linux.
const tick = 10 * time.Millisecond

// stat is one process.
type stat struct {
	pid, parent int
	cpu         time.Duration
}

// Usage reads what the processes and their descendants have used so far.
func (p Processes) Usage() (Usage, error) {
	all, err := readStats()
	if err != nil {
		return Usage{}, err
	}
	children := map[int][]int{}
	for _, s := range all {
		children[s.parent] = append(children[s.parent], s.pid)
	}
	var u Usage
	seen := map[int]bool{}
	waiting := append([]int(nil), p...)
	for _, pid := range p {
		if _, ok := all[pid]; !ok {
			return u, fmt.Errorf("there is no process %d", pid)
		}
	}
	for len(waiting) > 0 {
		pid := waiting[0]
		waiting = waiting[1:]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		waiting = append(waiting, children[pid]...)
		u.CPU += all[pid].cpu
		rss, peak, err := readMemory(pid)
		if err != nil && !isGone(err) {
			return u, err
		}
		u.RSS += rss
		u.PeakRSS += peak
	}
	return u, nil
}

// readStats reads every process there is.
func readStats() (map[int]stat, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no /proc here: processor time of the server is measured on Linux only")
	}
	all := make(map[int]stat, len(names))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := parseStat(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[s.pid] = s
	}
	return all, nil
}

// isGone tells whether a process ended while it was looked at.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process")
}

// parseStat reads a line of proc_pid_stat(5). The second field is a name in
// parentheses, in which anything may stand.
func parseStat(b []byte) (s stat, err error) {
	end := bytes.LastIndexByte(b, ')')
	begin := bytes.IndexByte(b, ' ')
	if begin < 0 || end < begin {
		return s, errors.New("not as proc_pid_stat(5) says")
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 15 {
		return s, errors.New("not as proc_pid_stat(5) says")
	}
	number := func(text string) (n int) {
		n, e := strconv.Atoi(text)
		err = errors.Join(err, e)
		return n
	}
	s.pid, s.parent = number(string(b[:begin])), number(fields[1])
	// utime, stime, cutime, cstime: fields 14 to 17, counted from 1.
	for _, text := range fields[11:15] {
		s.cpu += time.Duration(number(text)) * tick
	}
	return s, err
}

// readMemory reads VmRSS and VmHWM of a process, in bytes. A kernel thread has
// none.
func readMemory(pid int) (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &rss, "VmHWM": &peak}[name]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("process %d: %s: %w", pid, name, err)
		}
		*to = kib << 10
	}
	return rss, peak, nil
}

// own gives the processor time of this process, zero where it cannot be read.
func own() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
