package joinery

import (
	"slices"
	"strings"
	"testing"
)

func TestEventTexts(t *testing.T) {
	id := NewEventID("join", []byte{1, 2}, []byte{3})
	var back EventID
	if err := back.UnmarshalText([]byte(id.String())); err != nil || back != id || len(id.String()) != 20 {
		t.Errorf("%s, %v", id, err)
	}
	if id == NewEventID("join", []byte{1}, []byte{2, 3}) || id == NewEventID("audit", []byte{1, 2}, []byte{3}) {
		t.Error("two events have one id")
	}
	for _, bad := range []string{"", "evt_", "whk_" + id.String()[4:], id.String() + "0", strings.ToUpper(id.String())} {
		if back.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken for an event", bad)
		}
	}
	c := EventCursor{Page: 1 << 40, Index: EndOfPage, Tag: 7}
	if got, err := ParseEventCursor(c.String()); err != nil || got != c {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseEventCursor(""); err != nil || !got.IsZero() || got.String() != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x", "0000000000000000000000", c.String() + "0", "!"} {
		if _, err := ParseEventCursor(bad); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if !(EventCursor{Page: 1, Index: 2}).Before(EventCursor{Page: 2}) || (EventCursor{Page: 1, Index: 2}).Before(EventCursor{Page: 1, Index: 2}) {
		t.Error("places are not in order")
	}
}

// What an audit entry becomes is a type that receivers know.
func TestAuditedEventsAreKnown(t *testing.T) {
	for audit, event := range auditedEvents {
		if !slices.Contains(EventTypes, event) {
			t.Errorf("%s becomes %s, which no feed has", audit, event)
		}
	}
	if EventOf(AuditPeerAdded) != "" {
		t.Error("what is the operator's own is told to owners")
	}
}
