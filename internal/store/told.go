package store

import (
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/exposure"
)

// tell reads what other Join Servers told of devices, without the times. Devices
// whose root keys derive from a master key came from none.
func (c conn) tell(states ...*joinery.ActivationState) error {
	byID := map[joinery.DeviceID]*joinery.ActivationState{}
	var ids []joinery.DeviceID
	for _, s := range states {
		if s.Device.ID != 0 && s.KeySet.Origin != joinery.OriginDerived {
			byID[s.Device.ID], ids = s, append(ids, s.Device.ID)
		}
	}
	return inRuns(ids, func(run []joinery.DeviceID) error {
		v := valuesOf("id INTEGER")
		for _, id := range run {
			v.add(id)
		}
		return c.each(v.with("SELECT t.device, t.way, t.server, t.signer, t.as_of, t.outside FROM v JOIN told t ON t.device = v.id"), func(r *row) error {
			d := &byID[joinery.DeviceID(r.int())].Device
			d.Told = &joinery.Told{Way: joinery.ToldWay(r.text()), Server: r.text(), Signer: r.text(), AsOf: r.time()}
			d.Told.Outside, d.Told.Disclosed = r.bool(), d.Disclosed
			return nil
		}, v.args...)
	})
}

// oneState gives a state of a list of one at most, with what was told of it.
func (c conn) oneState(list []joinery.ActivationState, err error) (s joinery.ActivationState, found bool, _ error) {
	if err != nil || len(list) == 0 {
		return s, false, err
	}
	return list[0], true, c.tell(&list[0])
}

func (c conn) tellAll(list []joinery.ActivationState) error {
	states := make([]*joinery.ActivationState, len(list))
	for i := range list {
		states[i] = &list[i]
	}
	return c.tell(states...)
}

// takeTold puts what another Join Server told into what is made of a device.
func takeTold(d *joinery.Device, k *joinery.KeySet, told *joinery.Told) {
	if told == nil {
		return
	}
	d.Disclosed = d.Disclosed || told.Disclosed
	k.Disclosed = k.Disclosed || told.Reaches()
}

// putTold remembers for ever what another Join Server told of a device as it came, or
// once more, and gives the entry that says so: nil where it told nothing new.
func (t *tx) putTold(device joinery.DeviceID, told *joinery.Told, org joinery.OrgID, at time.Time, actor string) (*joinery.AuditEntry, error) {
	if told == nil {
		return nil, nil //nolint:nilnil // as said
	}
	again, err := t.integer("SELECT count(*) FROM told WHERE device = ?", device)
	if err != nil {
		return nil, err
	}
	if again == 0 {
		err = t.exec("INSERT INTO told (device, way, server, signer, as_of, outside, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			device, told.Way, told.Server, told.Signer, told.AsOf, told.Outside, at)
		if err != nil {
			return nil, err
		}
	}
	fresh, err := t.addToldTimes(device, told.Times)
	if err != nil || again != 0 && len(fresh) == 0 {
		return nil, err
	}
	if told.Disclosed {
		if err := t.changeDevice(device, "UPDATE device SET disclosed = 1 WHERE id = ?", device); err != nil {
			return nil, err
		}
	}
	if told.Reaches() {
		if err := t.exec("UPDATE key_set SET disclosed = 1 WHERE id = (SELECT key_set FROM device WHERE id = ?)", device); err != nil {
			return nil, err
		}
	}
	said := auditlog.Told{Server: told.Server, Signer: told.Signer, Way: string(told.Way), AsOf: told.AsOf, Outside: told.Outside, Disclosed: told.Disclosed}
	return &joinery.AuditEntry{At: at, Event: joinery.AuditKeysTold, Actor: actor, Org: org, Device: device, Detail: said.Detail(fresh)}, nil
}

// addToldTimes adds the disclosures that were not told before, and gives them.
func (t *tx) addToldTimes(device joinery.DeviceID, times []exposure.Time) (fresh []auditlog.ToldTime, err error) {
	next, err := t.integer("SELECT coalesce(max(idx) + 1, 0) FROM told_disclosure WHERE device = ?", device)
	for _, x := range times {
		if err != nil {
			return nil, err
		}
		var known int64
		known, err = t.integer("SELECT count(*) FROM told_disclosure WHERE device = ? AND at = ? AND recipient = ? AND by_server = ? AND reference = ?",
			device, x.At, x.Recipient, x.By, x.Reference)
		if err != nil || known > 0 {
			continue
		}
		err = t.exec("INSERT INTO told_disclosure (device, idx, at, recipient, kind, by_server, reference, org, former) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			device, next, x.At, x.Recipient, x.Kind, x.By, x.Reference, x.Org, x.Former)
		next++
		fresh = append(fresh, auditlog.ToldTime{At: x.At.UnixMilli(), Recipient: x.Recipient, Kind: x.Kind, By: x.By, Reference: x.Reference, Former: x.Former})
	}
	return fresh, err
}

// toldDisclosures gives what others told of a device, and of those under the same
// EUIs that were deleted; see Disclosures. Once it derived new root keys here, all of
// that is of former ones.
func (c conn) toldDisclosures(id joinery.DeviceID) (list []joinery.Disclosure, err error) {
	const query = `WITH mine(id) AS (SELECT CAST(?1 AS INTEGER)
		UNION SELECT o.id FROM device d JOIN device o ON o.dev_eui = d.dev_eui AND o.join_eui = d.join_eui AND o.deleted_at > 0 WHERE d.id = ?1)
		SELECT t.server, x.at, x.recipient, x.kind, x.by_server, x.reference, x.org,
		CASE WHEN x.former = 1 OR EXISTS (SELECT 1 FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = ?1 AND k.origin = 3) THEN 1 ELSE 0 END
		FROM mine m JOIN told t ON t.device = m.id JOIN told_disclosure x ON x.device = m.id ORDER BY x.at, x.device, x.idx LIMIT ?2`
	err = c.each(query, func(r *row) error {
		x := joinery.Disclosure{ToldBy: r.text(), At: r.time(), Recipient: r.text(), Kind: joinery.RecipientKind(r.text())}
		x.By, x.Reference, x.ToldOrg, x.Former = r.text(), r.text(), r.text(), r.bool()
		if x.By == "" {
			x.By = x.ToldBy
		}
		list = append(list, x)
		return nil
	}, id, maxLimit)
	return list, err
}
