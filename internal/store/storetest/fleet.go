package storetest

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

func runFleet(t *testing.T, open func(testing.TB) Backend) {
	t.Run("organisations", func(t *testing.T) {
		w := newWorld(t, open)
		w.refused(w.AddOrg(w.ctx, joinery.Organisation{ID: joinery.NewOrgID(), Name: "maker", CreatedAt: epoch}, w.audit(joinery.AuditOrgAdded)), joinery.CodeConflict)
		orgs, err := w.Orgs(w.ctx)
		w.ok(err)
		names := map[string]bool{}
		for _, o := range orgs {
			names[o.Name] = true
		}
		w.equal(names, map[string]bool{"operator": true, "maker": true})
	})
	t.Run("ranges", ranges(open))
	t.Run("signers", func(t *testing.T) {
		w := newWorld(t, open)
		s := joinery.Signer{
			ID: joinery.NewSignerID(), Org: w.org, Name: "line 1", KID: "kid", X5TS256: "x5t", DER: randomBytes(300),
			JoinEUIs: joinery.EUIRange{First: joinEUI, Last: joinEUI}, DevEUIs: joinery.EUIRange{First: devEUI(0), Last: devEUI(1 << 24)},
			Master: "maker-1", Generation: 3, CreatedAt: epoch,
			Family: manifest.FamilyMicrochip, Roots: randomBytes(500), SerialSuffix: "27", Shared: true,
		}
		w.ok(w.AddSigner(w.ctx, s, w.audit(joinery.AuditSignerAdded)))
		again := s
		again.ID = joinery.NewSignerID()
		w.refused(w.AddSigner(w.ctx, again, w.audit(joinery.AuditSignerAdded)), joinery.CodeConflict)
		got, err := w.Signers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Signer{s})
		w.ok(w.RemoveSigner(w.ctx, s.ID, w.audit(joinery.AuditSignerRemoved)))
		got, err = w.Signers(w.ctx)
		w.ok(err)
		w.equal(len(got), 0)
	})
	t.Run("peers", peers(open))
	t.Run("credentials lead to one peer", credentials(open))
	t.Run("KEKs", keks(open))
	t.Run("API keys", apiKeys(open))
	t.Run("audit", audits(open))
}

func ranges(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		other := w.addOrg("other")
		a := w.audit(joinery.AuditRangeAssigned)
		high := joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: lorawan.EUI64FromUint64(1 << 63), Last: lorawan.EUI64FromUint64(1<<64 - 1)}, Org: other, Elements: true}
		w.ok(w.AssignRange(w.ctx, high, a))
		mine := joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: joinEUI, Last: joinEUI}, Org: w.org}
		mine.Last[7] = 0x0F
		got, err := w.Ranges(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.JoinEUIRange{mine, high})
		for _, clash := range []joinery.EUIRange{
			mine.EUIRange, {First: mine.Last, Last: mine.Last}, {Last: lorawan.EUI64FromUint64(1<<64 - 1)}, {First: high.Last, Last: high.Last},
		} {
			w.refused(w.AssignRange(w.ctx, joinery.JoinEUIRange{EUIRange: clash, Org: other}, a), joinery.CodeConflict)
		}
		w.refused(w.AssignRange(w.ctx, joinery.JoinEUIRange{EUIRange: joinery.EUIRange{First: high.Last, Last: mine.First}, Org: other}, a), joinery.CodeInvalid)

		d := derived(1)
		s := w.add(d)
		w.refused(w.ReleaseRange(w.ctx, mine, a), joinery.CodeConflict)
		w.ok(w.DeleteDevice(w.ctx, s.Device.ID, w.org, w.audit(joinery.AuditDeviceDeleted)))
		notTheirs := mine
		notTheirs.Org = other
		w.refused(w.ReleaseRange(w.ctx, notTheirs, a), joinery.CodeNotFound)
		w.ok(w.ReleaseRange(w.ctx, mine, a))
		w.refused(w.ReleaseRange(w.ctx, mine, a), joinery.CodeNotFound)
		w.equal(w.importAs(w.org, derived(1))[0].Status, joinery.RowFailed)
		w.CheckInvariants(t)
	}
}

