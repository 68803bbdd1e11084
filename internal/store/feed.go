package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"joinery"
	"joinery/lorawan"
)

// Events gives at most q.Limit events of the feed behind q.After, in its order,
// and from where to go on. The page of events may be short or empty although
// there is More: what was looked at was not asked for. CodeNotFound where
// q.After is no place of this feed any more.
func (d *DB) Events(ctx context.Context, q joinery.EventQuery) (p joinery.EventPage, err error) {
	q.Limit = pageLimit(q.Limit)
	err = d.snapshot(ctx, func(c conn) error {
		if err := c.checkCursor(q.After); err != nil {
			return err
		}
		pages, err := c.pagesFrom(q.After)
		if err != nil {
			return err
		}
		f := feedReader{c: c, q: q}
		f.found.Next, f.found.More = q.After, len(pages) == pagesAtOnce
		for _, page := range pages {
			if err := f.page(page); err != nil {
				return fmt.Errorf("page %d of events: %w", page.id, err)
			}
			if f.full() {
				f.found.More = true
				break
			}
			f.found.Next = page.end()
		}
		err = f.nameDevices()
		p = f.found
		return err
	})
	if err != nil {
		return joinery.EventPage{}, err
	}
	return p, nil
}

// FeedEnd is the place behind the last page.
func (d *DB) FeedEnd(ctx context.Context) (end joinery.EventCursor, err error) {
	err = d.read(ctx, func(c conn) error { end, err = c.feedEnd(); return err })
	return end, err
}

func (c conn) feedEnd() (end joinery.EventCursor, err error) {
	_, err = c.one("SELECT id, tag FROM event_page ORDER BY id DESC LIMIT 1", func(r *row) error {
		end = joinery.EventCursor{Page: r.int(), Tag: uint32(r.int()), Index: joinery.EndOfPage}
		return nil
	})
	return end, err
}

// checkCursor refuses a cursor whose page is gone, or is another one by now.
func (c conn) checkCursor(at joinery.EventCursor) error {
	if at.IsZero() || at.Tag == 0 {
		return nil
	}
	tag, err := c.integer("SELECT tag FROM event_page WHERE id = ?", at.Page)
	if err == nil && uint32(tag) != at.Tag {
		err = joinery.Errorf(joinery.CodeNotFound, "this place of the feed is gone: its events are older than the feed is kept, "+
			"or the database was restored from a backup; begin anew without 'after', events that come again have the ids that they had")
	}
	return err
}

// storedPage is a page of the feed, as it was read.
type storedPage struct {
	id  int64
	tag uint32
	at  time.Time
	eventPage
}

func (p storedPage) cursor(index int) joinery.EventCursor {
	return joinery.EventCursor{Page: p.id, Tag: p.tag, Index: uint16(index)}
}

func (p storedPage) end() joinery.EventCursor { return p.cursor(joinery.EndOfPage) }

func (c conn) pagesFrom(after joinery.EventCursor) (pages []storedPage, err error) {
	from := after.Page
	if after.Index == joinery.EndOfPage {
		from++
	}
	err = c.each(`SELECT id, tag, at, kind, coalesce(org, 0), coalesce(first, 0), coalesce(last, 0), refs, coalesce(note, '')
		FROM event_page WHERE id >= ? ORDER BY id LIMIT ?`, func(r *row) error {
		p := storedPage{id: r.int(), tag: uint32(r.int()), at: r.time()}
		p.eventPage = eventPage{r.text(), joinery.OrgID(r.int()), r.int(), r.int(), r.blob(), r.text()}
		pages = append(pages, p)
		return nil
	}, from, pagesAtOnce)
	return pages, err
}

// feedReader collects events.
type feedReader struct {
	c     conn
	q     joinery.EventQuery
	found joinery.EventPage
}

func (f *feedReader) full() bool { return len(f.found.Events) >= f.q.Limit }

func (f *feedReader) wants(t joinery.EventType) bool { return f.q.Wants == nil || f.q.Wants(t) }

func (f *feedReader) mayRead(org joinery.OrgID) bool { return f.q.Org == 0 || f.q.Org == org }

