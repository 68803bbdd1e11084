package interop

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"joinery/backend"
)

// metrics of the door. Labels come from closed sets: the types of messages, and
// the result codes or HTTP statuses that this package writes.
type metrics struct {
	requests           *prometheus.CounterVec
	duration           *prometheus.HistogramVec
	connections        prometheus.Gauge
	refusedConnections *prometheus.CounterVec
	refusedHandshakes  prometheus.Counter
	panics             prometheus.Counter
}

// newMetrics registers with r, if there is one. certificateEnds is asked at
// every scrape.
func newMetrics(r prometheus.Registerer, certificateEnds func() float64) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "joinery_interop_requests_total",
			Help: "Requests by message type and result code; http_NNN where no answer could be addressed.",
		}, []string{"message", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "joinery_interop_request_duration_seconds",
			Help:    "Time from a request's arrival to its answer, by message type.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 3},
		}, []string{"message"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "joinery_interop_connections",
			Help: "Connections held.",
		}),
		refusedConnections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "joinery_interop_refused_connections_total",
			Help: "Connections closed because one address had too many handshakes that were not done, or one peer too many connections.",
		}, []string{"whose"}),
		refusedHandshakes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "joinery_interop_refused_handshakes_total",
			Help: "TLS handshakes whose client certificate led to no peer.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "joinery_interop_panics_total",
			Help: "Requests that ended in a defect of this program.",
		}),
	}
	if r == nil {
		return m, nil
	}
	ends := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "joinery_interop_certificate_not_after_seconds",
		Help: "When the server's certificate ends, in seconds since 1970.",
	}, certificateEnds)
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.connections, m.refusedConnections, m.refusedHandshakes, m.panics, ends} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("interop: metrics: %w", err)
		}
	}
	return m, nil
}

// count notes one request; message is zero where none could be read.
func (m *metrics) count(message backend.MessageType, result string, took time.Duration) {
	text := "none"
	if message != 0 {
		text = message.String()
	}
	m.requests.WithLabelValues(text, result).Inc()
	m.duration.WithLabelValues(text).Observe(took.Seconds())
}
