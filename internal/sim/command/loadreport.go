package command

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"joinery/internal/sim/load"
)

// print prints the report of a load run in the wanted form.
func (f *loadFlags) print(out io.Writer, r *load.Report) error {
	var text []byte
	if f.json {
		b, err := json.Marshal(r, jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		text = append(b, '\n')
	} else {
		text = []byte(loadText(r))
	}
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

func loadText(r *load.Report) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	loop := "closed loop"
	if r.Rate > 0 {
		loop = fmt.Sprintf("open loop, %g requests/s", r.Rate)
	}
	line("load", "%d connections, %s, %d devices, %.1f s", r.Connections, loop, r.Devices, r.Seconds)
	if r.Offered > 0 {
		line("offered", "%d requests, of which %d were sent", r.Offered, r.Sent)
	}
	line("joins", "%d, %.0f/s", r.Joins, r.JoinsASec)
	if r.Replays+r.WrongMICs > 0 {
		line("refused as they must be", "%d replays and repeats, %d wrong MICs", r.Replays, r.WrongMICs)
	}
	if r.Fetches > 0 {
		line("AppSKeys fetched", "%d", r.Fetches)
	}
	for _, l := range []struct {
		name string
		*load.Latency
	}{
		{"latency of joins", &r.Latency}, {"of replays, wrong MICs", r.RefusalLatency}, {"of AppSKey fetches", r.FetchLatency},
		{"sent late by", r.Late},
	} {
		if l.Latency != nil {
			line(l.name, "p50 %.2f, p90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f ms", l.P50, l.P90, l.P99, l.P999, l.Max)
		}
	}
	if s := r.Server; s != nil {
		line("server", "%.0f joins per CPU-second (%.2f s of CPU), RSS %.1f MiB, at most %.1f MiB",
			s.JoinsACPUSecond, s.CPU, mib(s.RSS), mib(s.PeakRSS))
	}
	if r.ServerUnknown != "" {
		line("server", "processor time unknown: %s at the end", r.ServerUnknown)
	}
	line("this program", "%.2f s of CPU, %d handshakes", r.ClientCPU, r.Handshakes)
	line("errors", "%d", r.Errors)
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "  %d × %s\n      the first: %s\n", f.Count, f.Kind, f.Example)
	}
	return b.String()
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// printProgress writes one line, over the last one where a person looks on.
func printProgress(out io.Writer, p load.Progress) {
	phase := ""
	if p.Warmup {
		phase = "warm-up, "
	}
	ms := func(q float64) float64 { return float64(p.Second.Quantile(q)) / float64(time.Millisecond) }
	text := fmt.Sprintf("%s%3.0f s: %d joins, %d/s, p50 %.2f ms, p99 %.2f ms, %d errors",
		phase, p.Since.Seconds(), p.Joins, p.Second.Len(), ms(.5), ms(.99), p.Errors)
	if isTerminal(out) {
		fmt.Fprintf(out, "\r%-100s\r", text)
		return
	}
	fmt.Fprintln(out, text)
}
