package fleet

import (
	"fmt"
	"strings"
	"testing"

	"joinery"
	"joinery/internal/seal"
	"joinery/lorawan"
)

// appServer is a peer that claims devices.
func (f fixture) appServer(name string, credentials ...joinery.Credential) joinery.Peer {
	return joinery.Peer{Org: f.org, Name: name, ASIDs: []string{name + ".example.com"}, ClaimKEKs: true, Credentials: credentials}
}

// claimKEK brings a key of one repeated byte with a claim.
func (f fixture) claimKEK(t testing.TB, peer joinery.PeerID, role, label string, key ...byte) (joinery.KEKID, error) {
	t.Helper()
	bytes := make([]byte, 16*len(key))
	for i := range bytes {
		bytes[i] = key[i/16]
	}
	h, k, err := seal.SealKEK(f.keys.TransportKey(), role, label, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return f.ClaimKEK(t.Context(), peer, h, k)
}

func TestClaimKEK(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	one := f.mustAdd(t, f.appServer("one", byPin(selfSigned(t)))) // needs no KEK of its own
	two := f.mustAdd(t, f.appServer("two", byPin(selfSigned(t))), joinery.KEKForAS)
	if f.WrapsAppSKey(one.ID) || !f.WrapsAppSKey(two.ID) {
		t.Error("who has a KEK?")
	}
	must := func(id joinery.KEKID, err error) joinery.KEKID {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := must(f.claimKEK(t, one.ID, "as", "default", 1))
	if again := must(f.claimKEK(t, one.ID, "as", "default", 1)); again != first {
		t.Error("the same KEK is another one")
	}
	// Labels are each peer's own.
	others := must(f.claimKEK(t, two.ID, "as", "default", 2))
	second := must(f.claimKEK(t, one.ID, "as", "wide", 3, 4))

	refused := func(name string, peer joinery.PeerID, role, label string, want string, key ...byte) {
		t.Helper()
		_, err := f.claimKEK(t, peer, role, label, key...)
		if joinery.CodeOf(err) != joinery.CodeInvalid || !strings.Contains(joinery.MessageOf(err), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("another key", one.ID, "as", "default", "another key", 9)
	refused("a longer key", one.ID, "as", "default", "another key", 1, 1)
	refused("for a network", one.ID, "ns", "new", "nothing for a network", 1)
	refused("malformed label", one.ID, "as", " x", "label", 1)
	h, k, err := seal.SealKEK(f.keys.TransportKey(), "as", "new", make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	k.Label = "other"
	_, err = f.ClaimKEK(ctx, one.ID, h, k)
	wantCode(t, err, joinery.CodeInvalid)

	// It wraps for the bindings that name it, and never in place of the peer's own.
	if _, ok := f.Directory().CurrentKEK(one.ID, joinery.KEKForAS); ok {
		t.Error("a claim's KEK became its peer's")
	}
	if cur, _ := f.Directory().CurrentKEK(two.ID, joinery.KEKForAS); cur.Claimed || cur.ID == others {
		t.Error("a claim's KEK took the place of its peer's")
	}
	for _, id := range []joinery.KEKID{first, second, others} {
		if k, ok := f.Directory().KEK(id); !ok || !k.Claimed || k.Role != joinery.KEKForAS {
			t.Errorf("%s: %+v", id, k)
		}
	}
	// The operator's own: known by its key, never by its label alone.
	own := f.newKEK(t, joinery.KEKForAS, "ops", 16)
	if _, err := f.AddKEK(ctx, operator, one.ID, own); err != nil {
		t.Fatal(err)
	}
	refused("the operator's label", one.ID, "as", "ops", "another key", 1)
	clash := f.newKEK(t, joinery.KEKForAS, "default", 16)
	_, err = f.AddKEK(ctx, operator, one.ID, clash)
	wantCode(t, err, joinery.CodeConflict)

	if err := f.RetireKEK(ctx, operator, first); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Directory().KEK(first); ok {
		t.Error("a retired KEK wraps")
	}
	refused("retired", one.ID, "as", "default", "out of use", 1)

	// Not allowed any more, or never.
	one.ClaimKEKs = false
	if _, err := f.ChangePeer(ctx, operator, one, PeerConfirm{}); err != nil {
		t.Fatal(err)
	}
	refused("switched off", one.ID, "as", "wide", "operator", 3, 4)
	if k, ok := f.Directory().KEK(second); !ok || k.Retired {
		t.Error("bindings lost their KEK with the switch")
	}
	events := strings.Join(f.kekEvents(t), " ")
	if want := fmt.Sprintf("%[1]s:default %[2]s:default %[1]s:wide", "peer "+one.ID.String(), "peer "+two.ID.String()); events != want {
		t.Errorf("audit: %s; want %s", events, want)
	}
}

// kekEvents lists who brought which KEK with a claim.
func (f fixture) kekEvents(t testing.TB) (events []string) {
	t.Helper()
	list, _, err := f.Audit(t.Context(), operator, 0, maxPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Event == joinery.AuditKEKAdded && e.Detail["claimed"] == "true" {
			events = append(events, e.Actor+":"+e.Detail["label"])
		}
	}
	return events
}

func TestClaimKEKsAreBounded(t *testing.T) {
	f := newFixture(t)
	p := f.mustAdd(t, f.appServer("one", byPin(selfSigned(t))))
	h, k, err := seal.SealKEK(f.keys.TransportKey(), "as", "first", make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.ClaimKEK(t.Context(), p.ID, h, k)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxClaimKEKs - 1 {
		k := joinery.KEK{ID: joinery.NewKEKID(), Peer: p.ID, Role: joinery.KEKForAS, Label: fmt.Sprint(i), Version: uint32(i) + 2,
			Sealed: joinery.Sealed("x"), Claimed: true, CreatedAt: f.timestamp()}
		if err := f.db.AddKEK(t.Context(), k, joinery.AuditEntry{At: k.CreatedAt, Actor: operator.Name}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.claimKEK(t, p.ID, "as", "one too many", 1)
	wantCode(t, err, joinery.CodeInvalid)
	if again, err := f.ClaimKEK(t.Context(), p.ID, h, k); err != nil || again != first {
		t.Errorf("one that is there: %v", err)
	}
}

// What concerns claims is for peers that can make them.
func TestClaimSettingsNeedAnASID(t *testing.T) {
	f := newFixture(t)
	for _, set := range []func(*joinery.Peer){
		func(p *joinery.Peer) { p.HideExistence = true },
		func(p *joinery.Peer) { p.ClaimKEKs = true },
	} {
		p := f.networkServer("ns", 0x13, byPin(selfSigned(t)))
		set(&p)
		_, err := f.AddPeer(t.Context(), operator, p, []NewKEK{f.newKEK(t, joinery.KEKForNS, "ns", 16)}, PeerConfirm{})
		wantCode(t, err, joinery.CodeInvalid)
	}
}

func TestServed(t *testing.T) {
	f := newFixture(t)
	for _, first := range []uint64{0x70B3D57ED0001000, 0x70B3D57ED0000000} {
		r := joinery.EUIRange{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(first + 9)}
		if _, err := f.AssignRange(t.Context(), operator, joinery.JoinEUIRange{EUIRange: r, Org: f.acme}); err != nil {
			t.Fatal(err)
		}
	}
	served, err := f.Served(t.Context())
	if err != nil || len(served) != 2 || served[0].First.Uint64() != 0x70B3D57ED0000000 {
		t.Errorf("%v, %v", served, err)
	}
}
