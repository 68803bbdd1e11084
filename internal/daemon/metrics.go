package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"joinery/internal/custodylog"
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
	attemptsCounted = prometheus.NewDesc("joinery_attempts_refused_total", "Attempts at the management API that were refused, and may concern an organisation.", nil, nil)
	attemptsDropped = prometheus.NewDesc("joinery_attempts_dropped_total",
		"Those of them that the custody log does not count: more came, or of more kinds, than the server counts.", nil, nil)
	refusalWrites = prometheus.NewDesc("joinery_refusals_failed_writes_total", "Batches of refusals that the database did not take at once.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m refusalMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- refusalsRecorded
	to <- refusalsDropped
	to <- refusalWrites
	to <- attemptsCounted
	to <- attemptsDropped
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
	send(attemptsCounted, s.Attempts)
	send(attemptsDropped, s.AttemptsDropped)
}

// logMetrics tells how the custody log fares, at each scrape. Its labels are the
// witnesses of the configuration.
type logMetrics struct {
	log *custodylog.Service
	now func() time.Time
}

var (
	logEntries     = prometheus.NewDesc("joinery_log_entries", "Entries in the tree of the custody log.", nil, nil)
	logPublished   = prometheus.NewDesc("joinery_log_checkpoint_entries", "Entries that its newest signed checkpoint covers.", nil, nil)
	logWaiting     = prometheus.NewDesc("joinery_log_waiting_seconds", "How long the oldest row waits that is not in the tree; 0: none does.", nil, nil)
	logPublishedAt = prometheus.NewDesc("joinery_log_checkpoint_timestamp_seconds",
		"When this server signed a checkpoint last, in seconds since 1970; absent where it has not. There is none where nothing happens.", nil, nil)
	logFailed = prometheus.NewDesc("joinery_log_failed_rounds_total", "Attempts of this server to put rows into the tree, or to sign it, that failed.", nil, nil)
	logMissed = prometheus.NewDesc("joinery_log_witness_failures_total", "Checkpoints that went out without the signature of a witness.", []string{"witness"}, nil)
)

// Describe implements prometheus.Collector.
func (m logMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{logEntries, logPublished, logWaiting, logPublishedAt, logFailed, logMissed} {
		to <- d
	}
}

// Collect implements prometheus.Collector. Where the database does not answer in
// time, what only it knows is absent.
func (m logMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	s, err := m.log.Stats(ctx)
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	send(logFailed, prometheus.CounterValue, float64(s.Failed))
	for witness, n := range s.Missed {
		send(logMissed, prometheus.CounterValue, float64(n), witness)
	}
	if !s.PublishedAt.IsZero() {
		send(logPublishedAt, prometheus.GaugeValue, float64(s.PublishedAt.UnixMilli())/1000)
	}
	if err != nil {
		return
	}
	send(logEntries, prometheus.GaugeValue, float64(s.Size))
	send(logPublished, prometheus.GaugeValue, float64(s.Published))
	age := 0.0
	if !s.Waiting.IsZero() {
		age = max(0, m.now().Sub(s.Waiting).Seconds())
	}
	send(logWaiting, prometheus.GaugeValue, age)
}
