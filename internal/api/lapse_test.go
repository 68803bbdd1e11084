package api_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"joinery"
	"joinery/client"
	"joinery/internal/store/storetest"
	"joinery/lorawan"
)

// begunUntil makes a device of orgA that derives its keys, can be rekeyed, joined once
// and whose service ends at a time.
func (f *fixture) begunUntil(t *testing.T, devEUI string, end time.Time) client.Device {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, now := t.Context(), time.Now()
	i := joinery.Import{Org: f.orgA, Kind: joinery.ImportKeyList, MACVersion: lorawan.MAC1_0_4, CreatedAt: now, SHA256: [32]byte(randomKey(32))}
	i, err := f.db.BeginImport(ctx, i)
	must(err)
	d := joinery.Device{ID: joinery.NewDeviceID(), JoinEUI: eui(t, "70B3D57ED0000000"), DevEUI: eui(t, devEUI), MACVersion: lorawan.MAC1_0_4, CreatedAt: now}
	k := joinery.KeySet{ID: joinery.NewKeySetID(), DeviceID: d.ID, DevEUI: d.DevEUI, Origin: joinery.OriginDerived, Master: "test-master", Generation: 1, Root10: joinery.NwkKey}
	rows, err := f.db.CommitRows(ctx, joinery.ImportRows{Import: i.ID, Count: 1, Last: true, Devices: []joinery.NewDevice{{Line: 1, Device: d, KeySet: k}}},
		joinery.AuditEntry{At: now, Event: joinery.AuditDeviceImported, Actor: "test", Org: f.orgA})
	must(err)
	if rows[0].Status != joinery.RowCreated {
		t.Fatalf("%+v", rows[0])
	}
	api, id := f.as(t, f.keyA), rows[0].Device
	must(api.Bind(ctx, id, client.NewBinding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", AppSKey: "wrapped"}))
	must(api.SetRekeyProfile(ctx, id, client.RekeyProfile{Profile: "S"}))
	state, err := f.db.Device(ctx, id)
	must(err)
	c := storetest.NextCommit(state)
	c.Begin = &joinery.ServiceBegin{Plan: joinery.BuiltInPlan(), Maker: f.orgA, Term: joinery.ServiceTerm{Plan: joinery.StandardPlan, EndsAt: end, RefuseAt: end}}
	must(f.db.CommitActivation(ctx, c))
	made, err := api.Device(ctx, id)
	must(err)
	return made
}

// Ends of a service that lapsed long ago, and of one that stands.
var (
	longAgo   = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	longAhead = time.Date(2125, 1, 1, 0, 0, 0, 0, time.UTC)
)

// All ways out of this server are open to a device whose service lapsed: its keys are
// exported, it is rekeyed for another Join Server, alone and among many, and it goes to
// another owner. Nobody else is needed here, so each is done at once.
func TestLapsedDeviceLeaves(t *testing.T) {
	f := start(t)
	d, _ := readDocument(t, f)
	ctx := t.Context()
	if _, err := f.operator.AssignJoinEUIRange(ctx, client.NewJoinEUIRange{EUIRange: euiRange(t, "70B3D57ED0000000", "70B3D57ED00000FF"), Organisation: f.orgA}); err != nil {
		t.Fatal(err)
	}
	server, err := f.operator.PinJoinServer(ctx, client.NewJoinServer{Name: "there", TransportKey: f.keys.TransportKey().MarshalDER()})
	if err != nil {
		t.Fatal(err)
	}
	to, private := recipientPair(t)
	recipient, err := f.as(t, f.keyA).AddRecipient(ctx, client.NewRecipient{Name: "laptop", Key: string(to.MarshalJWK())})
	if err != nil {
		t.Fatal(err)
	}
	away := eui(t, "EC656EFFFE000001")
	operations := map[string]operation{}
	for _, op := range d.operations() {
		operations[op.OperationID] = op
	}
	for state, device := range map[string]client.Device{
		"lapsed": f.begunUntil(t, "0004A310001AB003", longAgo),
		"active": f.begunUntil(t, "0004A310001AB004", longAhead),
	} {
		one, refs := []joinery.DeviceID{device.ID}, []client.DeviceRef{{Device: device.ID}}
		s, err := f.as(t, f.keyA).DeviceService(ctx, device.ID)
		if err != nil || s.State != state {
			t.Fatalf("%+v %v", s, err)
		}
		for _, step := range []struct {
			operation, key string
			body           any // nil: none
			want           string
		}{
			{"requestExport", f.keyA, client.NewExport{Recipient: recipient.ID, Devices: refs}, `"state":"approved"`},
			{"armRekey", f.keyA, client.NewRekeyOrder{NewJoinEUI: away, To: server.ID}, `"state":"armed"`},
			{"makeRekeyTicket", f.keyA, client.NewRekeyTicket{Devices: one}, `"devices":1`},
			{"makeHandover", f.keyA, client.NewHandover{To: server.ID, Devices: one}, `"devices":1`},
			{"cancelRekey", f.keyA, nil, ""},
			{"requestRekeyBatch", f.keyA, client.NewRekeyBatch{NewJoinEUI: away, To: server.ID, Devices: refs}, `"state":"approved"`},
			{"offerTransfer", f.keyA, client.NewTransfer{Recipient: f.orgB}, `"recipient":"` + f.orgB.String() + `"`},
			{"acceptTransfer", f.keyB, client.Acceptance{}, `"ownerToken":`},
		} {
			op, found := operations[step.operation]
			if !found {
				t.Fatalf("there is no %s", step.operation)
			}
			body := ""
			if step.body != nil {
				body = marshal(t, step.body)
			}
			a := f.send(t, step.key, op.method, op.pathIDs(t, map[string]string{"dev": device.ID.String()}), body)
			if a.status < 200 || a.status > 299 || !strings.Contains(a.body, step.want) {
				t.Errorf("%s of a device whose service is %s: %d %s", step.operation, state, a.status, a.body)
			}
			switch step.operation { // what is done behind it
			case "requestExport":
				var e client.Export
				if err := json.Unmarshal([]byte(a.body), &e); err != nil {
					t.Fatal(err)
				}
				f.wrap(t, e.ID, to)
				f.opens(t, f.keyA, e.ID, private, device.DevEUI)
			case "requestRekeyBatch":
				f.armsAll(t)
			}
		}
	}
}

// armsAll has the server work off batches, which must arm every device.
func (f *fixture) armsAll(t *testing.T) {
	t.Helper()
	worker, ok := f.services.RekeyBatches.(interface {
		WorkBatches(ctx context.Context) (more bool, err error)
	})
	for more := ok; more; {
		var err error
		if more, err = worker.WorkBatches(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for b, err := range f.as(t, f.keyA).RekeyBatches(t.Context(), client.RekeyBatchesQuery{}) {
		if err != nil || b.State != "done" || b.Armed != b.Devices {
			t.Errorf("%+v, %v", b, err)
		}
	}
}

// Every operation that takes a device answers of one whose service lapsed as of
// one whose service stands: lapse is looked at when a device joins, and at no
// other time.
func TestLapseKeepsNothingFromItsOwner(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	d, _ := readDocument(t, f)
	lapsed := f.begunUntil(t, "0004A310001AB001", longAgo)
	stands := f.begunUntil(t, "0004A310001AB002", longAhead)
	if s, err := f.as(t, f.keyA).DeviceService(t.Context(), lapsed.ID); err != nil || s.State != "lapsed" {
		t.Fatalf("%+v %v", s, err)
	}
	operations := d.operations()
	slices.SortStableFunc(operations, func(a, b operation) int { return rank(a) - rank(b) })
	// What must do something here, and what of its samples does not go together.
	const away = "EC656EFFFE000001"
	byID := []any{map[string]any{"device": ""}} // which is filled in
	instead := map[string]map[string]any{
		"requestExport":     {"select": nil, "form": nil, "more": nil, "devices": byID},
		"setRekeyProfile":   {"profile": "S"},
		"armRekey":          {"recipient": nil, "newJoinEUI": away},
		"requestRekeyBatch": {"recipient": nil, "select": nil, "newJoinEUI": away, "more": nil, "devices": byID},
		"offerTransfer":     {"recipient": f.orgB.String(), "expiresAt": nil},
	}
	done, accepted, must := 0, 0, 0
	for _, op := range operations {
		var sample any
		spots := []place{}
		if op.RequestBody != nil {
			sample = d.sample(t, d.body(op), w.ids)
			if fields, ok := sample.(map[string]any); ok {
				for name, value := range instead[op.OperationID] {
					if fields[name] = value; value == nil {
						delete(fields, name)
					}
				}
			}
			for _, p := range d.places(d.body(op)) {
				if prefix, ok := idPattern(p.schema); ok && prefix == "dev" {
					spots = append(spots, p)
				}
			}
		}
		ofPath := strings.Contains(op.path, "/devices/{id}")
		if !ofPath && len(spots) == 0 {
			continue
		}
		ask := func(id joinery.DeviceID) answer {
			ids := map[string]string{}
			for prefix, other := range w.ids {
				ids[prefix] = other
			}
			ids["dev"] = id.String()
			body := ""
			if op.RequestBody != nil {
				in := sample
				for _, p := range spots {
					in = set(in, p.path, id.String())
				}
				body = marshal(t, in)
			}
			return f.send(t, f.keyA, op.method, op.pathIDs(t, ids), body)
		}
		a, b := ask(lapsed.ID), ask(stands.ID)
		done++
		if a.status < 300 {
			accepted++
		}
		if instead[op.OperationID] != nil {
			must++
			if a.status >= 300 {
				t.Errorf("%s: %d %s", op.OperationID, a.status, a.body)
			}
		}
		unnamed := func(a answer, d client.Device) string {
			return strings.NewReplacer(d.ID.String(), "ID", d.DevEUI.String(), "DEVEUI").Replace(a.body)
		}
		if a.status != b.status || a.status >= 400 && len(unnamed(a, lapsed)) != len(unnamed(b, stands)) {
			t.Errorf("%s: lapsed %d %s, else %d %s", op.OperationID, a.status, a.body, b.status, b.body)
		}
		if strings.Contains(a.body, "service_lapsed") {
			t.Errorf("%s: %s", op.OperationID, a.body)
		}
	}
	t.Logf("%d operations about a device, %d of them did something", done, accepted)
	if done < 20 || accepted < 10 || must != len(instead) {
		t.Errorf("%d operations about a device, %d did something, %d of %d had to", done, accepted, must, len(instead))
	}
}

// rank puts what takes a device from its owner last.
func rank(op operation) int {
	switch op.OperationID {
	case "changeOwnership":
		return 1
	case "releaseDevice":
		return 2
	case "deleteDevice":
		return 3
	}
	return 0
}

// Whoever looks at lapse is listed here, with joins alone among the rules.
func TestLapseIsLookedAtInJoinsOnly(t *testing.T) {
	allowed := []string{"serviceterm.go", "internal/activation/term.go"}
	var found []string
	err := fs.WalkDir(os.DirFS("../.."), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(filepath.Join("../..", path))
		if strings.Contains(string(text), ".Lapsed(") {
			found = append(found, path)
		}
		return err
	})
	slices.Sort(found)
	slices.Sort(allowed)
	if err != nil || !slices.Equal(found, allowed) {
		t.Errorf("lapse is looked at in %q (%v), want %q: a lapsed service refuses joins and nothing else", found, err, allowed)
	}
}
