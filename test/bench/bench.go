package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// The connections over which is measured.
var connections = []int{16, 64}

// The versions, each with a fleet of its own.
var versions = []string{"1.0.3", "1.1.0"}

// openRate is what is asked of a server at ease: requests a second.
const openRate = 300

// figures are what the bench found: one of each measurement a repetition.
type figures struct {
	Devices int           `json:"devices"`
	Pinned  bool          `json:"pinned"`
	Closed  []*closedLoop `json:"closed"`
	Open    openLoop      `json:"open"`
	Disk    disk          `json:"disk"`
	// RSS is the server's memory after all of it, PeakRSS the most that it had, in
	// bytes.
	RSS     int64 `json:"rss"`
	PeakRSS int64 `json:"peakRSS"`
}

// closedLoop is one version over a number of connections, against the echo over
// as many, measured just before.
type closedLoop struct {
	Connections int    `json:"connections"`
	MACVersion  string `json:"macVersion"`
	// Sizes are those of the bodies, of joins as of the echo.
	Sizes       exchange  `json:"bytes"`
	JoinsPerCPU []float64 `json:"joinsPerCPUSecond"`
	EchoPerCPU  []float64 `json:"echoesPerCPUSecond"`
	// Ratio is the cost of a join by that of an echo.
	Ratio      []float64 `json:"ratio"`
	EchoP99    []float64 `json:"echoP99ms"`
	JoinsASec  []float64 `json:"joinsPerSecond"`
	P50        []float64 `json:"p50ms"`
	P99        []float64 `json:"p99ms"`
	ClientBusy []float64 `json:"clientBusy"` // processor time of the client by time
}

// openLoop is both versions, at openRate.
type openLoop struct {
	Rate float64   `json:"rate"`
	P50  []float64 `json:"p50ms"`
	P99  []float64 `json:"p99ms"`
}

// disk is a sync of what a join at ease writes, with nothing else going on.
type disk struct {
	P50 []float64 `json:"p50ms"`
	P99 []float64 `json:"p99ms"`
}

// runBench makes the stage, measures, and prints.
func runBench(ctx context.Context, o options, p programs, out io.Writer, tell func(string, ...any)) (err error) {
	devices := max(o.devices, 0)
	if devices == 0 {
		devices = 10_000
	}
	per := devices / len(versions)
	fleets := make([]fleet, len(versions))
	for i, v := range versions {
		fleets[i] = fleet{mac: v, count: per}
	}
	s, err := newStage(ctx, p, tell, fleets...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.tellMachine()
	f, err := s.measure(ctx, o)
	if err != nil {
		return err
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(f)
	}
	return f.print(out)
}

func (s *stage) tellMachine() {
	if s.pinned() {
		s.tell("processors: server %d, client %d", s.machine.server, s.machine.client)
		return
	}
	s.tell("processors: there is one only; server and client share it, and the figures are worth less")
}

// measure starts server and echo and measures, one after the other, again and
// again: what a neighbour of this machine does hits all of them.
func (s *stage) measure(ctx context.Context, o options) (*figures, error) {
	if err := s.server.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.measureSizes(ctx); err != nil {
		return nil, err
	}
	if err := s.startEcho(ctx); err != nil {
		return nil, err
	}
	f := &figures{
		Devices: s.devices(), Pinned: s.pinned(), Open: openLoop{Rate: openRate},
	}
	for _, c := range connections {
		for i, v := range versions {
			f.Closed = append(f.Closed, &closedLoop{Connections: c, MACVersion: v, Sizes: s.sizes[i]})
		}
	}
	for i := range o.repeats {
		s.tell("repetition %d of %d", i+1, o.repeats)
		if err := s.repeat(ctx, o.timing, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// repeat makes each measurement once.
func (s *stage) repeat(ctx context.Context, t timing, f *figures) error {
	for _, c := range f.Closed {
		echo, err := s.runEcho(ctx, slices.Index(versions, c.MACVersion), c.Connections, t)
		if err != nil {
			return err
		}
		joins, err := s.runJoins(ctx, t, "--connections", strconv.Itoa(c.Connections), "--mix", c.MACVersion+"=1")
		if err != nil {
			return err
		}
		c.add(echo, joins)
		f.RSS, f.PeakRSS = joins.Server.RSS, joins.Server.PeakRSS
		s.tell("  %s over %d connections: %.0f joins a CPU-second, echo %.0f", c.MACVersion, c.Connections,
			joins.Server.JoinsPerCPUSecond, echo.perCPUSecond())
	}
	open, err := s.runJoins(ctx, t, "--rate", strconv.Itoa(openRate))
	if err != nil {
		return err
	}
	f.Open.P50 = append(f.Open.P50, open.Latency.P50)
	f.Open.P99 = append(f.Open.P99, open.Latency.P99)
	p50, p99, err := s.syncs(ctx, t.duration)
	f.Disk.P50, f.Disk.P99 = append(f.Disk.P50, p50), append(f.Disk.P99, p99)
	return err
}

func (c *closedLoop) add(echo echoResult, joins loadReport) {
	c.JoinsPerCPU = append(c.JoinsPerCPU, joins.Server.JoinsPerCPUSecond)
	c.EchoPerCPU = append(c.EchoPerCPU, echo.perCPUSecond())
	c.Ratio = append(c.Ratio, echo.perCPUSecond()/joins.Server.JoinsPerCPUSecond)
	c.JoinsASec = append(c.JoinsASec, joins.JoinsPerSecond)
	c.P50 = append(c.P50, joins.Latency.P50)
	c.P99 = append(c.P99, joins.Latency.P99)
	c.EchoP99 = append(c.EchoP99, echo.P99)
	c.ClientBusy = append(c.ClientBusy, joins.ClientCPU/joins.Seconds)
}

// print prints the medians.
func (f *figures) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%d devices of derived keys, half of them each version; medians of %d\n\n", f.Devices, len(f.Open.P50))
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "LoRaWAN\tbytes\tconnections\tjoins/CPU-s\techoes/CPU-s\tjoin ÷ echo\tjoins/s\tp50 ms\tp99 ms\techo's p99\tclient's CPU\t")
	for _, c := range f.Closed {
		fmt.Fprintf(w, "%s\t%d+%d\t%d\t%.0f\t%.0f\t%.2f\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f %%\t\n", c.MACVersion, c.Sizes.Request, c.Sizes.Answer, c.Connections,
			median(c.JoinsPerCPU), median(c.EchoPerCPU), median(c.Ratio), median(c.JoinsASec), median(c.P50), median(c.P99), median(c.EchoP99), 100*median(c.ClientBusy))
	}
	fmt.Fprintf(w, "both\t\topen, %.0f/s\t\t\t\t%.0f\t%.2f\t%.2f\t\t\t\n", f.Open.Rate, f.Open.Rate, median(f.Open.P50), median(f.Open.P99))
	fmt.Fprintf(w, "the disk's sync\t\t%.0f/s\t\t\t\t\t%.2f\t%.2f\t\t\t\n", f.Open.Rate, median(f.Disk.P50), median(f.Disk.P99))
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nserver's memory: RSS %.1f MiB, at most %.1f MiB\n", mib(f.RSS), mib(f.PeakRSS))
	return err
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// median gives the one in the middle, of an even number the lower of two.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)/2]
}
