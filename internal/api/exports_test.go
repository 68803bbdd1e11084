package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/internal/exportfile"
	"joinery/lorawan"
)

// exporter is an API key of orgA that may export, which a key without scopes may
// not.
func (f *fixture) exporter(t testing.TB) string {
	t.Helper()
	key, err := f.operator.MakeAPIKey(t.Context(), client.NewAPIKey{
		Name: "exporter", Organisation: f.orgA, Scopes: []joinery.Right{joinery.RightDevicesRead, joinery.RightExportRequest},
	})
	if err != nil {
		t.Fatal(err)
	}
	return key.Text
}

// recipientKey makes the public key of a recipient, as a JSON Web Key.
func recipientKey(t testing.TB) exportfile.Recipient {
	t.Helper()
	to, _ := recipientPair(t)
	return to
}

// recipientPair gives the private half, too.
func recipientPair(t testing.TB) (exportfile.Recipient, *exportfile.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := exportfile.NewRecipient(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := exportfile.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return to, private
}

// opens has the owner open an export of one device that is ready.
func (f *fixture) opens(t *testing.T, key string, id joinery.ExportID, private *exportfile.PrivateKey, devEUI lorawan.EUI64) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	page, err := f.as(t, key).ExportFile(t.Context(), id, client.ExportFileQuery{})
	must(err)
	h, err := exportfile.ParseHeader([]byte(page.Header))
	must(err)
	d, err := exportfile.ParseDevice([]byte(page.Items[0]), h)
	must(err)
	opened := 0
	must(private.Open(h, func(o *exportfile.Opener) error {
		return o.Open(d, func(keys []exportfile.OpenedKey) error { opened = len(keys); return nil })
	}))
	if d.DevEUI != devEUI || opened == 0 {
		t.Errorf("%s: %d root keys", d.DevEUI, opened)
	}
}

// populateExports makes a recipient and an export of orgA that is ready.
func (f *fixture) populateExports(t testing.TB, w *world) {
	t.Helper()
	w.exporterKey = f.exporter(t)
	api, to := f.as(t, w.exporterKey), recipientKey(t)
	r, err := api.AddRecipient(t.Context(), client.NewRecipient{Name: "laptop", Key: string(to.MarshalJWK())})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["rcp"] = r.ID.String()
	e, err := api.RequestExport(t.Context(), client.NewExport{Recipient: r.ID, Devices: []client.DeviceRef{{Device: w.device.ID}}})
	if err != nil {
		t.Fatal(err)
	}
	w.ids["exp"] = e.ID.String()
	f.wrap(t, e.ID, to)
}

// wrap does what the custody process does, with keys of its own in place of the
// devices': what it hands in nobody here could tell from the true ones.
func (f *fixture) wrap(t testing.TB, id joinery.ExportID, to exportfile.Recipient) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := f.operator.CustodyExports(t.Context())
	must(err)
	var h exportfile.Header
	for _, j := range jobs {
		if j.Export.ID == id {
			must(json.Unmarshal([]byte(j.Header), &h))
		}
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	h.Wrapping = exportfile.JWEECDHES
	if to.Allows(exportfile.SealOAEP256) == nil {
		h.Wrapping = exportfile.SealOAEP256
	}
	h.Signer, err = exportfile.NewSigner(&signer.PublicKey)
	must(err)
	line, err := exportfile.MarshalHeader(h)
	must(err)
	_, err = f.operator.StartExport(t.Context(), id, client.CustodyStart{Header: string(line)})
	must(err)
	wrapper, err := exportfile.NewWrapper(to, h.Wrapping)
	must(err)
	digests, err := exportfile.NewDigests(h)
	must(err)
	var in client.CustodyHandIn
	for item, err := range f.operator.CustodyExportDevices(t.Context(), id, client.CustodyExportDevicesQuery{}) {
		must(err)
		var m exportfile.Metadata
		must(json.Unmarshal([]byte(item.About), &m))
		d, err := wrapper.Wrap(m, randomKey(16), randomKey(16))
		must(err)
		must(digests.Sign(&d, func(sum [32]byte) ([64]byte, error) {
			der, err := ecdsa.SignASN1(rand.Reader, signer, sum[:])
			must(err)
			return exportfile.RawSignature(der)
		}))
		text, err := exportfile.MarshalDevice(d)
		must(err)
		in.Devices = append(in.Devices, client.CustodyDone{Index: item.Index, KeySet: item.KeySet, Line: string(text)})
	}
	_, err = f.operator.HandInExport(t.Context(), id, in)
	must(err)
}

// An export by the API: only a key with the scope asks, only the socket does the
// custody process's part, the file comes in pages until it is acknowledged, and the
// device says what happened.
func TestExport(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	id, err := joinery.ParseExportID(w.ids["exp"])
	if err != nil {
		t.Fatal(err)
	}
	path := "/api/v1/exports/" + w.ids["exp"]
	plain, err := f.operator.MakeAPIKey(ctx, client.NewAPIKey{Name: "all that its maker may", Organisation: f.orgA})
	if err != nil {
		t.Fatal(err)
	}
	for credential, status := range map[string]int{plain.Text: http.StatusForbidden, f.keyB: http.StatusNotFound} {
		if a := f.send(t, credential, http.MethodGet, path+"/file", ""); a.status != status {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	for _, custody := range []string{"/custody/exports", "/custody" + strings.TrimPrefix(path, "/api/v1") + "/devices"} {
		if a := f.send(t, w.operatorKey, http.MethodGet, "/api/v1"+custody, ""); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", custody, a.status, a.body)
		}
	}
	api := f.as(t, w.exporterKey)
	page, err := api.ExportFile(ctx, id, client.ExportFileQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := api.ExportFile(ctx, id, client.ExportFileQuery{Skip: 1}); err != nil || len(rest.Items) != 0 || rest.Header != page.Header {
		t.Errorf("%+v, %v", rest, err)
	}
	h, err := exportfile.ParseHeader([]byte(page.Header))
	if err != nil || len(page.Items) != 1 || h.Server != "js.example.com" || h.ID != id.String() {
		t.Fatalf("%+v, %v", page, err)
	}
	d, err := exportfile.ParseDevice([]byte(page.Items[0]), h)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := f.services.Devices.Devices(ctx, joinery.Caller{Org: f.orgA}, joinery.DeviceQuery{DevEUIPrefix: d.DevEUI.String()})
	if err != nil || len(devices.Items) != 1 || !devices.Items[0].Device.Disclosed {
		t.Fatalf("%+v, %v", devices, err)
	}
	known, err := api.Disclosures(ctx, devices.Items[0].Device.ID)
	if err != nil || len(known) != 1 || known[0].Recipient != h.Recipient || known[0].Export != id {
		t.Errorf("%+v, %v", known, err)
	}
	if e, err := api.AcknowledgeExport(ctx, id); err != nil || e.State != "delivered" {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := api.AcknowledgeExport(ctx, id); err != nil { // the answer may have been lost
		t.Error(err)
	}
	if _, err := api.ExportFile(ctx, id, client.ExportFileQuery{}); joinery.CodeOf(err) == "" {
		t.Error("it was had again")
	}
}
