package store

import (
	"bytes"
	"context"
	"slices"
	"time"

	"joinery"
)

// AddJoinServer pins a Join Server. One that was removed and has j.ID and the same
// receipt key is pinned again: its orders, arrivals and receipts are known still.
// CodeConflict where another that is pinned has the name, a key, or what proves who
// it is, and where its removal left more than one transaction ends: EndUnpinned comes
// before.
func (d *DB) AddJoinServer(ctx context.Context, j joinery.JoinServer, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.distinct(j); err != nil {
			return err
		}
		if err := t.endFormer(j.ID, a.Actor, a.At); err != nil {
			return err
		}
		n, err := t.changes("UPDATE join_server SET removed_at = NULL, name = ? WHERE id = ? AND removed_at IS NOT NULL AND receipt_key = ?", j.Name, j.ID, blobOrNull(j.ReceiptKey))
		if err == nil && n == 0 {
			err = t.exec("INSERT INTO join_server (id, name, transport_key, receipt_key, created_at) VALUES (?, ?, ?, ?, ?)",
				j.ID, j.Name, j.TransportKey, blobOrNull(j.ReceiptKey), j.CreatedAt)
		}
		if err := conflict(err, "that Join Server is pinned already"); err != nil {
			return err
		}
		return t.finish(t.describeJoinServer(j), a)
	})
}

// endFormer ends what the removal of a Join Server left, before it is the same again.
func (t *tx) endFormer(id joinery.JoinServerID, actor string, at time.Time) error {
	former, err := t.integer("SELECT count(*) FROM join_server WHERE id = ? AND removed_at IS NOT NULL", id)
	if err != nil || former == 0 {
		return err
	}
	more, err := t.endUnpinned(id, actor, at)
	if err == nil && more {
		err = joinery.Errorf(joinery.CodeConflict, "what was under way with that Join Server when it was removed is being ended still; try again")
	}
	return err
}

// ChangeJoinServer replaces what is known of a pinned Join Server, but for what tells
// that it is the same: ID, receipt key, where there is one, and how far its receipts
// were read. What waits to go there is tried again. former is the thumbprint of the
// transport key that was pinned until now: with another key pinned, orders that name
// none were for that one. Errors are those of AddJoinServer, and CodeNotFound.
func (d *DB) ChangeJoinServer(ctx context.Context, j joinery.JoinServer, former string, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		list, err := t.joinServers()
		n := slices.IndexFunc(list, func(o joinery.JoinServer) bool { return o.ID == j.ID })
		switch {
		case err != nil:
			return err
		case n < 0:
			return notFound("Join Server")
		case list[n].ReceiptKey != nil && !bytes.Equal(list[n].ReceiptKey, j.ReceiptKey):
			return joinery.Errorf(joinery.CodeConflict, "who signs with another statement key is another Join Server: pin that one, and forget this one")
		}
		if err := t.distinct(j); err != nil {
			return err
		}
		return t.finish(inOrder(
			func() error {
				if bytes.Equal(list[n].TransportKey, j.TransportKey) {
					return nil
				}
				return t.exec("UPDATE rekey SET thumbprint = ? WHERE join_server = ? AND ended_at IS NULL AND thumbprint = ''", former, j.ID)
			},
			func() error { return t.describeJoinServer(j) },
			func() error {
				return t.exec("UPDATE passage SET next_at = ? WHERE state = 'waiting' AND rekey IN (SELECT id FROM rekey WHERE join_server = ?)", a.At, j.ID)
			},
		), a)
	})
}

// distinct refuses a Join Server that could be taken for another one that is pinned.
func (t *tx) distinct(j joinery.JoinServer) error {
	list, err := t.joinServers()
	for _, o := range list {
		what := ""
		switch same := o.Identity; {
		case err != nil || o.ID == j.ID:
			continue
		case o.Name == j.Name:
			what = "the name"
		case bytes.Equal(o.TransportKey, j.TransportKey):
			what = "the transport key"
		case j.ReceiptKey != nil && bytes.Equal(o.ReceiptKey, j.ReceiptKey):
			what = "the statement key"
		case j.Identity.Kind != "" && same.Kind == j.Identity.Kind && same.SPKI == j.Identity.SPKI && same.SAN == j.Identity.SAN && bytes.Equal(same.CA, j.Identity.CA):
			what = "what proves who it is"
		default:
			continue
		}
		err = joinery.Errorf(joinery.CodeConflict, "%s is that of %s (%s), which is pinned already: each Join Server needs its own; change that pin, or forget it first", what, o.Name, o.ID)
	}
	return err
}

// describeJoinServer writes all of a pinned Join Server but what it is known by.
func (t *tx) describeJoinServer(j joinery.JoinServer) error {
	var pin []byte
	if j.Identity.SPKI != [32]byte{} {
		pin = j.Identity.SPKI[:]
	}
	err := t.exec(`UPDATE join_server SET name = ?, transport_key = ?, receipt_key = coalesce(receipt_key, CAST(? AS BLOB)), url = ?, spki = ?, ca = ?, san = ? WHERE id = ?`,
		j.Name, j.TransportKey, blobOrNull(j.ReceiptKey), optional{j.URL}, blobOrNull(pin), blobOrNull(j.Identity.CA), optional{j.Identity.SAN}, j.ID)
	if err == nil {
		err = t.exec("DELETE FROM join_server_range WHERE join_server = ?", j.ID)
	}
	for inward, ranges := range [][]joinery.EUIRange{j.Theirs, j.Ours} {
		for _, r := range ranges {
			if err == nil {
				err = t.exec("INSERT INTO join_server_range (join_server, inward, first, last) VALUES (?, ?, ?, ?)", j.ID, inward, r.First, r.Last)
			}
		}
	}
	return conflict(err, "two ranges begin with one JoinEUI")
}

// RemoveJoinServer removes a pinned Join Server: no order can name it any more,
// nothing more goes there, what it handed over and nobody accepted is refused, and
// nothing is expected of it, each with an entry of its own; where that is much, the rest
// of it is left to EndUnpinned. What was taken in stays. CodeConflict while an order
// that is open names it.
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
		if err != nil {
			return err
		}
		if err := t.audit(a); err != nil {
			return err
		}
		_, err = t.endUnpinned(id, a.Actor, a.At)
		return err
	})
}

// JoinServers lists the pinned Join Servers in the order of their names.
func (d *DB) JoinServers(ctx context.Context) (list []joinery.JoinServer, err error) {
	err = d.snapshot(ctx, func(c conn) error { list, err = c.joinServers(); return err })
	return list, err
}

// FormerJoinServer finds the Join Server with a receipt key that was pinned once and
// is not any more; zero where there is none.
func (d *DB) FormerJoinServer(ctx context.Context, receiptKey []byte) (id joinery.JoinServerID, err error) {
	err = d.read(ctx, func(c conn) error {
		n, err := c.integer("SELECT coalesce(max(id), 0) FROM join_server WHERE receipt_key = ? AND removed_at IS NOT NULL", receiptKey)
		id = joinery.JoinServerID(n)
		return err
	})
	return id, err
}

func (c conn) joinServers() (list []joinery.JoinServer, err error) {
	const query = `SELECT id, name, transport_key, receipt_key, coalesce(url, ''), spki, ca, coalesce(san, ''), cursor_epoch, cursor, created_at
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
		j.Cursor, j.CreatedAt = joinery.ReceiptPlace{Epoch: uint64(r.int()), N: uint64(r.int())}, r.time()
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
