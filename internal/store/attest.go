package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"joinery"
	"joinery/manifest"
)

// maxAttestChallenges bounds the challenges of one device that wait for evidence,
// maxAttestMessages the messages of which it has sent fragments.
const (
	maxAttestChallenges = 4
	maxAttestMessages   = 4
)

// ruleBase separates action and level in attest_rule.
const ruleBase = 10

// attestedColumns are read by scanAttested.
const attestedColumns = "attested_at, attest_l1, attest_l2, attest_l3, attest_rule, attest_basis"

// scanAttested reads attestedColumns.
func scanAttested(r *row) (a joinery.Attested) {
	a.At = r.time()
	for i := range a.Until {
		a.Until[i] = r.time()
	}
	if r.null() {
		r.next()
	} else {
		v := r.int()
		a.Rule = &joinery.AttestRule{Activate: joinery.AttestAction(v / ruleBase), Level: joinery.AttestLevel(v % ruleBase)}
	}
	basis := r.int()
	for i := range a.Basis {
		a.Basis[i] = joinery.AttestBasis(basis >> (2 * i) & 3)
	}
	if a.Rule != nil {
		a.Rule.Basis = joinery.AttestBasis(basis >> (2 * len(a.Basis)) & 3)
	}
	return a
}

// packedBasis is attest_basis: two bits for each level, above them two of the rule.
func packedBasis(a joinery.Attested) (v int64) {
	for i, b := range a.Basis {
		if !a.Until[i].IsZero() {
			v |= int64(b) << (2 * i)
		}
	}
	if a.Rule != nil {
		v |= int64(a.Rule.Basis) << (2 * len(a.Basis))
	}
	return v
}

// filterAttested keeps to devices of a level. The levels above it must not be valid.
func (w *walk) filterAttested() {
	if w.query.Attested == nil {
		return
	}
	now := w.query.AttestedAt
	const fresh = "coalesce(d.attested_at, 0) <= ?"
	for _, l := range joinery.AttestLevels {
		column := "coalesce(d.attest_" + strings.ToLower(l.String()) + ", 0)"
		switch {
		case l > *w.query.Attested:
			w.keepIf("NOT ("+column+" > ? AND "+fresh+")", now, joinery.AttestSkewed(now))
		case l == *w.query.Attested:
			w.keepIf(column+" > ? AND "+fresh, now, joinery.AttestSkewed(now))
		}
	}
}

// AddAttestChallenge keeps a challenge for its one use, and forgets those that ended
// and the oldest of a device that has too many. CodeConflict unless c.Org holds the
// device still, or where the device has a challenge that begins with the same four
// bytes.
func (d *DB) AddAttestChallenge(ctx context.Context, c joinery.AttestChallenge) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(c.Device, c.Org); err != nil {
			return err
		}
		if err := t.exec("DELETE FROM attest_challenge WHERE expires_at <= ?", c.MadeAt); err != nil {
			return err
		}
		held, err := t.attestChallenges(c.Device)
		if err != nil {
			return err
		}
		for i, old := range held {
			if bytes.Equal(old.Random[:4], c.Random[:4]) {
				return joinery.Errorf(joinery.CodeConflict, "there is such a challenge")
			}
			if i < len(held)-maxAttestChallenges+1 {
				if err := t.exec("DELETE FROM attest_challenge WHERE random = ?", old.Random); err != nil {
					return err
				}
			}
		}
		return t.exec("INSERT INTO attest_challenge (random, device, org, made_at, expires_at) VALUES (?, ?, ?, ?, ?)",
			c.Random, c.Device, c.Org, c.MadeAt, c.ExpiresAt)
	})
}

// attestChallenges gives the challenges of a device, oldest first.
func (c conn) attestChallenges(device joinery.DeviceID) (list []joinery.AttestChallenge, err error) {
	err = c.each("SELECT random, org, made_at, expires_at FROM attest_challenge WHERE device = ? ORDER BY made_at, random", func(r *row) error {
		ch := joinery.AttestChallenge{Device: device}
		r.into(ch.Random[:])
		ch.Org, ch.MadeAt, ch.ExpiresAt = joinery.OrgID(r.int()), r.time(), r.time()
		list = append(list, ch)
		return nil
	}, device)
	return list, err
}

