package store

import (
	"context"

	"joinery"
)

// AddJoinServer pins a Join Server. CodeConflict for a name that is taken.
func (d *DB) AddJoinServer(ctx context.Context, j joinery.JoinServer, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		var receipts, pin, ca any
		if len(j.ReceiptKey) > 0 {
			receipts = j.ReceiptKey
		}
		if j.Identity.SPKI != [32]byte{} {
			pin = j.Identity.SPKI[:]
		}
		if len(j.Identity.CA) > 0 {
			ca = j.Identity.CA
		}
		err := t.exec("INSERT INTO join_server (id, name, transport_key, receipt_key, url, spki, ca, san, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			j.ID, j.Name, j.TransportKey, receipts, optional{j.URL}, pin, ca, optional{j.Identity.SAN}, j.CreatedAt)
		if err := conflict(err, "a Join Server of that name is pinned already"); err != nil {
			return err
		}
		for inward, ranges := range [][]joinery.EUIRange{j.Theirs, j.Ours} {
			for _, r := range ranges {
				err := t.exec("INSERT INTO join_server_range (join_server, inward, first, last) VALUES (?, ?, ?, ?)", j.ID, inward, r.First, r.Last)
				if err := conflict(err, "two ranges begin with one JoinEUI"); err != nil {
					return err
				}
			}
		}
		return t.audit(a)
	})
}

// RemoveJoinServer removes a pinned Join Server: no order can name it any more.
// CodeConflict while an order that is open does.
func (d *DB) RemoveJoinServer(ctx context.Context, id joinery.JoinServerID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		open, err := t.integer("SELECT count(*) FROM rekey WHERE join_server = ? AND ended_at IS NULL AND expires_at > ?", id, a.At)
		if err == nil && open > 0 {
			err = joinery.Errorf(joinery.CodeConflict, "%d devices are being rekeyed to this Join Server; cancel those orders first", open)
		}
		if err != nil {
			return err
		}
		n, err := t.changes("UPDATE join_server SET removed_at = ? WHERE id = ? AND removed_at IS NULL", a.At, id)
		if err == nil && n == 0 {
			err = notFound("Join Server")
		}
		return t.finish(err, a)
	})
}

// JoinServers lists the pinned Join Servers in the order of their names.
func (d *DB) JoinServers(ctx context.Context) (list []joinery.JoinServer, err error) {
	err = d.snapshot(ctx, func(c conn) error { list, err = c.joinServers(); return err })
	return list, err
}

func (c conn) joinServers() (list []joinery.JoinServer, err error) {
	const query = `SELECT id, name, transport_key, receipt_key, coalesce(url, ''), spki, ca, coalesce(san, ''), cursor, created_at
		FROM join_server WHERE removed_at IS NULL ORDER BY name`
	err = c.each(query, func(r *row) error {
		j := joinery.JoinServer{ID: joinery.JoinServerID(r.int()), Name: r.text(), TransportKey: r.blob(), ReceiptKey: r.blob(), URL: r.text()}
		pinned := !r.null()
		r.into(j.Identity.SPKI[:])
		j.Identity.CA, j.Identity.SAN = r.blob(), r.text()
		switch {
		case pinned:
			j.Identity.Kind = joinery.CredentialSPKI
		case j.Identity.SAN != "":
			j.Identity.Kind = joinery.CredentialCASAN
		case len(j.Identity.CA) > 0:
			j.Identity.Kind = joinery.CredentialCA
		}
		j.Cursor, j.CreatedAt = uint64(r.int()), r.time()
		list = append(list, j)
		return nil
	})
	for i := range list {
		if err != nil {
			return nil, err
		}
		err = c.each("SELECT inward, first, last FROM join_server_range WHERE join_server = ? ORDER BY first", func(r *row) error {
			to := &list[i].Theirs
			if r.bool() {
				to = &list[i].Ours
			}
			*to = append(*to, joinery.EUIRange{First: r.eui(), Last: r.eui()})
			return nil
		}, list[i].ID)
	}
	return list, err
}
