package daemon

import (
	"runtime"
	"runtime/debug"

	"joinery/internal/refusal"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry makes a registry with what every server tells about itself.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	return r
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "joinery_build_info",
		Help:        "Always 1; its labels tell what runs.",
		ConstLabels: prometheus.Labels{"version": Version(), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// Version is the version of this build: the module's version, or the commit it
// was built from, or "unknown".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if commit == "" {
		return "unknown"
	}
	return commit + dirty
}

// refusalMetrics tells what a recorder of refusals did, at each scrape. Its
// labels are closed sets.
type refusalMetrics struct{ recorder *refusal.Recorder }

var (
	refusalsRecorded = prometheus.NewDesc("joinery_refusals_recorded_total", "Refused requests that were counted for their owner and the operator, by reason.", []string{"reason"}, nil)
	refusalsDropped  = prometheus.NewDesc("joinery_refusals_dropped_total",
		"Refused requests of which something was not kept: 'hurried' came faster than they could be counted, 'crowded' are in the counts of their peer but not of their device.", []string{"why"}, nil)
	refusalWrites = prometheus.NewDesc("joinery_refusals_failed_writes_total", "Batches of refusals that the database did not take at once.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m refusalMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- refusalsRecorded
	to <- refusalsDropped
	to <- refusalWrites
}

// Collect implements prometheus.Collector.
func (m refusalMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.recorder.Stats()
	send := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for reason, n := range s.Recorded {
		send(refusalsRecorded, n, string(reason))
	}
	send(refusalsDropped, s.Hurried, "hurried")
	send(refusalsDropped, s.Crowded, "crowded")
	send(refusalWrites, s.FailedWrites)
}
