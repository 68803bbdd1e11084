package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// What growth may cost.
const (
	smallFleet     = 10_000
	largeFleet     = 1_000_000
	longFleet      = 10_000_000
	maxCostRatio   = 1.10
	maxStart       = 2 * time.Second
	maxRSS         = 150 << 20
	maxDeviceBytes = 400
)

// growthConnections are the connections over which growth is measured.
const growthConnections = "64"

// growth is what was found.
type growth struct {
	Small int `json:"small"`
	Large int `json:"large"`
	// Joins per server CPU-second with either fleet, one of each a repetition, and
	// the cost of a join with the large one by that with the small one.
	SmallPerCPU []float64 `json:"smallJoinsPerCPUSecond"`
	LargePerCPU []float64 `json:"largeJoinsPerCPUSecond"`
	Ratio       []float64 `json:"ratio"`
	// StartSeconds is from the start of the process until it is ready, its
	// database not in the kernel's memory.
	StartSeconds float64 `json:"startSeconds"`
	RSS          int64   `json:"rss"`
	PeakRSS      int64   `json:"peakRSS"`
	// DatabaseBytes is the large fleet's database before the measurement;
	// OtherBytes what manifests' entries and earlier activations take of it.
	DatabaseBytes int64 `json:"databaseBytes"`
	OtherBytes    int64 `json:"otherBytes"`
}

func (g *growth) bytesADevice() float64 {
	return float64(g.DatabaseBytes-g.OtherBytes) / float64(g.Large)
}

// runGrowth makes a small and a large fleet, each with a server of its own, and
// measures them in turn.
func runGrowth(ctx context.Context, o options, p programs, out io.Writer, tell func(string, ...any)) (err error) {
	g := &growth{Small: smallFleet, Large: o.devices}
	switch {
	case g.Large == 0 && os.Getenv("JOINERY_LONG") != "":
		g.Large = longFleet
	case g.Large == 0:
		g.Large = largeFleet
	}
	g.Small = min(g.Small, g.Large/2)
	small, err := populated(ctx, p, tell, g.Small)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, small.close()) }()
	large, err := populated(ctx, p, tell, g.Large)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, large.close()) }()
	small.tellMachine()
	if g.DatabaseBytes, g.OtherBytes, err = databaseSize(large.server.Path("joinery.db")); err != nil {
		return err
	}
	if err := small.server.Start(ctx); err != nil {
		return err
	}
	if err := g.start(ctx, large); err != nil {
		return err
	}
	for i := range o.repeats {
		tell("repetition %d of %d", i+1, o.repeats)
		if err := g.repeat(ctx, o.timing, small, large); err != nil {
			return err
		}
	}
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(g)
	}
	return g.print(out)
}

// populated gives a stage with half of the devices of either version.
func populated(ctx context.Context, p programs, tell func(string, ...any), devices int) (*stage, error) {
	half := devices / len(versions)
	return newStage(ctx, p, tell, fleet{versions[0], devices - half}, fleet{versions[1], half})
}

// start starts the server with nothing of its database in the kernel's memory,
// as after a boot, and has the kernel read it then: what a join costs is measured
// without the disk.
func (g *growth) start(ctx context.Context, s *stage) (err error) {
	f, err := os.Open(s.server.Path("joinery.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		return err
	}
	began := time.Now()
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	g.StartSeconds = time.Since(began).Seconds()
	_, err = io.Copy(io.Discard, f)
	return err
}

// repeat measures both once, devices drawn over the whole of each fleet.
func (g *growth) repeat(ctx context.Context, t timing, small, large *stage) error {
	a, err := small.runJoins(ctx, t, "--connections", growthConnections)
	if err != nil {
		return err
	}
	b, err := large.runJoins(ctx, t, "--connections", growthConnections)
	if err != nil {
		return err
	}
	g.SmallPerCPU = append(g.SmallPerCPU, a.Server.JoinsPerCPUSecond)
	g.LargePerCPU = append(g.LargePerCPU, b.Server.JoinsPerCPUSecond)
	g.Ratio = append(g.Ratio, a.Server.JoinsPerCPUSecond/b.Server.JoinsPerCPUSecond)
	g.RSS, g.PeakRSS = b.Server.RSS, b.Server.PeakRSS
	small.tell("  %.0f and %.0f joins a CPU-second", a.Server.JoinsPerCPUSecond, b.Server.JoinsPerCPUSecond)
	return nil
}

// databaseSize gives the size of a database that nobody has open, and what is not
// its devices of it: entries of manifests, and activations, which are a log.
func databaseSize(path string) (whole, other int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	c, err := sqlite.OpenConn(path, sqlite.OpenReadOnly)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = sqlitex.Execute(c, `SELECT pgsize FROM dbstat WHERE name IN ('manifest_entry', 'activation') AND aggregate = TRUE`,
		&sqlitex.ExecOptions{ResultFunc: func(row *sqlite.Stmt) error {
			other += row.ColumnInt64(0)
			return nil
		}})
	return info.Size(), other, err
}

// print prints the four figures against their limits.
func (g *growth) print(out io.Writer) error {
	fmt.Fprintf(out, "\n%d devices of derived keys against %d, half of them LoRaWAN %s and %s; medians of %d\n\n",
		g.Large, g.Small, versions[0], versions[1], len(g.Ratio))
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "what\tfound\tlimit\t")
	line := func(ok bool, what, found, limit string) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", what, found, limit, map[bool]string{true: "ok", false: "ABOVE"}[ok])
	}
	ratio := median(g.Ratio)
	line(ratio <= maxCostRatio, "CPU a join, by that with the small fleet",
		fmt.Sprintf("%.3f (%.0f and %.0f joins/CPU-s)", ratio, median(g.LargePerCPU), median(g.SmallPerCPU)), fmt.Sprintf("%.2f", maxCostRatio))
	line(g.StartSeconds <= maxStart.Seconds(), "start, until ready", fmt.Sprintf("%.2f s", g.StartSeconds), maxStart.String())
	line(g.PeakRSS <= maxRSS, "server's memory, at most", fmt.Sprintf("%.1f MiB", mib(g.PeakRSS)), fmt.Sprintf("%.0f MiB", mib(maxRSS)))
	line(g.bytesADevice() <= maxDeviceBytes, "disk a device, without its manifest", fmt.Sprintf("%.0f bytes", g.bytesADevice()), fmt.Sprintf("%d bytes", maxDeviceBytes))
	return w.Flush()
}
