package claim

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// TestBatch mixes acts of every kind, good and bad: each has its own outcome, and
// they come one after another also where they are about one device.
func TestBatch(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 6, nil)
	claim := func(i int) Act {
		return Act{Kind: Claiming, DevEUI: devices[i].DevEUI, OwnerToken: tokens[i]}
	}
	acts := []Act{
		claim(0), claim(1), claim(2),
		{Kind: Claiming, DevEUI: devices[3].DevEUI, OwnerToken: tokens[4]}, // 3: wrong token
		{Kind: Binding, DevEUI: devices[0].DevEUI, Binding: &home},         // 4: of what was claimed just before
		{Kind: Binding, DevEUI: devices[5].DevEUI, Binding: &home},         // 5: the maker's
		{Kind: Binding, DevEUI: devices[0].DevEUI},                         // 6: to what?
		{Kind: Offering, DevEUI: devices[1].DevEUI, To: f.others.Org},      // 7
		{Kind: Offering, DevEUI: devices[1].DevEUI, To: f.maker.Org},       // 8: is offered
		{Kind: Releasing, DevEUI: devices[2].DevEUI},                       // 9
		{Kind: Binding, DevEUI: devices[2].DevEUI, Binding: &home},         // 10: was let go
		claim(0), // 11: once more
		{Kind: Unbinding, DevEUI: devices[0].DevEUI, JoinEUI: lorawan.EUI64{66}}, // 12
		{Kind: "steal", DevEUI: devices[5].DevEUI},                               // 13
		{Kind: Unbinding}, // 14
		{Kind: Unbinding, DevEUI: devices[1].DevEUI},                                                   // 15: is not bound
		{Kind: Claiming, Device: devices[4].ID, OwnerToken: tokens[4]},                                 // 16: not by id
		{Kind: Binding, Device: devices[0].ID, Binding: &joinery.Binding{Policy: joinery.AppSKeyByID}}, // 17
		{Kind: Regenerating, Device: devices[0].ID},                                                    // 18
	}
	codes := map[int]joinery.Code{
		3: joinery.CodeForbidden, 5: joinery.CodeNotFound, 6: joinery.CodeInvalid, 8: joinery.CodeConflict, 10: joinery.CodeNotFound,
		12: joinery.CodeNotFound, 13: joinery.CodeInvalid, 14: joinery.CodeInvalid, 16: joinery.CodeInvalid, 17: joinery.CodeInvalid,
	}
	check := func(outcomes []Outcome) {
		t.Helper()
		for i, o := range outcomes {
			if joinery.CodeOf(o.Err) != codes[i] {
				t.Errorf("item %d, %s: %v; want code %q", i, acts[i], o.Err, codes[i])
			}
			if (o.OwnerToken != "") != (o.Err == nil && (acts[i].Kind == Releasing || acts[i].Kind == Regenerating)) {
				t.Errorf("item %d, %s: token %q", i, acts[i], o.OwnerToken)
			}
			if o.Unchanged != (i == 11 || i == 15) {
				t.Errorf("item %d, %s: unchanged %v", i, acts[i], o.Unchanged)
			}
			if o.Device.ID == 0 && codes[i] == "" {
				t.Errorf("item %d, %s: which device?", i, acts[i])
			}
		}
	}
	check(f.Batch(t.Context(), f.acme, acts, false))
	if s := f.state(t, devices[0].ID); s.Binding == nil || s.Device.Ownership.Org != f.acme.Org || s.Device.Ownership.TokenGeneration != 1 {
		t.Errorf("%+v", s)
	}
	if s := f.state(t, devices[2].ID); !s.Device.Ownership.Released {
		t.Errorf("%+v", s.Device.Ownership)
	}
	f.clean(t, tokens...)
}

func TestBatchDryRun(t *testing.T) {
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, 2, nil)
	acts := []Act{
		{Kind: Claiming, DevEUI: devices[0].DevEUI, OwnerToken: tokens[0]},
		{Kind: Claiming, DevEUI: devices[1].DevEUI, OwnerToken: tokens[0]},
	}
	o := f.Batch(t.Context(), f.acme, acts, true)
	if o[0].Err != nil || o[0].Unchanged || joinery.CodeOf(o[1].Err) != joinery.CodeForbidden {
		t.Errorf("%+v", o)
	}
	regenerate := f.Batch(t.Context(), f.maker, []Act{{Kind: Regenerating, Device: devices[0].ID}}, true)
	if regenerate[0].Err != nil || regenerate[0].OwnerToken != "" {
		t.Errorf("%+v", regenerate)
	}
	if s := f.state(t, devices[0].ID); s.Device.Ownership.Claimed() || s.Device.Ownership.TokenGeneration != 0 {
		t.Error("it was not dry")
	}
}

// TestBatchGuesses: a batch guesses no more than single claims do.
func TestBatchGuesses(t *testing.T) {
	f := newFixture(t, Options{PerCaller: 20})
	devices, tokens := f.devices(t, 30, nil)
	var acts []Act
	for i := range 29 {
		acts = append(acts, Act{Kind: Claiming, DevEUI: devices[i].DevEUI, OwnerToken: tokens[29]})
	}
	acts = append(acts, Act{Kind: Claiming, DevEUI: devices[29].DevEUI, OwnerToken: tokens[29]})
	count := map[joinery.Code]int{}
	for _, o := range f.Batch(t.Context(), f.others, acts, true) {
		count[joinery.CodeOf(o.Err)]++
	}
	if count[joinery.CodeForbidden] != 20 || count[joinery.CodeRateLimited] != 10 {
		t.Errorf("%v", count)
	}
}

