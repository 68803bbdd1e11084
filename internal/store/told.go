package store

import (
	"cmp"
	"slices"
	"time"

	"joinery"
	"joinery/auditlog"
	"joinery/internal/exposure"
)

// rekeyKeyCame: the rekeying key of device d came with the key set where its own begins.
const rekeyKeyCame = `EXISTS (WITH RECURSIVE up(id) AS (SELECT d.key_set UNION SELECT p.parent FROM up JOIN key_set p ON p.id = up.id WHERE p.parent IS NOT NULL)
	SELECT 1 FROM up JOIN rekeying_key y ON y.key_set = up.id)`

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
		return c.each(v.with("SELECT d.id, CASE WHEN "+rekeyKeyCame+" THEN 1 ELSE 0 END, coalesce(t.way, ''), coalesce(t.server, ''), coalesce(t.signer, ''), coalesce(t.as_of, 0), coalesce(t.outside, 0)"+
			" FROM v JOIN device d ON d.id = v.id LEFT JOIN told t ON t.device = d.id"), func(r *row) error {
			d := &byID[joinery.DeviceID(r.int())].Device
			d.RekeyKeyCame = r.bool()
			told := joinery.Told{Way: joinery.ToldWay(r.text()), Server: r.text(), Signer: r.text(), AsOf: r.time()}
			told.Outside, told.Disclosed = r.bool(), d.Disclosed
			if told.Way != "" {
				d.Told = &told
			}
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

// maxTold is the most disclosures that are kept by the word of others for one device:
// the others' word leaves room for what this server did itself; see Disclosures.
const maxTold = exposure.MaxTimes / 4

// putTold remembers for ever what another Join Server told of a device as it came, or
// once more, and gives the entry that says so: nil where it told nothing new. What is
// told later takes nothing back.
func (t *tx) putTold(device joinery.DeviceID, told *joinery.Told, org joinery.OrgID, at time.Time, actor string) (*joinery.AuditEntry, error) {
	if told == nil {
		return nil, nil //nolint:nilnil // as said
	}
	news, err := t.toldNews(device, told)
	if err != nil {
		return nil, err
	}
	if news.first {
		err = t.exec("INSERT INTO told (device, way, server, signer, as_of, outside, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
			device, told.Way, told.Server, told.Signer, told.AsOf, told.Outside, at)
	} else if news.outside {
		err = t.exec("UPDATE told SET outside = 1 WHERE device = ?", device)
	}
	if err != nil {
		return nil, err
	}
	fresh, err := t.addToldTimes(device, told.Times)
	if err != nil || news == (toldNews{}) && len(fresh) == 0 {
		return nil, err
	}
	if told.Disclosed {
		if err := t.changeDevice(device, "UPDATE device SET disclosed = 1 WHERE id = ?", device); err != nil {
			return nil, err
		}
	}
	if told.Reaches() { // root keys that it derived here came from nobody; see toldDisclosures
		if err := t.exec("UPDATE key_set SET disclosed = 1 WHERE id = (SELECT key_set FROM device WHERE id = ?) AND origin <> 3", device); err != nil {
			return nil, err
		}
	}
	if err := t.offerAnew(device); err != nil { // who gets it next has to hear of it, too
		return nil, err
	}
	said := auditlog.Told{Server: told.Server, Signer: told.Signer, Way: string(told.Way), AsOf: told.AsOf, Outside: told.Outside, Disclosed: told.Disclosed}
	return &joinery.AuditEntry{At: at, Event: joinery.AuditKeysTold, Actor: actor, Org: org, Device: device, Detail: said.Detail(fresh)}, nil
}

// toldNews is what is new of what was told, beside the times.
type toldNews struct{ first, outside, disclosed, reaches bool }

func (c conn) toldNews(device joinery.DeviceID, told *joinery.Told) (n toldNews, err error) {
	n.first = true
	_, err = c.one("SELECT t.outside, d.disclosed, CASE WHEN k.disclosed = 1 OR k.origin = 3 THEN 1 ELSE 0 END FROM told t JOIN device d ON d.id = t.device JOIN key_set k ON k.id = d.key_set WHERE t.device = ?", func(r *row) error {
		outside, disclosed, reaches := r.bool(), r.bool(), r.bool()
		n = toldNews{outside: told.Outside && !outside, disclosed: told.Disclosed && !disclosed, reaches: told.Reaches() && !reaches}
		return nil
	}, device)
	return n, err
}

// tellsNews tells whether putTold would write something.
func (c conn) tellsNews(device joinery.DeviceID, told *joinery.Told) (bool, error) {
	news, err := c.toldNews(device, told)
	if err != nil || news != (toldNews{}) {
		return err == nil, err
	}
	n, err := c.integer("SELECT count(*) FROM told_disclosure WHERE device = ?", device)
	if err != nil || n >= maxTold {
		return false, err
	}
	for _, x := range told.Times {
		if known, err := c.knowsTold(device, x); err != nil || !known {
			return err == nil, err
		}
	}
	return false, nil
}

// knowsTold tells whether a disclosure was told before.
func (c conn) knowsTold(device joinery.DeviceID, x exposure.Time) (bool, error) {
	n, err := c.integer("SELECT count(*) FROM told_disclosure WHERE device = ? AND at = ? AND recipient = ? AND by_server = ? AND reference = ?",
		device, x.At, x.Recipient, x.By, x.Reference)
	return n > 0, err
}

// worstFirst orders what was told for who cannot keep all of it: first what the teller
// did himself, which his hearsay must not drive out, then what is of the present root
// keys, then the newest.
func worstFirst(a, b exposure.Time) int {
	return cmp.Or(compareBool(a.By != "", b.By != ""), compareBool(a.Former, b.Former), b.At.Compare(a.At))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// addToldTimes adds the disclosures that were not told before, as long as there is
// room, and gives them.
func (t *tx) addToldTimes(device joinery.DeviceID, times []exposure.Time) (fresh []auditlog.ToldTime, err error) {
	next, err := t.integer("SELECT coalesce(max(idx) + 1, 0) FROM told_disclosure WHERE device = ?", device)
	if len(times) > maxTold {
		times = slices.SortedStableFunc(slices.Values(times), worstFirst)
	}
	for _, x := range times {
		if err != nil {
			return nil, err
		}
		if next >= maxTold {
			break
		}
		var known bool
		known, err = t.knowsTold(device, x)
		if err != nil || known {
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
// that is of former ones. Where there are more than most, those of the present root
// keys stay, and the newest.
func (c conn) toldDisclosures(id joinery.DeviceID, most int) (list []joinery.Disclosure, err error) {
	const query = `WITH mine(id) AS (SELECT CAST(?1 AS INTEGER)
		UNION SELECT o.id FROM device d JOIN device o ON o.dev_eui = d.dev_eui AND o.join_eui = d.join_eui AND o.deleted_at > 0 WHERE d.id = ?1)
		SELECT t.server, x.at, x.recipient, x.kind, x.by_server, x.reference, x.org,
		CASE WHEN x.former = 1 OR EXISTS (SELECT 1 FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.id = ?1 AND k.origin = 3) THEN 1 ELSE 0 END
		FROM mine m JOIN told t ON t.device = m.id JOIN told_disclosure x ON x.device = m.id ORDER BY 8, x.at DESC, x.device DESC, x.idx DESC LIMIT ?2`
	if most <= 0 {
		return nil, nil
	}
	err = c.each(query, func(r *row) error {
		x := joinery.Disclosure{ToldBy: r.text(), At: r.time(), Recipient: r.text(), Kind: joinery.RecipientKind(r.text())}
		x.By, x.Reference, x.ToldOrg, x.Former = r.text(), r.text(), r.text(), r.bool()
		if x.By == "" {
			x.By = x.ToldBy
		}
		list = append(list, x)
		return nil
	}, id, most)
	return list, err
}
