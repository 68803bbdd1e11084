package store

import (
	"joinery"
	"joinery/lorawan"
)

// Reasons of failed rows. They never name another owner.
const (
	reasonRange      = "JoinEUI lies in no range that is assigned to this organisation"
	reasonSigner     = "its signer may not provision this device for this organisation"
	reasonTaken      = "(JoinEUI, DevEUI) belongs to somebody else"
	reasonElement    = "the element is here already under another JoinEUI"
	reasonOtherKeys  = "the device is here already with other keys; delete it first to replace them"
	reasonOtherMAC   = "the device is here already with another MACVersion; delete it first to change that"
	reasonRevivedMAC = "the device was here before with a MACVersion that judges DevNonces otherwise; import it with that one"
)

// standing is a device that is there, or was, where a row wants to put one.
type standing struct {
	device     joinery.DeviceID
	org, maker joinery.OrgID
	mac        lorawan.MACVersion
	deleted    bool
	keySet     joinery.KeySetID
	origin     joinery.Origin
	master     string
	generation uint32
}

// The conditions have CASTs for the reason that loadQuery has them.
const standingColumns = `SELECT d.id, d.org, d.maker, d.mac_version, d.deleted_at IS NOT NULL, k.id, k.origin, coalesce(k.master, ''), k.generation
	FROM key_set k JOIN device d ON `

func (t *tx) standing(where string, args ...any) (s standing, found bool, err error) {
	found, err = t.one(standingColumns+where, func(r *row) error {
		s = standing{
			device: joinery.DeviceID(r.int()), org: joinery.OrgID(r.int()), maker: joinery.OrgID(r.int()), mac: macVersion(r.int()), deleted: r.bool(),
			keySet: joinery.KeySetID(r.int()), origin: joinery.Origin(r.int()), master: r.text(), generation: uint32(r.int()),
		}
		return nil
	}, args...)
	return s, found, err
}

// importDevice takes one row of an import, whose audit row will have a number; see
// CommitRows and DeleteDevice.
func (t *tx) importDevice(i joinery.Import, n joinery.NewDevice, number int64) (joinery.RowResult, error) {
	d, k := n.Device, n.KeySet
	result := joinery.RowResult{
		Index: n.Index, Line: n.Line, JoinEUI: d.JoinEUI, DevEUI: d.DevEUI, Serial: n.Serial, Status: joinery.RowFailed,
	}
	if err := checkNewDevice(i, n); err != nil {
		return result, err
	}
	if reason, err := t.refuseImport(i.Org, n); err != nil || reason != "" {
		result.Reason = reason
		return result, err
	}
	s, found, err := t.standing("d.key_set = k.id WHERE d.dev_eui = CAST(? AS BLOB) AND d.join_eui = CAST(? AS BLOB) AND d.deleted_at IS NULL", d.DevEUI, d.JoinEUI)
	if err != nil {
		return result, err
	}
	if found {
		result.Status, result.Reason = s.judge(i.Org, n)
		if result.Status == joinery.RowUnchanged {
			result.Device = s.device
		}
		return result, nil
	}
	if k.Origin == joinery.OriginDerived {
		s, found, err = t.standing(`d.id = k.device WHERE k.dev_eui = CAST(? AS BLOB) AND k.generation = CAST(? AS INTEGER)
			AND k.master = CAST(? AS TEXT) AND k.origin = 1`, d.DevEUI, k.Generation, k.Master)
		if err != nil {
			return result, err
		}
	}
	result.Status = joinery.RowCreated
	switch {
	case !found:
		result.Device, err = d.ID, t.insertDevice(i, n, number)
	case s.org != i.Org:
		result.Status, result.Reason = joinery.RowConflict, reasonTaken
	case !s.deleted:
		result.Status, result.Reason = joinery.RowFailed, reasonElement
	case s.mac.CountsDevNonces() != d.MACVersion.CountsDevNonces():
		result.Status, result.Reason = joinery.RowFailed, reasonRevivedMAC
	default:
		result.Device, err = s.device, t.revive(s, n)
	}
	return result, err
}

