package ttjs_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"joinery"
	"joinery/lorawan"
)

func wantUser(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: the user is told %v; want %v", what, got, want)
	}
}

// The life of a claim, as the client and its user see it.
func TestClaimReplayed(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	here, there := f.as(t, f.here), f.as(t, f.there)
	nsid := lorawan.EUI64{0xEC, 0x65, 0x6E, 0, 0, 0, 1, 1}
	here.nsid = &nsid
	d, token := f.device(t)
	unknown := lorawan.EUI64{1}

	wantUser(t, "unknown", here.Claim(ctx, unknown, token), errUserNotProvisioned)
	_, _, _, err := here.Status(ctx, unknown)
	wantUser(t, "status of an unknown one", err, errUserNotClaimed)
	_, _, _, err = here.Status(ctx, d.DevEUI)
	wantUser(t, "status before", err, errUserNotClaimed)
	wantUser(t, "wrong token", here.Claim(ctx, d.DevEUI, "AAAAAAAAAAAAA"), errUserDenied)
	wantUser(t, "no token", here.Claim(ctx, d.DevEUI, ""), errUserDenied)

	wantUser(t, "claim", here.Claim(ctx, d.DevEUI, token), nil)
	gotNetID, gotNSID, locked, err := here.Status(ctx, d.DevEUI)
	if err != nil || gotNetID != netID || gotNSID == nil || *gotNSID != nsid || !locked {
		t.Errorf("status: %v %v %v, %v", gotNetID, gotNSID, locked, err)
	}
	s := f.state(t, d)
	if b := s.Binding; b.ASID != "here.example.com" || b.Source != "network" || s.Device.Ownership.Claimed() {
		t.Errorf("bound to %+v, held by %+v", b, s.Device.Ownership)
	}
	wantUser(t, "again", here.Claim(ctx, d.DevEUI, strings.ToLower(token)), nil)

	// Locked by the one, it is nobody else's, whatever the token.
	wantUser(t, "another's claim", there.Claim(ctx, d.DevEUI, token), userInternal{"Client not allowed to claim"})
	_, _, _, err = there.Status(ctx, d.DevEUI)
	wantUser(t, "another's status", err, errUserDenied)
	wantUser(t, "another's unclaim", there.Unclaim(ctx, d.DevEUI), errUserDenied)
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodDelete} {
		f.attempts.want(t, method+" /api/v2/devices/{devEUI}/claim: not-held by peer of "+d.DevEUI.String())
	}

	wantUser(t, "unclaim", here.Unclaim(ctx, d.DevEUI), nil)
	wantUser(t, "unclaim again", here.Unclaim(ctx, d.DevEUI), errUserNotClaimed)
	here.nsid = nil
	wantUser(t, "another's now", there.Claim(ctx, d.DevEUI, token), nil)
	_, gotNSID, _, err = there.Status(ctx, d.DevEUI)
	if err != nil || gotNSID != nil {
		t.Errorf("status without NSID: %v, %v", gotNSID, err)
	}

	// Guesses end, and not in words that the client takes for something else.
	e, _ := f.device(t)
	for range 5 {
		wantUser(t, "guess", here.Claim(ctx, e.DevEUI, "AAAAAAAAAAAAA"), errUserDenied)
	}
	wantUser(t, "one guess more", here.Claim(ctx, e.DevEUI, "AAAAAAAAAAAAA"), userStatus(http.StatusTooManyRequests))
	body := `{"ownerToken":"AAAAAAAAAAAAA","homeNetID":"000013","asID":"here.example.com"}`
	limited := f.send(t, certs(f.here), http.MethodPut, "/api/v2/devices/"+e.DevEUI.String()+"/claim", body)
	if after, err := strconv.Atoi(limited.header.Get("Retry-After")); limited.status != http.StatusTooManyRequests || err != nil || after < 1 || after > 15*60 {
		t.Errorf("%d %s, to be tried again after %q", limited.status, limited.body, limited.header.Get("Retry-After"))
	}
}

