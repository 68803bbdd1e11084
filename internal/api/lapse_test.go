package api_test

import (
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

// begunUntil imports a device that joined once and whose service ends at a time.
func (f *fixture) begunUntil(t *testing.T, devEUI string, end time.Time) client.Device {
	t.Helper()
	d := f.importDevice(t, f.as(t, f.keyA), eui(t, "70B3D57ED0000000"), eui(t, devEUI))
	err := f.as(t, f.keyA).Bind(t.Context(), d.ID, client.NewBinding{NetID: lorawan.NetID{0, 0, 0x13}, ASID: "as.example.com", AppSKey: "wrapped"})
	if err != nil {
		t.Fatal(err)
	}
	state, err := f.db.Device(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := storetest.NextCommit(state)
	c.Begin = &joinery.ServiceBegin{Plan: joinery.BuiltInPlan(), Maker: f.orgA, Term: joinery.ServiceTerm{Plan: joinery.StandardPlan, EndsAt: end, RefuseAt: end}}
	if err := f.db.CommitActivation(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return d
}

// Every operation that takes a device answers of one whose service lapsed as of
// one whose service stands: lapse is looked at when a device joins, and at no
// other time.
func TestLapseKeepsNothingFromItsOwner(t *testing.T) {
	f := start(t)
	w := f.populate(t)
	d, _ := readDocument(t, f)
	lapsed := f.begunUntil(t, "0004A310001AB001", time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	stands := f.begunUntil(t, "0004A310001AB002", time.Date(2125, 1, 1, 0, 0, 0, 0, time.UTC))
	if s, err := f.as(t, f.keyA).DeviceService(t.Context(), lapsed.ID); err != nil || s.State != "lapsed" {
		t.Fatalf("%+v %v", s, err)
	}
	operations := d.operations()
	slices.SortStableFunc(operations, func(a, b operation) int { return rank(a) - rank(b) })
	done, accepted := 0, 0
	for _, op := range operations {
		var sample any
		spots := []place{}
		if op.RequestBody != nil {
			sample = d.sample(t, d.body(op), w.ids)
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
	if done < 20 || accepted < 10 {
		t.Errorf("%d operations about a device, %d did something", done, accepted)
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
