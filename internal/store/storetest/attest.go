package storetest

import (
	"context"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Attestations is what devices have shown, and what owners want of them.
type Attestations interface {
	AddAttestChallenge(ctx context.Context, c joinery.AttestChallenge) error
	TakeAttestChallenge(ctx context.Context, device joinery.DeviceID, begins []byte) (joinery.AttestChallenge, error)
	Appraise(ctx context.Context, id joinery.DeviceID) (joinery.Appraisal, error)
	ReleasesByDigest(ctx context.Context, org joinery.OrgID, digests [][32]byte) ([]joinery.Release, error)
	PutAttestation(ctx context.Context, r joinery.AttestResult, a joinery.AuditEntry) (joinery.Attested, error)
	Attestations(ctx context.Context, device joinery.DeviceID) ([]joinery.Attestation, error)
	EndAttestations(ctx context.Context, now time.Time, limit int) (int, error)
	EndWithdrawn(ctx context.Context, now time.Time, limit int) (int, error)
	EndUnvouched(ctx context.Context, now time.Time, limit int) (int, error)
	AttestPolicies(ctx context.Context) ([]joinery.AttestPolicy, error)
	SetAttestPolicy(ctx context.Context, p joinery.AttestPolicy, a joinery.AuditEntry) error
	SetAttestRule(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, rule *joinery.AttestRule, a joinery.AuditEntry) error
	AddEvidenceFragment(ctx context.Context, f joinery.EvidenceFragment, owner joinery.OrgID, since time.Time) ([]joinery.EvidenceFragment, error)
	DropEvidenceFragments(ctx context.Context, device joinery.DeviceID, message uint32) (bool, error)
	Products
}

// Products is what makers register.
type Products interface {
	Products(ctx context.Context, org joinery.OrgID) ([]joinery.Product, error)
	Product(ctx context.Context, id joinery.ProductID) (joinery.Product, error)
	AddProduct(ctx context.Context, p joinery.Product, a joinery.AuditEntry) error
	RemoveProduct(ctx context.Context, id joinery.ProductID, a joinery.AuditEntry) error
	ProductKeys(ctx context.Context, product joinery.ProductID, after joinery.ProductKeyID, limit int) ([]joinery.ProductKey, error)
	ReleaseKeys(ctx context.Context, product joinery.ProductID) ([]joinery.ProductKey, error)
	AddProductKey(ctx context.Context, k joinery.ProductKey, a joinery.AuditEntry) error
	RemoveProductKey(ctx context.Context, product joinery.ProductID, id joinery.ProductKeyID, a joinery.AuditEntry) error
	FirmwareReleases(ctx context.Context, product joinery.ProductID, after joinery.ReleaseID, limit int) ([]joinery.Release, error)
	AddRelease(ctx context.Context, f joinery.Release, a joinery.AuditEntry) (joinery.ReleaseID, error)
	WithdrawRelease(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, a joinery.AuditEntry) error
	LowerFloor(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, counter uint32, a joinery.AuditEntry) error
}

func runAttestations(t *testing.T, open func(testing.TB) Backend) {
	t.Run("challenges", func(t *testing.T) { attestChallenges(t, open) })
	t.Run("results", func(t *testing.T) { attestResults(t, open) })
	t.Run("withdrawn", func(t *testing.T) { attestWithdrawn(t, open) })
	t.Run("ground", func(t *testing.T) { attestGround(t, open) })
	t.Run("components", func(t *testing.T) { attestComponents(t, open) })
	t.Run("wants", func(t *testing.T) { attestWants(t, open) })
	t.Run("fragments", func(t *testing.T) { attestFragments(t, open) })
	t.Run("products", func(t *testing.T) { attestProducts(t, open) })
}

func attestChallenges(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s, other := w.add(derived(1)), w.add(derived(2))
	made := func(id joinery.DeviceID, n byte, at time.Time) joinery.AttestChallenge {
		return joinery.AttestChallenge{Random: [32]byte{n, 1, 2, 3, 4}, Device: id, Org: w.org, MadeAt: at, ExpiresAt: at.Add(time.Hour)}
	}
	var all []joinery.AttestChallenge
	for n := range byte(5) {
		c := made(s.Device.ID, n, epoch.Add(time.Duration(n)*time.Minute))
		w.ok(w.AddAttestChallenge(w.ctx, c))
		all = append(all, c)
	}
	take := func(id joinery.DeviceID, begins []byte) joinery.Code {
		t.Helper()
		_, err := w.TakeAttestChallenge(w.ctx, id, begins)
		return joinery.CodeOf(err)
	}
	w.equal(take(s.Device.ID, all[0].Random[:4]), joinery.CodeNotFound) // it gave way
	w.equal(take(other.Device.ID, all[1].Random[:4]), joinery.CodeNotFound)
	w.equal(take(s.Device.ID, all[1].Random[:3]), joinery.CodeNotFound)
	got, err := w.TakeAttestChallenge(w.ctx, s.Device.ID, all[1].Random[:4])
	w.ok(err)
	w.equal(got, all[1])
	w.equal(take(s.Device.ID, all[1].Random[:]), joinery.CodeNotFound)
	same := made(s.Device.ID, 2, epoch)
	same.Random[31] = 9
	w.refused(w.AddAttestChallenge(w.ctx, same), joinery.CodeConflict)
	foreign := made(s.Device.ID, 9, epoch)
	foreign.Org = w.addOrg("others")
	w.refused(w.AddAttestChallenge(w.ctx, foreign), joinery.CodeConflict)
	w.ok(w.AddAttestChallenge(w.ctx, made(other.Device.ID, 7, epoch.Add(2*time.Hour)))) // what ended is forgotten
	w.equal(take(s.Device.ID, all[4].Random[:]), joinery.CodeNotFound)
}

// shown is a result of a level about a digest, from a time on.
func (w *world) shown(s joinery.ActivationState, level joinery.AttestLevel, digest byte, at time.Time, life time.Duration) joinery.AttestResult {
	return joinery.AttestResult{Owner: w.org, Attestation: joinery.Attestation{
		Device: s.Device.ID, Level: level, Kind: joinery.EvidencePossession, Verifier: "storetest", At: at, Until: at.Add(life),
		Digest: [32]byte{digest}, Version: "1", Counter: 0, Evidence: [32]byte{byte(level)},
	}}
}

func (w *world) put(r joinery.AttestResult) joinery.Attested {
	w.t.Helper()
	a, err := w.PutAttestation(w.ctx, r, w.audit(joinery.AuditDeviceAttested))
	w.ok(err)
	return a
}

func attestResults(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	p, f := w.released("meter", 1, 9)
	version := w.again(s).KeySet.Version
	low := w.shown(s, 1, 1, epoch, time.Hour)
	w.equal(w.put(low), joinery.Attested{At: epoch, Until: [3]time.Time{low.Until}})
	if w.again(s).KeySet.Version == version {
		t.Error("a join under way is not judged again")
	}
	high := w.shown(s, 2, 1, epoch.Add(time.Minute), 30*time.Minute)
	high.Release, high.Digest, low.Digest = f.ID, f.Digest, f.Digest
	low.Release, low.Counter, high.Counter = f.ID, f.Counter, f.Counter
	w.put(low)
	want := joinery.Attested{At: high.At, Until: [3]time.Time{low.Until, high.Until}}
	w.equal(w.put(high), want)
	w.equal(w.again(s).Device.Attested, want)
	got, err := w.Attestations(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(got, []joinery.Attestation{low.Attestation, high.Attestation})
	a, err := w.Appraise(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(a.Floor, f.Counter)
	w.equal(a.Product.ID, p.ID)
	w.equal(string(a.Manifest), "entry 1")
	stranger := low
	stranger.Owner = w.addOrg("others")
	_, err = w.PutAttestation(w.ctx, stranger, w.audit(joinery.AuditDeviceAttested))
	w.refused(err, joinery.CodeConflict)

	// Listings know the level of a time.
	list := func(level joinery.AttestLevel, at time.Time) int {
		t.Helper()
		page, err := w.Devices(w.ctx, joinery.DeviceQuery{Org: w.org, Attested: &level, AttestedAt: at})
		w.ok(err)
		return len(page.Items)
	}
	for _, x := range []struct {
		at    time.Time
		level joinery.AttestLevel
	}{
		{high.At, 2}, {high.Until, 1}, {low.Until, 0}, {epoch.Add(-time.Hour), 0},
	} {
		for _, l := range []joinery.AttestLevel{0, 1, 2, 3} {
			if n := list(l, x.at); (n == 1) != (l == x.level) {
				t.Errorf("at %s: %d devices of level %s, the device's is %s", x.at, n, l, w.again(s).Device.Attested.Level(x.at))
			}
		}
		w.equal(w.again(s).Device.Attested.Level(x.at), x.level)
	}

	// Each end is told once.
	for _, x := range []struct {
		at time.Time
		n  int
	}{{high.Until.Add(-1), 0}, {high.Until, 1}, {high.Until, 0}, {low.Until, 1}, {low.Until.Add(time.Hour), 0}} {
		n, err := w.EndAttestations(w.ctx, x.at, 10)
		w.ok(err)
		w.equal(n, x.n)
	}

	// Other firmware ends what was shown before.
	later := low.Until.Add(time.Hour)
	w.put(w.shown(s, 3, 7, later, time.Hour))
	got, err = w.Attestations(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(len(got), 3)
	w.equal([]time.Time{got[0].EndedAt, got[1].EndedAt, got[2].EndedAt}, []time.Time{later, later, {}})
	w.equal(w.again(s).Device.Attested.Until, [3]time.Time{2: later.Add(time.Hour)})

	w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
	_, err = w.Appraise(w.ctx, s.Device.ID)
	w.refused(err, joinery.CodeNotFound)
	back := w.add(derived(1)) // it comes back, and has shown nothing
	w.equal(back.Device.Attested, joinery.Attested{})
}

// attestWithdrawn: what rests on what the maker took back ends, once, and nothing else
// does; nothing new comes to rest on it.
func attestWithdrawn(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	a, b, c := w.add(derived(1)), w.add(derived(2)), w.add(derived(3))
	p, f := w.released("meter", 1, 9)
	loader := f // of a boot loader, which tokens measure, too
	loader.ID, loader.Version, loader.Digest = joinery.NewReleaseID(), "loader", [32]byte{9}
	_, err := w.AddRelease(w.ctx, loader, w.audit(joinery.AuditReleaseAdded))
	w.ok(err)
	token := joinery.ProductKey{ID: joinery.NewProductKeyID(), Product: p.ID, Use: joinery.KeyForTokens, Public: randomBytes(91), CreatedAt: epoch}
	w.ok(w.AddProductKey(w.ctx, token, w.audit(joinery.AuditProductKeyAdded)))
	of := func(s joinery.ActivationState, level joinery.AttestLevel, f joinery.Release) joinery.AttestResult {
		r := w.shown(s, level, 0, epoch, time.Hour)
		r.Release, r.Digest, r.Counter = f.ID, f.Digest, f.Counter
		return r
	}
	level := func(s joinery.ActivationState) joinery.AttestLevel { return w.again(s).Device.Attested.Level(epoch) }
	ends := func(n int) {
		t.Helper()
		got, err := w.EndWithdrawn(w.ctx, epoch, 10)
		w.ok(err)
		w.equal(got, n)
	}
	own := w.shown(a, 1, 7, epoch, time.Hour) // of no release
	w.put(own)
	w.put(of(b, 1, f))
	measured := of(b, 3, f)
	measured.Ground.Key, measured.Components = token.ID, []joinery.AttestComponent{{Type: "BL", Release: loader.ID, Counter: loader.Counter}}
	w.put(measured)
	w.put(of(c, 2, f))
	ends(0)

	w.ok(w.WithdrawRelease(w.ctx, p.ID, loader.ID, w.audit(joinery.AuditReleaseWithdrawn)))
	version := w.again(b).KeySet.Version
	ends(1)
	ends(0)
	w.equal([]joinery.AttestLevel{level(a), level(b), level(c)}, []joinery.AttestLevel{1, 1, 2})
	if w.again(b).KeySet.Version == version {
		t.Error("a join under way is not judged again")
	}
	_, err = w.PutAttestation(w.ctx, measured, w.audit(joinery.AuditDeviceAttested))
	w.refused(err, joinery.CodeConflict)
	measured.Components = nil
	w.put(measured)
	w.equal(level(b), joinery.AttestToken)
	w.ok(w.RemoveProductKey(w.ctx, p.ID, token.ID, w.audit(joinery.AuditProductKeyRemoved)))
	ends(1)
	w.equal(level(b), joinery.AttestPossession)
	_, err = w.PutAttestation(w.ctx, measured, w.audit(joinery.AuditDeviceAttested))
	w.refused(err, joinery.CodeConflict)

	// The key of releases takes them with it; another that signs the same brings them back.
	w.ok(w.RemoveProductKey(w.ctx, p.ID, f.Key, w.audit(joinery.AuditProductKeyRemoved)))
	ends(2)
	w.equal([]joinery.AttestLevel{level(a), level(b), level(c)}, []joinery.AttestLevel{1, 0, 0})
	next := joinery.ProductKey{ID: joinery.NewProductKeyID(), Product: p.ID, Use: joinery.KeyForReleases, Public: randomBytes(91), CreatedAt: epoch}
	w.ok(w.AddProductKey(w.ctx, next, w.audit(joinery.AuditProductKeyAdded)))
	again := f
	again.ID, again.Key = joinery.NewReleaseID(), next.ID
	id, err := w.AddRelease(w.ctx, again, w.audit(joinery.AuditReleaseAdded))
	w.ok(err)
	w.equal(id, f.ID)
	w.put(of(c, 2, f))
	low := of(a, 1, f)
	w.put(low)

	// What was shown of a release that was withdrawn is the floor still, until it is
	// lowered: also once another one was shown.
	floor := func(want uint32) {
		t.Helper()
		got, err := w.Appraise(w.ctx, c.Device.ID)
		w.ok(err)
		w.equal(got.Floor, want)
	}
	older := f
	older.ID, older.Version, older.Digest, older.Counter, older.Key = joinery.NewReleaseID(), "0", [32]byte{8}, f.Counter-2, next.ID
	_, err = w.AddRelease(w.ctx, older, w.audit(joinery.AuditReleaseAdded))
	w.ok(err)
	newer := older
	newer.ID, newer.Version, newer.Digest, newer.Counter = joinery.NewReleaseID(), "3", [32]byte{7}, f.Counter+4
	_, err = w.AddRelease(w.ctx, newer, w.audit(joinery.AuditReleaseAdded))
	w.ok(err)
	w.put(of(c, 2, newer))
	w.ok(w.WithdrawRelease(w.ctx, p.ID, newer.ID, w.audit(joinery.AuditReleaseWithdrawn)))
	ends(1)
	floor(newer.Counter)
	w.put(of(c, 2, older))
	floor(newer.Counter)
	lowered := w.audit(joinery.AuditFloorLowered)
	w.refused(w.LowerFloor(w.ctx, p.ID, older.ID, 1, lowered), joinery.CodeConflict) // it stands
	w.refused(w.LowerFloor(w.ctx, p.ID, newer.ID, newer.Counter, lowered), joinery.CodeConflict)
	w.refused(w.LowerFloor(w.ctx, joinery.NewProductID(), newer.ID, 1, lowered), joinery.CodeNotFound)
	w.ok(w.LowerFloor(w.ctx, p.ID, newer.ID, 1, lowered))
	floor(1)
	w.put(of(c, 2, older))
	floor(older.Counter)
	w.put(of(c, 2, f))

	// Without its product nothing stands above L1.
	w.ok(w.RemoveProduct(w.ctx, p.ID, w.audit(joinery.AuditProductRemoved)))
	ends(1)
	w.equal([]joinery.AttestLevel{level(a), level(b), level(c)}, []joinery.AttestLevel{1, 0, 0})
}

// attestGround: what results rest on is kept for each level, and in the device's own row;
// what rests on a signer does so no more when that is unpinned, and its owner is told
// once.
func attestGround(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	_, f := w.released("meter", 1, 9)
	pin := joinery.Signer{
		ID: joinery.NewSignerID(), Org: w.org, Name: "factory", KID: "kid", X5TS256: "x5t", DER: []byte{1}, Master: "maker-1", CreatedAt: epoch,
		JoinEUIs: joinery.EUIRange{First: joinEUI, Last: joinEUI}, DevEUIs: joinery.EUIRange{First: devEUI(1), Last: devEUI(9)},
	}
	w.ok(w.AddSigner(w.ctx, pin, w.audit(joinery.AuditSignerAdded)))
	rests := func(level joinery.AttestLevel, basis joinery.AttestBasis, g joinery.AttestGround) joinery.AttestResult {
		r := w.shown(s, level, 0, epoch, time.Hour)
		r.Release, r.Digest, r.Counter, r.Basis, r.Ground = f.ID, f.Digest, f.Counter, basis, g
		return r
	}
	byPin := joinery.AttestGround{Chain: "checked", Signer: pin.ID, SignerName: "Factory", SignerX5TS256: "x5t"}
	low, high := rests(1, joinery.AttestChain, byPin), rests(2, joinery.AttestVouched, joinery.AttestGround{Key: f.Key})
	w.put(low)
	rule := joinery.AttestRule{Level: 1, Activate: joinery.AttestRefuse, Basis: joinery.AttestChain}
	w.ok(w.SetAttestRule(w.ctx, s.Device.ID, w.org, &rule, w.audit(joinery.AuditDeviceAttestRule)))
	want := joinery.Attested{At: epoch, Until: [3]time.Time{low.Until, high.Until}, Basis: [3]joinery.AttestBasis{joinery.AttestChain, joinery.AttestVouched}, Rule: &rule}
	w.equal(w.put(high), want)
	w.equal(w.again(s).Device.Attested, want)
	got, err := w.Attestations(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(got, []joinery.Attestation{low.Attestation, high.Attestation})

	n, err := w.EndUnvouched(w.ctx, epoch, 10)
	w.ok(err)
	w.equal(n, 0)
	version := w.again(s).KeySet.Version
	w.ok(w.RemoveSigner(w.ctx, pin.ID, w.audit(joinery.AuditSignerRemoved)))
	for _, found := range []int{1, 0, 0} { // of one at a time; then there are none, and the pin is forgotten
		n, err := w.EndUnvouched(w.ctx, epoch.Add(time.Minute), 1)
		w.ok(err)
		w.equal(n, found)
	}
	want.Basis[0] = joinery.AttestAny
	w.equal(w.again(s).Device.Attested, want)
	if w.again(s).KeySet.Version == version {
		t.Error("a join under way is not judged again")
	}
	got, err = w.Attestations(w.ctx, s.Device.ID)
	w.ok(err)
	low.Basis, low.Ground.UnpinnedAt = joinery.AttestAny, epoch
	w.equal(got, []joinery.Attestation{low.Attestation, high.Attestation})
	_, err = w.PutAttestation(w.ctx, rests(1, joinery.AttestChain, byPin), w.audit(joinery.AuditDeviceAttested))
	w.refused(err, joinery.CodeConflict)
	w.ok(w.SetAttestRule(w.ctx, s.Device.ID, w.org, nil, w.audit(joinery.AuditDeviceAttestRule)))
	want.Rule = nil
	w.equal(w.again(s).Device.Attested, want)
}

// attestComponents: the highest counter of each component that tokens measured is known,
// also of a release that was withdrawn; of several with one name, the lowest counts.
func attestComponents(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	p, f := w.released("meter", 1, 9)
	var loaders []joinery.AttestComponent
	for i := range uint32(3) {
		l := f
		l.ID, l.Version, l.Digest, l.Counter = joinery.NewReleaseID(), "loader-"+string(rune('a'+i)), [32]byte{byte(i) + 1}, i+1
		_, err := w.AddRelease(w.ctx, l, w.audit(joinery.AuditReleaseAdded))
		w.ok(err)
		loaders = append(loaders, joinery.AttestComponent{Type: "BL", Release: l.ID, Counter: l.Counter})
	}
	shows := func(components ...joinery.AttestComponent) {
		t.Helper()
		r := w.shown(s, 3, 0, epoch, time.Hour)
		r.Release, r.Digest, r.Counter, r.Components = f.ID, f.Digest, f.Counter, components
		w.put(r)
	}
	floors := func(want map[string]uint32) {
		t.Helper()
		a, err := w.Appraise(w.ctx, s.Device.ID)
		w.ok(err)
		w.equal(a.Floors, want)
	}
	other := loaders[0]
	other.Type = "PRoT"
	floors(nil)
	shows(loaders[1], other)
	floors(map[string]uint32{"BL": 2, "PRoT": 1})
	shows(loaders[2], loaders[0])
	floors(map[string]uint32{"BL": 2, "PRoT": 1})
	shows() // a token that measures less forgets nothing
	shows(loaders[2])
	floors(map[string]uint32{"BL": 3, "PRoT": 1})
	w.ok(w.WithdrawRelease(w.ctx, p.ID, loaders[2].Release, w.audit(joinery.AuditReleaseWithdrawn)))
	floors(map[string]uint32{"BL": 3, "PRoT": 1})
	w.ok(w.RemoveProduct(w.ctx, p.ID, w.audit(joinery.AuditProductRemoved)))
	floors(map[string]uint32{"BL": 3, "PRoT": 1})
}

// released is a product of the DevEUIs of devices n to last, with a release.
func (w *world) released(name string, n, last int) (joinery.Product, joinery.Release) {
	w.t.Helper()
	p := joinery.Product{
		ID: joinery.NewProductID(), Org: w.org, Name: name, Hardware: "a", DevEUIs: []joinery.EUIRange{{First: devEUI(n), Last: devEUI(last)}},
		Boot: &joinery.BootProfile{KeySlot: 2, DigestSlot: 7, Counter: 1}, CreatedAt: epoch,
	}
	w.ok(w.AddProduct(w.ctx, p, w.audit(joinery.AuditProductAdded)))
	k := joinery.ProductKey{ID: joinery.NewProductKeyID(), Product: p.ID, Use: joinery.KeyForReleases, Public: randomBytes(91), CreatedAt: epoch}
	w.ok(w.AddProductKey(w.ctx, k, w.audit(joinery.AuditProductKeyAdded)))
	f := joinery.Release{
		ID: joinery.NewReleaseID(), Product: p.ID, Version: "1", Digest: [32]byte(randomBytes(32)), Counter: 5, Statement: []byte("{}"), Key: k.ID, At: epoch,
	}
	id, err := w.AddRelease(w.ctx, f, w.audit(joinery.AuditReleaseAdded))
	w.ok(err)
	w.equal(id, f.ID)
	return p, f
}

func attestWants(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	p := joinery.AttestPolicy{Org: w.org, AttestRule: joinery.AttestRule{Level: 2, Activate: joinery.AttestRefuse}, Claim: joinery.AttestWarn, ValidDays: 7}
	p.Basis = joinery.AttestChain
	for range 2 {
		w.ok(w.SetAttestPolicy(w.ctx, p, w.audit(joinery.AuditAttestPolicy)))
		got, err := w.AttestPolicies(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.AttestPolicy{p})
		p.ValidDays = 9
	}
	nobody := p
	nobody.Org = joinery.NewOrgID()
	w.refused(w.SetAttestPolicy(w.ctx, nobody, w.audit(joinery.AuditAttestPolicy)), joinery.CodeNotFound)

	version := w.again(s).KeySet.Version
	for level := range joinery.AttestLevel(4) {
		for action := range joinery.AttestAction(3) {
			rule := joinery.AttestRule{Level: level, Activate: action, Basis: joinery.AttestBasis(action)}
			w.ok(w.SetAttestRule(w.ctx, s.Device.ID, w.org, &rule, w.audit(joinery.AuditDeviceAttestRule)))
			w.equal(*w.again(s).Device.Attested.Rule, rule)
		}
	}
	if w.again(s).KeySet.Version == version {
		t.Error("a join under way is not judged again")
	}
	w.refused(w.SetAttestRule(w.ctx, s.Device.ID, joinery.NewOrgID(), nil, w.audit(joinery.AuditDeviceAttestRule)), joinery.CodeConflict)
	w.ok(w.SetAttestRule(w.ctx, s.Device.ID, w.org, nil, w.audit(joinery.AuditDeviceAttestRule)))
	w.equal(w.again(s).Device.Attested, joinery.Attested{})
}

func attestFragments(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	part := func(message uint32, index uint8, payload string, at time.Time) []joinery.EvidenceFragment {
		t.Helper()
		list, err := w.AddEvidenceFragment(w.ctx, joinery.EvidenceFragment{
			Device: s.Device.ID, Message: message, Index: index, Total: 3, Payload: []byte(payload), At: at,
		}, w.org, epoch)
		w.ok(err)
		return list
	}
	w.equal(len(part(0xFFFFFFFF, 2, "c", epoch)), 1)
	w.equal(len(part(0xFFFFFFFF, 0, "a", epoch)), 2)
	list := part(0xFFFFFFFF, 0, "b", epoch)
	w.equal(len(list), 2)
	w.equal(string(list[0].Payload)+string(list[1].Payload), "bc")
	_, err := w.AddEvidenceFragment(w.ctx, joinery.EvidenceFragment{Device: s.Device.ID, Message: 0xFFFFFFFF, Index: 1, Total: 4, Payload: []byte("x"), At: epoch}, w.org, epoch)
	w.refused(err, joinery.CodeConflict)
	_, err = w.AddEvidenceFragment(w.ctx, joinery.EvidenceFragment{Device: s.Device.ID, Message: 1, Total: 1, Payload: []byte("x"), At: epoch}, joinery.NewOrgID(), epoch)
	w.refused(err, joinery.CodeConflict)
	for n := range uint32(4) {
		part(n, 0, "x", epoch.Add(time.Duration(n+1)*time.Second))
	}
	for message, want := range map[uint32]bool{0xFFFFFFFF: false, 3: true} {
		had, err := w.DropEvidenceFragments(w.ctx, s.Device.ID, message)
		w.ok(err)
		w.equal(had, want)
	}
}

func attestProducts(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	s := w.add(derived(1))
	p, f := w.released("meter", 1, 9)
	got, err := w.Product(w.ctx, p.ID)
	w.ok(err)
	w.equal(got, p)
	again := p
	again.ID = joinery.NewProductID()
	w.refused(w.AddProduct(w.ctx, again, w.audit(joinery.AuditProductAdded)), joinery.CodeConflict)
	again.Name = "valve"
	w.refused(w.AddProduct(w.ctx, again, w.audit(joinery.AuditProductAdded)), joinery.CodeConflict) // the same DevEUIs
	again.DevEUIs, again.Boot = []joinery.EUIRange{{First: lorawan.EUI64{1}, Last: lorawan.EUI64{2}}}, nil
	w.ok(w.AddProduct(w.ctx, again, w.audit(joinery.AuditProductAdded)))
	list, err := w.Products(w.ctx, w.org)
	w.ok(err)
	w.equal(list, []joinery.Product{p, again})

	k := joinery.ProductKey{ID: joinery.NewProductKeyID(), Product: p.ID, Device: s.Device.ID, Use: joinery.KeyForTokens, Public: randomBytes(91), CreatedAt: epoch}
	w.ok(w.AddProductKey(w.ctx, k, w.audit(joinery.AuditProductKeyAdded)))
	twice := k
	twice.ID = joinery.NewProductKeyID()
	w.refused(w.AddProductKey(w.ctx, twice, w.audit(joinery.AuditProductKeyAdded)), joinery.CodeConflict)
	twice.Device = joinery.NewDeviceID()
	w.refused(w.AddProductKey(w.ctx, twice, w.audit(joinery.AuditProductKeyAdded)), joinery.CodeNotFound)
	keys, err := w.ProductKeys(w.ctx, p.ID, 0, 10)
	w.ok(err)
	w.equal(len(keys), 2)
	keys, err = w.ReleaseKeys(w.ctx, p.ID)
	w.ok(err)
	w.equal(len(keys), 1)
	a, err := w.Appraise(w.ctx, s.Device.ID)
	w.ok(err)
	w.equal(len(a.Keys), 2)
	w.ok(w.RemoveProductKey(w.ctx, p.ID, k.ID, w.audit(joinery.AuditProductKeyRemoved)))
	w.refused(w.RemoveProductKey(w.ctx, p.ID, k.ID, w.audit(joinery.AuditProductKeyRemoved)), joinery.CodeNotFound)

	for _, bad := range []func(*joinery.Release){func(f *joinery.Release) { f.Version = "2" }, func(f *joinery.Release) { f.Digest[0]++ }} {
		other := f
		other.ID = joinery.NewReleaseID()
		bad(&other)
		_, err := w.AddRelease(w.ctx, other, w.audit(joinery.AuditReleaseAdded))
		w.refused(err, joinery.CodeConflict)
	}
	found, err := w.ReleasesByDigest(w.ctx, w.org, [][32]byte{{1}, f.Digest})
	w.ok(err)
	w.equal(found, []joinery.Release{f})
	found, err = w.ReleasesByDigest(w.ctx, joinery.NewOrgID(), [][32]byte{f.Digest})
	w.ok(err)
	w.equal(len(found), 0)
	w.ok(w.WithdrawRelease(w.ctx, p.ID, f.ID, w.audit(joinery.AuditReleaseWithdrawn)))
	w.refused(w.WithdrawRelease(w.ctx, p.ID, f.ID, w.audit(joinery.AuditReleaseWithdrawn)), joinery.CodeNotFound)
	f.WithdrawnAt = epoch
	found, err = w.FirmwareReleases(w.ctx, p.ID, 0, 10)
	w.ok(err)
	w.equal(found, []joinery.Release{f})
	w.ok(w.RemoveProduct(w.ctx, p.ID, w.audit(joinery.AuditProductRemoved)))
	w.refused(w.RemoveProduct(w.ctx, p.ID, w.audit(joinery.AuditProductRemoved)), joinery.CodeNotFound)
	a, err = w.Appraise(w.ctx, s.Device.ID)
	w.ok(err)
	if a.Product != nil || a.Keys != nil {
		t.Errorf("%+v", a)
	}
	w.refused(w.AddProductKey(w.ctx, twice, w.audit(joinery.AuditProductKeyAdded)), joinery.CodeNotFound)
}