// TakeAttestChallenge gives the challenge of a device that begins with some bytes, at
// least four, and makes an end of it; CodeNotFound.
func (d *DB) TakeAttestChallenge(ctx context.Context, device joinery.DeviceID, begins []byte) (joinery.AttestChallenge, error) {
	return write(ctx, d, func(t *tx) (joinery.AttestChallenge, error) {
		t.aside = true // no join looks at it
		held, err := t.attestChallenges(device)
		if err != nil {
			return joinery.AttestChallenge{}, err
		}
		for _, c := range held {
			if len(begins) >= 4 && bytes.HasPrefix(c.Random[:], begins) {
				return c, t.exec("DELETE FROM attest_challenge WHERE random = ?", c.Random)
			}
		}
		return joinery.AttestChallenge{}, notFound("challenge")
	})
}

// Appraise reads what evidence about a device is held against; CodeNotFound.
func (d *DB) Appraise(ctx context.Context, id joinery.DeviceID) (a joinery.Appraisal, err error) {
	err = d.snapshot(ctx, func(c conn) error {
		states, err := c.states(oneDevice+"AND d.id = ?", id)
		if err == nil && len(states) == 0 {
			err = notFound("device")
		}
		if err != nil {
			return err
		}
		a.State = states[0]
		if _, err := c.one("SELECT entry, coalesce(serial, '') FROM manifest_entry WHERE device = ?", func(r *row) error {
			a.Manifest, a.Serial = r.blob(), r.text()
			return nil
		}, id); err != nil {
			return err
		}
		floor, err := c.integer(`SELECT coalesce(max(coalesce(f.floor, f.counter)), 0) FROM attest_result r JOIN firmware_release f ON f.id = r.highest
			WHERE r.device = ?`, id)
		if err != nil {
			return err
		}
		a.Floor = uint32(floor)
		if a.Floors, err = c.floors(id); err != nil {
			return err
		}
		products, err := c.products(`WHERE p.org = ? AND p.removed_at IS NULL
			AND EXISTS (SELECT 1 FROM product_range r WHERE r.product = p.id AND r.first <= ? AND ? <= r.last)`,
			a.State.Device.Maker, a.State.Device.DevEUI, a.State.Device.DevEUI)
		if err != nil || len(products) == 0 {
			return err
		}
		a.Product = &products[0]
		a.Keys, err = c.productKeys("WHERE k.product = ? AND k.device IN (0, ?) AND k.removed_at IS NULL ORDER BY k.id", a.Product.ID, id)
		return err
	})
	return a, err
}

// ReleasesByDigest gives the releases of an organisation's products that have one of
// some digests, the withdrawn ones, too.
func (d *DB) ReleasesByDigest(ctx context.Context, org joinery.OrgID, digests [][32]byte) (list []joinery.Release, err error) {
	err = d.read(ctx, func(c conn) error {
		for _, digest := range digests {
			found, err := c.releases(`JOIN product p ON p.id = f.product WHERE f.digest = ? AND p.org = ? AND p.removed_at IS NULL ORDER BY f.id`, digest, org)
			if err != nil {
				return err
			}
			list = append(list, found...)
		}
		return nil
	})
	return list, err
}

