package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery/internal/sim/device"
	"joinery/lorawan"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Quantiles are those of the durations, rounded up by less than 1 %, over the
// whole range.
func TestHistogram(t *testing.T) {
	for _, scale := range []time.Duration{time.Nanosecond, time.Microsecond, 37 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
		var h Histogram
		var all []time.Duration
		for range 10_000 {
			d := time.Duration(rand.ExpFloat64() * 100 * float64(scale))
			all = append(all, d)
			h.Add(d)
		}
		slices.Sort(all)
		for _, q := range []float64{.01, .5, .9, .99, .999, 1} {
			want := all[max(int(q*float64(len(all))+.5), 1)-1]
			got := h.Quantile(q)
			if got < want || got > want+want/100+unit {
				t.Errorf("scale %v: quantile %v is %v, want %v", scale, q, got, want)
			}
		}
		if h.Max() != all[len(all)-1] || h.Len() != uint64(len(all)) {
			t.Errorf("scale %v: max %v of %d", scale, h.Max(), h.Len())
		}
	}
}

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(0); d < 10*time.Minute; d += 1 + d/300 {
		b := bucketOf(d)
		if b != last && b != last+1 {
			t.Fatalf("%v is in bucket %d, after bucket %d", d, b, last)
		}
		if last = b; b < buckets-1 && d > upper(b) {
			t.Fatalf("%v is in bucket %d, which ends at %v", d, b, upper(b))
		}
	}
	var a, b, both Histogram
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Add(d)
		if i%2 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	if a.Merge(&b); a != both {
		t.Error("two halves merged are not the whole")
	}
	if (&Histogram{}).Quantile(.99) != 0 {
		t.Error("nothing has a quantile")
	}
}

// A device that draws its DevNonces uses each of them once.
func TestDrawnDevNonces(t *testing.T) {
	for range 20 {
		devEUI := lorawan.EUI64FromUint64(rand.Uint64())
		var seen [1 << 16]bool
		rising := 0
		last := lorawan.DevNonce(0)
		for n := range 1 << 16 {
			v := drawn(devEUI, uint16(n))
			if seen[v] {
				t.Fatalf("device %v draws %d twice", devEUI, v)
			}
			seen[v] = true
			if v > last {
				rising++
			}
			last = v
		}
		// Half of the steps go up in a random order; a count goes up in all.
		if rising < 30_000 || rising > 35_500 {
			t.Errorf("device %v: %d steps of 65,536 go up: that is no random order", devEUI, rising)
		}
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	m, err := OpenMemory(path, 3)
	ok(t, err)
	joinEUI, devEUI := lorawan.EUI64{1}, lorawan.EUI64{2}
	r := m.record(2)
	if !r.claim(joinEUI, devEUI) || r.next() != 0 || r.joinNonce() != 0 {
		t.Fatal("a new record is not empty")
	}
	r.setNext(65_536)
	r.setJoinNonce(0xFFFFFF)
	if !r.takeSession([]byte("a")) || r.takeSession([]byte("a")) || !r.takeSession([]byte("b")) {
		t.Error("a session is new once")
	}
	if _, err := OpenMemory(path, 3); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two have it at a time: %v", err)
	}
	ok(t, m.Close())

	m, err = OpenMemory(path, 5) // the fleet has grown
	ok(t, err)
	r = m.record(2)
	if !r.claim(joinEUI, devEUI) || r.next() != 65_536 || r.joinNonce() != 0xFFFFFF {
		t.Error("the memory forgot")
	}
	if r.claim(joinEUI, lorawan.EUI64{3}) {
		t.Error("another device got the record")
	}
	if r = m.record(4); r.next() != 0 {
		t.Error("a further record is not empty")
	}
	ok(t, m.Close())

	ok(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 500), 0o600))
	if _, err := OpenMemory(path, 3); err == nil {
		t.Error("any file is taken for a memory")
	}
}

