package ttjs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/lorawan"
	"joinery/manifest"
)

// by sends a request over TLS with an API key.
func (f *fixture) by(t testing.TB, key, method, path, body string) answer {
	t.Helper()
	return f.send(t, nil, method, path, body, "Authorization", "Bearer "+key)
}

// decode reads the body of an answer with a status.
func decode[T any](t testing.TB, a answer, status int) (v T) {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// shown is a device as its maker reads it.
type shown struct {
	DevEUI, JoinEUI string
	RootKeysExposed bool
	OwnerToken      string
	Claim           *struct {
		ASID, HomeNetID, HomeNSID string
		Locked                    bool
	}
	Nonces *struct {
		NextJoinNonce int
		UsedDevNonces []int
	}
}

func TestProvisionersDevices(t *testing.T) {
	f := start(t)
	d, token := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String()
	got := decode[shown](t, f.by(t, f.key, http.MethodGet, path, ""), 200)
	if got.DevEUI != d.DevEUI.String() || got.JoinEUI != d.JoinEUI.String() || got.OwnerToken != token || got.RootKeysExposed || got.Claim != nil || got.Nonces != nil {
		t.Errorf("%+v", got)
	}
	got = decode[shown](t, f.by(t, f.key, http.MethodGet, path+"?nonces=true", ""), 200)
	if got.Nonces == nil || got.Nonces.NextJoinNonce != 1 {
		t.Errorf("%+v", got.Nonces)
	}
	if a := f.by(t, f.key, http.MethodGet, path+"?rootKeys=true", ""); a.status != http.StatusBadRequest {
		t.Errorf("root keys: %d %s", a.status, a.body)
	}
	// Older tools send basic authentication.
	req := must[*http.Request](t)(http.NewRequest(http.MethodGet, f.url, nil))
	req.SetBasicAuth("acme", f.key)
	if a := f.send(t, nil, http.MethodGet, path, "", "Authorization", req.Header.Get("Authorization")); a.status != http.StatusOK {
		t.Errorf("basic: %d %s", a.status, a.body)
	}
	for _, header := range []string{"Bearer jk_nothing", "Basic !", "Digest x", ""} {
		if a := f.send(t, nil, http.MethodGet, path, "", "Authorization", header); a.status != http.StatusUnauthorized || a.message(t) == "" {
			t.Errorf("%q: %d %s", header, a.status, a.body)
		}
	}
	// The operator on its socket needs no key, and reads no token.
	local := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.socket)
	}}
	t.Cleanup(local.CloseIdleConnections)
	got = decode[shown](t, f.sendBy(t, local, "http://operator", http.MethodGet, path, ""), 200)
	if got.OwnerToken != "" {
		t.Error("the operator reads owner tokens by the way")
	}

	// Another organisation meets nothing.
	other := f.newKey(t, must[joinery.Organisation](t)(f.fleet.AddOrg(t.Context(), operator, "Other", nil)).ID)
	absent := "/api/v2/devices/0000000000000001"
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		theirs, nobodys := f.by(t, other, method, path, ""), f.by(t, other, method, absent, "")
		if theirs.status != http.StatusNotFound || theirs.body != nobodys.body || theirs.status != nobodys.status {
			t.Errorf("%s: %d %s and %d %s", method, theirs.status, theirs.body, nobodys.status, nobodys.body)
		}
	}
	if list := decode[[]shown](t, f.by(t, other, http.MethodGet, "/api/v2/devices", ""), 200); len(list) != 0 {
		t.Errorf("%+v", list)
	}

	// Claimed: by a network it shows; the token is its maker's until an owner has it.
	wantUser(t, "claim", f.as(t, f.here).Claim(t.Context(), d.DevEUI, token), nil)
	got = decode[shown](t, f.by(t, f.key, http.MethodGet, path, ""), 200)
	if got.Claim == nil || got.Claim.ASID != "here.example.com" || got.Claim.HomeNetID != "000013" || !got.Claim.Locked || got.OwnerToken != token {
		t.Errorf("%+v", got)
	}

	if a := f.by(t, f.key, http.MethodDelete, path, ""); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if a := f.by(t, f.key, http.MethodGet, path, ""); a.status != http.StatusNotFound || a.message(t) != "Device not provisioned" {
		t.Errorf("deleted: %d %s", a.status, a.body)
	}
}

// One DevEUI under two JoinEUIs.
func TestProvisionersTwins(t *testing.T) {
	f := start(t)
	d, _ := f.device(t)
	twin, _ := f.deviceAt(t, lorawan.EUI64FromUint64(joinEUI.Uint64()+1), d.DevEUI)
	path := "/api/v2/devices/" + d.DevEUI.String()
	if a := f.by(t, f.key, http.MethodGet, path, ""); a.status != http.StatusBadRequest || !strings.Contains(a.message(t), "joinEUI") {
		t.Errorf("%d %s", a.status, a.body)
	}
	got := decode[shown](t, f.by(t, f.key, http.MethodGet, path+"?joinEUI="+twin.JoinEUI.String(), ""), 200)
	if got.JoinEUI != twin.JoinEUI.String() {
		t.Errorf("%+v", got)
	}
}

