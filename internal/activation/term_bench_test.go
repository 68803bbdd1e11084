package activation_test

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"joinery/internal/activation"
	"joinery/internal/service"
	"joinery/internal/sim/device"
	"joinery/lorawan"
)

// What service terms cost a join, by processor time of store and rules: a join of a
// device whose term runs against one of a server without terms, and the first join of
// a device, which begins its term, against a first one without.
func BenchmarkTerms(b *testing.B) {
	for _, c := range []struct {
		name         string
		terms, first bool
	}{
		{"later/without", false, false}, {"later/with", true, false}, {"first/without", false, true}, {"first/with", true, true},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkTerms(b, c.terms, c.first) })
	}
}

func benchmarkTerms(b *testing.B, terms, first bool) {
	h := newHouse(b)
	opt := activation.Options{Now: h.clock, Log: slog.New(slog.DiscardHandler), Rekeying: h.store}
	if terms {
		s, err := service.Start(b.Context(), h.store, service.Options{Now: h.clock})
		ok(b, err)
		opt.Terms = s
	}
	h.Service = activation.New(h.store, h.keys.Keyring, h.peers, opt)
	fleet := make([]*device.Device, 256)
	if first {
		fleet = make([]*device.Device, b.N)
	}
	join := func(d *device.Device) {
		frame, err := d.JoinRequest()
		ok(b, err)
		_, err = h.Join(b.Context(), h.request(d, frame))
		ok(b, err)
	}
	for i := range fleet {
		fleet[i] = h.add(lorawan.MAC1_0_4, binding())
		if !first {
			join(fleet[i])
		}
	}
	before := processorTime(b)
	b.ResetTimer()
	for i := range b.N {
		join(fleet[i%len(fleet)])
	}
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/join")
}

// processorTime is user and system time of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	ok(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