func newPeer(name string) joinery.Peer {
	return joinery.Peer{ID: joinery.NewPeerID(), Name: name, CreatedAt: epoch}
}

func (w *world) addPeer(p joinery.Peer) joinery.Peer {
	w.t.Helper()
	p.Org = w.org
	w.ok(w.AddPeer(w.ctx, p, nil, w.audit(joinery.AuditPeerAdded), w.audit(joinery.AuditClearKeysAllowed)))
	return p
}

func peers(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		p := newPeer("network")
		p.NetIDs, p.NSIDs = []lorawan.NetID{{0, 0, 1}, {0, 0, 2}}, []lorawan.EUI64{{1}, {2}}
		p.ASIDs = []string{"as.example.com", "as.example.org"}
		p.ClearKeys, p.OmitSessionKeyID, p.DiscloseDevices, p.IgnoreNSID, p.Suspended = true, true, true, true, true
		p.AppSKeyAtLeast = joinery.AppSKeyByID
		p.Credentials = []joinery.Credential{
			{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256([]byte("key"))},
			{Kind: joinery.CredentialCA, CA: []byte("dedicated")},
			{Kind: joinery.CredentialCASAN, CA: []byte("shared"), SAN: "ns.example.com"},
		}
		p = w.addPeer(p)
		second := newPeer("second")
		second.NetIDs = p.NetIDs // a NetID may be shared
		second = w.addPeer(second)
		got, err := w.Peers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Peer{p, second})

		p.Name, p.NetIDs, p.ASIDs, p.ClearKeys, p.Credentials = "renamed", p.NetIDs[:1], nil, false, p.Credentials[:1]
		w.ok(w.ChangePeer(w.ctx, p, w.audit(joinery.AuditPeerChanged)))
		second.ASIDs = []string{"as.example.com"} // free again
		w.ok(w.ChangePeer(w.ctx, second))
		w.ok(w.SuspendPeer(w.ctx, second.ID, true, w.audit(joinery.AuditPeerChanged)))
		second.Suspended = true
		got, err = w.Peers(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.Peer{p, second})

		clash := newPeer("third")
		clash.ASIDs = second.ASIDs
		w.refused(w.AddPeer(w.ctx, clash, nil), joinery.CodeConflict)
		p.Name = "second"
		w.refused(w.ChangePeer(w.ctx, p), joinery.CodeConflict)

		w.ok(w.RemovePeer(w.ctx, second.ID, w.audit(joinery.AuditPeerRemoved)))
		w.refused(w.ChangePeer(w.ctx, second), joinery.CodeNotFound)
		clash.Name = "second"
		w.ok(w.AddPeer(w.ctx, clash, nil)) // name and AS-ID are free again
		w.CheckInvariants(t)
	}
}

func credentials(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		spki := joinery.Credential{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256([]byte("key"))}
		ca := joinery.Credential{Kind: joinery.CredentialCA, CA: []byte("ca")}
		san := joinery.Credential{Kind: joinery.CredentialCASAN, CA: []byte("ca"), SAN: "a"}
		otherSAN := joinery.Credential{Kind: joinery.CredentialCASAN, CA: []byte("ca"), SAN: "b"}
		for _, c := range []struct {
			name  string
			a, b  joinery.Credential
			clash bool
		}{
			{"one key", spki, spki, true}, {"one CA", ca, ca, true}, {"one name under one CA", san, san, true},
			{"a dedicated CA, then shared", ca, san, true}, {"a shared CA, then dedicated", san, ca, true},
			{"two names under one CA", san, otherSAN, false}, {"a key and a CA", spki, ca, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t, open)
				a, b := newPeer("a"), newPeer("b")
				a.Credentials, b.Credentials = []joinery.Credential{c.a}, []joinery.Credential{c.b}
				w.addPeer(a)
				err := w.AddPeer(w.ctx, b, nil)
				if !c.clash {
					w.ok(err)
				} else {
					w.refused(err, joinery.CodeConflict)
				}
				w.CheckInvariants(t)
			})
		}
	}
}