// PutAttestation makes a result the newest of its level. Results of other levels
// that are about other firmware, or of a time that is not yet, stop counting. Its
// audit entry says which level is valid with it. CodeConflict unless r.Owner holds
// the device still, and the maker stands by what the result rests on.
func (d *DB) PutAttestation(ctx context.Context, r joinery.AttestResult, a joinery.AuditEntry) (joinery.Attested, error) {
	return write(ctx, d, func(t *tx) (joinery.Attested, error) {
		if err := t.heldBy(r.Device, r.Owner); err != nil {
			return joinery.Attested{}, err
		}
		if err := t.restsOn(r); err != nil {
			return joinery.Attested{}, err
		}
		if err := t.advance(r.Device); err != nil { // so that nothing comes between
			return joinery.Attested{}, err
		}
		old, err := t.attestations(r.Device)
		if err != nil {
			return joinery.Attested{}, err
		}
		next := joinery.Attested{At: r.At}
		if next.Rule, err = t.attestRule(r.Device); err != nil {
			return joinery.Attested{}, err
		}
		for _, o := range old {
			switch {
			case o.Level == r.Level || !o.EndedAt.IsZero():
			case o.Digest != r.Digest || o.At.After(joinery.AttestSkewed(r.At)):
				err := t.exec("UPDATE attest_result SET ended_at = ? WHERE device = ? AND level = ?", r.At, r.Device, o.Level)
				if err != nil {
					return joinery.Attested{}, err
				}
			default:
				next.Until[o.Level-1], next.Basis[o.Level-1] = o.Until, o.Basis
			}
		}
		next.Until[r.Level-1], next.Basis[r.Level-1] = r.Until, r.Basis
		highest, err := t.highestShown(r)
		if err != nil {
			return joinery.Attested{}, err
		}
		g := r.Ground
		err = t.exec(`INSERT INTO attest_result (device, level, kind, verifier, at, until, ended_at, digest, version, counter, firmware, evidence, key, highest,
			basis, chain, signer, signer_name, signer_x5t, unpinned_at)
			VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (device, level) DO UPDATE SET kind = excluded.kind, verifier = excluded.verifier,
			at = excluded.at, until = excluded.until, ended_at = NULL, digest = excluded.digest, version = excluded.version, counter = excluded.counter,
			firmware = excluded.firmware, evidence = excluded.evidence, key = excluded.key, highest = excluded.highest,
			basis = excluded.basis, chain = excluded.chain, signer = excluded.signer, signer_name = excluded.signer_name, signer_x5t = excluded.signer_x5t, unpinned_at = NULL`,
			r.Device, r.Level, r.Kind, r.Verifier, r.At, r.Until, r.Digest, r.Version, r.Counter, optional{r.Release}, r.Evidence, optional{g.Key}, optional{highest},
			int64(r.Basis), string(g.Chain), optional{g.Signer}, g.SignerName, g.SignerX5TS256)
		if err == nil {
			err = t.exec("DELETE FROM attest_component WHERE device = ? AND level = ?", r.Device, r.Level)
		}
		for _, c := range r.Components {
			if err == nil {
				err = t.exec("INSERT INTO attest_component (device, level, firmware) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", r.Device, r.Level, c.Release)
			}
		}
		if err == nil {
			err = t.putShown(r)
		}
		if err == nil {
			err = t.putAttested(r.Device, next, r.At)
		}
		a.Detail["valid"] = next.Level(r.At).String()
		return next, t.finish(err, a)
	})
}

// attestRule reads the owner's rule for a device; nil: none.
func (t *tx) attestRule(id joinery.DeviceID) (rule *joinery.AttestRule, err error) {
	_, err = t.one("SELECT "+attestedColumns+" FROM device WHERE id = ?", func(r *row) error { rule = scanAttested(r).Rule; return nil }, id)
	return rule, err
}

// restsOn is CodeConflict where the maker took back a release or a key meanwhile that a
// result rests on.
func (t *tx) restsOn(r joinery.AttestResult) error {
	gone := joinery.Errorf(joinery.CodeConflict, "the maker took back meanwhile what the evidence was held against; ask for another challenge")
	var releases []joinery.ReleaseID
	if r.Release != 0 {
		releases = append(releases, r.Release)
	}
	for _, c := range r.Components {
		releases = append(releases, c.Release)
	}
	for _, f := range releases {
		n, err := t.integer(`SELECT count(*) FROM firmware_release f JOIN product p ON p.id = f.product
			WHERE f.id = ? AND f.withdrawn_at IS NULL AND p.removed_at IS NULL`, f)
		if err != nil || n == 0 {
			return firstError(err, gone)
		}
	}
	if key := r.Ground.Key; key != 0 {
		n, err := t.integer("SELECT count(*) FROM product_key WHERE id = ? AND removed_at IS NULL", key)
		if err != nil || n == 0 {
			return firstError(err, gone)
		}
	}
	if signer := r.Ground.Signer; signer != 0 {
		n, err := t.integer("SELECT count(*) FROM signer WHERE id = ?", signer)
		if err != nil || n == 0 {
			return firstError(err, joinery.Errorf(joinery.CodeConflict, "the signer of the device's manifest was unpinned meanwhile; ask for another challenge"))
		}
	}
	return nil
}

// highestShown is the release with the highest counter that the device has shown at the
// level of r, r included, withdrawn or not; zero: none.
func (t *tx) highestShown(r joinery.AttestResult) (joinery.ReleaseID, error) {
	id, err := t.integer(`SELECT id FROM firmware_release WHERE id IN (?, (SELECT highest FROM attest_result WHERE device = ? AND level = ?))
		ORDER BY coalesce(floor, counter) DESC, counter DESC LIMIT 1`, r.Release, r.Device, r.Level)
	return joinery.ReleaseID(id), err
}

