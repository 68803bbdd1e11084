package rotation_test

import (
	"errors"
	"testing"
	"time"

	"joinery"
	"joinery/internal/keyring"
	"joinery/internal/keyring/keyringtest"
	"joinery/internal/rotation"
	"joinery/internal/seal"
	"joinery/internal/store/storetest/sqlitetest"
	"joinery/lorawan"
)

// ahead is a keyring whose newest generation is above what it seals under, so that
// whatever is stored is behind.
type ahead struct {
	rotation.Keyring
	broken error
}

func (a ahead) Generations() keyring.Generations {
	return keyring.Generations{JoinKEK: []uint32{1, 2}, Custody: 1}
}

func (a ahead) Rewrap(t contextType, h seal.Header, in []keyring.RewrapIn) ([]keyring.RootsOut, error) {
	if a.broken != nil {
		return nil, a.broken
	}
	out, err := a.Keyring.Rewrap(t, h, in)
	for i := range out { // as if they were under the next generation
		if out[i].Err == nil {
			out[i].App.Use = keyring.WithGeneration(2, out[i].App.Use)
		}
	}
	return out, err
}

var operator = joinery.Caller{Name: "op", Operator: true, Socket: true}

// What is behind is listed and sealed anew once; keys of somebody else change
// nothing, and nobody but the operator may ask.
func TestRotation(t *testing.T) {
	f := keyringtest.Soft(t)
	db := sqlitetest.New(t)
	s := rotation.New(db, ahead{Keyring: f.Keyring}, time.Now)
	roots := map[joinery.KeySetID][16]byte{}
	for n := range uint64(5) {
		d := keyringtest.Device{DevEUI: lorawan.EUI64FromUint64(n + 1), Root10: [16]byte{byte(n), 1}}
		roots[importDevice(t, db, f.SealedKeySet(t, d))] = d.Root10
	}

	var list []joinery.StoredRoots
	after := joinery.KeySetID(0)
	for pages := 1; ; pages++ {
		page, next, err := s.Behind(t.Context(), operator, after, 2)
		ok(t, err)
		list = append(list, page...)
		if after = next; after == 0 {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	p, err := s.Progress(t.Context(), operator)
	ok(t, err)
	if len(list) != 5 || p.KeySets != 5 || p.Behind != 5 || p.JoinKEK[1] != 5 || p.Custody[1] != 5 {
		t.Fatalf("%d listed, %+v", len(list), p)
	}

	sealer, err := seal.NewSealer(f.Keyring.TransportKey())
	ok(t, err)
	row := func(r joinery.StoredRoots, root [16]byte) rotation.Row {
		w := seal.SealedRow{DevEUI: r.DevEUI, MACVersion: lorawan.MAC1_0_3, Root10: seal.RootAppKey}
		ok(t, sealer.SealRow(&w, nil, root[:]))
		return rotation.Row{KeySet: r.KeySet, Row: w}
	}
	rows := []rotation.Row{row(list[0], roots[list[0].KeySet]), row(list[1], roots[list[0].KeySet]), row(joinery.StoredRoots{KeySet: 9}, [16]byte{1})}
	o, err := s.Rewrap(t.Context(), operator, sealer.Header(), rows)
	ok(t, err)
	if o.Changed != 1 || o.Skipped != 1 || len(o.Failed) != 1 || o.Failed[0] != list[1].KeySet {
		t.Errorf("%+v", o)
	}
	o, err = s.Rewrap(t.Context(), operator, sealer.Header(), rows[:1])
	ok(t, err)
	if o.Changed != 0 || o.Skipped != 1 {
		t.Errorf("handed in again: %+v", o)
	}
	p, err = s.Progress(t.Context(), operator)
	ok(t, err)
	if p.Behind != 4 || p.JoinKEK[2] != 1 {
		t.Errorf("%+v", p)
	}
	entries, err := db.AuditEntries(t.Context(), 0, 100)
	ok(t, err)
	if last := entries[len(entries)-1]; last.Event != joinery.AuditRootsRewrapped || last.Detail["key_sets"] != "1" || last.Detail["join_kek"] != "2" {
		t.Errorf("%+v", last)
	}
	refusals(t, f, db, s, sealer.Header(), row(list[2], roots[list[2].KeySet]))
}

func refusals(t *testing.T, f keyringtest.Fixture, db rotation.Store, s *rotation.Service, h seal.Header, row rotation.Row) {
	t.Helper()
	stranger := joinery.Caller{Name: "somebody", Org: joinery.NewOrgID()}
	_, err := s.Progress(t.Context(), stranger)
	refused(t, err, joinery.CodeForbidden)
	_, _, err = s.Behind(t.Context(), stranger, 0, 1)
	refused(t, err, joinery.CodeForbidden)
	_, err = s.Rewrap(t.Context(), stranger, h, nil)
	refused(t, err, joinery.CodeForbidden)
	// An operator's API key or session sees how far it is, and no ciphertext of roots.
	away := joinery.Caller{Name: "key", Operator: true, Key: 1}
	_, err = s.Progress(t.Context(), away)
	ok(t, err)
	_, _, err = s.Behind(t.Context(), away, 0, 1)
	refused(t, err, joinery.CodeForbidden)
	_, err = s.Rewrap(t.Context(), away, h, []rotation.Row{row})
	refused(t, err, joinery.CodeForbidden)
	_, err = s.Rewrap(t.Context(), operator, h, make([]rotation.Row, rotation.MaxRows+1))
	refused(t, err, joinery.CodeInvalid)
	_, err = s.Rewrap(t.Context(), operator, seal.Header{}, []rotation.Row{row})
	refused(t, err, joinery.CodeInvalid)
	for broken, code := range map[error]joinery.Code{
		keyring.ErrToken: joinery.CodeUnavailable, keyring.ErrNotServed: joinery.CodeConflict, errors.New("?"): joinery.CodeInternal,
	} {
		_, err := rotation.New(db, ahead{f.Keyring, broken}, time.Now).Rewrap(t.Context(), operator, h, []rotation.Row{row})
		refused(t, err, code)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, code joinery.Code) {
	t.Helper()
	if joinery.CodeOf(err) != code {
		t.Errorf("got %v, want %s", err, code)
	}
}
