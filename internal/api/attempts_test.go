package api_test

import (
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/refusal"
	"joinery/lorawan"
)

// attempts takes refused attempts to the recorder, and remembers them.
type attempts struct {
	*refusal.Recorder
	mu   sync.Mutex
	seen map[string]bool // act and device, or act and reason
}

func (a *attempts) Attempt(x *joinery.Attempt) {
	a.mu.Lock()
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	a.seen[x.Act+" "+x.Device.String()], a.seen[x.Act+" "+string(x.Reason)] = true, true
	a.mu.Unlock()
	a.Recorder.Attempt(x)
}

// attemptsOf gives what the audit log tells an organisation of refused attempts.
func (f *fixture) attemptsOf(t testing.TB, org joinery.OrgID) (list []client.AuditEntry) {
	t.Helper()
	f.refusals.Sync(t.Context())
	for e, err := range f.acting(t, org).Audit(t.Context(), client.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Organisation != org {
			continue // the operator reads all
		}
		if e.Event == string(joinery.AuditDeviceAttempt) || e.Event == string(joinery.AuditOrgAttempt) {
			list = append(list, e)
		}
	}
	return list
}

// wrongSecret gives the text of a key with another secret, as somebody would make it up
// who knows the id.
func wrongSecret(t testing.TB, text string) string {
	t.Helper()
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	at := len(text) - 30 // in the secret
	other := "0"
	if text[at] == '0' {
		other = "1"
	}
	text = text[:at] + other + text[at+1:len(text)-6]
	sum := crc32.ChecksumIEEE([]byte(text))
	for i := range 6 {
		text += string(alphabet[sum>>(5*(5-i))&31])
	}
	return text
}

