package store

import (
	"context"
	"strings"
	"time"

	"joinery"
)

// AddWebhook stores a webhook that begins at the end of the feed. CodeConflict
// where its organisation has most already.
func (d *DB) AddWebhook(ctx context.Context, w joinery.Webhook, most int, a joinery.AuditEntry) (joinery.Webhook, error) {
	return write(ctx, d, func(t *tx) (joinery.Webhook, error) {
		n, err := t.integer("SELECT count(*) FROM webhook WHERE org = ?", w.Org)
		if err == nil && n >= int64(most) {
			err = joinery.Errorf(joinery.CodeConflict, "an organisation has at most %d webhooks; remove one first", most)
		}
		if err != nil {
			return w, err
		}
		if w.Cursor, err = t.feedEnd(); err != nil {
			return w, err
		}
		w.Cursor.Index = joinery.EndOfPage
		err = t.exec(`INSERT INTO webhook (id, org, url, description, types, all_orgs, generation, created_at, disabled, page, idx, attempts)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, 0)`,
			w.ID, w.Org, w.URL, w.Description, typesText(w.Types), w.AllOrgs, w.Generation, w.CreatedAt, w.Cursor.Page, w.Cursor.Index)
		return w, t.finish(conflict(err, "there is a webhook of that id"), a)
	})
}

func typesText(types []joinery.EventType) string {
	texts := make([]string, len(types))
	for i, t := range types {
		texts[i] = string(t)
	}
	return strings.Join(texts, " ")
}

const webhookColumns = `SELECT id, org, url, description, types, all_orgs, generation, rotated_at, overlap_until, created_at, disabled,
	page, idx, failing_since, attempts, next_at FROM webhook `

func scanWebhook(r *row) (w joinery.Webhook) {
	w.ID, w.Org, w.URL, w.Description = joinery.WebhookID(r.int()), joinery.OrgID(r.int()), r.text(), r.text()
	for text := range strings.FieldsSeq(r.text()) {
		w.Types = append(w.Types, joinery.EventType(text))
	}
	w.AllOrgs, w.Generation, w.RotatedAt, w.OverlapUntil, w.CreatedAt = r.bool(), uint32(r.int()), r.time(), r.time(), r.time()
	w.Disabled = r.text()
	w.Cursor = joinery.EventCursor{Page: r.int(), Index: uint16(r.int())}
	w.FailingSince, w.Attempts, w.NextAt = r.time(), uint32(r.int()), r.time()
	return w
}

// Webhook finds a webhook; CodeNotFound.
func (d *DB) Webhook(ctx context.Context, id joinery.WebhookID) (w joinery.Webhook, err error) {
	err = d.read(ctx, func(c conn) error { w, err = c.webhook(id); return err })
	return w, err
}

func (c conn) webhook(id joinery.WebhookID) (w joinery.Webhook, err error) {
	found, err := c.one(webhookColumns+"WHERE id = ?", func(r *row) error { w = scanWebhook(r); return nil }, id)
	if err == nil && !found {
		err = notFound("webhook")
	}
	return w, err
}

// Webhooks gives the webhooks of an organisation, or all with a zero org.
func (d *DB) Webhooks(ctx context.Context, org joinery.OrgID) (list []joinery.Webhook, err error) {
	query, args := webhookColumns+"ORDER BY id", []any(nil)
	if org != 0 {
		query, args = webhookColumns+"WHERE org = ? ORDER BY id", []any{org}
	}
	err = d.read(ctx, func(c conn) error {
		return c.each(query, func(r *row) error { list = append(list, scanWebhook(r)); return nil }, args...)
	})
	return list, err
}

// RotateWebhook gives a webhook the next secret; the one before signs until the
// overlap ends. CodeConflict where its generation is not expected any more.
func (d *DB) RotateWebhook(ctx context.Context, id joinery.WebhookID, expected uint32, at, overlapUntil time.Time, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE webhook SET generation = generation + 1, rotated_at = ?, overlap_until = ? WHERE id = ? AND generation = ?",
			at, overlapUntil, id, expected)
		if err == nil && n == 0 {
			if _, err = t.webhook(id); err == nil {
				err = joinery.Errorf(joinery.CodeConflict, "the webhook got another secret meanwhile")
			}
		}
		return t.finish(err, a)
	})
}

