package store

import (
	"context"

	"joinery"
	"joinery/lorawan"
)

// AddOrg adds an organisation, of every kind where none is said; CodeConflict
// where the name is taken.
func (d *DB) AddOrg(ctx context.Context, o joinery.Organisation, a joinery.AuditEntry) error {
	if o.Kinds == nil {
		o.Kinds = joinery.EveryKind()
	}
	return d.do(ctx, func(t *tx) error {
		err := t.exec("INSERT INTO organisation (id, name, kinds, created_at) VALUES (?, ?, ?, ?)", o.ID, o.Name, o.Kinds.String(), o.CreatedAt)
		return t.finish(conflict(err, "there is an organisation of that name"), a)
	})
}

// ChangeOrg gives an organisation another name and other kinds; CodeConflict where
// the name is taken.
func (d *DB) ChangeOrg(ctx context.Context, o joinery.Organisation, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE organisation SET name = ?, kinds = ? WHERE id = ?", o.Name, o.Kinds.String(), o.ID)
		if err == nil && n == 0 {
			err = notFound("organisation")
		}
		return t.finish(conflict(err, "there is an organisation of that name"), a)
	})
}

// Orgs gives every organisation in the order of its making. The first is the
// operator's own, named OperatorOrg, which Create made.
func (d *DB) Orgs(ctx context.Context) (orgs []joinery.Organisation, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT id, name, kinds, created_at FROM organisation ORDER BY created_at, id", func(r *row) error {
			orgs = append(orgs, joinery.Organisation{ID: joinery.OrgID(r.int()), Name: r.text(), Kinds: joinery.ParseOrgKinds(r.text()), CreatedAt: r.time()})
			return nil
		})
	})
	return orgs, err
}

// orOperator gives the operator's organisation for the zero OrgID: in rows that
// belong to the server itself.
func (t *tx) orOperator(org joinery.OrgID) joinery.OrgID {
	if org == 0 {
		return t.operator
	}
	return org
}

// AssignRange gives a range of JoinEUIs to an organisation; CodeConflict where
// it overlaps another.
func (d *DB) AssignRange(ctx context.Context, r joinery.JoinEUIRange, a joinery.AuditEntry) error {
	if r.First.Uint64() > r.Last.Uint64() {
		return joinery.Errorf(joinery.CodeInvalid, "the range ends before it begins")
	}
	return d.do(ctx, func(t *tx) error {
		overlapping, err := t.integer("SELECT count(*) FROM join_eui_range WHERE first <= ? AND last >= ?", r.Last, r.First)
		if err != nil {
			return err
		}
		if overlapping > 0 {
			return joinery.Errorf(joinery.CodeConflict, "the range overlaps one that is assigned")
		}
		err = t.exec("INSERT INTO join_eui_range (first, last, org, elements) VALUES (?, ?, ?, ?)", r.First, r.Last, r.Org, r.Elements)
		return t.finish(conflict(err, "the range overlaps one that is assigned"), a)
	})
}

// ReleaseRange takes a range back that was assigned with the same bounds to the
// same organisation. It is refused with CodeConflict while devices lie in it.
func (d *DB) ReleaseRange(ctx context.Context, r joinery.JoinEUIRange, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		inUse, err := t.one("SELECT 1 FROM device WHERE join_eui BETWEEN ? AND ? AND deleted_at IS NULL LIMIT 1",
			func(*row) error { return nil }, r.First, r.Last)
		if err != nil {
			return err
		}
		n, err := t.changes("DELETE FROM join_eui_range WHERE first = ? AND last = ? AND org = ?", r.First, r.Last, r.Org)
		switch {
		case err != nil:
			return err
		case n == 0:
			return notFound("JoinEUI range")
		case inUse:
			return joinery.Errorf(joinery.CodeConflict, "devices lie in the range; delete them first")
		}
		return t.audit(a)
	})
}

// Ranges gives every assigned range, in order.
func (d *DB) Ranges(ctx context.Context) (ranges []joinery.JoinEUIRange, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT first, last, org, elements FROM join_eui_range ORDER BY first", func(r *row) error {
			ranges = append(ranges, joinery.JoinEUIRange{
				EUIRange: joinery.EUIRange{First: r.eui(), Last: r.eui()}, Org: joinery.OrgID(r.int()), Elements: r.bool(),
			})
			return nil
		})
	})
	return ranges, err
}

// rangeOrg gives the organisation to whose range joinEUI belongs; zero where
// nobody has it.
func (c conn) rangeOrg(joinEUI lorawan.EUI64) (joinery.OrgID, error) {
	org, err := c.integer("SELECT org FROM join_eui_range WHERE first <= ?1 AND last >= ?1", joinEUI)
	return joinery.OrgID(org), err
}