// Who was refused writes nothing that tells them more, and the organisation that it
// concerns is told: whose credential it was, and who holds the device.
func TestRefusedAttempts(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	got := map[joinery.OrgID]map[string]bool{}
	told := func(org joinery.OrgID, line string) {
		t.Helper()
		f.refusals.Sync(ctx)
		got[org] = map[string]bool{}
		for _, e := range f.attemptsOf(t, org) {
			device := ""
			if e.Device != 0 {
				device = " of " + e.Device.String()
			}
			got[org][fmt.Sprintf("%s: %s%s, %s, %s", e.Actor, e.Detail["act"], device, e.Detail["reason"], e.Detail["count"])] = true
		}
		if !got[org][line] {
			t.Errorf("nothing tells of %q: %v", line, got[org])
		}
	}
	of := " of " + w.device.ID.String()
	made := func(n client.NewAPIKey) client.MadeAPIKey {
		t.Helper()
		k, err := f.acting(t, f.orgA).MakeAPIKey(ctx, n)
		ok(t, err)
		return k
	}
	refused := func(key, method, path, body string, status int) {
		t.Helper()
		if a := f.send(t, key, method, "/api/v1"+path, body); a.status != status {
			t.Errorf("%s %s: %d %s", method, path, a.status, a.body)
		}
	}
	device := "/devices/" + w.device.ID.String()

	// A key that may not.
	reader := made(client.NewAPIKey{Name: "reader", Scopes: []joinery.Right{joinery.RightDevicesRead}})
	by := "key " + reader.Key.ID.String()
	refused(reader.Text, http.MethodGet, device+"/owner-token", "", 403)
	told(f.orgA, by+": getOwnerToken"+of+", no-right, 1")
	refused(reader.Text, http.MethodPost, "/exports", `{}`, 403)
	told(f.orgA, by+": requestExport, no-right, 1")
	// What a rule refuses: who asked for it approves it.
	ann := f.signedIn(t, f.orgA, joinery.RoleAdmin, "approver")
	policy := f.as(t, ann.token)
	_, err := policy.SetExportPolicy(ctx, client.NewExportPolicy{Approval: "always"})
	ok(t, err)
	recipient, err := joinery.ParseRecipientID(w.ids["rcp"])
	ok(t, err)
	e, err := policy.RequestExport(ctx, client.NewExport{Recipient: recipient, Devices: []client.DeviceRef{{Device: w.device.ID}}})
	ok(t, err)
	_, err = policy.ApproveExport(ctx, e.ID, client.ExportApproval{Thumbprint: e.Thumbprint, Digest: e.Digest})
	if code(err) != "forbidden" {
		t.Fatal(err)
	}
	told(f.orgA, "person "+ann.id.String()+": approveExport, own-request, 1")

	// Keys that are none any more, or never were.
	ends := made(client.NewAPIKey{Name: "ends", ExpiresAt: time.Now().Add(time.Hour)})
	revoked := made(client.NewAPIKey{Name: "revoked"})
	ok(t, f.acting(t, f.orgA).RevokeAPIKey(ctx, revoked.Key.ID))
	refused(revoked.Text, http.MethodGet, device, "", 401)
	told(f.orgA, "key "+revoked.Key.ID.String()+": getDevice"+of+", key-revoked, 1")
	refused(wrongSecret(t, ends.Text), http.MethodGet, "/devices", "", 401)
	told(f.orgA, "key "+ends.Key.ID.String()+": other, key-wrong, 1")
	refused("", http.MethodDelete, device, "", 401)
	told(f.orgA, "no credential: deleteDevice"+of+", no-credential, 1")
	if a := f.send(t, reader.Text, http.MethodGet, "/api/v1/devices", "", client.OrganisationHeader, f.orgB.String()); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	told(f.orgA, by+": listDevices, other-org, 1")

	// Another organisation: the holder is told, and not who it was.
	refused(f.keyB, http.MethodGet, device+"/owner-token", "", 404)
	told(f.orgA, "another organisation: getOwnerToken"+of+", not-held, 1")
	for range 3 { // more of it waits for the end of the hour
		refused(f.keyB, http.MethodGet, device+"/owner-token", "", 404)
	}
	told(f.orgA, "another organisation: getOwnerToken"+of+", not-held, 1")
	refused(f.keyB, http.MethodPost, "/disputes", marshal(t, client.NewDispute{JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI}), 404)
	told(f.orgA, "another organisation: openDispute"+of+", not-held, 1")
	// What is asked of many, in a body: whoever holds one of them is told.
	theirs := client.DeviceRef{Device: w.device.ID}
	server, err := joinery.ParseJoinServerID(w.ids["jsv"])
	ok(t, err)
	own, err := f.as(t, f.keyB).AddRecipient(ctx, client.NewRecipient{Name: "b", Key: string(recipientKey(t).MarshalJWK())})
	ok(t, err)
	for _, x := range []struct {
		act, path string
		body      any
		status    int
	}{
		{"armRekey", device + "/rekey", client.NewRekeyOrder{NewJoinEUI: eui(t, "EC656EFFFE000001"), To: server}, 404},
		{"requestRekeyBatch", "/rekey/batches", client.NewRekeyBatch{NewJoinEUI: eui(t, "EC656EFFFE000001"), To: server, Devices: []client.DeviceRef{theirs}}, 0},
		{"makeHandover", "/rekey/handovers", client.NewHandover{To: server, Devices: []joinery.DeviceID{w.device.ID}}, 404},
		{"makeRekeyTicket", "/rekey/tickets", client.NewRekeyTicket{Devices: []joinery.DeviceID{w.device.ID}, LeaveOut: true}, 0},
		{"requestExport", "/exports", client.NewExport{Recipient: own.ID, Devices: []client.DeviceRef{theirs}}, 404},
		{"changeOwnership", "/ownership", client.OwnershipBatch{Items: []client.OwnershipAct{{Action: "release", Device: w.device.ID}}}, 200},
		{"readOwnerTokens", "/owner-tokens", client.OwnerTokensRequest{Devices: []client.DeviceRef{theirs}}, 200},
	} {
		if a := f.send(t, f.keyB, http.MethodPost, "/api/v1"+x.path, marshal(t, x.body)); x.status != 0 && a.status != x.status {
			t.Errorf("%s: %d %s", x.act, a.status, a.body)
		}
		told(f.orgA, "another organisation: "+x.act+of+", not-held, 1")
	}
	// Wrong owner tokens have a count of their own for the holder; to the caller's own
	// organisation a device that is there is as one that is not.
	for _, devEUI := range []lorawan.EUI64{w.device.DevEUI, {9}} {
		refused(f.keyB, http.MethodPost, "/claims", marshal(t, client.NewClaim{DevEUI: devEUI, OwnerToken: "AAAAAAAAAAAAA"}), 403)
	}
	ofB := f.attemptsOf(t, f.orgB)
	if len(ofB) != 1 || ofB[0].Device != 0 || ofB[0].Detail["act"] != "claimDevice" || ofB[0].Detail["reason"] != "not-allowed" {
		t.Errorf("the other organisation is told %+v", ofB)
	}
	// A key's id with a made-up secret is nobody's.
	refused(wrongSecret(t, f.keyB), http.MethodGet, device+"/activations", "", 401)
	told(f.orgA, "no credential: listActivations"+of+", no-credential, 1")
	// Of a request about very many, some are noted, and that there were more.
	many := make([]client.DeviceRef, 1000)
	for i := range many {
		many[i].Device = joinery.NewDeviceID()
	}
	noted := func() (n int) {
		f.attempts.mu.Lock()
		defer f.attempts.mu.Unlock()
		for seen := range f.attempts.seen {
			if strings.HasPrefix(seen, "readOwnerTokens dev_") {
				n++
			}
		}
		return n
	}
	before := noted()
	refused(f.keyB, http.MethodPost, "/owner-tokens", marshal(t, client.OwnerTokensRequest{Devices: many}), 200)
	if n := noted() - before; n < 32 || n > 33 { // one about no device
		t.Errorf("%d of %d devices are noted", n, len(many))
	}
	if ofB = f.attemptsOf(t, f.orgB); !slices.ContainsFunc(ofB, func(e client.AuditEntry) bool {
		return e.Device == 0 && e.Detail["act"] == "readOwnerTokens" && e.Detail["reason"] == "other" && strings.HasPrefix(e.Actor, "key ")
	}) {
		t.Errorf("nothing tells that there were more: %+v", ofB)
	}
	for _, e := range f.attemptsOf(t, f.orgA) {
		if text := fmt.Sprint(e); strings.Contains(text, f.orgB.String()) || e.Detail["act"] == "claimDevice" {
			t.Errorf("the holder is told %s", text)
		}
	}
}