// Who joins by hand goes on where load left a device.
func TestCatchUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := device.State{JoinEUI: lorawan.EUI64{1}, DevEUI: lorawan.EUI64{2}, MACVersion: lorawan.MAC1_0_4, NextDevNonce: 3, JoinNonce: 9}
	before := s.Clone()
	unchanged := func(what string) {
		t.Helper()
		ok(t, CatchUp(path, 1, &s))
		if s.NextDevNonce != before.NextDevNonce || s.JoinNonce != before.JoinNonce || len(s.UsedDevNonces) != 0 {
			t.Errorf("%s: the device changed: %+v", what, s)
		}
	}
	unchanged("no memory")
	m, err := OpenMemory(path, 2)
	ok(t, err)
	unchanged("a record never used")
	m.record(1).claim(s.JoinEUI, lorawan.EUI64{7})
	m.record(1).setNext(100)
	unchanged("another device's record")
	clear(m.record(1))
	m.record(1).claim(s.JoinEUI, s.DevEUI)
	m.record(1).setNext(100)
	m.record(1).setJoinNonce(80)
	ok(t, CatchUp(path, 1, &s))
	if s.NextDevNonce != 100 || s.JoinNonce != 80 {
		t.Errorf("a device that counts: %+v", s)
	}
	s.MACVersion, s.UsedDevNonces = lorawan.MAC1_0_3, []lorawan.DevNonce{drawn(s.DevEUI, 5)}
	ok(t, CatchUp(path, 1, &s))
	if len(s.UsedDevNonces) != 100 || !slices.IsSorted(s.UsedDevNonces) {
		t.Errorf("a device that draws remembers %d", len(s.UsedDevNonces))
	}
	ok(t, m.Close())
}

