package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"joinery/internal/config"
	"joinery/test/rig"
)

// loadReport is what is read of joinsim load --json.
type loadReport struct {
	OK        bool    `json:"ok"`
	Joins     uint64  `json:"joins"`
	JoinsASec float64 `json:"joinsPerSecond"`
	Latency   struct {
		P50 float64 `json:"p50ms"`
		P99 float64 `json:"p99ms"`
		Max float64 `json:"maxms"`
	} `json:"joinLatency"`
	Late struct {
		P99 float64 `json:"p99ms"`
	} `json:"sentLate"`
	Server struct {
		CPU float64 `json:"cpu"`
		RSS int64   `json:"rss"`
	} `json:"server"`
}

// newLoaded makes a server with elements that joinsim load can have join.
func newLoaded(t *testing.T, elements int) *rig.Server {
	t.Helper()
	s, err := built(t).Quickstart(t.Context(), filepath.Join(t.TempDir(), "server"), "--elements", strconv.Itoa(elements))
	ok(t, err)
	ok(t, s.Start(t.Context()))
	t.Cleanup(func() { ok(t, s.Stop()) })
	_, err = s.Ctl(t.Context(), "", "import", "manifest", s.Path("sim", "manifest.json"),
		"--mac-version", "1.0.4", "--bind-net-id", "000013", "--bind-as-id", "as.example.com")
	ok(t, err)
	return s
}

// runLoad has the elements join at a rate, whatever becomes of the joins before.
func runLoad(ctx context.Context, s *rig.Server, elements int, rate float64, span time.Duration) (r loadReport, err error) {
	out, err := s.Sim(ctx, "load", "--devices", fmt.Sprintf("1.0.4=%d", elements), "--connections", "16",
		"--rate", fmt.Sprint(rate), "--duration", span.String(), "--warmup", "2s", "--pid", strconv.Itoa(s.PID()), "--json", "--quiet")
	if err != nil {
		return r, err
	}
	if err = json.Unmarshal([]byte(out), &r); err == nil && !r.OK {
		err = fmt.Errorf("not every answer was right:\n%s", out)
	}
	return r, err
}

// P24: at 200 joins a second, sent when they are due and not when the server is
// ready for them, 99 of 100 are answered within 20 ms. The short form shows that
// all are answered rightly; the machine that runs it does other things besides,
// so that the figure is judged in the long form.
func TestLatency(t *testing.T) {
	const elements = 64
	s := newLoaded(t, elements)
	span := 5 * time.Second
	if long() {
		span = time.Minute
	}
	r, err := runLoad(t.Context(), s, elements, 200, span)
	ok(t, err)
	t.Logf("%d joins, %.0f a second: p50 %.1f ms, p99 %.1f ms (promised: 20), longest %.1f ms; of that the client was late by %.1f ms (p99)",
		r.Joins, r.JoinsASec, r.Latency.P50, r.Latency.P99, r.Latency.Max, r.Late.P99)
	if long() && r.Latency.P99 > 20 {
		t.Errorf("p99 is %.1f ms", r.Latency.P99)
	}
	if want := uint64(200 * span.Seconds() * 9 / 10); r.Joins < want {
		t.Errorf("%d joins, want at least %d", r.Joins, want)
	}
	stopAndCheck(t, s)
}

// P25: memory, file descriptors and goroutines stay as they are under load: 60 s
// at 100 joins a second, ten minutes in the long form.
func TestEndurance(t *testing.T) {
	t.Parallel()
	const elements = 64
	s := newLoaded(t, elements)
	span := time.Minute
	if long() {
		span = 10 * time.Minute
	}
	type outcome struct {
		loadReport
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := runLoad(t.Context(), s, elements, 100, span)
		done <- outcome{r, err}
	}()
	var samples []sample
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case r := <-done:
			running = false
			ok(t, r.err)
			t.Logf("%d joins, %.0f a second: p50 %.1f ms, p99 %.1f ms, %.2f processors", r.Joins, r.JoinsASec, r.Latency.P50, r.Latency.P99, r.Server.CPU/span.Seconds())
		case <-tick.C:
			samples = append(samples, takeSample(t, s))
		}
	}
	if len(samples) < int(span.Seconds())/2 {
		t.Fatalf("%d samples", len(samples))
	}
	// The first third is for filling caches.
	third := len(samples) / 3
	early, late := average(samples[third:2*third]), average(samples[2*third:])
	t.Logf("in the middle %v, at the end %v", early, late)
	if late.goroutines > early.goroutines+3 {
		t.Errorf("goroutines grew from %.1f to %.1f", early.goroutines, late.goroutines)
	}
	if late.descriptors > early.descriptors+3 {
		t.Errorf("file descriptors grew from %.1f to %.1f", early.descriptors, late.descriptors)
	}
	if late.resident > early.resident*1.1+4<<20 {
		t.Errorf("resident memory grew from %.1f to %.1f MiB", early.resident/(1<<20), late.resident/(1<<20))
	}
	stopAndCheck(t, s)
}

// stopAndCheck stops a server and judges its database.
func stopAndCheck(t *testing.T, s *rig.Server) {
	t.Helper()
	ok(t, s.Stop())
	out, err := s.Run(t.Context(), "", "joinery", "fsck", "--config", s.Path("joinery.yaml"))
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sample is what a server uses at a moment.
type sample struct{ goroutines, descriptors, resident float64 }

func (s sample) String() string {
	return fmt.Sprintf("%.1f goroutines, %.1f file descriptors, %.1f MiB", s.goroutines, s.descriptors, s.resident/(1<<20))
}

func average(samples []sample) (a sample) {
	n := float64(len(samples))
	for _, s := range samples {
		a.goroutines += s.goroutines / n
		a.descriptors += s.descriptors / n
		a.resident += s.resident / n
	}
	return a
}

// takeSample asks the server's own metrics.
func takeSample(t *testing.T, s *rig.Server) (x sample) {
	t.Helper()
	want := map[string]*float64{
		"go_goroutines": &x.goroutines, "process_open_fds": &x.descriptors, "process_resident_memory_bytes": &x.resident,
	}
	for line := range slices.Values(metrics(t, s)) {
		name, value, _ := strings.Cut(line, " ")
		to := want[name]
		if to == nil {
			continue
		}
		var err error
		*to, err = strconv.ParseFloat(value, 64)
		ok(t, err)
		delete(want, name)
	}
	if len(want) > 0 {
		t.Fatalf("metrics lack %v", want)
	}
	return x
}

func metrics(t *testing.T, s *rig.Server) (lines []string) {
	t.Helper()
	c, err := config.Read(s.Path("joinery.yaml"))
	ok(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.Ops.Address+"/metrics", nil)
	ok(t, err)
	resp, err := http.DefaultClient.Do(req)
	ok(t, err)
	defer func() { _ = resp.Body.Close() }()
	body := bufio.NewScanner(resp.Body)
	for body.Scan() {
		lines = append(lines, body.Text())
	}
	ok(t, body.Err())
	return lines
}