func TestProvisionersPages(t *testing.T) {
	f := start(t)
	var want, got []string
	for range 7 {
		d, _ := f.device(t)
		want = append(want, d.DevEUI.String())
	}
	for pages, next := 0, "/api/v2/devices?limit=3"; next != ""; pages++ {
		if pages > 7 {
			t.Fatal("the pages do not end")
		}
		a := f.by(t, f.key, http.MethodGet, next, "")
		for _, d := range decode[[]shown](t, a, 200) {
			if d.OwnerToken != "" {
				t.Error("a list shows owner tokens")
			}
			got = append(got, d.DevEUI)
		}
		link, _, _ := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		if next = link; link != "" {
			if _, err := url.Parse(link); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=x", "after=x"} {
		if a := f.by(t, f.key, http.MethodGet, "/api/v2/devices?"+query, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// manifestOf signs elements with DevEUIs from first on, by a signer that is pinned.
func (f *fixture) manifestOf(t testing.TB, first uint64, n int) string {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ski := make([]byte, 20)
	rand.Read(ski)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), SubjectKeyId: ski, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	id, _, err := manifest.ParseSigner(der)
	if err != nil {
		t.Fatal(err)
	}
	must[joinery.Signer](t)(f.fleet.AddSigner(t.Context(), operator, joinery.Signer{
		Org: f.org, Name: id.KID, DER: der, Master: master, Generation: 7,
		JoinEUIs: joinery.EUIRange{First: joinEUI, Last: joinEUI},
		DevEUIs:  joinery.EUIRange{First: lorawan.EUI64FromUint64(first), Last: lorawan.EUI64FromUint64(first + 1_000_000)},
	}))
	var file bytes.Buffer
	w := must[*manifest.Writer](t)(manifest.NewWriter(&file, id, func(in []byte) ([]byte, error) {
		digest := sha256.Sum256(in)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), err
	}))
	for k := range n {
		devEUI := first + uint64(k)
		if err := w.Write(manifest.Element{
			Version: 1, UniqueID: fmt.Sprintf("0123%012x27", devEUI&(1<<48-1)), JoinEUI: joinEUI,
			DevEUI: lorawan.EUI64FromUint64(devEUI), ProvisionedAt: time.Now(),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.String()
}

func TestImport(t *testing.T) {
	f := start(t)
	formats := decode[[]struct{ ID string }](t, f.send(t, nil, http.MethodGet, "/api/v2/devices/import/formats", ""), 200)
	if len(formats) != 1 || formats[0].ID != "microchip-atecc608" {
		t.Errorf("%+v", formats)
	}
	type result struct {
		Created, Unchanged, Failed int
		Errors                     []struct {
			Index   int
			DevEUI  string
			Message string
		}
	}
	const first, path = 0x0004A31000100000, "/api/v2/devices/import/microchip-atecc608"
	file := f.manifestOf(t, first, 701) // two transactions
	got := decode[result](t, f.by(t, f.key, http.MethodPost, path, file), 200)
	if got.Created != 701 || got.Unchanged != 0 || got.Failed != 0 || len(got.Errors) != 0 {
		t.Errorf("%+v", got)
	}
	again := decode[result](t, f.by(t, f.key, http.MethodPost, path, file), 200)
	if again.Created != 701 || again.Failed != 0 {
		t.Errorf("the same file again: %+v", again)
	}
	last := decode[shown](t, f.by(t, f.key, http.MethodGet, fmt.Sprintf("/api/v2/devices/%016X", first+700), ""), 200)
	if last.JoinEUI != joinEUI.String() || last.OwnerToken == "" {
		t.Errorf("%+v", last)
	}
	// One entry that is damaged fails alone.
	damaged := strings.Replace(f.manifestOf(t, first+10_000, 3), `"signature":"`, `"signature":"AA`, 1)
	got = decode[result](t, f.by(t, f.key, http.MethodPost, path+"?macVersion=1.0.4", damaged), 200)
	if got.Created != 2 || got.Failed != 1 || len(got.Errors) != 1 || got.Errors[0].Index != 0 || got.Errors[0].Message == "" {
		t.Errorf("%+v", got)
	}
	for name, tc := range map[string]struct {
		path, body string
		status     int
		text       string
	}{
		"csv":             {"/api/v2/devices/import/csv", "dev_eui,app_key\n0004A31000000001,00112233445566778899AABBCCDDEEFF\n", 400, "joinctl import keys"},
		"unknown format":  {"/api/v2/devices/import/xlsx", "x", 404, "formats"},
		"no manifest":     {path, "[{", 400, "JSON array"},
		"version unknown": {path + "?macVersion=2", "[]", 400, "macVersion"},
	} {
		a := f.by(t, f.key, http.MethodPost, tc.path, tc.body)
		if a.status != tc.status || !strings.Contains(a.message(t), tc.text) || strings.Contains(a.body, "00112233445566778899") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := f.send(t, certs(f.here), http.MethodPost, path, file); a.status != http.StatusUnauthorized {
		t.Errorf("with a certificate: %d %s", a.status, a.body)
	}
}
