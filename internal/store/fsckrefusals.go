package store

import (
	"encoding/json"
	"fmt"
	"slices"

	"joinery"
)

// fixRefusals is what people can do about refusals: they are for reading, and
// nothing else depends on them.
const fixRefusals = "delete the row; nothing depends on it"

// refusals checks that what is kept of refused requests stays within its bounds,
// and that it can be read.
func (f *checkup) refusals() error {
	for _, bound := range []struct {
		table, by string
		name      func(int64) string
		most      int
	}{
		{"refusal_device", "device", deviceID, joinery.MaxDeviceRefusals},
		{"refusal_device", "peer", peerID, joinery.MaxPeerRefusals},
		{"refusal_unknown", "peer", peerID, joinery.MaxUnknownDevices},
		{"refusal_peer", "peer", peerID, len(joinery.RefusalReasons)},
		{"attempt", "org", orgID, joinery.MaxOrgAttempts + 1},
	} {
		query := fmt.Sprintf("SELECT %s FROM %s GROUP BY %s HAVING count(*) > %d", bound.by, bound.table, bound.by, bound.most)
		err := f.c.each(query, func(r *row) error {
			f.report(bound.table, bound.name(r.int()), fmt.Sprintf("at most %d rows are kept of a %s", bound.most, bound.by), fixRefusals)
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := f.c.each("SELECT device FROM attempt WHERE device > 0 GROUP BY org, device HAVING count(*) > ?", func(r *row) error {
		f.report("attempt", deviceID(r.int()), fmt.Sprintf("at most %d rows are kept of a device and an organisation", joinery.MaxDeviceAttempts+1), fixRefusals)
		return nil
	}, joinery.MaxDeviceAttempts+1)
	if err != nil {
		return err
	}
	err = f.c.each("SELECT a.org FROM attempt a WHERE a.device <> 0 AND NOT EXISTS (SELECT 1 FROM device WHERE id = a.device AND deleted_at IS NULL)", func(r *row) error {
		f.report("attempt", orgID(r.int()), "it is about a device that is here, or about none", fixRefusals)
		return nil
	})
	if err != nil {
		return err
	}
	for _, table := range []struct{ name, decided string }{
		{"refusal_device", "decided"}, {"refusal_unknown", "'{}'"}, {"refusal_peer", "'{}'"},
	} {
		if err := f.readRefusals(table.name, table.decided); err != nil {
			return err
		}
	}
	return nil
}

func (f *checkup) readRefusals(table, decided string) error {
	return f.c.each("SELECT peer, reason, count, first_at, last_at, received, "+decided+" FROM "+table, func(r *row) error {
		c, err := scanRefusal(r)
		if err == nil {
			err = json.Unmarshal([]byte(r.text()), &c.Decided)
		}
		switch {
		case err != nil:
			f.report(table, c.Peer, "its values can be read: "+err.Error(), fixRefusals)
		case !slices.Contains(joinery.RefusalReasons, c.Reason):
			f.report(table, c.Peer, "its reason is one that is known", fixRefusals)
		}
		return nil
	})
}
