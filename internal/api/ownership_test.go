package api_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/lorawan"
)

// TestHandOver takes a device from its maker to orgA, by transfer to orgB, and out
// of all hands.
func TestHandOver(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	a, b := f.as(t, f.keyA), f.as(t, f.keyB)
	id := w.device.ID
	if err := a.CancelTransfer(ctx, id); err != nil { // the world's, to nobody
		t.Fatal(err)
	}
	if err := a.CancelTransfer(ctx, id); code(err) != "not_found" || !strings.Contains(err.Error(), "offered neither by") {
		t.Errorf("%v", err)
	}
	offer, err := a.OfferTransfer(ctx, id, client.NewTransfer{Recipient: f.orgB, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil || offer.From != f.orgA || offer.Recipient != f.orgB || offer.Expired || offer.DevEUI != w.device.DevEUI {
		t.Fatalf("%+v, %v", offer, err)
	}
	for _, c := range []*client.Client{a, b} {
		n := 0
		for got, err := range c.Transfers(ctx, client.TransfersQuery{}) {
			if err != nil || got != offer {
				t.Errorf("%+v, %v", got, err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d offers", n)
		}
	}
	if _, err := b.Device(ctx, id); code(err) != "not_found" {
		t.Errorf("an offer shows the device: %v", err)
	}
	mine, err := b.AcceptTransfer(ctx, id, client.Acceptance{Binding: &client.NewBinding{NetID: lorawan.NetID{0, 0, 0x42}, AppSKey: "clear", Locked: true}})
	if err != nil || mine.Device != id || len(mine.OwnerToken) != 13 {
		t.Fatalf("%+v, %v", mine, err)
	}
	if again, err := b.AcceptTransfer(ctx, id, client.Acceptance{}); err != nil || again.OwnerToken != "" {
		t.Errorf("%+v, %v", again, err)
	}
	token, err := b.OwnerToken(ctx, id)
	if err != nil || token.OwnerToken != mine.OwnerToken {
		t.Errorf("the token cannot be read: %v", err)
	}
	d, err := b.Device(ctx, id)
	if err != nil || d.Owner != f.orgB || !d.Binding.Locked || d.Binding.Source != "owner" {
		t.Errorf("%+v, %v", d, err)
	}
	renewed, err := b.RegenerateOwnerToken(ctx, id)
	if err != nil || renewed.OwnerToken == token.OwnerToken {
		t.Errorf("%v", err)
	}
	released, err := b.Release(ctx, id)
	if err != nil || released.OwnerToken == "" || released.OwnerToken == renewed.OwnerToken {
		t.Errorf("%v", err)
	}
	if _, err := b.Release(ctx, id); code(err) != "not_found" {
		t.Errorf("%v", err)
	}
	if d, err := f.operator.Device(ctx, id); err != nil || !d.Released || d.Owner != 0 || d.Binding != nil {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = a.Claim(ctx, client.NewClaim{DevEUI: w.device.DevEUI, OwnerToken: released.OwnerToken}); err != nil || d.Owner != f.orgA || d.Released {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestOwnershipBatch: the answer has one result for each item, in order.
func TestOwnershipBatch(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	a := f.as(t, f.keyA)
	out, err := a.ChangeOwnership(ctx, client.OwnershipBatch{Items: []client.OwnershipAct{
		{Action: client.ActionUnbind, DevEUI: w.device.DevEUI},
		{Action: client.ActionUnbind, DevEUI: w.device.DevEUI},
		{Action: client.ActionClaim, DevEUI: w.device.DevEUI, OwnerToken: "AAAAAAAAAAAAA"},
		{Action: client.ActionRegenerateToken, Device: w.device.ID},
		{Action: client.ActionBind, Device: joinery.NewDeviceID(), Binding: &client.NewBinding{AppSKey: "clear"}},
	}})
	if err != nil || out.Done != 2 || out.Unchanged != 1 || out.Failed != 2 || len(out.Results) != 5 {
		t.Fatalf("%+v, %v", out, err)
	}
	for i, want := range []client.OwnershipResult{
		{Status: "done", Device: w.device.ID}, {Status: "unchanged", Device: w.device.ID}, {Status: "failed", Code: joinery.CodeForbidden},
		{Status: "done", Device: w.device.ID}, {Status: "failed", Code: joinery.CodeNotFound},
	} {
		got := out.Results[i]
		if got.Index != i || got.Status != want.Status || got.Code != want.Code || got.Device != want.Device || (got.OwnerToken != "") != (i == 3) || (got.Reason != "") != (want.Code != "") {
			t.Errorf("item %d: %+v", i, got)
		}
	}
	// One batch too large is refused whole, and so is one that is too many bytes.
	many := make([]client.OwnershipAct, client.MaxOwnershipBatch+1)
	for i := range many {
		many[i] = client.OwnershipAct{Action: client.ActionUnbind, Device: w.device.ID}
	}
	if _, err := a.ChangeOwnership(ctx, client.OwnershipBatch{Items: many}); code(err) != "invalid" {
		t.Errorf("%v", err)
	}
	many = many[1:]
	for i := range many { // as large as an item gets
		many[i] = client.OwnershipAct{
			Action: client.ActionRegenerateToken, DevEUI: lorawan.EUI64FromUint64(uint64(i) + 1), JoinEUI: lorawan.EUI64{1}, Recipient: f.orgB,
			OwnerToken: strings.Repeat("A", 64), ExpiresAt: time.Now().Add(time.Hour),
			Binding: &client.NewBinding{NSID: lorawan.EUI64{1}, ASID: strings.Repeat("a", 64), AppSKey: "session-key-id", ClearNwkKeys: true, Locked: true},
		}
	}
	if n := len(marshal(t, client.OwnershipBatch{Items: many})); n > 6<<20 {
		t.Errorf("a batch of the largest items has %d bytes", n)
	}
	if answer := f.send(t, f.keyA, http.MethodPost, "/api/v1/ownership", `{"items":[]}`); answer.status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", answer.status, answer.body)
	}
}

// TestDisputeRoutes: challenge, dispute, decision.
func TestDisputeRoutes(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	a, b := f.as(t, f.keyA), f.as(t, f.keyB)
	c, err := b.Challenge(ctx, client.NewChallenge{JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI})
	if err != nil || len(c.Challenge) != 32 || c.Organisation != f.orgB || time.Until(c.ExpiresAt) <= 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	// The digest is what the document says.
	message := []byte("joinery possession of device key 1\x00")
	message = binary.BigEndian.AppendUint64(message, uint64(f.orgB))
	message = append(append(message, w.device.JoinEUI[:]...), w.device.DevEUI[:]...)
	digest := sha256.Sum256(append(message, c.Challenge...))
	if c.Digest != hex.EncodeToString(digest[:]) {
		t.Errorf("digest %s", c.Digest)
	}
	dispute := client.NewDispute{JoinEUI: w.device.JoinEUI, DevEUI: w.device.DevEUI, Challenge: c.Challenge, Signature: make([]byte, 64)}
	if _, err := b.OpenDispute(ctx, dispute); code(err) != "forbidden" {
		t.Errorf("%v", err)
	}
	if _, err := b.OpenDispute(ctx, dispute); code(err) != "conflict" {
		t.Errorf("a challenge is good for two tries: %v", err)
	}

	id := w.disputed.ID
	for _, c := range []*client.Client{a, f.operator} {
		got, err := c.Dispute(ctx, id)
		if err != nil || got.Claimant != f.orgA || got.Statement != "the invoice of Acme" || got.About != "ownership" || got.Evidence != "owner-token" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := a.DecideDispute(ctx, id, client.Decision{Grant: true}); code(err) != "forbidden" {
		t.Errorf("%v", err)
	}
	decided, err := f.operator.DecideDispute(ctx, id, client.Decision{Grant: true, Note: "so be it"})
	if err != nil || decided.State != "granted" || decided.DecidedAt.IsZero() {
		t.Errorf("%+v, %v", decided, err)
	}
	if d, err := a.Device(ctx, w.disputed.Device); err != nil || d.Owner != f.orgA {
		t.Errorf("%+v, %v", d, err)
	}
	for got, err := range a.Disputes(ctx, client.DisputesQuery{}) {
		if err != nil || got.Note != "so be it" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for got, err := range a.Disputes(ctx, client.DisputesQuery{Open: true}) {
		t.Errorf("open: %+v, %v", got, err)
	}
	if err := a.WithdrawDispute(ctx, id); code(err) != "conflict" {
		t.Errorf("%v", err)
	}
}

// TestBindingNeedsItsOwnRight: who may claim, but not say which network gets a
// device, cannot do so by way of a claim, an acceptance or a batch.
func TestBindingNeedsItsOwnRight(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	made, err := f.acting(t, f.orgA).MakeAPIKey(ctx, client.NewAPIKey{
		Name: "owns only", Scopes: []joinery.Right{joinery.RightDevicesOwn, joinery.RightDevicesRead},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := f.as(t, made.Text)
	id, binding := w.device.ID, &client.NewBinding{NetID: lorawan.NetID{0, 0, 0x42}, AppSKey: "clear"}
	before, err := c.Device(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if code(err) != "forbidden" || !strings.Contains(err.Error(), "devices:bind") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = c.Claim(ctx, client.NewClaim{DevEUI: w.device.DevEUI, OwnerToken: "AAAAAAAAAAAAA", Binding: binding})
	refused("claim", err)
	_, err = c.AcceptTransfer(ctx, id, client.Acceptance{Binding: binding})
	refused("accept", err)
	for _, act := range []client.OwnershipAct{
		{Action: client.ActionBind, Device: id, Binding: binding},
		{Action: client.ActionUnbind, Device: id},
		{Action: client.ActionClaim, DevEUI: w.device.DevEUI, OwnerToken: "AAAAAAAAAAAAA", Binding: binding},
		{Action: client.ActionAccept, Device: id, Binding: binding},
	} {
		_, err := c.ChangeOwnership(ctx, client.OwnershipBatch{Items: []client.OwnershipAct{{Action: client.ActionCancel, Device: id}, act}})
		refused("batch with "+act.Action, err)
	}
	importer, err := f.acting(t, f.orgA).MakeAPIKey(ctx, client.NewAPIKey{
		Name: "imports only", Scopes: []joinery.Right{joinery.RightDevicesImport},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := client.NewImport{Kind: "key-list", SHA256: strings.Repeat("ab", 32), Binding: binding}
	_, err = f.as(t, importer.Text).BeginImport(ctx, file)
	refused("import", err)
	file.Binding = nil
	if _, err := f.as(t, importer.Text).BeginImport(ctx, file); err != nil {
		t.Error(err)
	}
	if after, err := c.Device(ctx, id); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("the device changed: %+v, %v", after, err)
	}
	if offer, err := c.Transfer(ctx, id); err != nil || offer.Expired { // the world's, which each batch would have taken back first
		t.Errorf("%+v, %v", offer, err)
	}
	// The rest of owning it may do.
	if out, err := c.ChangeOwnership(ctx, client.OwnershipBatch{Items: []client.OwnershipAct{{Action: client.ActionCancel, Device: id}}}); err != nil || out.Done != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}
