package ttjs_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"joinery"
)

// allBut lists what an organisation may do, without one right.
func allBut(right joinery.Right) []joinery.Right {
	return slices.DeleteFunc(joinery.EveryKind().Rights().List(), func(r joinery.Right) bool {
		return r == right || r == joinery.RightExportApprove // which no key has
	})
}

// Every route for makers asks for its right, before it looks at anything else.
func TestRoutesNeedTheirRights(t *testing.T) {
	f := start(t)
	d, _ := f.device(t)
	path, absent := "/api/v2/devices/"+d.DevEUI.String(), "/api/v2/devices/0000000000000001"
	const imports = "/api/v2/devices/import/"
	for _, tc := range []struct {
		method, path, body string
		need               joinery.Right
		status             int // for a key with this right alone
	}{
		{http.MethodGet, "/api/v2/devices", "", joinery.RightDevicesRead, 200},
		{http.MethodGet, "/api/v2/devices?limit=x", "", joinery.RightDevicesRead, 400},
		{http.MethodGet, path, "", joinery.RightDevicesRead, 200},
		{http.MethodGet, path + "?nonces=true", "", joinery.RightDevicesRead, 200},
		{http.MethodGet, path + "?rootKeys=true", "", joinery.RightDevicesRead, 400},
		{http.MethodGet, absent, "", joinery.RightDevicesRead, 404},
		{http.MethodPost, imports + "microchip-atecc608", f.manifestOf(t, 0x0004A31000200000, 1), joinery.RightDevicesImport, 200},
		{http.MethodPost, imports + "csv", "dev_eui\n", joinery.RightDevicesImport, 400},
		{http.MethodPost, imports + "xlsx", "x", joinery.RightDevicesImport, 404},
		{http.MethodDelete, absent, "", joinery.RightDevicesWrite, 404},
		{http.MethodDelete, path, "", joinery.RightDevicesWrite, 204},
	} {
		without := f.newKey(t, f.org, allBut(tc.need)...)
		if a := f.by(t, without, tc.method, tc.path, tc.body); a.status != http.StatusForbidden || !strings.Contains(a.message(t), string(tc.need)) {
			t.Errorf("%s %s without %s: %d %s", tc.method, tc.path, tc.need, a.status, a.body)
		}
		if tc.path == path && f.state(t, d).Device.ID != d.ID {
			t.Fatal("the device is gone")
		}
		with := f.newKey(t, f.org, tc.need)
		if a := f.by(t, with, tc.method, tc.path, tc.body); a.status != tc.status {
			t.Errorf("%s %s with %s: %d %s", tc.method, tc.path, tc.need, a.status, a.body)
		}
	}
}

// What is refused of a device is noted for who holds it, and for whose credential it
// was.
func TestRefusedAttemptsAreNoted(t *testing.T) {
	f := start(t)
	d, _ := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String()
	f.by(t, f.newKey(t, f.org, joinery.RightDevicesImport), http.MethodGet, path, "")
	f.attempts.want(t, "GET /api/v2/devices/{devEUI}: no-right by key of "+d.DevEUI.String())
	f.by(t, "", http.MethodDelete, path, "")
	f.attempts.want(t, "DELETE /api/v2/devices/{devEUI}: no-credential by  of "+d.DevEUI.String())
	f.by(t, f.key, http.MethodGet, "/api/v2/devices/0000000000000001", "")
	f.attempts.want(t, "GET /api/v2/devices/{devEUI}: not-held by key of 0000000000000001")
}

// Without the right to read tokens a device is shown without its own, and nothing
// says that it was read.
func TestTokensNeedTheirRight(t *testing.T) {
	f := start(t)
	d, token := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String()
	reads := func() (n int) {
		t.Helper()
		entries, _, err := f.fleet.Audit(t.Context(), operator, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Event == joinery.AuditOwnerTokenRead {
				n++
			}
		}
		return n
	}
	a := f.by(t, f.newKey(t, f.org, allBut(joinery.RightTokensRead)...), http.MethodGet, path, "")
	if got := decode[shown](t, a, 200); got.DevEUI != d.DevEUI.String() || got.OwnerToken != "" || strings.Contains(a.body, token) || reads() != 0 {
		t.Errorf("without: %s, %d reads", a.body, reads())
	}
	a = f.by(t, f.newKey(t, f.org, joinery.RightTokensRead), http.MethodGet, path, "")
	if a.status != http.StatusForbidden || strings.Contains(a.body, token) || reads() != 0 {
		t.Errorf("with that right alone: %d %s", a.status, a.body)
	}
	a = f.by(t, f.newKey(t, f.org, joinery.RightDevicesRead, joinery.RightTokensRead), http.MethodGet, path, "")
	if got := decode[shown](t, a, 200); got.OwnerToken != token || reads() != 1 {
		t.Errorf("with both: %s, %d reads", a.body, reads())
	}
}

// The operator on its socket has its rights without a key; on the listeners of
// others nobody has any.
func TestSocketHasItsRights(t *testing.T) {
	f := start(t)
	d, _ := f.device(t)
	path := "/api/v2/devices/" + d.DevEUI.String()
	local := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.socket)
	}}
	t.Cleanup(local.CloseIdleConnections)
	if a := f.sendBy(t, http.DefaultTransport, f.plain, http.MethodDelete, path, ""); a.status != http.StatusUnauthorized {
		t.Errorf("on the loopback listener: %d %s", a.status, a.body)
	}
	if a := f.send(t, certs(f.here), http.MethodDelete, path, ""); a.status != http.StatusUnauthorized {
		t.Errorf("over TLS: %d %s", a.status, a.body)
	}
	// A key says who calls, and on the socket, too, what it may.
	reader := "Bearer " + f.newKey(t, f.org, joinery.RightDevicesRead)
	if a := f.sendBy(t, local, "http://operator", http.MethodDelete, path, "", "Authorization", reader); a.status != http.StatusForbidden {
		t.Errorf("on the socket with a key: %d %s", a.status, a.body)
	}
	if a := f.sendBy(t, local, "http://operator", http.MethodDelete, path, ""); a.status != http.StatusNoContent {
		t.Errorf("on the socket: %d %s", a.status, a.body)
	}
}