func TestReadReply(t *testing.T) {
	for _, c := range []struct {
		name, text, body, contentType string
		status                        int
		keep                          bool
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "{}", "application/json", 200, true},
		{"names in any case", "HTTP/1.1 200 OK\r\ncontent-length:2\r\nCONTENT-TYPE:  text/plain \r\n\r\nab", "ab", "text/plain", 200, true},
		{"no body", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "", "", 204, true},
		{"closes", "HTTP/1.1 500 Oh\r\nConnection: Close\r\nContent-Length: 1\r\n\r\nx", "x", "", 500, false},
		{"to the end", "HTTP/1.1 200 OK\r\n\r\nabc", "abc", "", 200, false},
		{"old", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", "", 200, false},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n", "abcde", "", 200, true},
	} {
		in := bufio.NewReader(strings.NewReader(c.text))
		r, keep, err := readReply(in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(r.Body) != c.body || r.ContentType != c.contentType || r.Status != c.status || keep != c.keep {
			t.Errorf("%s: %d %q %q, keep %t", c.name, r.Status, r.ContentType, r.Body, keep)
		}
		if in.Buffered() != 0 {
			t.Errorf("%s: %d bytes are left for the next answer", c.name, in.Buffered())
		}
	}
	for _, text := range []string{
		"", "HTTP/1.1\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "SSH-2.0-OpenSSH_9.6 hello\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", maxAnswer+1),
	} {
		if r, _, err := readReply(bufio.NewReader(strings.NewReader(text))); err == nil {
			t.Errorf("%.40q was read as %+v", text, r)
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "4711 (a ) name (x) S 17 4711 4711 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 4 0 12345 0 0"
	s, err := parseStat([]byte(line))
	ok(t, err)
	if want := (stat{pid: 4711, parent: 17, cpu: 2500 * time.Millisecond}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2", strings.Replace(line, " 150 ", " x ", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// The processor time of children counts, also of those that ended.
func TestUsageOfChildren(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	// A shell that burns a little in a child that ends, then waits for its end.
	cmd := exec.Command("sh", "-c", `(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); echo done; read x`)
	in, err := cmd.StdinPipe()
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	ok(t, err)
	u, err := Processes{cmd.Process.Pid}.Usage()
	ok(t, err)
	if u.CPU == 0 || u.RSS == 0 || u.PeakRSS < u.RSS {
		t.Errorf("usage %+v", u)
	}
	whole, err := Processes{os.Getpid(), cmd.Process.Pid}.Usage()
	ok(t, err)
	if whole.CPU < u.CPU || whole.RSS <= u.RSS {
		t.Errorf("the child is not a part of this process: %+v of %+v", u, whole)
	}
	ok(t, in.Close())
	_ = cmd.Wait() // read finds nothing, and fails
	if _, err := (Processes{cmd.Process.Pid}).Usage(); err == nil {
		t.Error("a process that is gone has usage")
	}
}

func TestShares(t *testing.T) {
	groups := []Group{{lorawan.MAC1_0_3, 0, 10}, {lorawan.MAC1_1, 10, 20}, {lorawan.MAC1_0_3, 30, 10}}
	for _, c := range []struct {
		mix  map[lorawan.MACVersion]float64
		want string
	}{
		{nil, "0:0.25 10:0.75 30:1.00"},
		{map[lorawan.MACVersion]float64{lorawan.MAC1_1: 5}, "10:1.00"},
		{map[lorawan.MACVersion]float64{lorawan.MAC1_0_3: 90, lorawan.MAC1_1: 10}, "0:0.45 10:0.55 30:1.00"},
	} {
		list, err := shares(groups, c.mix)
		ok(t, err)
		var got []string
		for _, s := range list {
			got = append(got, fmt.Sprintf("%d:%.2f", s.First, s.upTo))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v: got %s, want %s", c.mix, s, c.want)
		}
	}
	for _, mix := range []map[lorawan.MACVersion]float64{
		{lorawan.MAC1_0_4: 1}, {lorawan.MAC1_1: 0}, {lorawan.MAC1_1: -1},
	} {
		if _, err := shares(groups, mix); err == nil {
			t.Errorf("%v is no mix", mix)
		}
	}
}

// Every device belongs to one connection.
func TestPickIsApart(t *testing.T) {
	owner := map[int]int{}
	for place := range 7 {
		w := &worker{run: &run{Config: Config{Connections: 7}}, place: place}
		w.shares = []share{{Group{lorawan.MAC1_0_3, 0, 7}, .4}, {Group{lorawan.MAC1_1, 7, 30}, 1}}
		for range 2000 {
			g, d := w.pick()
			if d < g.First || d >= g.First+g.Count {
				t.Fatalf("device %d is not in %+v", d, g)
			}
			if o, known := owner[d]; known && o != place {
				t.Fatalf("device %d is of connections %d and %d", d, o, place)
			}
			owner[d] = place
		}
	}
	if len(owner) != 37 {
		t.Errorf("%d devices of 37 were picked", len(owner))
	}
}

// What was due and not sent counts by its age; who waited too long is an error.
func TestUnsent(t *testing.T) {
	began := time.Now()
	r := &run{Config: Config{Rate: 10, Timeout: 3 * time.Second}, began: began, counting: began.Add(time.Second), cut: began.Add(9 * time.Second)}
	r.ticket.Store(20) // nothing more in the last seven seconds
	total := count{errors: map[string]*Failure{}}
	offered, sent := r.addUnsent(&total)
	if offered != 80 || sent != 10 || total.failed != 40 || total.latency[join].Len() != 30 || total.late.Len() != 30 {
		t.Errorf("offered %d, sent %d, %d errors, %d latencies", offered, sent, total.failed, total.latency[join].Len())
	}
	if most := total.latency[join].Max(); most != 3*time.Second {
		t.Errorf("the longest is %v", most)
	}
	for kind, f := range total.errors {
		if f.Count != 40 || !strings.HasPrefix(kind, "not sent") {
			t.Errorf("%s: %+v", kind, f)
		}
	}
	// A run that ended with its joins kept nothing waiting that was wanted.
	r.cut = time.Time{}
	if offered, sent := r.addUnsent(&total); offered != 0 || sent != 0 || total.failed != 40 {
		t.Errorf("offered %d, sent %d", offered, sent)
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: reset by peer", errNoAnswer), "no answer"},
		{fmt.Errorf("%w: %w", errNoAnswer, os.ErrDeadlineExceeded), "no answer in time"},
		{fmt.Errorf("x: %w", device.ErrExhausted), "the device has used all its DevNonces"},
		{errors.New("else"), "else"},
	} {
		if got := kindOf(c.err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}