// refuseImport gives why org may not import a row, "" if it may: its JoinEUI must
// lie in a range of org or, where an entry was signed, in one of its signer's
// organisation. The signer is looked at here again, because it may have been
// removed since the entry was verified. The CASTs are there for the reason that
// loadQuery has them.
func (t *tx) refuseImport(org joinery.OrgID, n joinery.NewDevice) (string, error) {
	if n.Signer == 0 {
		holder, err := t.rangeOrg(n.Device.JoinEUI)
		if err != nil || holder == org {
			return "", err
		}
		return reasonRange, nil
	}
	pins, err := t.integer(`SELECT count(*) FROM signer s JOIN join_eui_range r ON r.org = s.org
		WHERE s.id = CAST(?1 AS INTEGER) AND (s.org = CAST(?4 AS INTEGER) OR s.shared = 1 AND r.elements = 1)
		AND CAST(?2 AS BLOB) BETWEEN r.first AND r.last AND CAST(?2 AS BLOB) BETWEEN s.join_eui_first AND s.join_eui_last
		AND CAST(?3 AS BLOB) BETWEEN s.dev_eui_first AND s.dev_eui_last`,
		n.Signer, n.Device.JoinEUI, n.Device.DevEUI, org)
	if err != nil || pins == 1 {
		return "", err
	}
	return reasonSigner, nil
}

// judge tells what a row means for the living device of its (JoinEUI, DevEUI).
func (s standing) judge(org joinery.OrgID, n joinery.NewDevice) (joinery.RowStatus, string) {
	k := n.KeySet
	switch {
	case s.org != org && s.maker != org:
		return joinery.RowConflict, reasonTaken
	case s.origin == joinery.OriginRekeyed && k.Origin == joinery.OriginDerived && s.mac == n.Device.MACVersion:
		// What it has now came of what the factory gave it.
	case s.origin != k.Origin || s.master != k.Master || s.generation != k.Generation:
		return joinery.RowFailed, reasonOtherKeys
	case s.mac != n.Device.MACVersion:
		return joinery.RowFailed, reasonOtherMAC
	}
	return joinery.RowUnchanged, ""
}

// checkNewDevice refuses what no import makes.
func checkNewDevice(i joinery.Import, n joinery.NewDevice) error {
	d, k := n.Device, n.KeySet
	switch {
	case d.ID <= 0 || k.ID <= 0:
		return joinery.Errorf(joinery.CodeInvalid, "row %d: device and key set need ids", n.Index)
	case d.Maker != 0 && d.Maker != i.Org || d.Ownership.Org != 0 && d.Ownership.Org != i.Org:
		return joinery.Errorf(joinery.CodeInvalid, "row %d: maker and owner are the import's organisation", n.Index)
	case k.DevEUI != d.DevEUI:
		return joinery.Errorf(joinery.CodeInvalid, "row %d: DevEUI of the key set is not the device's", n.Index)
	case k.Origin != joinery.OriginDerived && k.Origin != joinery.OriginSealed:
		return joinery.Errorf(joinery.CodeInvalid, "row %d: keys are derived or sealed", n.Index)
	case k.Origin == joinery.OriginSealed && len(k.Nwk.Use) == 0 && len(k.App.Use) == 0:
		return joinery.Errorf(joinery.CodeInvalid, "row %d: no sealed key", n.Index)
	case !d.MACVersion.Valid():
		return joinery.Errorf(joinery.CodeInvalid, "row %d: no MACVersion", n.Index)
	}
	return nil
}