func TestBatchUnclaimReplayed(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	here, there := f.as(t, f.here), f.as(t, f.there)
	var all []lorawan.EUI64
	for i := range 20 { // as many as the client sends at once
		d, token := f.device(t)
		by := here
		if i == 7 {
			by = there
		}
		if i != 3 {
			wantUser(t, "claim", by.Claim(ctx, d.DevEUI, token), nil)
		}
		all = append(all, d.DevEUI)
	}
	unknown := lorawan.EUI64{1}
	err := here.UnclaimAll(ctx, append(all, unknown)...)
	batch, ok := errors.AsType[userBatch](err)
	want := userBatch{all[3]: "Device not claimed", all[7]: "Client not allowed to unclaim", unknown: "Device not provisioned"}
	if !ok || !maps.Equal(batch, want) {
		t.Errorf("batch: %v, %v; want %v", batch, err, want)
	}
	for i, devEUI := range all {
		_, _, _, err := there.Status(ctx, devEUI)
		if i == 7 {
			wantUser(t, "another's", err, nil)
		} else {
			wantUser(t, "unclaimed", err, errUserNotClaimed)
		}
	}
	wantUser(t, "batch of one", there.UnclaimAll(ctx, all[7]), nil)

	// A request that is not well-formed is refused whole, and does nothing.
	d, token := f.device(t)
	wantUser(t, "claim", here.Claim(ctx, d.DevEUI, token), nil)
	a := f.send(t, certs(f.here), http.MethodDelete, "/api/v2/devices/"+d.DevEUI.String()+",xyz/claims", "")
	if a.status != http.StatusBadRequest || a.message(t) != "DevEUI not found or is invalid" {
		t.Errorf("%d %s", a.status, a.body)
	}
	_, _, _, err = here.Status(ctx, d.DevEUI)
	wantUser(t, "still claimed", err, nil)
}

// Which check comes first, and what it says.
func TestOrderOfChecks(t *testing.T) {
	f := start(t)
	d, token := f.device(t)
	here, stranger := certs(f.here), certs(party{cert: f.ca.leaf(t)})
	path := "/api/v2/devices/" + d.DevEUI.String() + "/claim"
	good := `{"ownerToken":"` + token + `","homeNetID":"000013","asID":"here.example.com"}`
	with := func(member string) string { return strings.TrimSuffix(good, "}") + "," + member + "}" }
	for _, tc := range []struct {
		name, path, body string
		certs            []certificate
		status           int
		message          string
	}{
		{"no certificate before a bad DevEUI", "/api/v2/devices/xyz/claim", "{", nil, 401, "claims are for Application Servers: connect to the TLS listener with a client certificate"},
		{"a stranger's before a bad DevEUI", "/api/v2/devices/xyz/claim", "{", stranger, 401, "the client certificate belongs to no Application Server that is known here"},
		{"bad DevEUI before a bad body", "/api/v2/devices/xyz/claim", "{", here, 400, "DevEUI not found or is invalid"},
		{"short DevEUI", "/api/v2/devices/" + d.DevEUI.String()[1:] + "/claim", good, here, 400, "DevEUI not found or is invalid"},
		{"bad body before an unknown device", "/api/v2/devices/0000000000000001/claim", "{", here, 400, "Invalid request"},
		{"empty body", path, "", here, 400, "Invalid request"},
		{"member twice", path, with(`"asID":"x"`), here, 400, "Invalid request"},
		{"wrong type", path, with(`"lock":"yes"`), here, 400, "Invalid request"},
		{"no NetID", path, `{"ownerToken":"` + token + `"}`, here, 400, "homeNetID: want 6 hexadecimal digits"},
		{"bad NSID", path, with(`"homeNSID":"1"`), here, 400, "homeNSID: want 16 hexadecimal digits"},
		{"another token", path, with(`"regenerateOwnerToken":true`), here, 400, "regenerateOwnerToken: only the owner of the device renews its token, and a claim here makes no owner"},
		{"another's AS-ID before an unknown device", "/api/v2/devices/0000000000000001/claim", strings.Replace(good, "here.", "there.", 1), here, 403, "asID is not an AS-ID of this client"},
		{"unknown device", "/api/v2/devices/0000000000000001/claim", good, here, 404, "Device not provisioned"},
		{"huge body", path, with(`"x":"` + strings.Repeat("x", 9000) + `"`), here, 413, "the body is larger than a claim can be"},
		{"wrong JoinEUI", path + "?joinEUI=70B3D57ED0000001", good, here, 404, "Device not provisioned"},
		{"bad JoinEUI", path + "?joinEUI=1", good, here, 400, "joinEUI: want 16 hexadecimal digits"},
		{"a member that is not known", strings.ToLower(path), with(`"regenerateOwnerToken":false,"vendor":{"oui":"EC656E"}`), here, 201, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := f.send(t, tc.certs, http.MethodPut, tc.path, tc.body)
			if a.status != tc.status {
				t.Fatalf("%d %s; want %d", a.status, a.body, tc.status)
			}
			if tc.message == "" && a.body != "" || tc.message != "" && a.message(t) != tc.message {
				t.Errorf("%q; want %q", a.body, tc.message)
			}
			if strings.Contains(a.body, token) {
				t.Error("the token comes back")
			}
		})
	}
	if b := f.state(t, d).Binding; b == nil || b.Locked {
		t.Errorf("bound to %+v: not locked unless asked", b)
	}
}