// checkAttempts: of all that orgB tried with what is orgA's, whoever holds the device
// was told, whatever the operation; and nothing of that is told to orgB.
func (f *fixture) checkAttempts(t *testing.T, d document, w *world) {
	t.Helper()
	f.attempts.mu.Lock()
	defer f.attempts.mu.Unlock()
	takesDevice := func(op operation) bool {
		isDevice := func(s *schema) bool { prefix, found := idPattern(s); return found && prefix == "dev" }
		for _, p := range op.Parameters {
			if p.In == "path" && isDevice(p.Schema) {
				return true
			}
		}
		return op.RequestBody != nil && slices.ContainsFunc(d.places(d.body(op)), func(p place) bool { return isDevice(p.schema) })
	}
	// The samples of these are refused for their form before anybody looks for the
	// device; TestRefusedAttempts has them.
	form := []string{"makeAttestChallenge", "giveEvidenceFragment", "armRekey", "requestExport", "addExportDevices", "changeOwnership", "addProductKey",
		"requestRekeyBatch", "addRekeyBatchDevices", "makeHandover", "takeReceipts"}
	n := 0
	for _, op := range d.operations() {
		if !takesDevice(op) || slices.Contains(form, op.OperationID) {
			continue
		}
		n++
		if !f.attempts.seen[op.OperationID+" "+w.device.ID.String()] && !f.attempts.seen[op.OperationID+" no-right"] {
			t.Errorf("%s with another organisation's device is told to nobody", op.OperationID)
		}
	}
	if n < 30 {
		t.Errorf("only %d operations take a device", n)
	}
	for _, e := range f.attemptsOf(t, f.orgB) {
		if e.Device != 0 || joinery.AttemptReason(e.Detail["reason"]).OfHolder() {
			t.Errorf("orgB is told %+v", e)
		}
	}
}
