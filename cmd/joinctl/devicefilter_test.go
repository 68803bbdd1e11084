package main

import (
	"testing"
	"time"
)

func TestTimeOrAgo(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-11-01T08:00:00Z": time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"30d":                  time.Date(2026, 10, 23, 12, 0, 0, 0, time.UTC),
		"90m":                  time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC),
	} {
		if got, err := timeOrAgo(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-3h", "yesterday", "1w", "2026-13-01"} {
		if got, err := timeOrAgo(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}
