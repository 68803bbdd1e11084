package attest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/evidence"
)

const (
	l1 = joinery.EvidencePossession
	l2 = joinery.EvidenceBoot
	l3 = joinery.EvidenceEATCOSE
)

// TestLevels: evidence of a level gives that level, and is in the log.
func TestLevels(t *testing.T) {
	f := newFixture(t)
	until := f.clock.now().Add(90 * 24 * time.Hour)
	for i, kind := range []joinery.EvidenceKind{l1, l2, joinery.EvidenceEATJWT} {
		c := f.chips[i]
		a := f.asked(t, c)
		var b []byte
		switch kind {
		case l1:
			b = c.possession(t, a, "one", 1)
		case l2:
			b = c.boot(t, a)
		default:
			b = f.jwt(t, f.tokenKey, c.claims(a, "one"))
		}
		st := f.shows(t, c, kind, b)
		want := joinery.AttestLevel(i + 1)
		if st.Level != want || !st.Until.Equal(until) || len(st.Results) != 1 {
			t.Fatalf("%s: %+v", kind, st)
		}
		r := st.Results[0]
		if r.Level != want || r.Kind != kind || r.Verifier != "js.example.com" || r.Digest != image("one") || r.Version != "1.0.0" || r.Counter != 1 ||
			r.Release == 0 || r.Evidence != sha256.Sum256(b) || r.SelfReported() != (kind == l1) {
			t.Errorf("%s: %+v", kind, r)
		}
		entries := f.audited(t, joinery.AuditDeviceAttested)
		e := entries[len(entries)-1]
		if e.Device != c.ID || e.Org != f.maker.Org || e.Detail["level"] != want.String() || e.Detail["valid"] != want.String() || e.Detail["version"] != "1.0.0" ||
			(e.Detail["software"] == "self-reported") != (kind == l1) {
			t.Errorf("%s: the log has %+v", kind, e)
		}
	}
}

// TestReplayed: a challenge is good for one answer, right or wrong.
func TestReplayed(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	a := f.asked(t, c)
	b := c.possession(t, a, "one", 1)
	f.shows(t, c, l1, b)
	_, err := f.Evidence(t.Context(), f.maker, c.ID, l1, b)
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.Evidence(t.Context(), f.maker, c.ID, l2, c.boot(t, a)) // the same challenge, in another form
	wantCode(t, err, joinery.CodeConflict)

	a = f.asked(t, c)
	wrong := c.possession(t, a, "one", 1)
	wrong[len(wrong)-1] ^= 1
	f.refuses(t, c, l1, wrong, "signature")
	_, err = f.Evidence(t.Context(), f.maker, c.ID, l1, c.possession(t, a, "one", 1))
	wantCode(t, err, joinery.CodeConflict)
	if n := len(f.audited(t, joinery.AuditDeviceAttested)); n != 1 {
		t.Errorf("%d accepted", n)
	}
}

// TestReplayedUnderNewChallenge: an old signature fits no other challenge, even where
// the tag is put right.
func TestReplayedUnderNewChallenge(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	for kind, made := range map[joinery.EvidenceKind]func(evidence.About) []byte{
		l1: func(a evidence.About) []byte { return c.possession(t, a, "one", 1) },
		l2: func(a evidence.About) []byte { return c.boot(t, a) },
	} {
		old := made(f.asked(t, c))
		tag := f.asked(t, c).Tag()
		copy(old[1:], tag[:])
		f.refuses(t, c, kind, old, "signature")
	}
	old := f.cose(t, f.tokenKey, c.claims(evidence.About{DevEUI: c.DevEUI}, "one"))
	_, err := f.Evidence(t.Context(), f.maker, c.ID, l3, old)
	wantCode(t, err, joinery.CodeConflict)
}

