package main

import (
	"bytes"
	"strings"
	"testing"

	"joinery/client"

	"golang.org/x/sys/unix"
)

// things are rows of which one is long.
func things() []client.Organisation {
	return []client.Organisation{{Name: "Acme"}, {Name: strings.Repeat("a long name ", 8)}}
}

var thingColumns = columns[client.Organisation]{
	names: []string{"name", "id", "added"},
	cells: func(o client.Organisation) []any { return []any{o.Name, "org_0c3kd5vqmr2hx", "2026-11-22"} },
}

// TestTableInAPipe: everything, under each other, and nothing that only a
// terminal understands.
func TestTableInAPipe(t *testing.T) {
	var out bytes.Buffer
	if err := showList(&app{out: &out}, things(), thingColumns); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "NAME ") || strings.Index(lines[1], "org_") != strings.Index(lines[2], "org_") {
		t.Errorf("%s", out.String())
	}
	if !strings.Contains(lines[2], strings.Repeat("a long name ", 8)) || strings.Contains(out.String(), "\x1b") || strings.Contains(lines[1], "2026-11-22 ") {
		t.Errorf("%q", out.String())
	}
}

// TestTableOnATerminal: long text is cut, identifiers are not, and nothing is
// wrapped.
func TestTableOnATerminal(t *testing.T) {
	for width, want := range map[uint16]string{200: strings.Repeat("a long name ", 8) + "  org_0c3kd5vqmr2hx  2026-11-22", 70: "a long name a long name a long name…  org_0c3kd5vqmr2hx  2026-11-22", 44: "a long name a long name a long name…  org_0…"} {
		t.Setenv("TERM", "xterm")
		person, program := terminal(t)
		if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}); err != nil {
			t.Fatal(err)
		}
		if err := showList(&app{out: program}, things(), thingColumns); err != nil {
			t.Fatal(err)
		}
		shown := make([]byte, 4096)
		n, err := person.Read(shown)
		if err != nil {
			t.Fatal(err)
		}
		for len(strings.Split(string(shown[:n]), "\n")) < 4 {
			more, err := person.Read(shown[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
		lines := strings.Split(strings.ReplaceAll(string(shown[:n]), "\r", ""), "\n")
		if lines[2] != want || strings.Contains(string(shown[:n]), "\x1b") {
			t.Errorf("%d wide: %q, want %q", width, lines[2], want)
		}
	}
}
