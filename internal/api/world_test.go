package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/firmware"
	"joinery/lorawan"
)

// world is one of everything, all of it orgA's.
type world struct {
	ids         map[string]string // by prefix
	operatorKey string
	exporterKey string // of orgA, with the scope to export
	device      client.Device
	disputed    client.Dispute // about a device that the operator's organisation holds
}

func eui(t testing.TB, s string) lorawan.EUI64 {
	t.Helper()
	e, err := lorawan.ParseEUI64(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func euiRange(t testing.TB, first, last string) client.EUIRange {
	return client.EUIRange{First: eui(t, first), Last: eui(t, last)}
}

// populateRekeying makes a pinned Join Server, and an order to go there.
func (f *fixture) populateRekeying(t testing.TB, w *world) {
	t.Helper()
	server, err := f.operator.PinJoinServer(t.Context(), client.NewJoinServer{Name: "there", TransportKey: f.keys.TransportKey().MarshalDER()})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["jsv"] = server.ID.String()
	o := joinery.RekeyOrder{ID: joinery.NewRekeyID(), Device: w.device.ID, Owner: f.orgA, By: "test", At: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	a := joinery.AuditEntry{At: time.Now(), Event: joinery.AuditRekeyArmed, Actor: "test", Org: f.orgA, Device: w.device.ID}
	if err := f.db.ArmRekey(t.Context(), o, server.ID, a); err != nil {
		t.Fatal(err)
	}
	w.ids["rky"] = o.ID.String()
	b := joinery.RekeyBatch{
		ID: joinery.NewRekeyBatchID(), Org: f.orgA, State: joinery.BatchCollecting, JoinEUI: eui(t, "EC656EFFFE000001"), Server: server.ID, Life: time.Hour,
		RequestedBy: "test", RequestedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}
	if err := f.db.BeginRekeyBatch(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := f.db.AddRekeyBatchDevices(t.Context(), b.ID, []joinery.DeviceID{w.device.ID}); err != nil {
		t.Fatal(err)
	}
	w.ids["rkb"] = b.ID.String()
	x, err := f.as(t, f.keyA).AddExpectation(t.Context(), client.NewExpectation{From: server.ID, Devices: euiRange(t, "0004A31000000000", "0004A310FFFFFFFF")})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["xpc"] = x.ID.String()
	came := joinery.Arrival{
		ID: joinery.NewArrivalID(), From: server.ID, Ref: "rky_there", Org: f.orgA, JoinEUI: eui(t, "70B3D57ED0000001"), DevEUI: eui(t, "0004A41000000001"),
		Content: []byte("{}"), At: time.Now(), ChangedAt: time.Now(), OfferedAt: time.Now(),
	}
	if came, err = f.db.Arrive(t.Context(), came, 10, joinery.AuditEntry{At: time.Now(), Event: joinery.AuditRekeyArrived, Actor: "test", Org: f.orgA}); err != nil {
		t.Fatal(err)
	}
	w.ids["arr"] = came.ID.String()
}

// populateProducts makes a product with a key and a release.
func (f *fixture) populateProducts(t testing.TB, w *world) {
	t.Helper()
	c := f.as(t, f.keyA)
	p, err := c.AddProduct(t.Context(), client.NewProduct{
		Name: "meter-3", Hardware: "rev-c", DevEUIs: []client.EUIRange{euiRange(t, "0004A31000000000", "0004A310FFFFFFFF")},
		Boot: &client.BootProfile{KeySlot: 2, DigestSlot: 7},
	})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.AddProductKey(t.Context(), p.ID, client.NewProductKey{Use: "release", Public: public})
	if err != nil {
		t.Fatal(err)
	}
	st, err := firmware.Sign(firmware.Release{Product: p.Name, Hardware: p.Hardware, Version: "1.0.0", Digest: sha256.Sum256(nil)},
		func(digest [32]byte) (out [64]byte, err error) {
			r, s, err := ecdsa.Sign(rand.Reader, signer, digest[:])
			if err == nil {
				r.FillBytes(out[:32])
				s.FillBytes(out[32:])
			}
			return out, err
		})
	if err != nil {
		t.Fatal(err)
	}
	text, err := st.Text()
	if err != nil {
		t.Fatal(err)
	}
	released, err := c.AddFirmwareRelease(t.Context(), p.ID, client.NewFirmwareRelease{Statement: string(text)})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["prd"], w.ids["pky"], w.ids["rel"] = p.ID.String(), k.ID.String(), released.ID.String()
}

// populate makes one of everything for orgA.
func (f *fixture) populate(t testing.TB) *world {
	t.Helper()
	ctx := t.Context()
	w := &world{ids: map[string]string{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.operator.AssignJoinEUIRange(ctx, client.NewJoinEUIRange{EUIRange: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), Organisation: f.orgA})
	must(err)
	w.device = f.importDevice(t, f.as(t, f.keyA), eui(t, "70B3D57ED0000000"), eui(t, "0004A310001AA90A"))
	w.ids["dev"] = w.device.ID.String()
	must(f.as(t, f.keyA).Bind(ctx, w.device.ID, client.NewBinding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", AppSKey: "wrapped"}))

	key, err := f.operator.MakeAPIKey(ctx, client.NewAPIKey{Name: "ops", Operator: true, ExpiresAt: time.Now().Add(time.Hour)})
	must(err)
	w.operatorKey = key.Text
	keys, err := f.as(t, f.keyA).APIKeys(ctx)
	must(err)
	w.ids["key"] = keys[0].ID.String()

	signer, err := f.operator.AddSigner(ctx, client.NewSigner{
		Organisation: f.orgA, Name: "line 1", Certificate: certificate(t), Master: "test-master", Generation: 1,
		JoinEUIs: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), DevEUIs: euiRange(t, "0004A31000000000", "0004A310FFFFFFFF"),
	})
	must(err)
	w.ids["sgn"] = signer.ID.String()

	peer, err := f.operator.AddPeer(ctx, f.newPeer(t, "Network A", "000013", "ns-000013-v1"))
	must(err)
	w.ids["peer"] = peer.ID.String()
	keks, err := f.operator.KEKs(ctx)
	must(err)
	w.ids["kek"] = keks[0].ID.String()

	must(f.operator.SetRoaming(ctx, client.RoamingRule{Organisation: f.orgA, NetIDs: []lorawan.NetID{{0, 0, 0x42}}}))
	w.ids["imp"] = f.importBadRow(t).String()
	w.disputed = f.dispute(t)
	w.ids["dsp"] = w.disputed.ID.String()
	_, err = f.as(t, f.keyA).OfferTransfer(ctx, w.device.ID, client.NewTransfer{Recipient: joinery.NewOrgID()})
	must(err)
	f.populateExports(t, w) // before there is another person, who would have to approve
	f.populatePeople(t, w)
	w.ids["org"] = f.orgA.String()
	hook, err := f.as(t, f.keyA).AddWebhook(ctx, client.NewWebhook{URL: "https://events.example.com/joins"})
	must(err)
	w.ids["whk"] = hook.Webhook.ID.String()
	f.populateRekeying(t, w)
	f.populateProducts(t, w)
	roots, err := f.db.StoredRoots(ctx, 0, 1)
	must(err)
	w.ids["kst"] = roots[0].KeySet.String()
	return w
}

// dispute opens a dispute of orgA about a device that the operator's organisation
// holds.
func (f *fixture) dispute(t testing.TB) client.Dispute {
	t.Helper()
	d := f.importDevice(t, f.as(t, f.keyA), eui(t, "70B3D57ED0000000"), eui(t, "0004A310001AFFF0"))
	token, err := f.as(t, f.keyA).OwnerToken(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	orgs, err := f.operator.Organisations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.acting(t, orgs[0].ID).Claim(t.Context(), client.NewClaim{DevEUI: d.DevEUI, OwnerToken: token.OwnerToken})
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.as(t, f.keyA).OpenDispute(t.Context(), client.NewDispute{
		JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, OwnerToken: token.OwnerToken, Statement: "the invoice of Acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	return *r.Dispute
}

// newPeer is a Network Server of orgA with one KEK.
func (f *fixture) newPeer(t testing.TB, name, netID, label string) client.NewPeer {
	t.Helper()
	n, err := lorawan.ParseNetID(netID)
	if err != nil {
		t.Fatal(err)
	}
	return client.NewPeer{
		Organisation: f.orgA,
		PeerSettings: client.PeerSettings{
			Name: name, NetIDs: []lorawan.NetID{n},
			Credentials: []client.Credential{{Kind: "spki", SPKI: hex.EncodeToString(randomKey(32))}},
		},
		KEKs: []client.NewKEK{f.sealedKEK(t, "ns", label, randomKey(16))},
	}
}

// importBadRow imports a list of one row that could not be sealed.
func (f *fixture) importBadRow(t testing.TB) joinery.ImportID {
	t.Helper()
	c := f.as(t, f.keyA)
	sum := sha256.Sum256(randomKey(32))
	i, err := c.BeginImport(t.Context(), client.NewImport{Kind: "key-list", SHA256: hex.EncodeToString(sum[:]),
		Binding: &client.NewBinding{NetID: lorawan.NetID{0, 0, 0x13}, AppSKey: "clear"}})
	if err != nil {
		t.Fatal(err)
	}
	h, _ := f.sealedRow(t, client.SealedKeyRow{}, randomKey(16))
	p, err := c.ImportRows(t.Context(), i.ID, client.ImportRows{Last: true, Seal: &h, BadRows: []client.BadRow{{Line: 2, Reason: "AppKey: want 32 hexadecimal digits"}}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Import.Failed != 1 || len(p.Results) != 1 || p.Results[0].Line != 2 || p.Results[0].Reason == "" {
		t.Fatalf("%+v", p)
	}
	return i.ID
}

// certificate makes a P-256 certificate as signers of manifests have.
func certificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, SubjectKeyId: randomKey(20),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