// TestStale: a challenge ends by the server's clock, and one from the future is none.
func TestStale(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	a := f.asked(t, c)
	f.clock.add(DefaultChallengeLife)
	f.refuses(t, c, l1, c.possession(t, a, "one", 1), "stale")

	for _, jump := range []time.Duration{10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
		a = f.asked(t, c)
		f.clock.add(jump)
		f.refuses(t, c, l1, c.possession(t, a, "one", 1), "stale")
		f.clock.add(-jump)
	}
	a = f.asked(t, c)
	f.clock.add(DefaultChallengeLife - time.Second)
	f.shows(t, c, l1, c.possession(t, a, "one", 1))
	for _, life := range []time.Duration{time.Second, -1, MaxChallengeLife + 1} {
		_, err := f.Challenge(t.Context(), f.maker, c.ID, life)
		wantCode(t, err, joinery.CodeInvalid)
	}
}

// TestForeign: what another device signs proves nothing of this one, for this one's
// challenge or its own.
func TestForeign(t *testing.T) {
	f := newFixture(t)
	c, foreign := f.chips[0], f.chips[1]
	f.refuses(t, c, l1, foreign.possession(t, f.asked(t, c), "one", 1), "signature")
	f.refuses(t, c, l2, foreign.boot(t, f.asked(t, c)), "foreign")
	lying := *foreign
	lying.serial = c.serial
	f.refuses(t, c, l2, lying.boot(t, f.asked(t, c)), "signature")
	a := f.asked(t, c)
	claims := c.claims(a, "one")
	claims.ueid = append([]byte{2}, foreign.DevEUI[:]...)
	f.refuses(t, c, l3, f.cose(t, f.tokenKey, claims), "foreign")

	// Asked of the other, and shown for this one.
	a = f.asked(t, foreign)
	_, err := f.Evidence(t.Context(), f.maker, c.ID, l1, foreign.possession(t, a, "one", 1))
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.Evidence(t.Context(), f.maker, c.ID, l1, c.possession(t, a, "one", 1))
	wantCode(t, err, joinery.CodeConflict)

	// Nobody but the owner shows anything.
	_, err = f.Challenge(t.Context(), f.others, c.ID, 0)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.Evidence(t.Context(), f.others, c.ID, l1, c.possession(t, f.asked(t, c), "one", 1))
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.Standing(t.Context(), f.others, c.ID)
	wantCode(t, err, joinery.CodeNotFound)
}

// TestForged: nothing signed but by the keys that were registered.
func TestForged(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	forger := *c
	forger.slot1, forger.slot2 = newKey(t), newKey(t)
	f.refuses(t, c, l1, forger.possession(t, f.asked(t, c), "one", 1), "signature")
	f.refuses(t, c, l2, forger.boot(t, f.asked(t, c)), "signature")
	f.refuses(t, c, l3, f.cose(t, newKey(t), c.claims(f.asked(t, c), "one")), "signature")
	f.refuses(t, c, joinery.EvidenceEATJWT, f.jwt(t, newKey(t), c.claims(f.asked(t, c), "one")), "signature")

	// The device key, which signs whatever software wants, stands for no chip's state.
	forger = *c
	forger.slot2 = c.slot1
	f.refuses(t, c, l2, forger.boot(t, f.asked(t, c)), "signature")

	// Each part of compact evidence is covered: form, tag, digest, counter, signature.
	for _, i := range []int{0, 1, 4, 5, 36, 37, 40, 41, 104} {
		bad := c.possession(t, f.asked(t, c), "one", 1)
		bad[i] ^= 0x01
		if _, err := f.Evidence(t.Context(), f.maker, c.ID, l1, bad); err == nil {
			t.Fatalf("byte %d may be another", i)
		}
	}
}

// TestWrongProduct: firmware of another product of the same maker.
func TestWrongProduct(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	c.digest, c.counter = image("nine"), 9
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "nine", 9), "wrong-product")
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "wrong-product")
	f.refuses(t, c, l3, f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "nine")), "wrong-product")
}

// TestDowngraded: a release with a lower counter than one that the device has shown,
// or than the element's own counter allows.
func TestDowngraded(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	c.counter = 2
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "downgraded") // "one" has counter 1
	c.digest = image("two")
	if st := f.shows(t, c, l2, c.boot(t, f.asked(t, c))); st.Results[0].Version != "2.0.0" || st.Results[0].Counter != 2 {
		t.Errorf("%+v", st.Results)
	}
	c.digest, c.counter = image("one"), 1
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "one", 1), "downgraded")
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "downgraded")
	f.refuses(t, c, l3, f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "one")), "downgraded")
	// A counter that is not the release's.
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "two", 3), "counter")
}