func keks(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		p := w.addPeer(newPeer("network"))
		k := joinery.KEK{ID: joinery.NewKEKID(), Peer: p.ID, Role: joinery.KEKForNS, Label: "ns-1", Version: 1, Sealed: randomBytes(60), CreatedAt: epoch}
		next := k
		next.ID, next.Label, next.Version = joinery.NewKEKID(), "ns-2", 2
		a := w.audit(joinery.AuditKEKAdded)
		w.ok(w.AddKEK(w.ctx, k, a))
		w.ok(w.AddKEK(w.ctx, next, a))
		for name, spoil := range map[string]func(*joinery.KEK){
			"label":   func(k *joinery.KEK) { k.Label = "ns-1" },
			"version": func(k *joinery.KEK) { k.Version = 2 },
		} {
			clash := next
			clash.ID, clash.Label, clash.Version = joinery.NewKEKID(), "ns-3", 3
			spoil(&clash)
			if err := w.AddKEK(w.ctx, clash, a); joinery.CodeOf(err) != joinery.CodeConflict {
				t.Errorf("same %s: %v", name, err)
			}
		}
		got, err := w.KEKs(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.KEK{k, next})
		w.ok(w.RetireKEK(w.ctx, k.ID, w.audit(joinery.AuditKEKRetired)))
		w.ok(w.RetireKEK(w.ctx, k.ID, w.audit(joinery.AuditKEKRetired)))
		w.ok(w.RemovePeer(w.ctx, p.ID, w.audit(joinery.AuditPeerRemoved)))
		k.Retired, next.Retired = true, true
		got, err = w.KEKs(w.ctx)
		w.ok(err)
		w.equal(got, []joinery.KEK{k, next}) // they outlive their peer
		// A peer comes with its KEKs or not at all.
		third := newPeer("third")
		first := joinery.KEK{ID: joinery.NewKEKID(), Peer: third.ID, Role: joinery.KEKForNS, Label: "third-1", Version: 1, Sealed: randomBytes(60), CreatedAt: epoch}
		taken := joinery.KEK{ID: joinery.NewKEKID(), Peer: third.ID, Role: joinery.KEKForAS, Label: k.Label, Version: 1, Sealed: randomBytes(60), CreatedAt: epoch}
		w.refused(w.AddPeer(w.ctx, third, []joinery.KEK{first, taken}), joinery.CodeConflict)
		taken.Label = "third-2"
		w.ok(w.AddPeer(w.ctx, third, []joinery.KEK{first, taken}, a)) // nothing of it was left

		w.refused(w.AddKEK(w.ctx, joinery.KEK{ID: joinery.NewKEKID(), Peer: p.ID, Role: joinery.KEKForAS, Label: "as", Version: 1, Sealed: randomBytes(60)}, a), joinery.CodeNotFound)
		w.CheckInvariants(t)
	}
}

