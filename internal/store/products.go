package store

import (
	"context"

	"joinery"
)

// Bounds of what makers register.
const (
	maxProducts   = 200    // of one organisation
	maxSharedKeys = 64     // of one product, for all its devices
	maxDeviceKeys = 8      // of one device
	maxReleases   = 10_000 // of one product
)

func (c conn) products(where string, args ...any) (list []joinery.Product, err error) {
	err = c.each(`SELECT p.id, p.org, p.name, p.hardware, p.boot_key, p.boot_digest, p.boot_counter, p.created_at FROM product p `+where, func(r *row) error {
		p := joinery.Product{ID: joinery.ProductID(r.int()), Org: joinery.OrgID(r.int()), Name: r.text(), Hardware: r.text()}
		if r.null() {
			r.col += 3
		} else {
			p.Boot = &joinery.BootProfile{KeySlot: uint8(r.int()), DigestSlot: uint8(r.int()), Counter: uint8(r.int())}
		}
		p.CreatedAt = r.time()
		list = append(list, p)
		return nil
	}, args...)
	for i := range list {
		if err == nil {
			err = c.each("SELECT first, last FROM product_range WHERE product = ? ORDER BY first", func(r *row) error {
				list[i].DevEUIs = append(list[i].DevEUIs, joinery.EUIRange{First: r.eui(), Last: r.eui()})
				return nil
			}, list[i].ID)
		}
	}
	return list, err
}

// Products gives the products of an organisation, by name; of zero, all.
func (d *DB) Products(ctx context.Context, org joinery.OrgID) (list []joinery.Product, err error) {
	where, args := "WHERE p.removed_at IS NULL ORDER BY p.name, p.id", []any{}
	if org != 0 {
		where, args = "WHERE p.org = ? AND p.removed_at IS NULL ORDER BY p.name, p.id", []any{org}
	}
	err = d.snapshot(ctx, func(c conn) error { list, err = c.products(where, args...); return err })
	return list, err
}

// Product finds a product; CodeNotFound.
func (d *DB) Product(ctx context.Context, id joinery.ProductID) (p joinery.Product, err error) {
	err = d.snapshot(ctx, func(c conn) error { p, err = c.product(id); return err })
	return p, err
}

func (c conn) product(id joinery.ProductID) (joinery.Product, error) {
	list, err := c.products("WHERE p.id = ? AND p.removed_at IS NULL", id)
	if err == nil && len(list) == 0 {
		err = notFound("product")
	}
	if err != nil {
		return joinery.Product{}, err
	}
	return list[0], nil
}

// AddProduct adds a product. CodeConflict where its organisation has one of the
// name, or with one of the DevEUIs.
func (d *DB) AddProduct(ctx context.Context, p joinery.Product, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		there, err := t.products("WHERE p.org = ? AND p.removed_at IS NULL ORDER BY p.id", p.Org)
		if err != nil {
			return err
		}
		if len(there) >= maxProducts {
			return joinery.Errorf(joinery.CodeConflict, "an organisation has at most %d products; remove one", maxProducts)
		}
		for _, o := range there {
			if o.Name == p.Name {
				return joinery.Errorf(joinery.CodeConflict, "there is a product of that name already")
			}
			for _, r := range p.DevEUIs {
				for _, or := range o.DevEUIs {
					if r.Overlaps(or) {
						return joinery.Errorf(joinery.CodeConflict, "product %q has DevEUIs %s to %s already", o.Name, or.First, or.Last)
					}
				}
			}
		}
		var key, digest, counter any
		if b := p.Boot; b != nil {
			key, digest, counter = b.KeySlot, b.DigestSlot, b.Counter
		}
		err = t.exec("INSERT INTO product (id, org, name, hardware, boot_key, boot_digest, boot_counter, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			p.ID, p.Org, p.Name, p.Hardware, key, digest, counter, p.CreatedAt)
		for _, r := range p.DevEUIs {
			if err == nil {
				err = t.exec("INSERT INTO product_range (product, first, last) VALUES (?, ?, ?)", p.ID, r.First, r.Last)
			}
		}
		return t.finish(conflict(err, "there is such a product"), a)
	})
}