// TestUnknownFirmware: at L1 it is what the software says, and no more; above that it
// proves nothing. A release that was withdrawn is worse than none.
func TestUnknownFirmware(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	c.digest = image("own build")
	st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "own build", 77))
	if st.Level != joinery.AttestPossession || st.Results[0].Release != 0 || st.Results[0].Version != "" {
		t.Errorf("%+v", st)
	}
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "unknown-firmware")
	f.refuses(t, c, l3, f.cose(t, f.tokenKey, c.claims(f.asked(t, c), "own build")), "unknown-firmware")

	list, err := f.Releases(t.Context(), f.maker, f.product.ID, 0, 0)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if err := f.WithdrawRelease(t.Context(), f.maker, f.product.ID, list[0].ID); err != nil {
		t.Fatal(err)
	}
	c.digest = image("one")
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "one", 1), "withdrawn")
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "withdrawn")
}

// TestWithdrawn: what was shown ends as the maker takes back what it rests on, before
// the maker has its answer: a release, the key that signed it, the key of a token, the
// product. The owner is told once, and what rests on something else stands.
func TestWithdrawn(t *testing.T) {
	level := func(f *fixture, c *chip) joinery.AttestLevel {
		t.Helper()
		st, err := f.Standing(t.Context(), f.maker, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return st.Level
	}
	release := func(f *fixture, version string) joinery.ReleaseID {
		list, err := f.Releases(t.Context(), f.maker, f.product.ID, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return list[slices.IndexFunc(list, func(r joinery.Release) bool { return r.Version == version })].ID
	}
	key := func(f *fixture, use joinery.ProductKeyUse) joinery.ProductKeyID {
		list, err := f.Keys(t.Context(), f.maker, f.product.ID, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return list[slices.IndexFunc(list, func(k joinery.ProductKey) bool { return k.Use == use })].ID
	}
	for name, x := range map[string]struct {
		takeBack func(f *fixture) error
		left     [4]joinery.AttestLevel // of L1 by no release, L1, L2 and L3
	}{
		"release": {func(f *fixture) error {
			return f.WithdrawRelease(t.Context(), f.maker, f.product.ID, release(f, "1.0.0"))
		}, [4]joinery.AttestLevel{1, 0, 0, 0}},
		"another release": {func(f *fixture) error {
			return f.WithdrawRelease(t.Context(), f.maker, f.product.ID, release(f, "2.0.0"))
		}, [4]joinery.AttestLevel{1, 1, 2, 3}},
		"release key": {func(f *fixture) error {
			return f.RemoveKey(t.Context(), f.maker, f.product.ID, key(f, joinery.KeyForReleases))
		}, [4]joinery.AttestLevel{1, 0, 0, 0}},
		"token key": {func(f *fixture) error {
			return f.RemoveKey(t.Context(), f.maker, f.product.ID, key(f, joinery.KeyForTokens))
		}, [4]joinery.AttestLevel{1, 1, 2, 0}},
		"boot key": {func(f *fixture) error {
			return f.RemoveKey(t.Context(), f.maker, f.product.ID, key(f, joinery.KeyForBoot))
		}, [4]joinery.AttestLevel{1, 1, 0, 3}},
		"product": {func(f *fixture) error { return f.RemoveProduct(t.Context(), f.maker, f.product.ID) }, [4]joinery.AttestLevel{1, 1, 0, 0}},
	} {
		f := newFixture(t)
		chips := f.chips
		chips[2].slot2 = newKey(t)
		f.addKey(t, joinery.ProductKey{Product: f.product.ID, Device: chips[2].ID, Use: joinery.KeyForBoot, Public: spki(t, chips[2].slot2)})
		f.shows(t, chips[0], l1, chips[0].possession(t, f.asked(t, chips[0]), "own build", 1))
		f.shows(t, chips[1], l1, chips[1].possession(t, f.asked(t, chips[1]), "one", 1))
		f.shows(t, chips[2], l2, chips[2].boot(t, f.asked(t, chips[2])))
		f.shows(t, chips[3], l3, f.cose(t, f.tokenKey, chips[3].claims(f.asked(t, chips[3]), "one")))
		if err := x.takeBack(f); err != nil {
			t.Fatal(err)
		}
		told := 0
		for i, c := range chips {
			if got := level(f, c); got != x.left[i] {
				t.Errorf("%s: device %d has %s, want %s", name, i, got, x.left[i])
			} else if got == 0 {
				told++
			}
		}
		for _, e := range f.audited(t, joinery.AuditAttestEnded) {
			if e.Detail["reason"] != "withdrawn" || e.Detail["valid"] != "L0" || e.Org != f.maker.Org {
				t.Errorf("%s: %+v", name, e)
			}
			told--
		}
		if told != 0 {
			t.Errorf("%s: %d owners were not told", name, told)
		}
	}
}

// TestFloorStays: the counter that was shown is not forgotten by showing firmware of no
// release, nor where the release is withdrawn: only its maker lowers it, by saying so.
func TestFloorStays(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	f.shows(t, c, l1, c.possession(t, f.asked(t, c), "two", 2))
	f.shows(t, c, l1, c.possession(t, f.asked(t, c), "own build", 2))
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "one", 1), "downgraded")
	list, err := f.Releases(t.Context(), f.maker, f.product.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WithdrawRelease(t.Context(), f.maker, f.product.ID, list[1].ID); err != nil {
		t.Fatal(err)
	}
	f.refuses(t, c, l1, c.possession(t, f.asked(t, c), "one", 1), "downgraded")
	err = f.LowerFloor(t.Context(), f.maker, f.product.ID, list[0].ID, 0)
	if joinery.CodeOf(err) != joinery.CodeConflict {
		t.Errorf("of a release that stands: %v", err)
	}
	if err := f.LowerFloor(t.Context(), f.maker, f.product.ID, list[1].ID, 1); err != nil {
		t.Fatal(err)
	}
	f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1))
}

