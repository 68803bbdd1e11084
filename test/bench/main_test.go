package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The bench runs itself again as echo server and echo client.
func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(context.Background(), what, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bench runs the bench on the smallest scale and gives what it printed. It
// leaves nothing behind.
func bench(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	var out, progress bytes.Buffer
	args = append([]string{"-dir", dir, "-repeats", "1", "-duration", "200ms", "-warmup", "0s"}, args...)
	if err := run(t.Context(), args, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return out.String()
}

// The figures mean nothing here; that they are measured at all does.
func TestBench(t *testing.T) {
	var f figures
	if err := json.Unmarshal([]byte(bench(t, "-json", "-devices", "200")), &f); err != nil {
		t.Fatal(err)
	}
	if f.Devices != 200 || len(f.Closed) != 4 || f.RSS == 0 || f.PeakRSS < f.RSS {
		t.Errorf("%+v", f)
	}
	for _, c := range f.Closed {
		if c.Sizes.Request < 300 || c.Sizes.Answer < 400 {
			t.Errorf("%s over %d connections: sizes %+v", c.MACVersion, c.Connections, c.Sizes)
		}
		for name, found := range map[string][]float64{
			"joins": c.JoinsPerCPU, "echoes": c.EchoPerCPU, "ratio": c.Ratio, "rate": c.JoinsASec, "p50": c.P50, "p99": c.P99, "echo's p99": c.EchoP99, "client": c.ClientBusy,
		} {
			if len(found) != 1 || found[0] <= 0 {
				t.Errorf("%s over %d connections: %s is %v", c.MACVersion, c.Connections, name, found)
			}
		}
	}
	if len(f.Open.P50) != 1 || f.Open.P50[0] <= 0 || f.Open.Rate != openRate {
		t.Errorf("open loop %+v", f.Open)
	}
	if len(f.Disk.P99) != 1 || f.Disk.P50[0] <= 0 || f.Disk.P99[0] < f.Disk.P50[0] {
		t.Errorf("disk %+v", f.Disk)
	}
	var table bytes.Buffer
	if err := f.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"200 devices", "join ÷ echo", "1.0.3", "1.1.0", "open, 300/s", "the disk's sync", "RSS"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func TestGrowth(t *testing.T) {
	out := bench(t, "-growth", "-devices", "400")
	for _, want := range []string{"400 devices", "CPU a join", "start, until ready", "server's memory", "disk a device, without its manifest"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestElements(t *testing.T) {
	var f elements
	if err := json.Unmarshal([]byte(bench(t, "-element", "-json", "-duration", "100ms")), &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Wires) != 8 { // two networks, two numbers of hosts, elements and the echo
		t.Fatalf("%+v", f)
	}
	for _, w := range f.Wires {
		if len(w.ASec) != 1 || w.ASec[0] <= 0 || w.PerCPU[0] <= 0 || w.Busy[0] <= 0 {
			t.Errorf("%+v", w)
		}
	}
	var table bytes.Buffer
	if err := f.print(&table); err != nil || !strings.Contains(table.String(), "of the echo") {
		t.Errorf("%v:\n%s", err, table.String())
	}
}

// A server in a token takes its time to be made, and every step of that is tested
// elsewhere.
func TestInToken(t *testing.T) {
	if os.Getenv("JOINERY_LONG") == "" {
		t.Skip("only where JOINERY_LONG is set")
	}
	out := bench(t, "-hsm", "-devices", "40")
	for _, want := range []string{"40 devices", "derived ecb-v1: in-token", "open, 200/s", "closed, 16 connections", "worker's CPU", "promised 50 ms"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 1}, {[]float64{9, 1, 5}, 5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}
