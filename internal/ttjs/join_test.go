package ttjs_test

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"joinery"
	"joinery/internal/activation"
	"joinery/internal/fleet"
	"joinery/internal/provisioning"
	"joinery/internal/seal"
	"joinery/internal/sim/device"
	"joinery/internal/sim/element"
	"joinery/lorawan"
)

// network adds a Network Server with its KEK.
func (f *fixture) network(t testing.TB) activation.Requester {
	t.Helper()
	cert := f.ca.leaf(t)
	key := make([]byte, 16)
	rand.Read(key)
	h, k, err := seal.SealKEK(keys.TransportKey(), "ns", "ns-000013", key)
	if err != nil {
		t.Fatal(err)
	}
	p := must[joinery.Peer](t)(f.fleet.AddPeer(t.Context(), operator, joinery.Peer{Org: f.org, Name: "network", NetIDs: []lorawan.NetID{netID},
		Credentials: []joinery.Credential{{Kind: joinery.CredentialSPKI, SPKI: sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)}}},
		[]fleet.NewKEK{{Role: joinery.KEKForNS, Label: k.Label, Header: h, Wrapped: k.Wrapped, MAC: k.MAC}}, fleet.PeerConfirm{}))
	return activation.Requester{Peer: p, NetID: netID}
}

// simulated imports a device with keys, and gives it as the simulator makes it, with
// its owner token.
func (f *fixture) simulated(t testing.TB) (*device.Device, string) {
	t.Helper()
	ctx := t.Context()
	caller := joinery.Caller{Org: f.org, Name: "test"}
	imports := provisioning.New(f.db, f.db, keys)
	nwk, app := make([]byte, 16), make([]byte, 16)
	rand.Read(nwk)
	rand.Read(app)
	sealer := must[*seal.Sealer](t)(seal.NewSealer(keys.TransportKey()))
	row := seal.SealedRow{Line: 1, JoinEUI: joinEUI, DevEUI: lorawan.EUI64{0, 4, 0xA3, 0x10, 9, 9, 9, 9}, MACVersion: lorawan.MAC1_1, Root10: seal.RootNwkKey}
	if err := sealer.SealRow(&row, nwk, app); err != nil {
		t.Fatal(err)
	}
	i := must[joinery.Import](t)(imports.Begin(ctx, caller, provisioning.Spec{Org: f.org, Kind: joinery.ImportKeyList, SHA256: [32]byte{7}}))
	rows, _, err := imports.Rows(ctx, caller, provisioning.Chunk{Import: i.ID, Last: true, Seal: sealer.Header(), Keys: []seal.SealedRow{row}})
	if err != nil || rows[0].Status != joinery.RowCreated {
		t.Fatalf("%+v, %v", rows, err)
	}
	e := must[*element.Element](t)(element.Provision(joinEUI, row.DevEUI, nwk, app))
	return must[*device.Device](t)(device.New(e, lorawan.MAC1_1, device.Options{})), must[string](t)(f.claim.OwnerToken(ctx, caller, rows[0].Device))
}

// A device that was claimed joins, and its AppSKey goes to who claimed it, under the
// KEK of the claim; it goes nowhere else, and ends with the claim.
func TestClaimedDeviceJoins(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	ns := f.network(t)
	f.here.ClaimKEKs = true
	f.here.Peer = must[joinery.Peer](t)(f.fleet.ChangePeer(ctx, operator, f.here.Peer, fleet.PeerConfirm{}))
	js := activation.New(f.db, keys, f.fleet.Directory(), activation.Options{})
	d, token := f.simulated(t)
	join := func() (activation.JoinAnswer, error) {
		return js.Join(ctx, activation.JoinRequest{
			Requester: ns, JoinEUI: joinEUI, DevEUI: d.DevEUI(), MACVersion: lorawan.MAC1_1,
			PHYPayload: must[[]byte](t)(d.JoinRequest()), DevAddr: lorawan.DevAddr{0x26, 1, 2, 3}, DLSettings: 0x83, RxDelay: 1,
		})
	}
	fetch := func(p party, session []byte) (activation.Envelope, error) {
		return js.AppSKey(ctx, activation.AppSKeyRequest{Peer: p.Peer, ASID: p.ASIDs[0], JoinEUI: joinEUI, DevEUI: d.DevEUI(), SessionKeyID: session})
	}
	wantCode := func(what string, err error, want joinery.Code) {
		t.Helper()
		if joinery.CodeOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	opens := func(what string, e activation.Envelope) {
		t.Helper()
		key := must[[]byte](t)(hex.DecodeString(oneKey))
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		appSKey, err := seal.UnwrapKey(nil, block, e.AESKey)
		if err != nil || e.KEKLabel != "tts" || !d.HoldsSessionKey(element.AppSKey, appSKey) {
			t.Errorf("%s: under %q: %v", what, e.KEKLabel, err)
		}
	}

	_, err := join()
	wantCode("before the claim", err, joinery.CodeUnknownDevice)
	here, there := f.as(t, f.here), f.as(t, f.there)
	here.kek = &clientKEK{"tts", oneKey}
	wantUser(t, "claim", here.Claim(ctx, d.DevEUI(), token), nil)
	answer := must[activation.JoinAnswer](t)(join())
	if _, err := d.HandleAccept(answer.PHYPayload); err != nil {
		t.Fatal(err)
	}
	opens("with the join", answer.AppSKey)
	for _, e := range []activation.Envelope{answer.FNwkSIntKey, answer.SNwkSIntKey, answer.NwkSEncKey} {
		if e.KEKLabel != "ns-000013" {
			t.Errorf("a network session key is under %q", e.KEKLabel)
		}
	}
	opens("asked for", must[activation.Envelope](t)(fetch(f.here, answer.SessionKeyID)))
	_, err = fetch(f.there, answer.SessionKeyID)
	wantCode("asked for by another", err, joinery.CodeUnknownDevice)

	// The next to have it has nothing of before.
	wantUser(t, "unclaim", here.Unclaim(ctx, d.DevEUI()), nil)
	_, err = join()
	wantCode("after the unclaim", err, joinery.CodeUnknownDevice)
	wantUser(t, "claim by another", there.Claim(ctx, d.DevEUI(), token), nil)
	for _, p := range []party{f.here, f.there} {
		_, err := fetch(p, answer.SessionKeyID)
		wantCode("the old session, asked for by "+p.Name, err, joinery.CodeUnknownDevice)
	}
	// Without a KEK its Application Server gets nothing, and nothing goes unwrapped.
	answer = must[activation.JoinAnswer](t)(join())
	if len(answer.AppSKey.AESKey) != 0 || len(answer.SessionKeyID) == 0 {
		t.Errorf("AppSKey %v, SessionKeyID of %d bytes", answer.AppSKey, len(answer.SessionKeyID))
	}
	_, err = fetch(f.there, answer.SessionKeyID)
	wantCode("without a KEK", err, joinery.CodeKEKMissing)
	f.findsNowhere(t, oneKey)
}