// withdrawn finds results that count and rest on what the maker took back: a release,
// a key, or above L1, where a release is all, the product. A device may be there twice.
const withdrawn = `SELECT r.device FROM firmware_release f JOIN attest_result r ON r.firmware = f.id WHERE f.withdrawn_at IS NOT NULL AND r.ended_at IS NULL
	UNION ALL SELECT r.device FROM firmware_release f JOIN attest_component c ON c.firmware = f.id JOIN attest_result r ON r.device = c.device AND r.level = c.level
	WHERE f.withdrawn_at IS NOT NULL AND r.ended_at IS NULL
	UNION ALL SELECT r.device FROM product_key k JOIN attest_result r ON r.key = k.id WHERE k.removed_at IS NOT NULL AND r.ended_at IS NULL
	UNION ALL SELECT r.device FROM product p JOIN firmware_release f ON f.product = p.id JOIN attest_result r ON r.firmware = f.id
	WHERE p.removed_at IS NOT NULL AND r.level > 1 AND r.ended_at IS NULL`

// restsOnWithdrawn are the levels of one device whose results do.
const restsOnWithdrawn = `SELECT r.level FROM attest_result r WHERE r.device = ? AND r.ended_at IS NULL AND (
	EXISTS (SELECT 1 FROM firmware_release f JOIN product p ON p.id = f.product
		WHERE f.id = r.firmware AND (f.withdrawn_at IS NOT NULL OR r.level > 1 AND p.removed_at IS NOT NULL))
	OR EXISTS (SELECT 1 FROM attest_component c JOIN firmware_release f ON f.id = c.firmware WHERE c.device = r.device AND c.level = r.level AND f.withdrawn_at IS NOT NULL)
	OR EXISTS (SELECT 1 FROM product_key k WHERE k.id = r.key AND k.removed_at IS NOT NULL))`

// EndWithdrawn ends what at most limit devices have shown that rests on what their maker
// took back, and tells their owners, each once; it gives how many it
// found, which is limit where there may be more.
func (d *DB) EndWithdrawn(ctx context.Context, now time.Time, limit int) (n int, err error) {
	var due int64
	err = d.read(ctx, func(c conn) error {
		due, err = c.integer(withdrawn + " LIMIT 1")
		return err
	})
	if err != nil || due == 0 {
		return 0, err
	}
	return write(ctx, d, func(t *tx) (int, error) {
		var list []joinery.DeviceID
		err := t.each(withdrawn+" LIMIT ?", func(r *row) error {
			list = append(list, joinery.DeviceID(r.int()))
			return nil
		}, limit)
		n := len(list)
		slices.Sort(list)
		for _, id := range slices.Compact(list) {
			if err == nil {
				err = t.endWithdrawn(id, now)
			}
		}
		return n, err
	})
}

func (t *tx) endWithdrawn(id joinery.DeviceID, now time.Time) error {
	var owner joinery.OrgID
	var a joinery.Attested
	var levels []joinery.AttestLevel
	if _, err := t.one("SELECT org, "+attestedColumns+" FROM device WHERE id = ?", func(r *row) error {
		owner, a = joinery.OrgID(r.int()), scanAttested(r)
		return nil
	}, id); err != nil {
		return err
	}
	if err := t.each(restsOnWithdrawn, func(r *row) error {
		levels = append(levels, joinery.AttestLevel(r.int()))
		return nil
	}, id); err != nil {
		return err
	}
	before := a.Level(now)
	for _, l := range levels {
		if err := t.exec("UPDATE attest_result SET ended_at = ? WHERE device = ? AND level = ?", now, id, l); err != nil {
			return err
		}
		a.Until[l-1], a.Basis[l-1] = time.Time{}, joinery.AttestAny
	}
	// A join under way is judged again.
	if err := inOrder(func() error { return t.putAttested(id, a, now) }, func() error { return t.advance(id) }); err != nil {
		return err
	}
	if a.Level(now) == before { // what ended was not what counted
		return nil
	}
	return t.audit(joinery.AuditEntry{
		At: now, Event: joinery.AuditAttestEnded, Actor: "server", Org: owner, Device: id,
		Detail: map[string]string{"level": before.String(), "valid": a.Level(now).String(), "reason": "withdrawn"},
	})
}

