package store

import (
	"context"
	"crypto/sha256"

	"joinery"
)

// meet looks at a request's terms in the transaction of its first change, and
// leaves its mark there.
func (t *tx) meet(terms *joinery.Terms) error {
	if terms == nil {
		return nil
	}
	if terms.Device != 0 {
		states, err := t.states(oneDevice+"AND d.id = ?", terms.Device)
		if err != nil {
			return err
		}
		for _, s := range states { // one, or none: then the change itself will say so
			if err := terms.Allow(s.Tag()); err != nil {
				return err
			}
		}
	}
	if terms.Peer != 0 {
		peers, err := t.peers()
		if err != nil {
			return err
		}
		if p := findPeer(peers, terms.Peer); p != nil {
			if err := terms.Allow(p.Tag()); err != nil {
				return err
			}
		}
	}
	return t.mark(terms.Once)
}

// mark leaves the mark of a request, and forgets old ones.
func (t *tx) mark(once *joinery.Once) error {
	if once == nil {
		return nil
	}
	if err := t.exec("DELETE FROM answer WHERE at < ?", once.At.Add(-joinery.KeepAnswers)); err != nil {
		return err
	}
	err := t.exec("INSERT INTO answer (id, request, status, content_type, etag, body, at) VALUES (?, ?, 0, '', '', NULL, ?)",
		once.ID, once.Request, once.At)
	return conflict(err, "a request with this Idempotency-Key is being done; ask again")
}

// Answer finds what the request of that mark was answered.
func (d *DB) Answer(ctx context.Context, id [sha256.Size]byte) (a joinery.Answer, found bool, err error) {
	err = d.read(ctx, func(c conn) (err error) {
		found, err = c.one("SELECT request, status, content_type, etag, body FROM answer WHERE id = ?", func(r *row) error {
			r.into(a.Request[:])
			a.Status, a.ContentType, a.ETag, a.Body = int(r.int()), r.text(), r.text(), r.blob()
			return nil
		}, id)
		return err
	})
	return a, found, err
}

// KeepAnswer notes what a request was answered, where it left its mark.
func (d *DB) KeepAnswer(ctx context.Context, id [sha256.Size]byte, a joinery.Answer) error {
	return d.do(ctx, func(t *tx) error {
		return t.exec("UPDATE answer SET status = ?, content_type = ?, etag = ?, body = ? WHERE id = ?", a.Status, a.ContentType, a.ETag, a.Body, id)
	})
}
