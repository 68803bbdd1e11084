package manifest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"joinery/manifest"
)

func readAll(r io.Reader) (entries []string, err error) {
	m := manifest.NewReader(r)
	for {
		raw, err := m.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			if _, again := m.Next(); !errors.Is(again, err) {
				return entries, fmt.Errorf("the error did not stick: %w", again)
			}
			return entries, err
		}
		entries = append(entries, string(raw))
	}
}

func TestReader(t *testing.T) {
	big := `{"x":"` + strings.Repeat("x", manifest.MaxEntry-8) + `"}`
	for name, c := range map[string]struct {
		file string
		want []string
		err  error
	}{
		"empty":                {"[]", nil, nil},
		"white space":          {" \n[ 1 ,\n{\"a\":1} ]\n", []string{"1", `{"a":1}`}, nil},
		"duplicates pass here": {`[{"a":1,"a":2}]`, []string{`{"a":1,"a":2}`}, nil},
		"largest":              {"[" + big + "," + big + "]", []string{big, big}, nil},
		"too large":            {"[1, " + big[:8] + "x" + big[8:] + "]", []string{"1"}, manifest.ErrTooLarge},
		"far too large":        {`[1,"` + strings.Repeat("x", 10*manifest.MaxEntry), []string{"1"}, manifest.ErrTooLarge},
		"a long gap":           {"[1," + strings.Repeat(" ", 10*manifest.MaxEntry) + "2]", []string{"1"}, manifest.ErrTooLarge},
		"object":               {`{"a":1}`, nil, manifest.ErrFile},
		"nothing":              {"", nil, manifest.ErrFile},
		"cut in an entry":      {`[1,{"a":`, []string{"1"}, manifest.ErrFile},
		"cut between":          {`[1,`, []string{"1"}, manifest.ErrFile},
		"cut before the end":   {`[1`, []string{"1"}, manifest.ErrFile},
		"no comma":             {`[1 2]`, []string{"1"}, manifest.ErrFile},
		"comma at the end":     {`[1,]`, []string{"1"}, manifest.ErrFile},
		"two arrays":           {`[1][2]`, []string{"1"}, manifest.ErrFile},
		"rubbish behind":       {`[1]x`, []string{"1"}, manifest.ErrFile},
		"not UTF-8":            {"[1,\"\xff\"]", []string{"1"}, manifest.ErrFile},
	} {
		t.Run(name, func(t *testing.T) {
			for _, in := range []io.Reader{strings.NewReader(c.file), iotest.OneByteReader(strings.NewReader(c.file))} {
				got, err := readAll(in)
				if !errors.Is(err, c.err) || fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("got %d entries, %v; want %d, %v", len(got), err, len(c.want), c.err)
				}
				if err != nil && strings.Contains(err.Error(), "xxxx") {
					t.Errorf("the error repeats the file: %v", err)
				}
			}
		})
	}
	t.Run("error of the file system", func(t *testing.T) {
		broken := errors.New("disk is gone")
		if _, err := readAll(io.MultiReader(strings.NewReader("[1,"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

// endless is a manifest of n entries that is nowhere whole.
type endless struct {
	entry []byte
	n     int
	rest  []byte
	begun bool
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		switch {
		case !e.begun:
			e.begun, e.rest = true, append([]byte("["), e.entry...)
		case e.n > 1:
			e.n--
			e.rest = append([]byte(","), e.entry...)
		case e.n == 1:
			e.n, e.rest = 0, []byte("]")
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func TestReaderMemoryIsFlat(t *testing.T) {
	const entries = 20_000
	m := manifest.NewReader(&endless{entry: bytes.Repeat([]byte("1"), 3500), n: entries})
	var most uint64
	var stats runtime.MemStats
	for n := 0; ; n++ {
		if n%5000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapAlloc)
		}
		_, err := m.Next()
		if errors.Is(err, io.EOF) {
			if n != entries {
				t.Fatalf("read %d entries", n)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if most > 16<<20 {
		t.Errorf("heap reached %d bytes over a file of %d bytes", most, entries*3500)
	}
}
