package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"joinery"
	"joinery/client"
	"joinery/internal/api"
	"joinery/lorawan"
)

// TestEveryCodeHasAnAnswer reads the codes off the source, so that a new one
// cannot be forgotten.
func TestEveryCodeHasAnAnswer(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []joinery.Code
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || !strings.HasPrefix(v.Names[0].Name, "Code") || len(v.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, joinery.Code(text))
		return true
	})
	if len(codes) < 15 {
		t.Fatalf("only %d codes found", len(codes))
	}
	for _, code := range codes {
		f := start(t, func(o *api.Options) { o.Devices = failing{broken{}, code} })
		a := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", "")
		p := a.problem(t)
		if p.Code != code || p.Detail != "said to people" || p.Title == "" || a.status < 400 {
			t.Errorf("%s: %d %+v", code, a.status, p)
		}
		if internal := a.status == 500; internal != (code == joinery.CodeInternal) {
			t.Errorf("%s: %d", code, a.status)
		}
	}
	// A code that nobody knows is a defect, and is answered as one.
	f := start(t, func(o *api.Options) { o.Devices = failing{broken{}, "made up"} })
	if p := f.send(t, f.keyA, http.MethodGet, "/api/v1/devices", "").problem(t); p.Code != joinery.CodeInternal || p.Detail != "" {
		t.Errorf("a code that nobody knows: %+v", p)
	}
}

func TestStrictBodies(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	post := func(path, body string) (int, client.Problem) {
		t.Helper()
		a := f.send(t, w.operatorKey, http.MethodPost, path, body)
		return a.status, a.problem(t)
	}
	for _, c := range []struct {
		name, path, body string
		status           int
		location, says   string
	}{
		{"unknown member", "/api/v1/organisations", `{"name":"x","nmae":"y"}`, 422, "body", "known are name"},
		{"unknown member deep down", "/api/v1/peers", `{"name":"x","credentials":[{"kind":"spki","pin":"x"}]}`, 422, "body.credentials[0]", "ca, kind, san, spki"},
		{"other case", "/api/v1/organisations", `{"Name":"x"}`, 422, "", "case-sensitive"},
		{"twice", "/api/v1/organisations", `{"name":"x","name":"y"}`, 400, "body", "twice"},
		{"not JSON", "/api/v1/organisations", `{"name":`, 400, "body", "not valid JSON, at byte"},
		{"behind", "/api/v1/organisations", `{"name":"x"}{}`, 400, "body", "not valid JSON"},
		{"invalid UTF-8", "/api/v1/organisations", "{\"name\":\"\xff\"}", 400, "body", "not valid JSON"},
		{"missing", "/api/v1/organisations", `{}`, 422, "body", "name"},
		{"type", "/api/v1/organisations", `{"name":7}`, 422, "body.name", "expected string"},
		{"number for an object", "/api/v1/claims", `7`, 422, "body", "expected object"},
		{"hexadecimal", "/api/v1/claims", `{"joinEUI":"70B3","devEUI":"0004A310001AA90A","ownerToken":"x"}`, 422, "body.joinEUI", "16 hexadecimal digits"},
		{"range", "/api/v1/devices/" + w.ids["devices"] + "/reset-nonces", `{"joinNonceAtLeast":16777216}`, 422, "body.joinNonceAtLeast", "<= "},
		{"huge number", "/api/v1/imports/" + w.ids["imports"] + "/rows", `{"from":1e300}`, 422, "body.from", "<= "},
		{"fraction", "/api/v1/imports/" + w.ids["imports"] + "/rows", `{"from":0.5}`, 422, "body.from", "integer"},
		{"enum", "/api/v1/imports", `{"kind":"other","sha256":"` + strings.Repeat("0", 64) + `"}`, 422, "body.kind", "manifest, key-list"},
		{"base64", "/api/v1/peers/" + w.ids["peers"] + "/keks", `{"role":"ns","label":"x","seal":{"format":"x","kid":"x","alg":"x","wrap":"x","key":"!"},"wrapped":""}`, 422, "body.seal.key", "base64"},
		{"time", "/api/v1/api-keys", `{"name":"x","expiresAt":"tomorrow"}`, 422, "body.expiresAt", "RFC 3339"},
	} {
		status, p := post(c.path, c.body)
		if status != c.status || p.Code != joinery.CodeInvalid || len(p.Errors) == 0 {
			t.Errorf("%s: %d %+v", c.name, status, p)
			continue
		}
		found := slices.ContainsFunc(p.Errors, func(e client.ProblemField) bool {
			return (c.location == "" || e.Location == c.location) && strings.Contains(e.Message, c.says)
		})
		if !found {
			t.Errorf("%s: no %q at %s in %+v", c.name, c.says, c.location, p.Errors)
		}
	}
	a := f.send(t, w.operatorKey, http.MethodGet, "/api/v1/devices?limit=0&colour=red", "")
	if p := a.problem(t); a.status != 422 || !strings.Contains(fmt.Sprint(p.Errors), "not known here") {
		t.Errorf("an unknown query parameter: %d %+v", a.status, p)
	}
}

