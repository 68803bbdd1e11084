package store

import "joinery"

// fixEvents is what people can do about the feed: nothing of custody depends on
// it.
const fixEvents = "delete the rows of event_page and event_feed while no server runs; the feed begins anew, and nothing else depends on it"

func webhookID(id int64) string { return joinery.WebhookID(id).String() }

// eventRules are the invariants of the feed and of webhooks.
var eventRules = []rule{
	{"event_feed", plain, "its last page is the newest there is", fixEvents,
		"SELECT f.last_page FROM event_feed f WHERE f.last_page <> (SELECT coalesce(max(id), 0) FROM event_page)"},
	{"event_feed", plain, "it names audit rows that there are", fixEvents,
		"SELECT f.audited FROM event_feed f WHERE f.audited > (SELECT coalesce(max(id), 0) FROM audit)"},
	{"event_page", plain, "pages are numbered without gaps", fixEvents,
		`SELECT p.id FROM event_page p WHERE p.id > (SELECT min(id) FROM event_page)
		AND NOT EXISTS (SELECT 1 FROM event_page b WHERE b.id = p.id - 1)`},
	{"event_page", plain, "its references are whole", fixEvents,
		"SELECT id FROM event_page WHERE kind = 'joins' AND length(refs) % 16 <> 0 OR kind = 'devices' AND length(refs) % 8 <> 0"},
	{"event_page", plain, "its import is there", fixEvents,
		"SELECT p.id FROM event_page p WHERE p.kind IN ('devices', 'import') AND NOT EXISTS (SELECT 1 FROM import i WHERE i.id = p.first)"},
	{"webhook", webhookID, "its place is in the feed, or before it", "enable it again from now, with joinctl webhook enable --from-now",
		"SELECT w.id FROM webhook w WHERE w.page > (SELECT coalesce(max(id), 0) FROM event_page)"},
}