func apiKeys(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		mine := joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: w.org, Name: "ci", Hash: sha256.Sum256(randomBytes(32)), CreatedAt: epoch, ExpiresAt: epoch.Add(time.Hour)}
		operators := joinery.APIKey{ID: joinery.NewAPIKeyID(), Operator: true, Name: "ops", Hash: sha256.Sum256(randomBytes(32)), CreatedAt: epoch}
		a := w.audit(joinery.AuditAPIKeyMade)
		w.ok(w.AddAPIKey(w.ctx, mine, a))
		w.ok(w.AddAPIKey(w.ctx, operators, a))
		for _, want := range []joinery.APIKey{mine, operators} {
			got, err := w.APIKey(w.ctx, want.ID)
			w.ok(err)
			w.equal(got, want)
		}
		all, err := w.APIKeys(w.ctx, 0)
		w.ok(err)
		w.equal(all, []joinery.APIKey{mine, operators})
		some, err := w.APIKeys(w.ctx, w.org)
		w.ok(err)
		w.equal(some, []joinery.APIKey{mine})

		// A plain key of the operator's own organisation acts for that.
		orgs, err := w.Orgs(w.ctx)
		w.ok(err)
		orgs = slices.DeleteFunc(orgs, func(o joinery.Organisation) bool { return o.ID == w.org })
		plain := joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: orgs[0].ID, Name: "own", Hash: sha256.Sum256(randomBytes(32)), CreatedAt: epoch}
		w.ok(w.AddAPIKey(w.ctx, plain, a))
		got, err := w.APIKey(w.ctx, plain.ID)
		w.ok(err)
		w.equal(got, plain)
		some, err = w.APIKeys(w.ctx, plain.Org)
		w.ok(err)
		w.equal(some, []joinery.APIKey{plain})
		w.refused(w.AddAPIKey(w.ctx, joinery.APIKey{ID: joinery.NewAPIKeyID(), Name: "nobody's", CreatedAt: epoch}, a), joinery.CodeInvalid)

		w.ok(w.RevokeAPIKey(w.ctx, mine.ID, epoch.Add(time.Minute), w.audit(joinery.AuditAPIKeyRevoked)))
		w.ok(w.RevokeAPIKey(w.ctx, mine.ID, epoch.Add(time.Hour), w.audit(joinery.AuditAPIKeyRevoked)))
		got, err = w.APIKey(w.ctx, mine.ID)
		w.ok(err)
		w.equal(got.RevokedAt, epoch.Add(time.Minute)) // the first time counts
	}
}

func audits(open func(testing.TB) Backend) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, open)
		s := w.add(derived(1))
		before, err := w.AuditEntries(w.ctx, 0, 1000)
		w.ok(err)
		last := before[len(before)-1].ID

		full := joinery.AuditEntry{
			At: epoch.Add(time.Second), Event: joinery.AuditDeviceSuspended, Actor: "socket uid 0", Org: w.org, Device: s.Device.ID, Peer: joinery.NewPeerID(),
			Detail: map[string]string{"a": "1", "b": "é\"\\"},
		}
		bare := joinery.AuditEntry{At: epoch, Event: joinery.AuditDeviceResumed, Actor: "key"}
		w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, true, full))
		w.ok(w.SetSuspended(w.ctx, s.Device.ID, w.org, false, bare))
		// What fails leaves no entry.
		w.refused(w.SetSuspended(w.ctx, joinery.NewDeviceID(), w.org, true, full), joinery.CodeNotFound)

		got, err := w.AuditEntries(w.ctx, last, 10)
		w.ok(err)
		full.ID, bare.ID = got[0].ID, got[1].ID
		w.equal(got, []joinery.AuditEntry{full, bare})
		if full.ID <= last || bare.ID <= full.ID {
			t.Fatalf("ids %d, %d, %d do not rise", last, full.ID, bare.ID)
		}
		one, err := w.AuditEntries(w.ctx, last, 1)
		w.ok(err)
		w.equal(one, got[:1])
		w.CheckInvariants(t)
	}
}

