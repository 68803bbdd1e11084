package store

import (
	"context"
	"encoding/json"

	"joinery"
)

// Master is a master key that this database was served with, or whose name key
// sets and signers have.
type Master struct {
	Name    string
	Profile string // "" where no server ever had the key
	KCV     string // "" where no server ever had the key
	KeySets int64  // that derive from it
}

// Masters lists the master keys without which devices of this database cannot
// join, and those that it was served with.
func (d *DB) Masters(ctx context.Context) (list []Master, err error) {
	err = d.engine.copying(ctx, func(c conn) (err error) { list, err = c.masters(); return err })
	return list, err
}

// Masters is DB.Masters.
func (d *Draft) Masters() ([]Master, error) { return d.c.masters() }

func (c conn) masters() (list []Master, err error) {
	const query = `SELECT n.name, coalesce(m.profile, ''), coalesce(m.kcv, ''), coalesce(k.n, 0)
		FROM (SELECT name FROM master_key UNION SELECT master FROM signer UNION SELECT master FROM key_set WHERE origin = 1) n
		LEFT JOIN master_key m ON m.name = n.name
		LEFT JOIN (SELECT master, count(*) AS n FROM key_set WHERE origin = 1 GROUP BY master) k ON k.master = n.name
		ORDER BY n.name`
	err = c.each(query, func(r *row) error {
		list = append(list, Master{Name: r.text(), Profile: r.text(), KCV: r.text(), KeySets: r.int()})
		return nil
	})
	return list, err
}

// NoteMasters remembers the master keys that a server has, by name and key check
// value. CodeConflict where one of them is another key than the database knows by
// that name: its devices could not join, and their root keys would be other ones.
func (d *DB) NoteMasters(ctx context.Context, masters ...Master) error {
	known := map[string]Master{}
	err := d.read(ctx, func(c conn) error {
		return c.each("SELECT name, profile, kcv FROM master_key", func(r *row) error {
			m := Master{Name: r.text(), Profile: r.text(), KCV: r.text()}
			known[m.Name] = m
			return nil
		})
	})
	if err != nil {
		return err
	}
	var fresh []Master
	for _, m := range masters {
		k, found := known[m.Name]
		switch {
		case !found:
			fresh = append(fresh, m)
		case k.KCV != m.KCV || k.Profile != m.Profile:
			return joinery.Errorf(joinery.CodeConflict, "the key file has another master key under the name %s (check value %s, profile %s) "+
				"than this database was served with (%s, %s): use the key file that belongs to it", m.Name, m.KCV, m.Profile, k.KCV, k.Profile)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return d.do(ctx, func(t *tx) error {
		// Each with an entry of the custody log.
		for _, m := range fresh {
			if err := t.exec("INSERT INTO master_key (name, profile, kcv) VALUES (?, ?, ?)", m.Name, m.Profile, m.KCV); err != nil {
				return err
			}
			err := t.audit(joinery.AuditEntry{
				At: now(), Event: joinery.AuditMasterServed, Actor: "joinery", Org: t.operator,
				Detail: map[string]string{"name": m.Name, "profile": m.Profile, "kcv": m.KCV},
			})
			if err != nil {
				return err
			}
		}
		return t.reopenImports()
	})
}

// NoteKeys remembers under which generations of its keys a server serves, as it
// names them, never a key. Where they are other ones than were noted last, by
// whatever server, the custody log has an entry of it.
func (d *DB) NoteKeys(ctx context.Context, generations map[string]string) error {
	text, err := json.Marshal(generations) // in the order of names
	if err != nil {
		return err
	}
	same := func(c conn) (bool, error) {
		return c.one("SELECT id FROM served_keys WHERE keys = ?", func(*row) error { return nil }, string(text))
	}
	known := false
	if err := d.read(ctx, func(c conn) (err error) { known, err = same(c); return err }); err != nil || known {
		return err
	}
	return d.do(ctx, func(t *tx) error {
		if known, err := same(t.conn); err != nil || known {
			return err
		}
		err := t.exec("INSERT INTO served_keys (id, keys) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET keys = excluded.keys", string(text))
		return t.finish(err, joinery.AuditEntry{At: now(), Event: joinery.AuditKeysChanged, Actor: "joinery", Org: t.operator, Detail: generations})
	})
}