// EnableWebhook sends to a webhook again, from where it stopped, or where
// fromNow is set from the end of the feed.
func (d *DB) EnableWebhook(ctx context.Context, id joinery.WebhookID, fromNow bool, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		w, err := t.webhook(id)
		if err != nil {
			return err
		}
		if fromNow {
			if w.Cursor, err = t.feedEnd(); err != nil {
				return err
			}
		}
		return t.finish(t.exec("UPDATE webhook SET disabled = '', failing_since = NULL, attempts = 0, next_at = NULL, page = ?, idx = ? WHERE id = ?",
			w.Cursor.Page, w.Cursor.Index, id), a)
	})
}

// DisableWebhook sends nothing to a webhook any more, for a reason that people
// read. One that is off stays as it is.
func (d *DB) DisableWebhook(ctx context.Context, id joinery.WebhookID, why string, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		n, err := t.changes("UPDATE webhook SET disabled = ?, next_at = NULL WHERE id = ? AND disabled = ''", why, id)
		if err != nil || n == 0 {
			return err
		}
		return t.audit(a)
	})
}

// RemoveWebhook forgets a webhook and its deliveries.
func (d *DB) RemoveWebhook(ctx context.Context, id joinery.WebhookID, a joinery.AuditEntry) error {
	return d.do(ctx, func(t *tx) error {
		if err := t.exec("DELETE FROM webhook_delivery WHERE webhook = ?", id); err != nil {
			return err
		}
		n, err := t.changes("DELETE FROM webhook WHERE id = ?", id)
		if err == nil && n == 0 {
			err = notFound("webhook")
		}
		return t.finish(err, a)
	})
}

// RecordDeliveries stores how far the deliveries to a webhook have come, with the
// attempts that were made. A cursor never goes back: a server that stood still
// for long does not undo what another one did. Nothing happens where the
// webhook is gone.
func (d *DB) RecordDeliveries(ctx context.Context, id joinery.WebhookID, p joinery.WebhookProgress, attempts []joinery.Delivery) error {
	return d.do(ctx, func(t *tx) error {
		t.aside = true
		n, err := t.changes("UPDATE webhook SET failing_since = ?, attempts = ?, next_at = ? WHERE id = ?",
			optional{p.FailingSince}, p.Attempts, optional{p.NextAt}, id)
		if err != nil || n == 0 {
			return err
		}
		err = t.exec("UPDATE webhook SET page = ?, idx = ? WHERE id = ? AND (page < ? OR page = ? AND idx < ?)",
			p.Cursor.Page, p.Cursor.Index, id, p.Cursor.Page, p.Cursor.Page, p.Cursor.Index)
		if err != nil || len(attempts) == 0 {
			return err
		}
		return t.addDeliveries(id, attempts)
	})
}

func (t *tx) addDeliveries(id joinery.WebhookID, attempts []joinery.Delivery) error {
	last, err := t.integer("SELECT coalesce(max(n), 0) FROM webhook_delivery WHERE webhook = ?", id)
	if err != nil {
		return err
	}
	if skip := len(attempts) - joinery.MaxDeliveries; skip > 0 {
		attempts = attempts[skip:]
	}
	for _, a := range attempts {
		last++
		err := t.exec("INSERT INTO webhook_delivery (webhook, n, event, type, at, took, attempt, status, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			id, last, a.Event.String(), a.Type, a.At, a.Took.Milliseconds(), a.Attempt, a.Status, a.Error)
		if err != nil {
			return err
		}
	}
	return t.exec("DELETE FROM webhook_delivery WHERE webhook = ? AND n <= ?", id, last-joinery.MaxDeliveries)
}

// Deliveries gives the newest attempts to deliver to a webhook, newest first.
func (d *DB) Deliveries(ctx context.Context, id joinery.WebhookID) (list []joinery.Delivery, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each("SELECT n, event, type, at, took, attempt, status, error FROM webhook_delivery WHERE webhook = ? ORDER BY n DESC", func(r *row) error {
			a := joinery.Delivery{N: r.int()}
			if err := a.Event.UnmarshalText([]byte(r.text())); err != nil {
				return err
			}
			a.Type, a.At, a.Took = joinery.EventType(r.text()), r.time(), time.Duration(r.int())*time.Millisecond
			a.Attempt, a.Status, a.Error = uint32(r.int()), int(r.int()), r.text()
			list = append(list, a)
			return nil
		}, id)
	})
	return list, err
}
