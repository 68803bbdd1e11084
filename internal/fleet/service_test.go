package fleet

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/seal"
	"joinery/internal/store"
	"joinery/lorawan"
)

var operator = joinery.Caller{Operator: true, Name: "socket uid 0"}

// fixture is a Service over a database file and a software keyring.
type fixture struct {
	*Service
	db   *store.DB
	keys *keyring.Keyring
	log  *bytes.Buffer
	// org is the operator's; acme and other are tenants with an API key each.
	org, acme, other joinery.OrgID
}

func (f fixture) tenant(org joinery.OrgID) joinery.Caller {
	return joinery.Caller{Org: org, Name: "key of " + org.String()}
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	f := fixture{db: newStore(t), keys: keys, log: new(bytes.Buffer)}
	f.Service = New(f.db, f.keys, Options{Log: slog.New(slog.NewTextHandler(f.log, nil))})
	orgs, err := f.Orgs(t.Context(), operator)
	if err != nil {
		t.Fatal(err)
	}
	f.org = orgs[0].ID
	for _, to := range []struct {
		name string
		id   *joinery.OrgID
	}{{"Acme", &f.acme}, {"Other", &f.other}} {
		o, err := f.AddOrg(t.Context(), operator, to.name, nil)
		if err != nil {
			t.Fatal(err)
		}
		*to.id = o.ID
	}
	if err := f.Directory().Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantCode(t testing.TB, err error, want joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != want {
		t.Errorf("got %v; want code %q", err, want)
	}
}

// newKEK seals a random KEK to the keyring's transport key.
func (f fixture) newKEK(t testing.TB, role joinery.KEKRole, label string, size int) NewKEK {
	t.Helper()
	key := make([]byte, size)
	rand.Read(key)
	h, k, err := seal.SealKEK(f.keys.TransportKey(), string(role), label, key)
	if err != nil {
		t.Fatal(err)
	}
	return NewKEK{Role: role, Label: label, Header: h, Wrapped: k.Wrapped, MAC: k.MAC}
}

func (f fixture) networkServer(name string, netID byte, credentials ...joinery.Credential) joinery.Peer {
	return joinery.Peer{Org: f.org, Name: name, NetIDs: []lorawan.NetID{{0, 0, netID}}, Credentials: credentials}
}

func (f fixture) mustAdd(t testing.TB, p joinery.Peer, roles ...joinery.KEKRole) joinery.Peer {
	t.Helper()
	var keks []NewKEK
	for _, role := range roles {
		keks = append(keks, f.newKEK(t, role, p.Name+"-"+string(role), 16))
	}
	added, err := f.AddPeer(t.Context(), operator, p, keks, PeerConfirm{})
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// events gives the audit events from after on, with their actors.
func (f fixture) events(t testing.TB) []string {
	t.Helper()
	list, _, err := f.Audit(t.Context(), operator, 0, maxPage)
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range list {
		if e.Event == joinery.AuditImportCommitted {
			continue // the store's own, beside what somebody imported
		}
		if e.Actor != operator.Name && !strings.HasPrefix(e.Actor, "key of ") {
			t.Errorf("event %s has the actor %q", e.Event, e.Actor)
		}
		events = append(events, string(e.Event))
	}
	return events
}

func TestPeerLife(t *testing.T) {
	f := newFixture(t)
	ca, next := newCA(t, "CA"), newCA(t, "Next")
	leaf, nextLeaf := ca.leaf(t), next.leaf(t)
	resolve := func(c *x509.Certificate) (joinery.Peer, joinery.Code) {
		p, err := f.Directory().Resolve([]*x509.Certificate{c}, time.Now())
		return p, joinery.CodeOf(err)
	}
	if _, code := resolve(leaf); code != joinery.CodeUnauthenticated {
		t.Fatalf("before: %q", code)
	}

	p := f.networkServer("ns", 1, byCA(ca))
	p.ASIDs = []string{"as.example.com"}
	p = f.mustAdd(t, p, joinery.KEKForNS, joinery.KEKForAS)
	got, code := resolve(leaf)
	if code != "" || got.ID != p.ID {
		t.Fatalf("added: %q", code)
	}
	for _, role := range []joinery.KEKRole{joinery.KEKForNS, joinery.KEKForAS} {
		k, ok := f.Directory().CurrentKEK(p.ID, role)
		if !ok || k.Label != "ns-"+string(role) || k.Version != 1 {
			t.Errorf("%s KEK: %v %v", role, k.Label, ok)
		}
		if err := f.keys.CheckKEK(t.Context(), k); err != nil {
			t.Errorf("%s KEK does not open: %v", role, err)
		}
	}
	if by, ok := f.Directory().PeerByASID("as.example.com"); !ok || by.ID != p.ID {
		t.Error("not found by its AS-ID")
	}

	p.Credentials, p.OmitSessionKeyID = []joinery.Credential{byCA(next)}, true
	p.Org = f.acme // is not changed
	changed, err := f.ChangePeer(t.Context(), operator, p, PeerConfirm{})
	if err != nil || changed.Org != f.org {
		t.Fatalf("change: %v, organisation %v", err, changed.Org)
	}
	if _, code := resolve(leaf); code != joinery.CodeUnauthenticated {
		t.Errorf("old credential: %q", code)
	}
	if got, code := resolve(nextLeaf); code != "" || !got.OmitSessionKeyID {
		t.Errorf("new credential: %q", code)
	}

	changed.Suspended = true
	if _, err := f.ChangePeer(t.Context(), operator, changed, PeerConfirm{}); err != nil {
		t.Fatal(err)
	}
	if _, code := resolve(nextLeaf); code != joinery.CodeForbidden {
		t.Errorf("suspended: %q", code)
	}

	if err := f.RemovePeer(t.Context(), operator, p.ID); err != nil {
		t.Fatal(err)
	}
	if _, code := resolve(nextLeaf); code != joinery.CodeUnauthenticated {
		t.Errorf("removed: %q", code)
	}
	if _, ok := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); ok {
		t.Error("the KEK of a removed peer wraps")
	}
	wantCode(t, f.RemovePeer(t.Context(), operator, p.ID), joinery.CodeNotFound)

	want := []string{"org.added", "org.added", "peer.added", "kek.added", "kek.added", "peer.changed", "peer.changed", "peer.removed"}
	if got := f.events(t); !slices.Equal(got, want) {
		t.Errorf("audit: %v", got)
	}
}

// TestDirectoryAfterRestart reads what another process stored.
func TestDirectoryAfterRestart(t *testing.T) {
	f := newFixture(t)
	ca := newCA(t, "CA")
	f.mustAdd(t, f.networkServer("ns", 1, byCA(ca)), joinery.KEKForNS)
	fresh := New(f.db, f.keys, Options{})
	chain := []*x509.Certificate{ca.leaf(t)}
	if _, err := fresh.Directory().Resolve(chain, time.Now()); joinery.CodeOf(err) != joinery.CodeUnauthenticated {
		t.Errorf("before the first reload: %v", err)
	}
	if err := fresh.Directory().Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err := fresh.Directory().Resolve(chain, time.Now()); err != nil || p.Name != "ns" {
		t.Errorf("got %q, %v", p.Name, err)
	}
}

func TestConsent(t *testing.T) {
	f := newFixture(t)
	add := func(edit func(*joinery.Peer), roles []joinery.KEKRole, confirm string) error {
		n := fmt.Sprint("peer ", joinery.NewPeerID())
		p := joinery.Peer{Org: f.org, Name: n, Credentials: []joinery.Credential{byPin(selfSigned(t))}}
		edit(&p)
		var keks []NewKEK
		for _, role := range roles {
			keks = append(keks, f.newKEK(t, role, n+string(role), 16))
		}
		_, err := f.AddPeer(t.Context(), operator, p, keks, PeerConfirm{ClearKeysFor: strings.ReplaceAll(confirm, "NAME", n)})
		return err
	}
	var next byte
	ns := func(p *joinery.Peer) { next++; p.NetIDs = []lorawan.NetID{{0, 1, next}} }
	as := func(p *joinery.Peer) { next++; p.ASIDs = []string{fmt.Sprint("as", next)} }
	both := func(p *joinery.Peer) { ns(p); as(p) }
	inClear := func(f func(*joinery.Peer)) func(*joinery.Peer) {
		return func(p *joinery.Peer) { f(p); p.ClearKeys = true }
	}
	forNS, forAS := []joinery.KEKRole{joinery.KEKForNS}, []joinery.KEKRole{joinery.KEKForAS}
	for name, c := range map[string]struct {
		edit    func(*joinery.Peer)
		roles   []joinery.KEKRole
		confirm string
		want    joinery.Code
	}{
		"NS with KEK":                 {ns, forNS, "", ""},
		"NS without KEK":              {ns, nil, "", joinery.CodeInvalid},
		"NS, clear, unconfirmed":      {inClear(ns), nil, "", joinery.CodeInvalid},
		"NS, clear, wrong name":       {inClear(ns), nil, "yes", joinery.CodeInvalid},
		"NS, clear, confirmed":        {inClear(ns), nil, "NAME", ""},
		"NS with KEK, clear":          {inClear(ns), forNS, "", joinery.CodeInvalid},
		"NS, confirmed, not set":      {ns, forNS, "NAME", joinery.CodeInvalid},
		"NS with an AS KEK":           {ns, forAS, "", joinery.CodeInvalid},
		"AS with KEK":                 {as, forAS, "", ""},
		"AS without KEK":              {as, nil, "", joinery.CodeInvalid},
		"AS with an NS KEK":           {as, forNS, "", joinery.CodeInvalid},
		"both, AS KEK only":           {both, forAS, "", joinery.CodeInvalid},
		"both, NS KEK only":           {both, forNS, "", ""},
		"both, confirmed, no KEK":     {inClear(both), nil, "NAME", ""},
		"KEK of a role there is none": {both, []joinery.KEKRole{"js"}, "", joinery.CodeInvalid},
	} {
		if err := add(c.edit, c.roles, c.confirm); joinery.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	allowed := 0
	for _, e := range f.events(t) {
		if e == string(joinery.AuditClearKeysAllowed) {
			allowed++
		}
	}
	if allowed != 2 {
		t.Errorf("%d consents in the audit log, want 2", allowed)
	}
}

func TestConsentOfChange(t *testing.T) {
	f := newFixture(t)
	p := f.mustAdd(t, f.networkServer("ns", 1, byPin(selfSigned(t))), joinery.KEKForNS)
	change := func(edit func(*joinery.Peer), confirm string) joinery.Code {
		changed := p
		edit(&changed)
		changed, err := f.ChangePeer(t.Context(), operator, changed, PeerConfirm{ClearKeysFor: confirm})
		if err == nil {
			p = changed
		}
		return joinery.CodeOf(err)
	}
	for i, c := range []struct {
		edit    func(*joinery.Peer)
		confirm string
		want    joinery.Code
	}{
		{func(p *joinery.Peer) { p.ClearKeys = true }, "", joinery.CodeInvalid},
		{func(p *joinery.Peer) { p.ClearKeys = true }, "other", joinery.CodeInvalid},
		{func(p *joinery.Peer) { p.ClearKeys = true }, "ns", ""},
		{func(p *joinery.Peer) { p.Name = "renamed" }, "", ""}, // consent stands
		{func(p *joinery.Peer) { p.ClearKeys = false }, "", ""},
		{func(p *joinery.Peer) { p.ClearKeys = true }, "ns", joinery.CodeInvalid}, // the old name
		{func(p *joinery.Peer) { p.Credentials = nil }, "", joinery.CodeInvalid},
		{func(p *joinery.Peer) { p.ID = joinery.NewPeerID() }, "", joinery.CodeNotFound},
	} {
		if code := change(c.edit, c.confirm); code != c.want {
			t.Errorf("change %d: %q, want %q", i, code, c.want)
		}
	}

	// An Application Server that becomes a Network Server, too, needs a KEK for it.
	as := f.mustAdd(t, joinery.Peer{Org: f.org, Name: "as", ASIDs: []string{"as"}, Credentials: []joinery.Credential{byPin(selfSigned(t))}}, joinery.KEKForAS)
	as.NetIDs = []lorawan.NetID{{0, 0, 2}}
	_, err := f.ChangePeer(t.Context(), operator, as, PeerConfirm{})
	wantCode(t, err, joinery.CodeInvalid)
}

func TestAmbiguityIsRefused(t *testing.T) {
	f := newFixture(t)
	ca, leaf := newCA(t, "CA"), selfSigned(t)
	first := f.mustAdd(t, f.networkServer("first", 1, byCA(ca), byPin(leaf)), joinery.KEKForNS)
	for name, p := range map[string]joinery.Peer{
		"same CA":    f.networkServer("second", 2, byCA(ca)),
		"CA, shared": f.networkServer("second", 2, bySAN(ca, "b.example.com")),
		"same pin":   f.networkServer("second", 2, byPin(leaf)),
		"same name":  f.networkServer("First", 2, byPin(selfSigned(t))),
		"same NetID": f.networkServer("second", 1, byPin(selfSigned(t))),
	} {
		_, err := f.AddPeer(t.Context(), operator, p, []NewKEK{f.newKEK(t, joinery.KEKForNS, "label", 16)}, PeerConfirm{})
		if joinery.CodeOf(err) != joinery.CodeConflict || !strings.Contains(joinery.MessageOf(err), "first") {
			t.Errorf("%s: %v", name, err)
		}
	}
	second := f.mustAdd(t, f.networkServer("second", 2, byPin(selfSigned(t))), joinery.KEKForNS)
	second.Credentials = first.Credentials
	_, err := f.ChangePeer(t.Context(), operator, second, PeerConfirm{})
	wantCode(t, err, joinery.CodeConflict)

	// The same, twice within one peer.
	twice := f.networkServer("third", 3, byPin(selfSigned(t)))
	twice.Credentials = append(twice.Credentials, twice.Credentials...)
	_, err = f.AddPeer(t.Context(), operator, twice, []NewKEK{f.newKEK(t, joinery.KEKForNS, "label", 16)}, PeerConfirm{})
	wantCode(t, err, joinery.CodeInvalid)
	peers, err := f.Peers(t.Context(), operator)
	if err != nil || len(peers) != 2 {
		t.Errorf("%d peers, %v", len(peers), err)
	}
}

func TestKEKs(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	p := f.mustAdd(t, f.networkServer("ns", 1, byPin(selfSigned(t))), joinery.KEKForNS)
	for version, size := range map[uint32]int{2: 24} {
		k, err := f.AddKEK(ctx, operator, p.ID, f.newKEK(t, joinery.KEKForNS, "v2", size))
		if err != nil || k.Version != version {
			t.Fatalf("version %d, %v", k.Version, err)
		}
	}
	third, err := f.AddKEK(ctx, operator, p.ID, f.newKEK(t, joinery.KEKForNS, "v3", 32))
	if err != nil || third.Version != 3 {
		t.Fatalf("version %d, %v", third.Version, err)
	}
	if k, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); k.ID != third.ID {
		t.Errorf("version %d wraps", k.Version)
	}

	refused := func(name string, n NewKEK, want joinery.Code) {
		t.Helper()
		if _, err := f.AddKEK(ctx, operator, p.ID, n); joinery.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("label in use", f.newKEK(t, joinery.KEKForNS, "v3", 16), joinery.CodeConflict)
	refused("label malformed", f.newKEK(t, joinery.KEKForNS, "v\n4", 16), joinery.CodeInvalid)
	refused("role of no AS", f.newKEK(t, joinery.KEKForAS, "v4", 16), joinery.CodeInvalid)
	damaged := f.newKEK(t, joinery.KEKForNS, "v4", 16)
	damaged.Wrapped[3] ^= 1
	refused("damaged", damaged, joinery.CodeInvalid)
	relabelled := f.newKEK(t, joinery.KEKForNS, "v5", 16)
	relabelled.Label = "v4"
	refused("sealed for another label", relabelled, joinery.CodeInvalid)
	elsewhere := f.newKEK(t, joinery.KEKForNS, "v4", 16)
	private, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	otherServer, err := seal.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	h, k, err := seal.SealKEK(otherServer, "ns", "v4", make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Header, elsewhere.Wrapped, elsewhere.MAC = h, k.Wrapped, k.MAC
	refused("sealed to another server", elsewhere, joinery.CodeInvalid)

	if err := f.RetireKEK(ctx, operator, third.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.RetireKEK(ctx, operator, third.ID); err != nil {
		t.Errorf("retired twice: %v", err)
	}
	if k, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS); k.Version != 2 {
		t.Errorf("after retirement version %d wraps", k.Version)
	}
	refused("label of a retired KEK", f.newKEK(t, joinery.KEKForNS, "v3", 16), joinery.CodeConflict)
	fourth, err := f.AddKEK(ctx, operator, p.ID, f.newKEK(t, joinery.KEKForNS, "v4", 16))
	if err != nil || fourth.Version != 4 {
		t.Errorf("after retirement: version %d, %v", fourth.Version, err)
	}
	wantCode(t, f.RetireKEK(ctx, operator, joinery.NewKEKID()), joinery.CodeNotFound)

	keks, err := f.KEKs(ctx, operator)
	if err != nil || len(keks) != 4 {
		t.Fatalf("%d KEKs, %v", len(keks), err)
	}
	for _, k := range keks {
		if err := f.keys.CheckKEK(ctx, k); err != nil {
			t.Errorf("version %d does not open: %v", k.Version, err)
		}
	}
	if err := f.RemovePeer(ctx, operator, p.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.RetireKEK(ctx, operator, fourth.ID); err != nil {
		t.Errorf("KEK of a removed peer: %v", err)
	}
	_, err = f.AddKEK(ctx, operator, p.ID, f.newKEK(t, joinery.KEKForNS, "v5", 16))
	wantCode(t, err, joinery.CodeNotFound)
}

// TestOnlyTheOperator goes over everything that tenants must not do: the answer
// is the same whether the thing exists or not.
func TestOnlyTheOperator(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	p := f.networkServer("ns", 1, byPin(selfSigned(t)))
	p.Org = f.acme
	p = f.mustAdd(t, p, joinery.KEKForNS)
	kek, _ := f.Directory().CurrentKEK(p.ID, joinery.KEKForNS)
	n := f.newKEK(t, joinery.KEKForNS, "x", 16)
	for _, caller := range []joinery.Caller{f.tenant(f.acme), f.tenant(f.other), {}} {
		for name, call := range map[string]func() error{
			"AddPeer":      func() error { _, err := f.AddPeer(ctx, caller, p, nil, PeerConfirm{}); return err },
			"ChangePeer":   func() error { _, err := f.ChangePeer(ctx, caller, p, PeerConfirm{}); return err },
			"RemovePeer":   func() error { return f.RemovePeer(ctx, caller, p.ID) },
			"RemovePeer0":  func() error { return f.RemovePeer(ctx, caller, joinery.NewPeerID()) },
			"AddKEK":       func() error { _, err := f.AddKEK(ctx, caller, p.ID, n); return err },
			"RetireKEK":    func() error { return f.RetireKEK(ctx, caller, kek.ID) },
			"AssignRange":  func() error { _, err := f.AssignRange(ctx, caller, span(f.acme, 1, 2)); return err },
			"ReleaseRange": func() error { return f.ReleaseRange(ctx, caller, joinery.EUIRange{}) },
			"AddSigner":    func() error { _, err := f.AddSigner(ctx, caller, joinery.Signer{}); return err },
			"RemoveSigner": func() error { return f.RemoveSigner(ctx, caller, joinery.NewSignerID()) },
			"AddOrg":       func() error { _, err := f.AddOrg(ctx, caller, "New", nil); return err },
			"OpenReset":    func() error { return f.OpenReset(ctx, caller, joinery.NewDeviceID(), 0) },
		} {
			if err := call(); joinery.CodeOf(err) != joinery.CodeForbidden {
				t.Errorf("%s by %q: %v", name, caller.Name, err)
			}
		}
	}
	for _, c := range []struct {
		caller joinery.Caller
		want   int
	}{{f.tenant(f.acme), 1}, {f.tenant(f.other), 0}, {joinery.Caller{}, 0}, {operator, 1}} {
		peers, err := f.Peers(ctx, c.caller)
		keks, err2 := f.KEKs(ctx, c.caller)
		if err != nil || err2 != nil || len(peers) != c.want || len(keks) != c.want {
			t.Errorf("%q sees %d peers and %d KEKs: %v, %v", c.caller.Name, len(peers), len(keks), err, err2)
		}
	}
	_, err := f.Peer(ctx, f.tenant(f.other), p.ID)
	wantCode(t, err, joinery.CodeNotFound)
}

func TestOrgs(t *testing.T) {
	f := newFixture(t)
	for name, want := range map[string]joinery.Code{"acme": joinery.CodeConflict, "": joinery.CodeInvalid, "a\tb": joinery.CodeInvalid, "Third": ""} {
		if _, err := f.AddOrg(t.Context(), operator, name, nil); joinery.CodeOf(err) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	own, err := f.Orgs(t.Context(), f.tenant(f.acme))
	if err != nil || len(own) != 1 || own[0].ID != f.acme {
		t.Errorf("a tenant sees %v, %v", own, err)
	}
}