func (t *tx) putAttested(id joinery.DeviceID, a joinery.Attested, now time.Time) error {
	return t.exec("UPDATE device SET attested_at = ?, attest_l1 = ?, attest_l2 = ?, attest_l3 = ?, attest_basis = ?, attest_falls_at = ? WHERE id = ?",
		a.At, whenSet(a.Until[0]), whenSet(a.Until[1]), whenSet(a.Until[2]), packedBasis(a), whenSet(a.FallsAt(now)), id)
}

// Attestations gives the newest result of each level of a device, the lowest level
// first.
func (d *DB) Attestations(ctx context.Context, device joinery.DeviceID) (list []joinery.Attestation, err error) {
	err = d.read(ctx, func(c conn) error { list, err = c.attestations(device); return err })
	return list, err
}

func (c conn) attestations(device joinery.DeviceID) (list []joinery.Attestation, err error) {
	err = c.each(`SELECT level, kind, verifier, at, until, ended_at, digest, version, counter, firmware, evidence,
		basis, key, chain, signer, signer_name, signer_x5t, unpinned_at FROM attest_result WHERE device = ? ORDER BY level`, func(r *row) error {
		a := joinery.Attestation{
			Device: device, Level: joinery.AttestLevel(r.int()), Kind: joinery.EvidenceKind(r.text()), Verifier: r.text(),
			At: r.time(), Until: r.time(), EndedAt: r.time(),
		}
		r.into(a.Digest[:])
		a.Version, a.Counter, a.Release = r.text(), uint32(r.int()), joinery.ReleaseID(r.int())
		r.into(a.Evidence[:])
		a.Basis = joinery.AttestBasis(r.int())
		a.Ground = joinery.AttestGround{
			Key: joinery.ProductKeyID(r.int()), Chain: manifest.Chain(r.text()),
			Signer: joinery.SignerID(r.int()), SignerName: r.text(), SignerX5TS256: r.text(), UnpinnedAt: r.time(),
		}
		list = append(list, a)
		return nil
	}, device)
	return list, err
}

// EndAttestations tells the owners of at most limit devices that a level ended by its
// time, each once, whichever server does it; it gives how many devices it looked at.
func (d *DB) EndAttestations(ctx context.Context, now time.Time, limit int) (n int, err error) {
	var due int64
	err = d.read(ctx, func(c conn) error {
		due, err = c.integer("SELECT 1 FROM device WHERE attest_falls_at > 0 AND attest_falls_at <= ? LIMIT 1", now)
		return err
	})
	if err != nil || due == 0 {
		return 0, err
	}
	return write(ctx, d, func(t *tx) (int, error) {
		t.aside = true // joins look at the times themselves
		type one struct {
			id    joinery.DeviceID
			owner joinery.OrgID
			falls time.Time
			joinery.Attested
		}
		var list []one
		err := t.each(`SELECT id, org, attest_falls_at, `+attestedColumns+` FROM device
			WHERE attest_falls_at > 0 AND attest_falls_at <= ? ORDER BY attest_falls_at LIMIT ?`, func(r *row) error {
			list = append(list, one{joinery.DeviceID(r.int()), joinery.OrgID(r.int()), r.time(), scanAttested(r)})
			return nil
		}, now, limit)
		if err != nil {
			return 0, err
		}
		for _, o := range list {
			if err := t.exec("UPDATE device SET attest_falls_at = ? WHERE id = ?", whenSet(o.FallsAt(now)), o.id); err != nil {
				return 0, err
			}
			err := t.audit(joinery.AuditEntry{
				At: now, Event: joinery.AuditAttestEnded, Actor: "server", Org: o.owner, Device: o.id,
				Detail: map[string]string{"level": o.Level(o.falls.Add(-time.Millisecond)).String(), "valid": o.Level(now).String()},
			})
			if err != nil {
				return 0, err
			}
		}
		return len(list), nil
	})
}

// AttestPolicies gives what each organisation wants that wants something.
func (d *DB) AttestPolicies(ctx context.Context) (list []joinery.AttestPolicy, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT org, level, activate, claim, valid_days, basis FROM attest_policy ORDER BY org", func(r *row) error {
			p := joinery.AttestPolicy{Org: joinery.OrgID(r.int())}
			p.Level, p.Activate, p.Claim = joinery.AttestLevel(r.int()), joinery.AttestAction(r.int()), joinery.AttestAction(r.int())
			p.ValidDays, p.Basis = int(r.int()), joinery.AttestBasis(r.int())
			list = append(list, p)
			return nil
		})
	})
	return list, err
}