// RemoveProduct takes a product away, with its keys and releases. What devices have
// shown above L1 ends with EndWithdrawn. CodeNotFound.
func (d *DB) RemoveProduct(ctx context.Context, id joinery.ProductID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE product SET removed_at = ? WHERE id = ? AND removed_at IS NULL", a.At, id)
		if err == nil && n == 0 {
			err = notFound("product")
		}
		if err == nil {
			err = t.exec("UPDATE product_key SET removed_at = ? WHERE product = ? AND removed_at IS NULL", a.At, id)
		}
		return t.finish(err, a)
	})
}

func (c conn) productKeys(where string, args ...any) (list []joinery.ProductKey, err error) {
	err = c.each("SELECT k.id, k.product, k.device, k.use, k.public, k.created_at FROM product_key k "+where, func(r *row) error {
		list = append(list, joinery.ProductKey{
			ID: joinery.ProductKeyID(r.int()), Product: joinery.ProductID(r.int()), Device: joinery.DeviceID(r.int()),
			Use: joinery.ProductKeyUse(r.text()), Public: r.blob(), CreatedAt: r.time(),
		})
		return nil
	}, args...)
	return list, err
}

// ProductKeys gives the keys of a product in the order of their ids, those of single
// devices included.
func (d *DB) ProductKeys(ctx context.Context, product joinery.ProductID, after joinery.ProductKeyID, limit int) (list []joinery.ProductKey, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.productKeys("WHERE k.product = ? AND k.id > ? AND k.removed_at IS NULL ORDER BY k.id LIMIT ?", product, after, pageLimit(limit))
		return err
	})
	return list, err
}

// ReleaseKeys gives the keys that verify releases of a product.
func (d *DB) ReleaseKeys(ctx context.Context, product joinery.ProductID) (list []joinery.ProductKey, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.productKeys("WHERE k.product = ? AND k.device = 0 AND k.use = 'release' AND k.removed_at IS NULL ORDER BY k.id", product)
		return err
	})
	return list, err
}

// AddProductKey adds a key of a product, or of one device of it, which has to be one
// that its organisation made. CodeNotFound, CodeConflict.
func (d *DB) AddProductKey(ctx context.Context, k joinery.ProductKey, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		p, err := t.product(k.Product)
		if err != nil {
			return err
		}
		most := int64(maxSharedKeys)
		if k.Device != 0 {
			most = maxDeviceKeys
			maker, err := t.integer("SELECT maker FROM device WHERE id = ? AND deleted_at IS NULL", k.Device)
			if err == nil && joinery.OrgID(maker) != p.Org {
				err = notFound("device")
			}
			if err != nil {
				return err
			}
		}
		held, err := t.integer("SELECT count(*) FROM product_key WHERE product = ? AND device = ? AND removed_at IS NULL", k.Product, k.Device)
		if err == nil && held >= most {
			err = joinery.Errorf(joinery.CodeConflict, "there are %d keys already; remove one", held)
		}
		if err == nil {
			err = t.exec("INSERT INTO product_key (id, product, device, use, public, created_at) VALUES (?, ?, ?, ?, ?, ?)",
				k.ID, k.Product, int64(k.Device), k.Use, k.Public, k.CreatedAt)
		}
		return t.finish(conflict(err, "the key is there already"), a)
	})
}

// RemoveProductKey takes a key of a product away: nothing is verified by it any more,
// and the releases that it signed are withdrawn. What devices have shown by it ends
// with EndWithdrawn. CodeNotFound.
func (d *DB) RemoveProductKey(ctx context.Context, product joinery.ProductID, id joinery.ProductKeyID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE product_key SET removed_at = ? WHERE id = ? AND product = ? AND removed_at IS NULL", a.At, id, product)
		if err == nil && n == 0 {
			err = notFound("key")
		}
		if err == nil {
			err = t.exec("UPDATE firmware_release SET withdrawn_at = ? WHERE key = ? AND withdrawn_at IS NULL", a.At, id)
		}
		return t.finish(err, a)
	})
}

