package daemon

import (
	"context"
	"log/slog"
	"time"

	"joinery/internal/api"
	"joinery/internal/config"
	"joinery/internal/custodylog"
	"joinery/internal/events"
	"joinery/internal/webhook"

	"github.com/prometheus/client_golang/prometheus"
)

// newEvents makes the rules of the feed and of webhooks.
func newEvents(c config.Webhooks, h holders, log *slog.Logger, now func() time.Time) (*events.Service, error) {
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	policy := webhook.Policy{Networks: c.Networks(), PlainHTTP: c.AllowHTTP}
	sender := webhook.NewSender(policy, "joinery/"+Version(), roots)
	return events.New(h.db, h.keys, sender, events.Options{Log: log, Now: now, Hold: h.db.AnswersJoins, Encode: api.EncodeEvent}), nil
}

// startEvents begins to note events, before the first join, and to deliver them.
// Who leads also puts rows into the custody log.
func startEvents(ctx context.Context, c config.Config, h holders, s *events.Service, custody *custodylog.Service) (*events.Runner, error) {
	if err := custody.Begin(ctx); err != nil {
		return nil, err
	}
	return events.Start(ctx, s, h.db, h.db, events.RunOptions{Alone: exclusive(c.Database), Leading: custody.Run})
}

// eventMetrics tells how deliveries go, at each scrape.
type eventMetrics struct{ service *events.Service }

var (
	webhookAttempts = prometheus.NewDesc("joinery_webhook_attempts_total", "Attempts of this server to deliver events to webhooks, by what became of them.", []string{"result"}, nil)
	webhooksOff     = prometheus.NewDesc("joinery_webhooks_disabled_total", "Webhooks that were switched off because deliveries failed for long, or because the receiver wanted no more.", nil, nil)
	webhooksFailing = prometheus.NewDesc("joinery_webhooks_failing", "Webhooks that are on and whose deliveries fail, on the server that delivers.", nil, nil)
	eventsLeader    = prometheus.NewDesc("joinery_events_leader", "1 where this server delivers events, else 0: of several servers one does.", nil, nil)
	eventsRecovered = prometheus.NewDesc("joinery_events_recovered_joins_total", "Joins that a crash had kept out of the feed of events, and that were found again.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m eventMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{webhookAttempts, webhooksOff, webhooksFailing, eventsLeader, eventsRecovered} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m eventMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.service.Stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	count(webhookAttempts, s.Taken, "taken")
	count(webhookAttempts, s.Failed, "failed")
	count(webhookAttempts, s.Gone, "gone")
	count(webhooksOff, s.Disabled)
	count(eventsRecovered, s.Recovered)
	to <- prometheus.MustNewConstMetric(webhooksFailing, prometheus.GaugeValue, float64(s.Failing))
	leads := 0.0
	if s.Leads {
		leads = 1
	}
	to <- prometheus.MustNewConstMetric(eventsLeader, prometheus.GaugeValue, leads)
}
