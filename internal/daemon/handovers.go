package daemon

import (
	"context"
	"crypto/tls"
	"time"

	"joinery"
	"joinery/internal/rekey"
	"joinery/internal/rekeylink"

	"github.com/prometheus/client_golang/prometheus"
)

// buildHandovers makes what hands devices over to other Join Servers. This server
// shows them the certificate of the API's TLS listener, where they call it.
func (k *core) buildHandovers(r rules, certs certificates) error {
	k.link = rekeylink.NewClient(func() (*tls.Certificate, error) { return certs.api.get(nil) }, k.now)
	k.passing = r.rekey.NewRunner(k.link, k.log, k.holders.db.AnswersJoins)
	return k.registry.Register(handoverMetrics{k.passing})
}

// runHandovers hands orders over until ctx ends or the database is given back.
func (k *core) runHandovers(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.serving, cancel)()
	k.passing.Run(ctx)
}

// handoverMetrics tells how hand-overs to other Join Servers go.
type handoverMetrics struct{ runner *rekey.Runner }

var (
	handoverOrders = prometheus.NewDesc("joinery_handover_orders", "Orders to rekey by how far their hand-over to a Join Server that is reached has come.", []string{"state"}, nil)
	handoverTurns  = prometheus.NewDesc("joinery_handover_turns_total", "Turns with other Join Servers, by how they went.", []string{"result"}, nil)
)

// Describe implements prometheus.Collector.
func (handoverMetrics) Describe(c chan<- *prometheus.Desc) {
	c <- handoverOrders
	c <- handoverTurns
}

// Collect implements prometheus.Collector.
func (m handoverMetrics) Collect(c chan<- prometheus.Metric) {
	well, failed := m.runner.Calls()
	c <- prometheus.MustNewConstMetric(handoverTurns, prometheus.CounterValue, float64(well), "ok")
	c <- prometheus.MustNewConstMetric(handoverTurns, prometheus.CounterValue, float64(failed), "failed")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	counts, err := m.runner.Passages(ctx)
	if err != nil {
		return // the database's own metrics tell of it
	}
	for _, s := range []joinery.PassageState{
		joinery.PassageWaiting, joinery.PassageParked, joinery.PassageTaken, joinery.PassageRefused, joinery.PassageJoined, joinery.PassageFile,
	} {
		c <- prometheus.MustNewConstMetric(handoverOrders, prometheus.GaugeValue, float64(counts[s]), string(s))
	}
}
