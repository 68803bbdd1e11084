package load

import (
	"slices"
	"strings"
	"time"
)

// Report is what a run brought. Times are in seconds, unless named otherwise.
type Report struct {
	// OK: every answer was as it must be.
	OK          bool    `json:"ok"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate,omitempty"` // requests a second of an open loop
	Devices     int     `json:"devices"`
	Seconds     float64 `json:"seconds"`

	// Offered is requests of an open loop of a given time that were due while it was
	// counted, Sent those of them that found a connection before the end.
	Offered uint64 `json:"offered,omitempty"`
	Sent    uint64 `json:"sent,omitempty"`

	Joins      uint64  `json:"joins"`
	JoinsASec  float64 `json:"joinsPerSecond"`
	Replays    uint64  `json:"replays"`
	WrongMICs  uint64  `json:"wrongMICs"`
	Fetches    uint64  `json:"appSKeyFetches"`
	Handshakes uint64  `json:"handshakes"`

	// Latency is of joins, and of requests of an open loop that were not sent: how
	// long they had waited at the end.
	Latency        Latency  `json:"joinLatency"`
	RefusalLatency *Latency `json:"replayAndWrongMICLatency,omitempty"`
	FetchLatency   *Latency `json:"appSKeyFetchLatency,omitempty"`
	// Late is how long after its instant a request of an open loop was sent,
	// because every connection was busy or the client was. It is part of the
	// latency.
	Late *Latency `json:"sentLate,omitempty"`

	Errors   uint64     `json:"errors"`
	Failures []*Failure `json:"failures"`

	Server *ServerUsage `json:"server,omitempty"`
	// ServerUnknown says why there is no Server though its processes were named.
	ServerUnknown string `json:"serverUnknown,omitempty"`
	// RequestBytes and AnswerBytes are the sizes of the bodies of the last join.
	RequestBytes int `json:"requestBytes"`
	AnswerBytes  int `json:"answerBytes"`
	// ClientCPU is the processor time of this program; near 1 a second of one
	// processor, the client is what was measured.
	ClientCPU float64 `json:"clientCPU"`
}

// Latency is how long answers took, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50ms"`
	P90  float64 `json:"p90ms"`
	P99  float64 `json:"p99ms"`
	P999 float64 `json:"p99.9ms"`
	Max  float64 `json:"maxms"`
}

// ServerUsage is what the server's processes used while it was counted.
type ServerUsage struct {
	PIDs []int   `json:"pids"`
	CPU  float64 `json:"cpu"`
	// JoinsACPUSecond is the figure to compare.
	JoinsACPUSecond float64 `json:"joinsPerCPUSecond"`
	// RSS is bytes at the end, PeakRSS at most since the processes began.
	RSS     int64 `json:"rss"`
	PeakRSS int64 `json:"peakRSS"`
}

func latencyOf(h *Histogram) Latency {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return Latency{
		P50: ms(h.Quantile(.5)), P90: ms(h.Quantile(.9)), P99: ms(h.Quantile(.99)),
		P999: ms(h.Quantile(.999)), Max: ms(h.Max()),
	}
}

func optionalLatency(h *Histogram) *Latency {
	if h.Len() == 0 {
		return nil
	}
	l := latencyOf(h)
	return &l
}

// report adds up what the workers counted between two samples.
func (r *run) report(before, after sample) *Report {
	var total count
	total.errors = map[string]*Failure{}
	report := &Report{Connections: r.Connections, Rate: r.Rate, Failures: []*Failure{}}
	for _, w := range r.workers {
		total.add(&w.count)
		if w.request != 0 {
			report.RequestBytes, report.AnswerBytes = w.request, w.answer
		}
		report.Handshakes += w.toNS.dials
		if w.toAS != nil {
			report.Handshakes += w.toAS.dials
		}
	}
	report.Offered, report.Sent = r.addUnsent(&total)
	for _, g := range r.Fleet.Groups {
		report.Devices += g.Count
	}
	report.Seconds = after.at.Sub(before.at).Seconds()
	report.ClientCPU = (after.client - before.client).Seconds()
	report.Joins, report.Replays = total.ok[join], total.ok[replay]
	report.WrongMICs, report.Fetches = total.ok[wrongMIC], total.ok[fetch]
	report.JoinsASec = float64(report.Joins) / report.Seconds
	report.Latency = latencyOf(&total.latency[join])
	refusals := total.latency[replay]
	refusals.Merge(&total.latency[wrongMIC])
	report.RefusalLatency = optionalLatency(&refusals)
	report.FetchLatency = optionalLatency(&total.latency[fetch])
	report.Late = optionalLatency(&total.late)
	for _, f := range total.errors {
		report.Failures = append(report.Failures, f)
	}
	slices.SortFunc(report.Failures, func(a, b *Failure) int {
		if a.Count != b.Count {
			return int(b.Count) - int(a.Count)
		}
		return strings.Compare(a.Kind, b.Kind)
	})
	report.Errors, report.OK = total.failed, total.failed == 0 && report.Joins > 0
	if before.trusted && after.trusted {
		cpu := (after.server.CPU - before.server.CPU).Seconds()
		report.Server = &ServerUsage{PIDs: r.Server, CPU: cpu, RSS: after.server.RSS, PeakRSS: after.server.PeakRSS}
		if cpu > 0 {
			report.Server.JoinsACPUSecond = float64(report.Joins) / cpu
		}
	}
	return report
}

// add adds another count, whose worker has ended.
func (c *count) add(other *count) {
	for k := range kinds {
		c.ok[k] += other.ok[k]
		c.latency[k].Merge(&other.latency[k])
	}
	c.late.Merge(&other.late)
	c.failed += other.failed
	for name, f := range other.errors {
		if known := c.errors[name]; known != nil {
			known.Count += f.Count
			continue
		}
		copied := *f
		c.errors[name] = &copied
	}
}