// brokenOnce is a store whose database is away for one transaction.
type brokenOnce struct {
	Store
	calls *int
}

func (s brokenOnce) ChangeOwners(ctx context.Context, changes []joinery.OwnerChange) ([]error, error) {
	*s.calls++
	if *s.calls == 2 {
		return nil, joinery.Errorf(joinery.CodeUnavailable, "away")
	}
	return s.Store.ChangeOwners(ctx, changes)
}

// What one transaction loses, the others keep.
func TestBatchWithoutDatabase(t *testing.T) {
	f := newFixture(t, Options{})
	devices, _ := f.devices(t, 3*together, nil)
	calls := 0
	s := New(brokenOnce{f.db, &calls}, f.db, f.keys, Options{AnswerAfter: -1})
	var acts []Act
	for _, d := range devices {
		acts = append(acts, Act{Kind: Regenerating, Device: d.ID})
	}
	for i, o := range s.Batch(t.Context(), f.maker, acts, false) {
		lost := i/together == 1
		if (joinery.CodeOf(o.Err) == joinery.CodeUnavailable) != lost || (o.OwnerToken == "") != lost {
			t.Fatalf("item %d: %v", i, o.Err)
		}
		if changed := f.state(t, devices[i].ID).Device.Ownership.TokenGeneration == 1; changed == lost {
			t.Fatalf("item %d: changed %v", i, changed)
		}
	}
}

// TestTenThousand does the largest batches there are, with flat memory.
func TestTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of devices")
	}
	n := 2_000
	if long() {
		n = MaxBatch
	}
	f := newFixture(t, Options{})
	devices, tokens := f.devices(t, n, nil)
	acts := make([]Act, n)
	run := func(what string, caller joinery.Caller, act func(i int) Act) []Outcome {
		t.Helper()
		for i := range acts {
			acts[i] = act(i)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begun := time.Now()
		outcomes := f.Batch(t.Context(), caller, acts, false)
		took := time.Since(begun)
		runtime.GC()
		runtime.ReadMemStats(&after)
		failed := 0
		for _, o := range outcomes {
			if o.Err != nil {
				failed++
			}
		}
		t.Logf("%s: %d in %v, %d failed, heap %+d KiB", what, n, took.Round(time.Millisecond), failed, int64(after.HeapAlloc-before.HeapAlloc)>>10)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > int64(n)*2<<10 {
			t.Errorf("%s: the heap grew by %d bytes", what, grown)
		}
		if want := map[string]int{"claim": n / 200}[what]; failed != want {
			t.Errorf("%s: %d failed, want %d", what, failed, want)
		}
		return outcomes
	}
	run("claim", f.acme, func(i int) Act {
		token := tokens[i]
		if i%200 == 7 {
			token = tokens[0] // wrong
		}
		return Act{Kind: Claiming, JoinEUI: devices[i].JoinEUI, DevEUI: devices[i].DevEUI, OwnerToken: token, Binding: &home}
	})
	f.clock.add(time.Hour)
	run("claim the rest", f.acme, func(i int) Act {
		return Act{Kind: Claiming, JoinEUI: devices[i].JoinEUI, DevEUI: devices[i].DevEUI, OwnerToken: tokens[i], Binding: &home}
	})
	run("bind", f.acme, func(i int) Act {
		return Act{Kind: Binding, DevEUI: devices[i].DevEUI, Binding: &joinery.Binding{NetID: lorawan.NetID{1}}}
	})
	run("offer", f.acme, func(i int) Act { return Act{Kind: Offering, Device: devices[i].ID, To: f.others.Org} })
	run("accept", f.others, func(i int) Act { return Act{Kind: Accepting, Device: devices[i].ID} })
	seen := map[string]bool{}
	for _, o := range run("release", f.others, func(i int) Act { return Act{Kind: Releasing, Device: devices[i].ID} }) {
		seen[o.OwnerToken] = true
	}
	if len(seen) != n {
		t.Errorf("%d different tokens for %d devices", len(seen), n)
	}
	f.clean(t)
	if o := f.Batch(t.Context(), f.acme, make([]Act, MaxBatch+1), false); joinery.CodeOf(o[0].Err) != joinery.CodeTooLarge {
		t.Errorf("%v", o[0].Err)
	}
}

// TestActsHideTheirToken: neither request nor outcome prints it.
func TestActsHideTheirToken(t *testing.T) {
	for _, v := range []any{
		Act{OwnerToken: "SECRETSECRET2"}, Outcome{OwnerToken: "SECRETSECRET2"}, Case{OwnerToken: "SECRETSECRET2"},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "SECRET") {
				t.Errorf("%s prints the token: %s", verb, text)
			}
		}
	}
}

var unlimited = Options{PerDevice: math.MaxInt, PerCaller: math.MaxInt, PerDeviceOfAll: math.MaxInt, AnswerAfter: 4 * time.Millisecond}
