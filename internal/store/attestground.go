package store

import (
	"context"
	"time"

	"joinery"
)

// floors gives the highest counters of what tokens of a device measured beside the
// application, by its type, also of releases that were withdrawn: what the maker took
// back, nobody brings back what was before it.
func (c conn) floors(id joinery.DeviceID) (floors map[string]uint32, err error) {
	err = c.each(`SELECT s.component, max(coalesce(f.floor, f.counter)) FROM attest_shown s JOIN firmware_release f ON f.id = s.firmware
		WHERE s.device = ? GROUP BY s.component`, func(r *row) error {
		if floors == nil {
			floors = map[string]uint32{}
		}
		component := r.text()
		floors[component] = uint32(r.int())
		return nil
	}, id)
	return floors, err
}

// putShown notes what a token measured beside the application: of a type the lowest.
func (t *tx) putShown(r joinery.AttestResult) error {
	lowest := map[string]joinery.AttestComponent{}
	for _, c := range r.Components {
		if known, ok := lowest[c.Type]; !ok || c.Counter < known.Counter {
			lowest[c.Type] = c
		}
	}
	for _, c := range lowest {
		err := t.exec("INSERT INTO attest_shown (device, component, firmware) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", r.Device, c.Type, c.Release)
		if err != nil {
			return err
		}
	}
	return nil
}

// EndUnvouched has what at most limit devices have shown rest no more on pins that went,
// and tells their owners; it gives how many results it found, which is limit where there
// may be more.
func (d *DB) EndUnvouched(ctx context.Context, now time.Time, limit int) (n int, err error) {
	var due int64
	err = d.read(ctx, func(c conn) error {
		due, err = c.integer("SELECT signer FROM attest_unpinned LIMIT 1")
		return err
	})
	if err != nil || due == 0 {
		return 0, err
	}
	return write(ctx, d, func(t *tx) (int, error) {
		type one struct {
			device joinery.DeviceID
			level  joinery.AttestLevel
		}
		var list []one
		at, err := t.integer("SELECT at FROM attest_unpinned WHERE signer = ?", due)
		if err == nil {
			err = t.each("SELECT device, level FROM attest_result WHERE signer = ? AND unpinned_at IS NULL ORDER BY device, level LIMIT ?", func(r *row) error {
				list = append(list, one{joinery.DeviceID(r.int()), joinery.AttestLevel(r.int())})
				return nil
			}, due, limit)
		}
		for _, o := range list {
			if err == nil {
				err = t.unvouch(o.device, o.level, at, now)
			}
		}
		if err == nil && len(list) < limit {
			err = t.exec("DELETE FROM attest_unpinned WHERE signer = ?", due)
		}
		return len(list), err
	})
}

// unvouch has a result rest on nobody from now on, and tells the owner where it counted.
func (t *tx) unvouch(id joinery.DeviceID, level joinery.AttestLevel, at int64, now time.Time) error {
	var owner joinery.OrgID
	var a joinery.Attested
	if _, err := t.one("SELECT org, "+attestedColumns+" FROM device WHERE id = ?", func(r *row) error {
		owner, a = joinery.OrgID(r.int()), scanAttested(r)
		return nil
	}, id); err != nil {
		return err
	}
	was := a.BasisOf(level)
	a.Basis[level-1] = joinery.AttestAny
	err := inOrder(
		func() error {
			return t.exec("UPDATE attest_result SET basis = 0, unpinned_at = ? WHERE device = ? AND level = ?", at, id, level)
		},
		func() error { return t.exec("UPDATE device SET attest_basis = ? WHERE id = ?", packedBasis(a), id) },
		func() error { return t.advance(id) }) // a join under way is judged again
	if err != nil || a.Until[level-1].IsZero() || was == joinery.AttestAny { // it did not count, or rested on nothing
		return err
	}
	return t.audit(joinery.AuditEntry{
		At: now, Event: joinery.AuditAttestUnvouched, Actor: "server", Org: owner, Device: id,
		Detail: map[string]string{"level": level.String(), "basis": joinery.AttestAny.String(), "was": was.String(), "reason": "signer-removed"},
	})
}
