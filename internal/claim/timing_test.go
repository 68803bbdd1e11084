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

// long tells whether the full figures are wanted.
func long() bool { return os.Getenv("JOINERY_LONG") != "" }

// samples is how many requests each comparison of the timing test makes: a short
// form, and the promised 100,000 where JOINERY_LONG is set: an hour and a half with
// -parallel 8.
func samples() int {
	if long() {
		return 100_000
	}
	return 60
}

// TestTiming compares, by Welch's t-test, how long requests take that fail for
// reasons that must not be told apart (promise P20). The two classes come in
// random order; a class mean moved by what the machine does meanwhile moves
// both. The service is as it is served: what it does takes some 50 µs longer for
// one class or another, and the time before which nothing is answered hides it.
func TestTiming(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures time, and -short goes with the race detector, which takes its own")
	}
	asServed := unlimited
	asServed.AnswerAfter = answerAfter
	f := newFixture(t, asServed)
	elements := f.elements(t, 3, nil)
	known, token := elements[0].Device, elements[0].token
	unknown := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: known.JoinEUI, DevEUI: lorawan.EUI64FromUint64(0xABCDEF)}
	wrong := elements[1].token
	rightPrefix := nearly(token)
	claim := func(r Request) func() error {
		return func() error { _, err := f.Claim(t.Context(), f.others, r); return err }
	}
	act := func(a Act) func() error { return func() error { return f.Do(t.Context(), f.others, a).Err } }
	dispute := func(d joinery.Device) func() error {
		return func() error {
			_, err := f.Dispute(t.Context(), f.others, Case{JoinEUI: d.JoinEUI, DevEUI: d.DevEUI})
			return err
		}
	}
	// Elements alone can sign; what others make of a signature is the same for all.
	key := newKey(t)
	sign := func(d joinery.Device) (ready func() func() error) {
		return func() func() error {
			c := f.signedBy(t, f.others, d, key)
			return func() error { _, err := f.Dispute(t.Context(), f.others, c); return err }
		}
	}
	at := func(do func() error) func() func() error { return func() func() error { return do } }
	for name, classes := range map[string][2]func() func() error{
		"unknown device, wrong token":    {at(claim(request(unknown, wrong))), at(claim(request(known, wrong)))},
		"right prefix, wrong token":      {at(claim(request(known, rightPrefix))), at(claim(request(known, wrong)))},
		"unknown DevEUI alone":           {at(claim(bare(unknown, wrong))), at(claim(bare(known, wrong)))},
		"unknown and another's, by id":   {at(act(Act{Kind: Releasing, Device: unknown.ID})), at(act(Act{Kind: Releasing, Device: known.ID}))},
		"unknown and another's, by EUI":  {at(act(Act{Kind: Unbinding, DevEUI: unknown.DevEUI})), at(act(Act{Kind: Unbinding, DevEUI: known.DevEUI}))},
		"unknown and nobody's offer":     {at(act(Act{Kind: Accepting, DevEUI: unknown.DevEUI})), at(act(Act{Kind: Accepting, DevEUI: known.DevEUI}))},
		"unknown and another's, dispute": {at(dispute(unknown)), at(dispute(known))},
		"unknown and wrong signature":    {sign(unknown), sign(known)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is waiting
			var w welch
			for range samples() {
				class := rand.IntN(2)
				request := classes[class]()
				begun := time.Now()
				err := request()
				took := time.Since(begun)
				if code := joinery.CodeOf(err); code != joinery.CodeForbidden && code != joinery.CodeNotFound {
					t.Fatal(err)
				}
				// One hiccup of the machine must not decide: the test is about the
				// bulk of the answers.
				w.add(class, min(took.Seconds(), 2*answerAfter.Seconds()))
			}
			if got := w.t(); math.Abs(got) > 4.5 {
				t.Errorf("Welch's t is %.1f over %d samples: means %.1f µs and %.1f µs", got, samples(), w.mean[0]*1e6, w.mean[1]*1e6)
			}
		})
	}
}