func (c conn) releases(where string, args ...any) (list []joinery.Release, err error) {
	err = c.each("SELECT f.id, f.product, f.version, f.digest, f.counter, f.statement, f.key, f.at, f.withdrawn_at, f.floor FROM firmware_release f "+where, func(r *row) error {
		f := joinery.Release{ID: joinery.ReleaseID(r.int()), Product: joinery.ProductID(r.int()), Version: r.text()}
		r.into(f.Digest[:])
		f.Counter, f.Statement, f.Key, f.At, f.WithdrawnAt = uint32(r.int()), r.blob(), joinery.ProductKeyID(r.int()), r.time(), r.time()
		if !r.null() {
			lowered := uint32(r.int())
			f.Lowered = &lowered
		}
		list = append(list, f)
		return nil
	}, args...)
	return list, err
}

// FirmwareReleases gives the releases of a product in the order in which they came.
func (d *DB) FirmwareReleases(ctx context.Context, product joinery.ProductID, after joinery.ReleaseID, limit int) (list []joinery.Release, err error) {
	err = d.read(ctx, func(c conn) error {
		list, err = c.releases("WHERE f.product = ? AND f.id > ? ORDER BY f.id LIMIT ?", product, after, pageLimit(limit))
		return err
	})
	return list, err
}

// AddRelease adds a release of a product. CodeConflict where the product has one of
// the version or the digest; but one that went with the key that signed it comes back
// when another key signs the same. It gives the release's id, which is then that of
// before.
func (d *DB) AddRelease(ctx context.Context, f joinery.Release, a joinery.AuditEntry) (joinery.ReleaseID, error) {
	return write(ctx, d, func(t *tx) (joinery.ReleaseID, error) {
		held, err := t.integer("SELECT count(*) FROM firmware_release WHERE product = ?", f.Product)
		if err == nil && held >= maxReleases {
			err = joinery.Errorf(joinery.CodeConflict, "a product has at most %d releases", maxReleases)
		}
		if err == nil {
			keys, found := t.productKeys("WHERE k.id = ? AND k.product = ? AND k.use = 'release' AND k.removed_at IS NULL", f.Key, f.Product)
			if err = found; err == nil && len(keys) == 0 {
				err = notFound("key")
			}
		}
		var back int64
		if err == nil {
			back, err = t.integer(`SELECT f.id FROM firmware_release f JOIN product_key k ON k.id = f.key WHERE f.product = ? AND f.version = ? AND f.digest = ?
				AND f.counter = ? AND k.removed_at IS NOT NULL`, f.Product, f.Version, f.Digest, f.Counter)
		}
		switch {
		case err != nil:
			return 0, err
		case back != 0:
			f.ID = joinery.ReleaseID(back)
			err = t.exec("UPDATE firmware_release SET statement = ?, key = ?, at = ?, withdrawn_at = NULL, floor = NULL WHERE id = ?", f.Statement, f.Key, f.At, f.ID)
		default:
			err = t.exec("INSERT INTO firmware_release (id, product, version, digest, counter, statement, key, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
				f.ID, f.Product, f.Version, f.Digest, f.Counter, f.Statement, f.Key, f.At)
		}
		a.Detail["release"] = f.ID.String()
		return f.ID, t.finish(conflict(err, "the product has a release of that version, or with that image, already"), a)
	})
}

// WithdrawRelease marks a release as one that proves nothing any more; what devices
// have shown of it ends with EndWithdrawn. CodeNotFound.
func (d *DB) WithdrawRelease(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE firmware_release SET withdrawn_at = ? WHERE id = ? AND product = ? AND withdrawn_at IS NULL", a.At, id, product)
		if err == nil && n == 0 {
			err = notFound("release that is not withdrawn")
		}
		return t.finish(err, a)
	})
}

// LowerFloor lets devices that have shown a release which was withdrawn go down to a
// counter below its own. CodeNotFound where there is no such release, CodeConflict where
// it stands, or the counter is not below its own.
func (d *DB) LowerFloor(ctx context.Context, product joinery.ProductID, id joinery.ReleaseID, counter uint32, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		there, err := t.integer("SELECT count(*) FROM firmware_release WHERE id = ? AND product = ?", id, product)
		if err != nil || there == 0 {
			return orNotFound(err, "release")
		}
		n, err := t.changes("UPDATE firmware_release SET floor = ? WHERE id = ? AND withdrawn_at IS NOT NULL AND counter > ?", int64(counter), id, int64(counter))
		if err == nil && n == 0 {
			err = joinery.Errorf(joinery.CodeConflict, "only of a release that was withdrawn the floor can be lowered, to a counter below its own")
		}
		return t.finish(err, a)
	})
}