// TestConfiguration: an element that lets its key be used without a verified boot
// proves nothing, however well it signs.
func TestConfiguration(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	for _, state := range []func(*evidence.Boot){
		func(b *evidence.Boot) { b.KeyKeyConfig &^= 0x1000 }, func(b *evidence.Boot) { b.Config[6] = 0 },
		func(b *evidence.Boot) { b.DigestSlot = 5 }, func(b *evidence.Boot) { b.KeySlot = 3 }, func(b *evidence.Boot) { b.CounterID = 1 },
	} {
		c.bootState = state
		f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "configuration")
	}
}

// TestBootKeyOfDevice: a key that the maker registered for one device stands in the
// place of what the manifest says.
func TestBootKeyOfDevice(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	replaced := newKey(t)
	f.addKey(t, joinery.ProductKey{Product: f.product.ID, Device: c.ID, Use: joinery.KeyForBoot, Public: spki(t, replaced)})
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "signature")
	c.slot2 = replaced
	f.shows(t, c, l2, c.boot(t, f.asked(t, c)))
}

// TestNeverUpgraded: a lower level does not end a higher one, nor lengthen it; when
// the higher one ends by its time, the lower one is what is left; each end is told
// once.
func TestNeverUpgraded(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	if st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1)); st.Level != 1 {
		t.Fatalf("%+v", st)
	}
	f.clock.add(time.Hour)
	high := f.shows(t, c, l2, c.boot(t, f.asked(t, c)))
	if high.Level != 2 {
		t.Fatalf("%+v", high)
	}
	f.clock.add(24 * time.Hour)
	st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1))
	if st.Level != 2 || !st.Until.Equal(high.Until) || len(st.Results) != 2 || st.Results[1] != high.Results[1] {
		t.Errorf("%+v", st)
	}
	told := func(want int) []joinery.AuditEntry {
		t.Helper()
		if err := f.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		list := f.audited(t, joinery.AuditAttestEnded)
		if len(list) != want {
			t.Fatalf("told %d times, want %d", len(list), want)
		}
		return list
	}
	told(0)
	now := high.Until
	f.clock.Store(&now)
	if st, _ = f.Standing(t.Context(), f.maker, c.ID); st.Level != 1 || !st.Until.Equal(high.Until.Add(24*time.Hour)) || len(st.Results) != 2 {
		t.Errorf("%+v", st)
	}
	if e := told(1)[0]; e.Detail["level"] != "L2" || e.Detail["valid"] != "L1" || e.Device != c.ID || e.Org != f.maker.Org {
		t.Errorf("%+v", e)
	}
	f.clock.add(24 * time.Hour)
	if st, _ = f.Standing(t.Context(), f.maker, c.ID); st.Level != 0 || !st.Until.IsZero() || len(st.Results) != 2 {
		t.Errorf("%+v", st)
	}
	if e := told(2)[1]; e.Detail["level"] != "L1" || e.Detail["valid"] != "L0" {
		t.Errorf("%+v", e)
	}
}

