package exportfile_test

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"joinery/internal/exportfile"
)

// What a line has too much of is found while it is read: who wrote it is known only
// after, and a line takes no many times its own room.
func TestBounds(t *testing.T) {
	many := "[" + strings.Repeat("{},", 1<<20) + "{}]"
	for name, line := range map[string]string{
		"times":  `{"exposure":{"times":` + many + `}}`,
		"keys":   `{"keys":` + many + `}`,
		"nonces": `{"nonces":` + many + `}`,
		"long":   `{"keys":[` + strings.Repeat(" ", 4<<20) + `]}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := exportfile.ParseDevice([]byte(line), exportfile.Header{})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, exportfile.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 { // the line itself is of 3 to 4 mebibytes
			t.Errorf("%s took %d bytes", name, n)
		}
	}
}

// A header names nobody by what cannot be kept or shown.
func TestHeaderNames(t *testing.T) {
	file := must[[]byte](t)(os.ReadFile("testdata/seal.jsonl"))
	h := must[*exportfile.Reader](t)(exportfile.NewReader(bytes.NewReader(file))).Header()
	for _, bad := range []string{"a\x00", "\x1b[2J", "\xff"} {
		id, server, org := h, h, h
		id.ID, server.Server, org.Org = bad, bad, bad
		for _, x := range []exportfile.Header{id, server, org} {
			if err := x.Check(); !errors.Is(err, exportfile.ErrFormat) {
				t.Errorf("%q, %q, %q are taken: %v", x.ID, x.Server, x.Org, err)
			}
		}
	}
}