// SetAttestPolicy changes what an organisation wants; CodeNotFound.
func (d *DB) SetAttestPolicy(ctx context.Context, p joinery.AttestPolicy, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.integer("SELECT count(*) FROM organisation WHERE id = ?", p.Org)
		if err == nil && n == 0 {
			err = notFound("organisation")
		}
		if err == nil {
			err = t.exec(`INSERT INTO attest_policy (org, level, activate, claim, valid_days, basis) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (org) DO UPDATE
				SET level = excluded.level, activate = excluded.activate, claim = excluded.claim, valid_days = excluded.valid_days, basis = excluded.basis`,
				p.Org, p.Level, p.Activate, p.Claim, p.ValidDays, int64(p.Basis))
		}
		return t.finish(err, a)
	})
}

// SetAttestRule says what the owner wants of one device; nil: the same as of all.
// Joins under way are judged again. CodeConflict unless owner holds the device
// still.
func (d *DB) SetAttestRule(ctx context.Context, id joinery.DeviceID, owner joinery.OrgID, rule *joinery.AttestRule, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.heldBy(id, owner); err != nil {
			return err
		}
		var stored any
		var basis int64
		if rule != nil {
			stored = int64(rule.Activate)*ruleBase + int64(rule.Level)
			basis = packedBasis(joinery.Attested{Rule: rule})
		}
		return t.finish(t.changeDevice(id, "UPDATE device SET attest_rule = ?, attest_basis = coalesce(attest_basis, 0) % 64 + ? WHERE id = ? AND deleted_at IS NULL",
			stored, basis, id), a)
	})
}

// AddEvidenceFragment keeps a fragment until its message is whole, and gives those of
// the message that are there. Fragments from before since are forgotten, and the
// oldest messages of a device that has begun too many. CodeConflict unless owner holds
// the device still, or where the message has other parts than this one.
func (d *DB) AddEvidenceFragment(ctx context.Context, f joinery.EvidenceFragment, owner joinery.OrgID, since time.Time) ([]joinery.EvidenceFragment, error) {
	return write(ctx, d, func(t *tx) (list []joinery.EvidenceFragment, err error) {
		t.aside = true
		if err := t.heldBy(f.Device, owner); err != nil {
			return nil, err
		}
		if err := t.exec("DELETE FROM attest_fragment WHERE device = ? AND at < ?", f.Device, since); err != nil {
			return nil, err
		}
		other, err := t.integer("SELECT count(*) FROM attest_fragment WHERE device = ? AND message = ? AND total <> ?", f.Device, f.Message, f.Total)
		if err == nil && other > 0 {
			err = joinery.Errorf(joinery.CodeConflict, "the message has another number of fragments")
		}
		if err == nil {
			err = t.exec(`INSERT INTO attest_fragment (device, message, idx, total, payload, at) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (device, message, idx) DO UPDATE SET payload = excluded.payload`, f.Device, f.Message, f.Index, f.Total, f.Payload, f.At)
		}
		if err == nil {
			err = t.exec(`DELETE FROM attest_fragment WHERE device = ? AND message IN (SELECT message FROM attest_fragment WHERE device = ? AND message <> ?
				GROUP BY message ORDER BY min(at) DESC, message LIMIT 1000 OFFSET ?)`, f.Device, f.Device, f.Message, maxAttestMessages-1)
		}
		if err != nil {
			return nil, err
		}
		err = t.each("SELECT idx, total, payload, at FROM attest_fragment WHERE device = ? AND message = ? ORDER BY idx", func(r *row) error {
			list = append(list, joinery.EvidenceFragment{
				Device: f.Device, Message: f.Message, Index: uint8(r.int()), Total: uint8(r.int()), Payload: r.blob(), At: r.time(),
			})
			return nil
		}, f.Device, f.Message)
		return list, err
	})
}

// DropEvidenceFragments forgets the fragments of a message. It tells whether there
// were any: of those who find a message whole, one goes on with it.
func (d *DB) DropEvidenceFragments(ctx context.Context, device joinery.DeviceID, message uint32) (bool, error) {
	return write(ctx, d, func(t *tx) (bool, error) {
		t.aside = true
		n, err := t.changes("DELETE FROM attest_fragment WHERE device = ? AND message = ?", device, message)
		return n > 0, err
	})
}