// TestOtherFirmware: what was proved of one image says nothing of the next.
func TestOtherFirmware(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	f.shows(t, c, l2, c.boot(t, f.asked(t, c)))
	st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "two", 2))
	if st.Level != 1 || len(st.Results) != 2 || st.Results[1].EndedAt.IsZero() || st.Results[1].Digest != image("one") {
		t.Errorf("%+v", st)
	}
	if e := f.audited(t, joinery.AuditDeviceAttested); e[1].Detail["valid"] != "L1" {
		t.Errorf("%+v", e[1])
	}
}

// TestClockJumps: ten years either way, nothing is valid; and what was shown while
// the clock was ahead does not outlive its being put right.
func TestClockJumps(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	const decade = 10 * 365 * 24 * time.Hour
	level := func() joinery.AttestLevel {
		t.Helper()
		st, err := f.Standing(t.Context(), f.maker, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return st.Level
	}
	f.shows(t, c, l2, c.boot(t, f.asked(t, c)))
	for _, jump := range []time.Duration{decade, -decade} {
		f.clock.add(jump)
		if level() != joinery.AttestNone {
			t.Errorf("valid after %s", jump)
		}
		f.clock.add(-jump)
		if level() != joinery.AttestBoot {
			t.Errorf("lost by %s and back", jump)
		}
	}
	f.clock.add(decade)
	f.shows(t, c, l2, c.boot(t, f.asked(t, c)))
	f.clock.add(-decade)
	if level() != joinery.AttestNone {
		t.Error("a result from the future counts")
	}
	st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1))
	if st.Level != joinery.AttestPossession {
		t.Errorf("the result from the future came back: %+v", st)
	}
	f.clock.add(-time.Second) // servers' clocks differ
	if level() != joinery.AttestPossession {
		t.Error("a second is too much")
	}
}

