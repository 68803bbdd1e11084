package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"joinery/client"
)

func TestParseRange(t *testing.T) {
	for text, want := range map[string]string{
		"70B3D57ED0000000":                  "70B3D57ED0000000-70B3D57ED0000000",
		"70b3d57ed0000000/64":               "70B3D57ED0000000-70B3D57ED0000000",
		"70B3D57ED0000000/40":               "70B3D57ED0000000-70B3D57ED0FFFFFF",
		"8000000000000000/1":                "8000000000000000-FFFFFFFFFFFFFFFF",
		"70B3D57ED0000001-70B3D57ED0000009": "70B3D57ED0000001-70B3D57ED0000009",
		"70B3D57ED0000001/40":               "",
		"70B3D57ED0000000/0":                "",
		"70B3D57ED0000000/65":               "",
		"70B3D57ED0000000/x":                "",
		"70B3D57ED000000":                   "",
		"70B3D57ED0000009-70B3D57ED0000001": "",
		"70B3D57ED0000009-":                 "",
		"-":                                 "",
		"":                                  "",
	} {
		r, err := parseRange(text)
		got := ""
		if err == nil {
			got = rangeText(r)
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", text, got, err, want)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"90d": now.AddDate(0, 0, 90), "12h": now.Add(12 * time.Hour), "1h30m": now.Add(90 * time.Minute),
		"2027-01-31":           time.Date(2027, 1, 31, 0, 0, 0, 0, time.Local),
		"2027-01-31T12:00:00Z": time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC),
		"":                     {},
	} {
		if got, err := parseExpiry(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"soon", "-1h", "0d", "-3d", "99999999d", "31.1.2027", "d"} {
		if got, err := parseExpiry(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestTextFromElsewhereDoesNotSteerTheTerminal: names and reasons come from a
// server that others write to.
func TestTextFromElsewhereDoesNotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, err: &out}
	evil := "a\x1b[31mb\nc\td\u202ee\x00"
	if err := a.facts("name", evil); err != nil {
		t.Fatal(err)
	}
	if err := showList(a, []client.Organisation{{Name: evil}}, columns[client.Organisation]{
		names: []string{"name"}, cells: func(o client.Organisation) []any { return []any{o.Name} },
	}); err != nil {
		t.Fatal(err)
	}
	if err := a.done(nil, "added %s", evil); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\u202e", "\x00", "\t", "b\nc"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q came through in %q", bad, out.String())
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"30d": now.AddDate(0, 0, -30), "12h": now.Add(-12 * time.Hour), "": {},
		"2026-10-01":           time.Date(2026, 10, 1, 0, 0, 0, 0, time.Local),
		"2026-10-01T08:00:00Z": time.Date(2026, 10, 1, 8, 0, 0, 0, time.UTC),
	} {
		if got, err := parseMoment("--joined-after", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := parseMoment("--joined-after", "soon", now); err == nil || !strings.Contains(err.Error(), "--joined-after: want 30d") {
		t.Errorf("%v", err)
	}
}