// insertDevice makes a device. number is that of the audit row that commits to it; 0:
// it came in no import.
func (t *tx) insertDevice(i joinery.Import, n joinery.NewDevice, number int64) error {
	d, k := n.Device, n.KeySet
	joinNonce := k.Nonces.JoinNonce
	var master any
	if k.Origin == joinery.OriginDerived {
		master = k.Master
	} else {
		before, disclosed, err := t.knownOf(i.Org, d)
		if err != nil {
			return err
		}
		joinNonce = max(joinNonce, before)
		k.Disclosed, d.Disclosed = k.Disclosed || disclosed, d.Disclosed || disclosed
		takeTold(&d, &k, n.Told)
	}
	floor, err := t.integer("SELECT join_nonce_floor FROM store")
	if err != nil {
		return err
	}
	joinNonce = max(joinNonce, lorawan.JoinNonce(floor))
	var nonces []byte
	if len(k.Nonces.ByJoinEUI) > 0 {
		nonces = joinery.Nonces{ByJoinEUI: k.Nonces.ByJoinEUI}.Encode()
	}
	err = t.exec(`INSERT INTO key_set (id, device, dev_eui, origin, master, generation, root10, version, join_nonce, nonces, disclosed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.ID, d.ID, d.DevEUI, k.Origin, master, k.Generation, k.Root10, k.Version, joinNonce, nonces, k.Disclosed)
	if err != nil {
		return err
	}
	if k.Origin == joinery.OriginSealed {
		err = t.exec("INSERT INTO sealed_root (key_set, nwk_use, nwk_custody, app_use, app_custody) VALUES (?, ?, ?, ?, ?)",
			k.ID, k.Nwk.Use, k.Nwk.Custody, k.App.Use, k.App.Custody)
		if err != nil {
			return err
		}
	}
	err = t.exec(`INSERT INTO device (id, org, maker, key_set, join_eui, dev_eui, mac_version, owner_epoch, token_generation, binding_epoch,
		suspended, disclosed, created_at, imported, rekey_profile, rekey_word) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, ?, ?, ?, ?)`,
		d.ID, i.Org, i.Org, k.ID, d.JoinEUI, d.DevEUI, d.MACVersion, d.Ownership.TokenGeneration, d.Suspended, d.Disclosed, d.CreatedAt, optional{number}, d.Rekey, d.RekeyWord)
	if err != nil {
		return err
	}
	return t.dressDevice(d.ID, i.Org, n)
}

// knownOf tells what sealed roots of a DevEUI inherit, since they may be those
// that were here before: the highest JoinNonce, because a 1.1 device refuses
// any below the last that it saw, whatever JoinEUI it was under (TS001-1.1
// §6.2.3), and whether they were disclosed. Other organisations' devices under
// other JoinEUIs count for nothing: whoever imports a DevEUI says how high its
// JoinNonce is, and could use up that of a device which is not theirs.
func (t *tx) knownOf(org joinery.OrgID, d joinery.Device) (joinNonce lorawan.JoinNonce, disclosed bool, err error) {
	// Two halves, because each has an index of its own.
	const half = `SELECT k.join_nonce AS nonce, k.disclosed AS disclosed FROM device d JOIN key_set k ON k.id = d.key_set
		WHERE d.dev_eui = CAST(?1 AS BLOB) AND (CAST(?2 AS INTEGER) IN (d.org, d.maker) OR d.join_eui = CAST(?3 AS BLOB)) AND d.deleted_at `
	_, err = t.one("SELECT coalesce(max(nonce), 0), coalesce(max(disclosed), 0) FROM ("+half+"IS NULL UNION ALL "+half+"> 0) AS known",
		func(r *row) error { joinNonce, disclosed = lorawan.JoinNonce(r.int()), r.bool(); return nil }, d.DevEUI, org, d.JoinEUI)
	return joinNonce, disclosed, err
}

// dressDevice gives a new or revived device its binding and manifest entry.
func (t *tx) dressDevice(id joinery.DeviceID, org joinery.OrgID, n joinery.NewDevice) error {
	if n.Binding != nil {
		if err := t.bindDevice(id, *n.Binding, n.Device.CreatedAt); err != nil {
			return err
		}
	}
	if n.Manifest == nil && n.Serial == "" {
		return nil
	}
	return t.exec("INSERT INTO manifest_entry (device, org, serial, entry) VALUES (?, ?, ?, ?)", id, org, n.Serial, n.Manifest)
}

// revive brings a deleted device with derived roots back as it was: every nonce
// is remembered, and what the row says of nonces is added.
func (t *tx) revive(s standing, n joinery.NewDevice) error {
	if err := t.advance(s.device); err != nil { // before the nonces are read
		return err
	}
	var nonces joinery.Nonces
	_, err := t.one("SELECT join_nonce, nonces FROM key_set WHERE id = ?", func(r *row) (err error) {
		joinNonce := lorawan.JoinNonce(r.int())
		nonces, err = joinery.DecodeNonces(joinNonce, r.blob())
		return err
	}, s.keySet)
	if err != nil {
		return err
	}
	given := n.KeySet.Nonces
	for _, e := range given.ByJoinEUI {
		nonces = nonces.With(union(nonces.For(e.JoinEUI), e))
	}
	err = t.exec("UPDATE key_set SET join_nonce = ?, nonces = ?, root10 = ? WHERE id = ?",
		max(nonces.JoinNonce, given.JoinNonce), nonces.Encode(), n.KeySet.Root10, s.keySet)
	if err != nil {
		return err
	}
	err = t.exec("UPDATE device SET deleted_at = NULL, suspended = ?, join_eui = ?, mac_version = ? WHERE id = ?",
		n.Device.Suspended, n.Device.JoinEUI, n.Device.MACVersion, s.device)
	if err == nil && n.Device.Rekey != 0 { // what it showed itself stands above what a file says
		err = t.exec("UPDATE device SET rekey_profile = ?, rekey_word = ? WHERE id = ? AND rekey_word <= ?", n.Device.Rekey, n.Device.RekeyWord, s.device, n.Device.RekeyWord)
	}
	if err != nil {
		return err
	}
	return t.dressDevice(s.device, s.maker, n)
}

func union(a, b joinery.JoinEUINonces) joinery.JoinEUINonces {
	for v := range b.Used.All {
		a.Used = a.Used.With(v)
	}
	a.Next, a.NextRJCount1 = max(a.Next, b.Next), max(a.NextRJCount1, b.NextRJCount1)
	return a
}