// TestFragments: in any order, more than once; one that was garbled spoils its
// message, which can be sent again.
func TestFragments(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	for _, made := range []func(evidence.About) []byte{
		func(a evidence.About) []byte { return c.possession(t, a, "one", 1) },
		func(a evidence.About) []byte { return c.boot(t, a) },
	} {
		parts, err := evidence.Split(made(f.asked(t, c)), 11)
		if err != nil {
			t.Fatal(err)
		}
		order := rand.Perm(len(parts))
		for n, i := range order {
			p, err := f.Fragment(t.Context(), f.maker, c.ID, parts[i])
			if err != nil {
				t.Fatal(err)
			}
			last := n == len(order)-1
			if p.Have != n+1 || p.Total != len(parts) || (p.Standing != nil) != last {
				t.Fatalf("after %d of %d: %+v", n+1, len(parts), p)
			}
			if !last {
				if again, err := f.Fragment(t.Context(), f.maker, c.ID, parts[i]); err != nil || again != p {
					t.Fatalf("twice: %+v, %v", again, err)
				}
			}
		}
	}
	st, err := f.Standing(t.Context(), f.maker, c.ID)
	if err != nil || st.Level != joinery.AttestBoot || len(st.Results) != 2 {
		t.Fatalf("%+v, %v", st, err)
	}

	parts, err := evidence.Split(c.possession(t, f.asked(t, c), "one", 1), 51)
	if err != nil {
		t.Fatal(err)
	}
	garbled := append([]byte{}, parts[0]...)
	garbled[len(garbled)-1] ^= 1
	for i, p := range append([][]byte{garbled}, parts[1:]...) {
		_, err := f.Fragment(t.Context(), f.maker, c.ID, p)
		if last := i == len(parts)-1; last {
			wantCode(t, err, joinery.CodeInvalid)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range parts {
		got, err := f.Fragment(t.Context(), f.maker, c.ID, p)
		if err != nil || (got.Standing != nil) != (i == len(parts)-1) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	// All of it comes again: the challenge is used, and nothing changes.
	for i, p := range parts {
		_, err := f.Fragment(t.Context(), f.maker, c.ID, p)
		if last := i == len(parts)-1; last {
			wantCode(t, err, joinery.CodeConflict)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// Evidence of a boot in the form that was over a fixed nonce is told why it is not
	// taken, and the challenge waits for a better answer.
	a := f.asked(t, c)
	tag := a.Tag()
	old := append(append([]byte{0x12}, tag[:]...), make([]byte, 152)...)
	fixed, err := evidence.Split(old, 242)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Fragment(t.Context(), f.maker, c.ID, fixed[0]); !strings.Contains(fmt.Sprint(err), "random nonce") {
		t.Errorf("over a fixed nonce: %v", err)
	}
	wantCode(t, err, joinery.CodeInvalid)
	f.shows(t, c, l2, c.boot(t, a))

	_, err = f.Fragment(t.Context(), f.others, c.ID, parts[0])
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.Fragment(t.Context(), f.maker, c.ID, parts[0][:6])
	wantCode(t, err, joinery.CodeInvalid)
}

// TestFragmentsAreBounded: whoever sends beginnings only fills nothing.
func TestFragmentsAreBounded(t *testing.T) {
	f := newFixture(t)
	c := f.chips[0]
	first, err := evidence.Split(c.possession(t, f.asked(t, c), "one", 1), 51)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fragment(t.Context(), f.maker, c.ID, first[0]); err != nil {
		t.Fatal(err)
	}
	for i := range byte(40) {
		f.clock.add(time.Second)
		if _, err := f.Fragment(t.Context(), f.maker, c.ID, []byte{0, 64, 1, 2, 3, i, 0xFF}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := f.Fragment(t.Context(), f.maker, c.ID, first[1])
	if err != nil || p.Have != 1 {
		t.Errorf("the oldest message is still there: %+v, %v", p, err)
	}
	f.clock.add(keepFragments + time.Second)
	if p, err = f.Fragment(t.Context(), f.maker, c.ID, first[2]); err != nil || p.Have != 1 {
		t.Errorf("fragments are kept for ever: %+v, %v", p, err)
	}
}

// TestPolicies: what an owner wants, of all its devices and of one.
func TestPolicies(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	c := f.chips[0]
	want := joinery.AttestPolicy{AttestRule: joinery.AttestRule{Level: joinery.AttestBoot, Activate: joinery.AttestWarn}, Claim: joinery.AttestRefuse, ValidDays: 7}
	got, err := f.SetPolicy(ctx, f.maker, want)
	want.Org = f.maker.Org
	if err != nil || got != want || f.PolicyOf(f.maker.Org) != want || f.PolicyOf(f.others.Org).Activate != joinery.AttestIgnore {
		t.Fatalf("%+v, %v", got, err)
	}
	st := f.shows(t, c, l1, c.possession(t, f.asked(t, c), "one", 1))
	if !st.Broken || st.Own || st.Rule != want.AttestRule || !st.Until.Equal(f.clock.now().Add(7*24*time.Hour)) {
		t.Errorf("%+v", st)
	}
	rule := joinery.AttestRule{Level: joinery.AttestPossession, Activate: joinery.AttestRefuse}
	if err := f.SetRule(ctx, f.maker, c.ID, &rule); err != nil {
		t.Fatal(err)
	}
	if st, err = f.Standing(ctx, f.maker, c.ID); err != nil || st.Broken || !st.Own || st.Rule != rule {
		t.Errorf("%+v, %v", st, err)
	}
	if err := f.SetRule(ctx, f.maker, c.ID, nil); err != nil {
		t.Fatal(err)
	}
	if st, err = f.Standing(ctx, f.maker, c.ID); err != nil || !st.Broken || st.Own {
		t.Errorf("%+v, %v", st, err)
	}
	wantCode(t, f.SetRule(ctx, f.others, c.ID, &rule), joinery.CodeNotFound)
	for _, bad := range []joinery.AttestPolicy{{ValidDays: -1}, {ValidDays: 3651}, {Claim: joinery.AttestRefuse}, {AttestRule: joinery.AttestRule{Activate: joinery.AttestWarn}}} {
		_, err := f.SetPolicy(ctx, f.maker, bad)
		wantCode(t, err, joinery.CodeInvalid)
	}
	// Another server over the same database knows it.
	second, err := Start(ctx, f.db, Options{})
	if err != nil || second.PolicyOf(f.maker.Org) != want {
		t.Errorf("%+v, %v", second.PolicyOf(f.maker.Org), err)
	}
}

// TestProducts: what a maker registers is its own, and statements are held against
// the keys that it registered.
func TestProducts(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	_, err := f.Product(ctx, f.others, f.product.ID)
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.AddRelease(ctx, f.others, f.product.ID, f.statement(t, f.product, "3.0.0", "three", 3))
	wantCode(t, err, joinery.CodeNotFound)
	_, err = f.AddKey(ctx, f.others, joinery.ProductKey{Product: f.product.ID, Use: joinery.KeyForReleases, Public: spki(t, newKey(t))})
	wantCode(t, err, joinery.CodeNotFound)
	wantCode(t, f.RemoveProduct(ctx, f.others, f.product.ID), joinery.CodeNotFound)

	_, err = f.AddRelease(ctx, f.maker, f.product.ID, f.statement(t, f.other, "3.0.0", "three", 3))
	wantCode(t, err, joinery.CodeInvalid)
	_, err = f.AddRelease(ctx, f.maker, f.product.ID, f.statement(t, f.product, "1.0.0", "three", 3))
	wantCode(t, err, joinery.CodeConflict)
	_, err = f.AddRelease(ctx, f.maker, f.product.ID, f.statement(t, f.product, "3.0.0", "one", 3))
	wantCode(t, err, joinery.CodeConflict)
	right := f.releaseKey
	f.releaseKey = newKey(t)
	_, err = f.AddRelease(ctx, f.maker, f.product.ID, f.statement(t, f.product, "3.0.0", "three", 3))
	wantCode(t, err, joinery.CodeInvalid)
	f.releaseKey = right
	f.release(t, f.product, "3.0.0", "three", 3)

	_, err = f.AddProduct(ctx, f.maker, joinery.Product{Name: "third", Hardware: "a", DevEUIs: f.product.DevEUIs})
	wantCode(t, err, joinery.CodeConflict)
	if _, err := f.AddProduct(ctx, f.others, joinery.Product{Name: "meter-3", Hardware: "a", DevEUIs: f.product.DevEUIs}); err != nil {
		t.Errorf("another maker's product is in the way: %v", err)
	}
	keys, err := f.Keys(ctx, f.maker, f.product.ID, 0, 0)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%+v, %v", keys, err)
	}
	if err := f.RemoveKey(ctx, f.maker, f.product.ID, keys[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = f.AddRelease(ctx, f.maker, f.product.ID, f.statement(t, f.product, "4.0.0", "four", 4))
	wantCode(t, err, joinery.CodeInvalid)
	c := f.chips[0]
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "withdrawn") // with the key that signed it
	if err := f.RemoveProduct(ctx, f.maker, f.product.ID); err != nil {
		t.Fatal(err)
	}
	f.refuses(t, c, l2, c.boot(t, f.asked(t, c)), "product")
	list, err := f.Products(ctx, f.maker)
	if err != nil || len(list) != 1 || list[0].ID != f.other.ID {
		t.Errorf("%+v, %v", list, err)
	}
}