// add adds an event of a page, unless it comes before the cursor, is not asked
// for, or there is no room.
func (f *feedReader) add(p storedPage, index int, e joinery.Event) {
	e.Cursor = p.cursor(index + 1) // indexes of cursors are from 1: 0 is before the page's first event
	if f.full() || !f.q.After.Before(e.Cursor) || !f.mayRead(e.Org) || e.Type == "" || !f.wants(e.Type) {
		return
	}
	f.found.Events = append(f.found.Events, e)
	f.found.Next = e.Cursor
}

// behind is the index of the first reference of a page that is looked at.
func (f *feedReader) behind(p storedPage) int {
	if f.q.After.Page == p.id {
		return int(f.q.After.Index)
	}
	return 0
}

func (f *feedReader) page(p storedPage) error {
	switch p.kind {
	case pageAudit:
		return f.auditRows(p)
	case pageJoins:
		return f.joins(p)
	case pageDevices:
		f.devices(p)
	case pageImport:
		return f.finished(p)
	case pageRefusal:
		return f.refusal(p)
	}
	return nil // of a later version of this program
}

func (f *feedReader) auditRows(p storedPage) error {
	return f.c.each("SELECT id, at, event, org, device, payload, leaf FROM audit WHERE id BETWEEN ? AND ? ORDER BY id", func(r *row) error {
		id := r.int()
		a := joinery.AuditEntry{At: r.time(), Event: joinery.AuditEvent(r.text()), Org: joinery.OrgID(r.int()), Device: joinery.DeviceID(r.int())}
		payload, leaf := r.blob(), r.blob()
		if payload != nil {
			var err error
			if a, err = decodeAudit(payload); err != nil {
				return err
			}
		}
		a.ID = id
		f.add(p, int(id-p.first), joinery.Event{
			ID: joinery.NewEventID("audit", leaf), Type: joinery.EventOf(a.Event), At: a.At, Org: a.Org, Device: a.Device, Audit: &a,
		})
		return nil
	}, p.first+int64(f.behind(p)), p.last)
}

func (f *feedReader) joins(p storedPage) error {
	if !f.wants(joinery.EventDeviceJoined) {
		return nil
	}
	type place struct {
		index int
		id    joinery.ActivationID
	}
	var places []place
	for i := f.behind(p); (i+1)*joinRef <= len(p.refs); i++ {
		ref := p.refs[i*joinRef:]
		if f.mayRead(joinery.OrgID(binary.BigEndian.Uint64(ref[8:]))) {
			places = append(places, place{i, joinery.ActivationID(binary.BigEndian.Uint64(ref))})
		}
	}
	return inRuns(places, func(run []place) error {
		if f.full() {
			return nil
		}
		v := valuesOf("idx INTEGER, id INTEGER")
		for _, at := range run {
			v.add(at.index, at.id)
		}
		return f.c.each(v.with("SELECT v.idx, a.payload FROM v JOIN activation a ON a.id = v.id ORDER BY v.idx"), func(r *row) error {
			index, payload := int(r.int()), r.blob()
			if payload == nil { // erased
				return nil
			}
			a, err := joinery.ParseActivation(payload)
			if err != nil {
				return err
			}
			f.add(p, index, joinery.Event{
				ID:   joinery.NewEventID("join", binary.BigEndian.AppendUint64(nil, uint64(a.ID))),
				Type: joinery.EventDeviceJoined, At: a.At, Org: a.Owner, Device: a.Device, JoinEUI: a.JoinEUI, DevEUI: a.DevEUI, Join: &a,
			})
			return nil
		}, v.args...)
	})
}

func (f *feedReader) devices(p storedPage) {
	if !f.wants(joinery.EventDeviceImported) || !f.mayRead(p.org) {
		return
	}
	id := joinery.ImportID(p.first)
	for i := f.behind(p); (i+1)*deviceRef <= len(p.refs) && !f.full(); i++ {
		ref := p.refs[i*deviceRef : (i+1)*deviceRef]
		f.add(p, i, joinery.Event{
			ID:   joinery.NewEventID("imported", binary.BigEndian.AppendUint64(nil, uint64(id)), ref),
			Type: joinery.EventDeviceImported, At: p.at, Org: p.org, Device: joinery.DeviceID(binary.BigEndian.Uint64(ref)), Imported: &id,
		})
	}
}