// runForeign calls everything with ids that do not exist.
func runForeign(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	w.ok(w.Ping(w.ctx))
	before, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	device, org, a := joinery.NewDeviceID(), joinery.NewOrgID(), w.audit(joinery.AuditDeviceBound)
	noDevice := derived(1)
	calls := map[string]func() error{
		"Activation":    func() error { _, err := w.Activation(w.ctx, joinery.NewActivationID()); return err },
		"Activations":   func() error { _, err := w.Activations(w.ctx, device, 1); return err },
		"Device":        func() error { _, err := w.Device(w.ctx, device); return err },
		"ManifestEntry": func() error { _, _, err := w.ManifestEntry(w.ctx, device); return err },
		"SetSuspended":  func() error { return w.SetSuspended(w.ctx, device, w.org, true, a) },
		"DeleteDevice":  func() error { return w.DeleteDevice(w.ctx, device, w.org, a) },
		"OpenReset":     func() error { return w.OpenReset(w.ctx, device, w.org, epoch, 0, a) },
		"Claim":         func() error { return w.Claim(w.ctx, device, 0, w.org, nil, a) },
		"SetBinding":    func() error { return w.SetBinding(w.ctx, device, w.org, 0, binding(), a) },
		"unbind":        func() error { return w.SetBinding(w.ctx, device, w.org, 0, nil, a) },
		"SetRoaming": func() error {
			return w.SetRoaming(w.ctx, joinery.RoamingRule{Org: w.org, Device: device, NetIDs: []lorawan.NetID{netID}}, a)
		},
		"SetRoaming of no organisation": func() error {
			return w.SetRoaming(w.ctx, joinery.RoamingRule{Org: org, NetIDs: []lorawan.NetID{netID}}, a)
		},
		"Import":       func() error { _, err := w.Import(w.ctx, joinery.NewImportID()); return err },
		"ImportErrors": func() error { _, err := w.ImportErrors(w.ctx, joinery.NewImportID(), 0, 10); return err },
		"CommitRows": func() error {
			_, err := w.CommitRows(w.ctx, joinery.ImportRows{Import: joinery.NewImportID(), Count: 1, Devices: []joinery.NewDevice{noDevice}}, a)
			return err
		},
		"BeginImport of no organisation": func() error {
			_, err := w.BeginImport(w.ctx, joinery.Import{Org: org, Kind: joinery.ImportKeyList, CreatedAt: epoch})
			return err
		},
		"AssignRange of no organisation": func() error { return w.AssignRange(w.ctx, joinery.JoinEUIRange{Org: org}, a) },
		"AddPeer of no organisation": func() error {
			p := newPeer("peer")
			p.Org = org
			return w.AddPeer(w.ctx, p, nil, a)
		},
		"ChangePeer":   func() error { return w.ChangePeer(w.ctx, newPeer("peer"), a) },
		"SuspendPeer":  func() error { return w.SuspendPeer(w.ctx, joinery.NewPeerID(), true, a) },
		"RemovePeer":   func() error { return w.RemovePeer(w.ctx, joinery.NewPeerID(), a) },
		"RetireKEK":    func() error { return w.RetireKEK(w.ctx, joinery.NewKEKID(), a) },
		"RemoveSigner": func() error { return w.RemoveSigner(w.ctx, joinery.NewSignerID(), a) },
		"AddKEK": func() error {
			return w.AddKEK(w.ctx, joinery.KEK{ID: joinery.NewKEKID(), Peer: joinery.NewPeerID(), Role: joinery.KEKForNS, Label: "l", Version: 1, Sealed: []byte{1}}, a)
		},
		"APIKey":       func() error { _, err := w.APIKey(w.ctx, joinery.NewAPIKeyID()); return err },
		"RevokeAPIKey": func() error { return w.RevokeAPIKey(w.ctx, joinery.NewAPIKeyID(), epoch, a) },
		"AddAPIKey of no organisation": func() error {
			return w.AddAPIKey(w.ctx, joinery.APIKey{ID: joinery.NewAPIKeyID(), Org: org, CreatedAt: epoch}, a)
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			if err := call(); joinery.CodeOf(err) != joinery.CodeNotFound {
				t.Fatalf("got %v, want %s", err, joinery.CodeNotFound)
			}
		})
	}
	_, err = w.LoadActivation(w.ctx, joinEUI, devEUI(1))
	w.refused(err, joinery.CodeUnknownDevice)
	after, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	w.equal(after, before)
	w.CheckInvariants(t)
}
