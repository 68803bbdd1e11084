package store

import (
	"bytes"
	"context"

	"joinery"
	"joinery/lorawan"
)

// SetRoaming sets the networks that may learn where the devices of an
// organisation, or one device of it, are at home. An empty list allows none; a
// nil list removes the rule, so that a device follows its organisation again.
// CodeNotFound where the organisation does not hold the device.
func (d *DB) SetRoaming(ctx context.Context, rule joinery.RoamingRule, a joinery.AuditEntry) error {
	ids := make([]byte, 0, 3*len(rule.NetIDs))
	for _, n := range rule.NetIDs {
		ids = append(ids, n[:]...)
	}
	return d.do(ctx, func(t *tx) error {
		if rule.Device != 0 {
			held, err := t.integer("SELECT count(*) FROM device WHERE id = ? AND org = ? AND deleted_at IS NULL", rule.Device, rule.Org)
			if err == nil && held == 0 {
				err = notFound("device")
			}
			if err != nil {
				return err
			}
		}
		if rule.NetIDs == nil {
			return t.finish(t.exec("DELETE FROM roaming_rule WHERE org = ? AND device = ?", rule.Org, rule.Device), a)
		}
		err := t.exec(`INSERT INTO roaming_rule (org, device, net_ids) VALUES (?, ?, ?)
			ON CONFLICT (org, device) DO UPDATE SET net_ids = excluded.net_ids`, rule.Org, rule.Device, ids)
		return t.finish(conflict(err, "the rule is being changed"), a)
	})
}

// Roaming gives the rules of an organisation, its own first.
func (d *DB) Roaming(ctx context.Context, org joinery.OrgID) (rules []joinery.RoamingRule, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT device, net_ids FROM roaming_rule WHERE org = ? ORDER BY device", func(r *row) error {
			rule := joinery.RoamingRule{Org: org, Device: joinery.DeviceID(r.int()), NetIDs: []lorawan.NetID{}}
			for ids := r.blob(); len(ids) >= 3; ids = ids[3:] {
				rule.NetIDs = append(rule.NetIDs, lorawan.NetID(ids[:3]))
			}
			rules = append(rules, rule)
			return nil
		}, org)
	})
	return rules, err
}

// RoamingAllowed tells whether netID may learn the home network of a device
// that org holds. A rule for the device overrides that of its organisation;
// without any rule nobody may.
func (d *DB) RoamingAllowed(ctx context.Context, org joinery.OrgID, device joinery.DeviceID, netID lorawan.NetID) (allowed bool, err error) {
	err = d.readJoin(ctx, func(c conn) error {
		_, err := c.one("SELECT net_ids FROM roaming_rule WHERE org = ? AND device IN (0, ?) ORDER BY device DESC LIMIT 1", func(r *row) error {
			for ids := r.blob(); len(ids) >= 3 && !allowed; ids = ids[3:] {
				allowed = bytes.Equal(ids[:3], netID[:])
			}
			return nil
		}, org, device)
		return err
	})
	return allowed, err
}