// To a peer from which devices are hidden all refusals of a claim are one.
func TestHideExistence(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	shy := f.as(t, f.newParty(t, "shy", func(p *joinery.Peer) { p.HideExistence = true }))
	here := f.as(t, f.here)
	d, token := f.device(t)
	free, _ := f.device(t)
	wantUser(t, "claim", here.Claim(ctx, d.DevEUI, token), nil)
	for _, devEUI := range []lorawan.EUI64{{1}, d.DevEUI, free.DevEUI} {
		wantUser(t, "claim", shy.Claim(ctx, devEUI, "AAAAAAAAAAAAA"), errUserDenied)
		_, _, _, err := shy.Status(ctx, devEUI)
		wantUser(t, "status", err, errUserDenied)
		wantUser(t, "unclaim", shy.Unclaim(ctx, devEUI), errUserDenied)
	}
	wantUser(t, "right token, locked by another", shy.Claim(ctx, d.DevEUI, token), errUserDenied)
	err := shy.UnclaimAll(ctx, lorawan.EUI64{1}, d.DevEUI, free.DevEUI)
	batch, _ := errors.AsType[userBatch](err)
	if len(batch) != 3 {
		t.Errorf("batch: %v", err)
	}
	for devEUI, text := range batch {
		if text != "Client not allowed to unclaim" {
			t.Errorf("%s: %s", devEUI, text)
		}
	}
}

// Owner tokens stay out of the log, at every level.
func TestTokensAreNotLogged(t *testing.T) {
	f := start(t)
	here := f.as(t, f.here)
	d, token := f.device(t)
	wantUser(t, "claim", here.Claim(t.Context(), d.DevEUI, token), nil)
	wantUser(t, "claim", here.Claim(t.Context(), d.DevEUI, "SOMEBODYSGUESS"), errUserDenied)
	a := f.send(t, nil, http.MethodGet, "/api/v2/devices/"+d.DevEUI.String(), "", "Authorization", "Bearer "+f.key)
	if a.status != http.StatusOK || !strings.Contains(a.body, token) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	log := f.log.String()
	if !strings.Contains(log, "/devices/{devEUI}/claim") {
		t.Error("requests are not logged at all")
	}
	for _, secret := range []string{token, "SOMEBODYSGUESS", f.key} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %s", fmt.Sprint(secret[:4], "…"))
		}
	}
}