func (f *feedReader) finished(p storedPage) error {
	i, err := f.c.findImport(joinery.ImportID(p.first))
	if err != nil {
		return err
	}
	f.add(p, 0, joinery.Event{
		ID:   joinery.NewEventID("import", binary.BigEndian.AppendUint64(nil, uint64(i.ID))),
		Type: joinery.EventImportFinished, At: p.at, Org: p.org, Import: &i,
	})
	return nil
}

func (f *feedReader) refusal(p storedPage) error {
	var c joinery.RefusalCount
	if err := json.Unmarshal([]byte(p.note), &c); err != nil {
		return err
	}
	f.add(p, 0, joinery.Event{
		ID:   joinery.NewEventID("refusal", binary.BigEndian.AppendUint32(nil, p.tag), []byte(p.note)),
		Type: joinery.EventJoinRefused, At: p.at, Org: p.org, Device: c.Device, Refusal: &c,
	})
	return nil
}

// nameDevices adds EUIs to events that know their device by its id. A device's
// row outlives its deletion.
func (f *feedReader) nameDevices() error {
	type euis struct{ join, dev lorawan.EUI64 }
	wanted, known := map[joinery.DeviceID]bool{}, map[joinery.DeviceID]euis{}
	for _, e := range f.found.Events {
		if e.Device != 0 && e.DevEUI.IsZero() {
			wanted[e.Device] = true
		}
	}
	err := inRuns(inOrderOf(wanted), func(run []joinery.DeviceID) error {
		v := valuesOf("id INTEGER")
		for _, id := range run {
			v.add(id)
		}
		return f.c.each(v.with("SELECT d.id, d.join_eui, d.dev_eui FROM v JOIN device d ON d.id = v.id"), func(r *row) error {
			known[joinery.DeviceID(r.int())] = euis{r.eui(), r.eui()}
			return nil
		}, v.args...)
	})
	for i := range f.found.Events {
		if e := &f.found.Events[i]; e.Device != 0 && e.DevEUI.IsZero() {
			e.JoinEUI, e.DevEUI = known[e.Device].join, known[e.Device].dev
		}
	}
	return err
}

// LateWebhooks gives the webhooks that are on and wait for a page from before a
// time.
func (d *DB) LateWebhooks(ctx context.Context, before time.Time) (list []joinery.Webhook, err error) {
	err = d.read(ctx, func(c conn) error {
		return c.each(webhookColumns+`WHERE disabled = ''
			AND (SELECT p.at FROM event_page p WHERE p.id > webhook.page ORDER BY p.id LIMIT 1) < ? ORDER BY webhook.id`,
			func(r *row) error { list = append(list, scanWebhook(r)); return nil }, before)
	})
	return list, err
}

// PruneEvents forgets pages from before a time, at most limit of them, but none
// that a webhook waits for which is on, or the custody log, and never the last one. It gives how many
// it forgot.
func (d *DB) PruneEvents(ctx context.Context, before time.Time, limit int) (n int, err error) {
	return write(ctx, d, func(t *tx) (int, error) {
		keep, err := t.integer("SELECT coalesce(max(id), 0) FROM event_page")
		if err != nil {
			return 0, err
		}
		waited, err := t.integer("SELECT coalesce(min(page), ?) FROM webhook WHERE disabled = ''", keep)
		if err != nil {
			return 0, err
		}
		logged, err := t.integer("SELECT coalesce(min(page), ?) FROM log_state", keep-1)
		if err != nil {
			return 0, err
		}
		keep = min(keep, waited, logged+1)
		var until int64
		young := false
		err = t.each("SELECT id, at FROM event_page WHERE id < ? ORDER BY id LIMIT ?", func(r *row) error {
			id, at := r.int(), r.time()
			if young = young || !at.Before(before); !young {
				until = id
			}
			return nil
		}, keep, limit)
		if err != nil || until == 0 {
			return 0, err
		}
		return t.changes("DELETE FROM event_page WHERE id <= ?", until)
	})
}
