package claim

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// welch is the running mean and variance of two classes.
type welch struct{ n, mean, m2 [2]float64 }

func (w *welch) add(class int, v float64) {
	w.n[class]++
	d := v - w.mean[class]
	w.mean[class] += d / w.n[class]
	w.m2[class] += d * (v - w.mean[class])
}

func (w *welch) t() float64 {
	variance := func(c int) float64 { return w.m2[c] / (w.n[c] - 1) / w.n[c] }
	return (w.mean[0] - w.mean[1]) / math.Sqrt(variance(0)+variance(1))
}

// samples is how many claims the timing test makes: a short form, and the
// promised 100,000 where JOINERY_LONG is set.
func samples() int {
	if os.Getenv("JOINERY_LONG") != "" {
		return 100_000
	}
	return 1_500
}

// TestTiming compares, by Welch's t-test, how long claims take that fail for
// reasons that must not be told apart (promise P20). The two classes come in
// random order; a class mean moved by what the machine does meanwhile moves
// both.
func TestTiming(t *testing.T) {
	f := newFixture(t, Options{PerDevice: math.MaxInt, PerCaller: math.MaxInt, PerDeviceOfAll: math.MaxInt, AnswerAfter: 2 * time.Millisecond})
	devices, tokens := f.devices(t, 2, nil)
	unknown := joinery.Device{JoinEUI: devices[0].JoinEUI, DevEUI: lorawan.EUI64FromUint64(0xABCDEF)}
	wrong := tokens[1]
	rightPrefix := tokens[0][:12] + string('A'+(tokens[0][12]-'A'+1)%26)
	if tokens[0][12] < 'A' {
		rightPrefix = tokens[0][:12] + "A"
	}
	for name, classes := range map[string][2]Request{
		"unknown device, wrong token": {request(unknown, wrong), request(devices[0], wrong)},
		"right prefix, wrong token":   {request(devices[0], rightPrefix), request(devices[0], wrong)},
	} {
		t.Run(name, func(t *testing.T) {
			var w welch
			for range samples() {
				class := rand.IntN(2)
				begun := time.Now()
				_, err := f.Claim(t.Context(), f.others, classes[class])
				took := time.Since(begun)
				wantCode(t, err, joinery.CodeForbidden)
				// One hiccup of the machine must not decide: the test is about the
				// bulk of the answers.
				w.add(class, min(took.Seconds(), 0.01))
			}
			if got := w.t(); math.Abs(got) > 4.5 {
				t.Errorf("Welch's t is %.1f over %d samples: means %.1f µs and %.1f µs", got, samples(), w.mean[0]*1e6, w.mean[1]*1e6)
			}
		})
	}
}