// TestManyErrorsAreCut: an answer names at most so many wrong members.
func TestManyErrorsAreCut(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	rows := strings.TrimSuffix(strings.Repeat(`{"line":-1},`, 400), ",")
	a := f.send(t, w.operatorKey, http.MethodPost, "/api/v1/imports/"+w.ids["imports"]+"/rows", `{"from":0,"keys":[`+rows+`]}`)
	if p := a.problem(t); len(p.Errors) > 40 || len(a.body) > 8<<10 {
		t.Errorf("%d errors in %d bytes", len(p.Errors), len(a.body))
	}
}

func TestPaging(t *testing.T) {
	f := start(t)
	f.populate(t)
	c := f.as(t, f.keyA)
	const n = 23
	want := map[string]bool{"0004A310001AA90A": true}
	for i := range n {
		devEUI := lorawan.EUI64FromUint64(0x0004A31000100000 + uint64(i))
		f.importDevice(t, c, eui(t, "70B3D57ED0000001"), devEUI)
		want[devEUI.String()] = true
	}
	for _, size := range []int{1, 5, 24, 100} {
		got := map[string]bool{}
		for d, err := range c.Devices(t.Context(), client.DevicesQuery{Limit: size}) {
			if err != nil {
				t.Fatal(err)
			}
			if got[d.DevEUI.String()] {
				t.Errorf("pages of %d: %s twice", size, d.DevEUI)
			}
			got[d.DevEUI.String()] = true
		}
		if len(got) != len(want) {
			t.Errorf("pages of %d: %d devices, want %d", size, len(got), len(want))
		}
	}
	count := func(filter client.DevicesQuery) (n int) {
		for _, err := range c.Devices(t.Context(), filter) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if got := count(client.DevicesQuery{JoinEUI: eui(t, "70B3D57ED0000001")}); got != n {
		t.Errorf("%d devices with that JoinEUI", got)
	}
	if got := count(client.DevicesQuery{DevEUI: "0004a310001A"}); got != 1 {
		t.Errorf("%d devices with that prefix", got)
	}
	if got := count(client.DevicesQuery{Status: "suspended"}); got != 0 {
		t.Errorf("%d suspended devices", got)
	}
	audit := 0
	for q := (client.AuditQuery{Limit: 7}); ; {
		p, err := f.operator.AuditPage(t.Context(), q)
		if err != nil || len(p.Items) > 7 {
			t.Fatalf("%d entries, %v", len(p.Items), err)
		}
		audit += len(p.Items)
		if q.After = p.Next; q.After == "" {
			break
		}
	}
	if audit < n {
		t.Errorf("%d audit entries by pages", audit)
	}
}

// TestImportGoesOn begins an import twice, gives rows twice, and reads what was
// refused by pages.
func TestImportGoesOn(t *testing.T) {
	f := start(t)
	f.populate(t)
	c := f.as(t, f.keyA)
	sum := sha256.Sum256(randomKey(32))
	begin := client.NewImport{Kind: "key-list", SHA256: hex.EncodeToString(sum[:])}
	first, err := c.BeginImport(t.Context(), begin)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := f.sealedRow(t, client.SealedKeyRow{}, randomKey(16))
	rows := client.ImportRows{Seal: &h}
	for i := range uint64(250) {
		rows.BadRows = append(rows.BadRows, client.BadRow{Index: i, Line: i + 2, Reason: "AppKey is missing"})
	}
	p, err := c.ImportRows(t.Context(), first.ID, rows)
	if err != nil || p.Import.Next != 250 || p.Import.Done {
		t.Fatalf("%+v, %v", p.Import, err)
	}
	if _, err := c.ImportRows(t.Context(), first.ID, rows); code(err) != "conflict" {
		t.Errorf("the same rows again: %v", err)
	}
	again, err := c.BeginImport(t.Context(), begin)
	if err != nil || again.ID != first.ID || again.Next != 250 {
		t.Errorf("begun again: %+v, %v", again, err)
	}
	begin.Binding = &client.NewBinding{NetID: lorawan.NetID{1}, AppSKey: "clear"}
	if _, err := c.BeginImport(t.Context(), begin); code(err) != "conflict" {
		t.Errorf("begun again with other settings: %v", err)
	}
	index := uint64(0)
	for r, err := range c.ImportErrors(t.Context(), first.ID, client.ImportErrorsQuery{}) {
		if err != nil || r.Index != index || r.Line != index+2 {
			t.Fatalf("row %+v, want index %d (%v)", r, index, err)
		}
		index++
	}
	if index != 250 {
		t.Errorf("%d refused rows", index)
	}
}

func TestPeersOverTheWire(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	in := f.newPeer(t, "Both", "60002A", "both-v1")
	in.ASIDs, in.OmitSessionKeyID, in.AppSKeyAtLeast = []string{"as.example.com"}, true, "wrapped"
	in.Credentials = append(in.Credentials, client.Credential{Kind: "spki", SPKI: strings.Repeat("AB", 32)})
	made, err := f.operator.AddPeer(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.operator.Peer(ctx, made.ID)
	if err != nil || got.Name != "Both" || !got.OmitSessionKeyID || got.AppSKeyAtLeast != "wrapped" || got.ASIDs[0] != "as.example.com" ||
		got.Credentials[0].SPKI != in.Credentials[0].SPKI || got.Credentials[1].SPKI != strings.Repeat("ab", 32) || got.Organisation != f.orgA {
		t.Fatalf("%+v, %v", got, err)
	}
	change := client.PeerChange{PeerSettings: got.PeerSettings}
	change.ClearKeys = true
	if _, err := f.operator.ChangePeer(ctx, made.ID, change); code(err) != "invalid" {
		t.Errorf("clear keys without confirming: %v", err)
	}
	change.ConfirmClearKeys = "Both"
	if changed, err := f.operator.ChangePeer(ctx, made.ID, change); err != nil || !changed.ClearKeys {
		t.Errorf("clear keys, confirmed: %+v, %v", changed, err)
	}
	k, err := f.operator.AddKEK(ctx, made.ID, f.sealedKEK(t, "as", "as-v1", randomKey(32)))
	if err != nil || k.Version != 1 || k.Role != "as" || k.Peer != made.ID {
		t.Fatalf("%+v, %v", k, err)
	}
	damaged := f.sealedKEK(t, "as", "as-v2", randomKey(32))
	damaged.Wrapped[0] ^= 1
	if _, err := f.operator.AddKEK(ctx, made.ID, damaged); code(err) != "invalid" {
		t.Errorf("a KEK that does not open: %v", err)
	}
	if err := f.operator.RetireKEK(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.as(t, f.keyB).AddPeer(ctx, in); code(err) != "forbidden" {
		t.Errorf("a tenant added a peer: %v", err)
	}
	if err := f.operator.RemovePeer(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.operator.Peer(ctx, made.ID); code(err) != "not_found" {
		t.Errorf("a removed peer: %v", err)
	}
	f.checkAudit(t, "peer.added", "peer.changed", "peer.clear_keys_allowed", "kek.added", "kek.retired", "peer.removed")
}

func TestRoamingAndRanges(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	ctx := t.Context()
	a := f.as(t, f.keyA)
	rule := client.RoamingRule{Device: w.device.ID, NetIDs: []lorawan.NetID{}}
	if err := a.SetRoaming(ctx, rule); err != nil {
		t.Fatal(err)
	}
	rules, err := a.Roaming(ctx, 0)
	if err != nil || len(rules) != 2 {
		t.Fatalf("rules %+v, %v", rules, err)
	}
	rule.NetIDs = nil
	if err := a.SetRoaming(ctx, rule); err != nil {
		t.Fatal(err)
	}
	if rules, err = a.Roaming(ctx, 0); err != nil || len(rules) != 1 || rules[0].Device != 0 {
		t.Errorf("after removing the device's rule: %+v, %v", rules, err)
	}
	whole := euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF")
	if err := f.operator.ReleaseJoinEUIRange(ctx, whole.First, whole.Last); code(err) != "conflict" {
		t.Errorf("a range with devices and a signer: %v", err)
	}
	if err := f.operator.ReleaseJoinEUIRange(ctx, whole.First, eui(t, "70B3D57ED00000FE")); code(err) != "not_found" {
		t.Errorf("a range that is none: %v", err)
	}
	signers, err := f.operator.Signers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.operator.RemoveSigner(ctx, signers[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteDevice(ctx, w.device.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.operator.ReleaseJoinEUIRange(ctx, whole.First, whole.Last); err != nil {
		t.Errorf("an empty range: %v", err)
	}
}
