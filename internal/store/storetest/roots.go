package storetest

import (
	"strconv"
	"testing"

	"joinery"
)

func runRoots(t *testing.T, open func(testing.TB) Backend) {
	t.Run("replaced where they are as they were", func(t *testing.T) {
		w := newWorld(t, open)
		first, second, third := sealed(1), sealed(2), sealed(3)
		first.KeySet.Nwk = joinery.SealedRoot{Use: randomBytes(57), Custody: randomBytes(400)}
		w.importAs(w.org, first, derived(4), second, third)
		var list []joinery.StoredRoots
		for after := joinery.KeySetID(0); ; after = list[len(list)-1].KeySet {
			page, err := w.StoredRoots(w.ctx, after, 2)
			w.ok(err)
			if len(page) == 0 {
				break
			}
			list = append(list, page...)
		}
		w.equal(len(list), 3)
		got, err := w.RootsOf(w.ctx, []joinery.KeySetID{joinery.NewKeySetID(), first.KeySet.ID})
		w.ok(err)
		w.equal(got, []joinery.StoredRoots{{
			KeySet: first.KeySet.ID, JoinEUI: joinEUI, DevEUI: first.Device.DevEUI, MACVersion: first.Device.MACVersion,
			Root10: first.KeySet.Root10, Nwk: first.KeySet.Nwk, App: first.KeySet.App,
		}})
		heads := 0
		w.ok(w.EachRootHead(w.ctx, func(nwk, app joinery.SealedRoot) {
			heads++
			if len(nwk.Use) > 5 || len(app.Custody) != 5 {
				t.Errorf("heads of %d and %d bytes", len(nwk.Use), len(app.Custody))
			}
		}))
		w.equal(heads, 3)

		anew := joinery.SealedRoot{Use: randomBytes(62), Custody: randomBytes(405)}
		wrong := joinery.SealedRoot{Use: randomBytes(57), Custody: first.KeySet.App.Custody}
		change := []joinery.NewRoots{
			{KeySet: first.KeySet.ID, OldNwk: first.KeySet.Nwk, OldApp: first.KeySet.App, Nwk: anew, App: anew},
			{KeySet: second.KeySet.ID, OldApp: wrong, App: anew},      // changed meanwhile
			{KeySet: joinery.NewKeySetID(), OldApp: wrong, App: anew}, // gone
		}
		entry := func(n int) joinery.AuditEntry {
			e := w.audit(joinery.AuditRootsRewrapped)
			e.Detail = map[string]string{"key_sets": strconv.Itoa(n)}
			return e
		}
		changed, err := w.ReplaceRoots(w.ctx, change, entry)
		w.ok(err)
		w.equal(changed, 1)
		w.equal(w.load(joinEUI, devEUI(1)).KeySet.Nwk.Use, anew.Use) // what the next join reads
		w.equal(w.load(joinEUI, devEUI(2)).KeySet.App.Use, second.KeySet.App.Use)
		changed, err = w.ReplaceRoots(w.ctx, change, func(int) joinery.AuditEntry {
			t.Error("an entry for a change of nothing")
			return joinery.AuditEntry{}
		})
		w.ok(err)
		w.equal(changed, 0)
		w.CheckInvariants(t)
	})
}

// runKeys: the custody log tells of the keys with which servers serve.
func runKeys(t *testing.T, open func(testing.TB) Backend) {
	w := newWorld(t, open)
	one, two := map[string]string{"join_kek": "1", "custody": "1"}, map[string]string{"join_kek": "1 2", "custody": "1"}
	for _, g := range []map[string]string{one, one, two, two, one} {
		w.ok(w.NoteKeys(w.ctx, g))
	}
	entries, err := w.AuditEntries(w.ctx, 0, 1000)
	w.ok(err)
	var got []string
	for _, e := range entries {
		if e.Event == joinery.AuditKeysChanged {
			got = append(got, e.Detail["join_kek"])
		}
	}
	w.equal(got, []string{"1", "1 2", "1"})
	w.CheckInvariants(t)
}
