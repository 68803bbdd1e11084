package label

import (
	"bytes"
	"compress/zlib"
	"encoding/csv"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"joinery/lorawan"
	"joinery/tr005"
)

// device is the label of device n.
func device(n int) tr005.Label {
	return tr005.Label{
		JoinEUI: lorawan.EUI64FromUint64(0x70B3D57ED0000000), DevEUI: lorawan.EUI64FromUint64(0x0004A31000000000 + uint64(n)),
		ProfileID: tr005.ProfileID{Vendor: 0x42FF, Profile: 0xFF42}, OwnerToken: fmt.Sprintf("TOKEN%08d", n), Serial: fmt.Sprintf("0123%012d27", n),
	}
}

func textOf(t testing.TB, l tr005.Label) string {
	t.Helper()
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func sheetOf(t testing.TB, l Layout, count int) []byte {
	t.Helper()
	s, err := NewSheet(l)
	if err != nil {
		t.Fatal(err)
	}
	for n := range count {
		if err := s.Add(device(n)); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ordinary is 21 labels on a page of A4.
func ordinary() Layout {
	return Layout{Page: A4, Label: Size{63.5, 38.1}, Left: -1, Top: -1, Gap: Size{2.5, 0}, Level: LevelM, Title: "Acmé sensor"}
}

// layouts are sheets as people buy them.
func layouts() map[string]Layout {
	dense := Layout{Page: Letter, Label: Size{66.7, 25.4}, Columns: 3, Rows: 10, Left: 4.8, Top: 12.7, Gap: Size{3.2, 0}, Level: LevelQ, Outline: true}
	roll := Layout{Page: Size{30, 45}, Label: Size{30, 45}, Left: 0, Top: 0, Level: LevelH, Words: WordsIDs}
	bare := Layout{Page: A4, Label: Size{20, 20}, Left: -1, Top: -1, Gap: Size{2, 2}, Level: LevelL, Words: WordsNone, Skip: 3}
	return map[string]Layout{"ordinary": ordinary(), "dense": dense, "roll": roll, "bare": bare}
}

// Every code of a sheet is where the layout says, and reads as what it has to:
// drawn from the document's own shapes, and by a program that shows PDFs.
func TestSheetsAreRead(t *testing.T) {
	for name, l := range layouts() {
		t.Run(name, func(t *testing.T) {
			const count = 23
			plan, err := l.plan()
			if err != nil {
				t.Fatal(err)
			}
			pdf := sheetOf(t, l, count)
			drawn := drawPages(t, pdf, l.Page)
			check := func(by string, pages []image.Image, each int) {
				if want := (l.Skip+count-1)/(plan.Columns*plan.Rows) + 1; len(pages) != want {
					t.Fatalf("%s: %d pages, want %d", by, len(pages), want)
				}
				for n := 0; n < count; n += each {
					at, _ := plan.split()
					page, x, y := plan.place(l.Skip + n)
					if got := scan(t, cut(pages[page], l.Page, x+at.x, y+at.y, at.w)); got != textOf(t, device(n)) {
						t.Errorf("%s: label %d reads as %q", by, n, got)
					}
				}
			}
			check("shapes", drawn, 1)
			check("pdftoppm", rasterised(t, pdf), 2) // places 0 to 22, from the first page to the last
		})
	}
}

// cut takes a square of a page out of its picture; lengths in millimetres.
func cut(page image.Image, size Size, x, y, side float64) image.Image {
	scale := float64(page.Bounds().Dx()) / size.W
	to := image.Rect(0, 0, int(side*scale), int(side*scale))
	out := image.NewGray(to)
	draw.Draw(out, to, page, image.Pt(int(math.Round(x*scale)), int(math.Round(y*scale))), draw.Src)
	return out
}

// rasterised shows a PDF as poppler does.
func rasterised(t *testing.T, pdf []byte) (pages []image.Image) {
	t.Helper()
	program, err := exec.LookPath("pdftoppm")
	if err != nil {
		t.Skip("pdftoppm is not here (apt-get install poppler-utils); the document's shapes were read all the same")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "-gray", "-png", "-r", "200", "-", filepath.Join(dir, "page"))
	cmd.Stdin = bytes.NewReader(pdf)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("pdftoppm: %v: %s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "page*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, picture)
	}
	return pages
}

// drawPages draws the filled rectangles of a PDF, page by page.
func drawPages(t *testing.T, pdf []byte, size Size) (pages []image.Image) {
	t.Helper()
	const scale = 10 // pixels of a millimetre
	for _, content := range streams(t, pdf) {
		picture := image.NewGray(image.Rect(0, 0, int(size.W*scale), int(size.H*scale)))
		draw.Draw(picture, picture.Bounds(), image.White, image.Point{}, draw.Src)
		// Points from the lower left corner become pixels from the upper left.
		m := [6]float64{scale / pointsPerMM, 0, 0, -scale / pointsPerMM, 0, size.H * scale}
		var kept [][6]float64
		var path []image.Rectangle
		for _, line := range strings.Split(content, "\n") {
			var n []float64
			for _, word := range strings.Fields(line) {
				if v, err := strconv.ParseFloat(word, 64); err == nil {
					n = append(n, v)
					continue
				}
				switch word {
				case "q":
					kept = append(kept, m)
				case "Q":
					m, kept = kept[len(kept)-1], kept[:len(kept)-1]
				case "cm": // without rotation
					m = [6]float64{m[0] * n[0], 0, 0, m[3] * n[3], m[4] + m[0]*n[4], m[5] + m[3]*n[5]}
				case "re":
					x0, y0, x1, y1 := m[4]+m[0]*n[0], m[5]+m[3]*n[1], m[4]+m[0]*(n[0]+n[2]), m[5]+m[3]*(n[1]+n[3])
					path = append(path, image.Rect(round(x0), round(y0), round(x1), round(y1)))
				case "f":
					for _, r := range path {
						draw.Draw(picture, r, image.NewUniform(color.Black), image.Point{}, draw.Src)
					}
					path = nil
				case "S":
					path = nil
				}
				n = n[:0]
			}
		}
		pages = append(pages, picture)
	}
	return pages
}

func round(v float64) int { return int(math.Round(v)) }

// streams gives the content of each page.
func streams(t *testing.T, pdf []byte) (contents []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?s)<</Filter /FlateDecode /Length (\d+)>>\nstream\n`).FindAllSubmatchIndex(pdf, -1) {
		length, err := strconv.Atoi(string(pdf[m[2]:m[3]]))
		if err != nil {
			t.Fatal(err)
		}
		r, err := zlib.NewReader(bytes.NewReader(pdf[m[1] : m[1]+length]))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), " re\n") {
			contents = append(contents, string(b))
		}
	}
	return contents
}

// What people read stands beside the code, inside the label.
func TestWords(t *testing.T) {
	content := strings.Join(streams(t, sheetOf(t, ordinary(), 1)), "")
	l := device(0)
	for _, word := range []string{"DevEUI", l.DevEUI.String(), l.JoinEUI.String(), l.OwnerToken, l.Serial, "Acm\xe9 sensor"} {
		if !strings.Contains(content, "("+word+") Tj") {
			t.Errorf("%s is not beside the code", word)
		}
	}
	ids := ordinary()
	ids.Words = WordsIDs
	content = strings.Join(streams(t, sheetOf(t, ids, 1)), "")
	if strings.Contains(content, l.OwnerToken) || !strings.Contains(content, l.DevEUI.String()) {
		t.Error("the owner token is beside the code, or nothing is")
	}
	none := ordinary()
	none.Words, none.Title = WordsNone, ""
	if content = strings.Join(streams(t, sheetOf(t, none, 1)), ""); strings.Contains(content, "Tj") {
		t.Error("there is text")
	}
	// The document tells nothing of its content.
	if pdf := sheetOf(t, ordinary(), 2); bytes.Contains(pdf, []byte(l.OwnerToken)) || bytes.Contains(pdf, []byte(l.DevEUI.String())) {
		t.Error("a label is in the PDF's own data")
	}
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Layout)
		want   Layout
	}{
		"as many as fit": {func(*Layout) {}, Layout{Columns: 3, Rows: 7, Left: 7.25, Top: 15.15}},
		"given margins":  {func(l *Layout) { l.Left, l.Top = 7.2, 15.1 }, Layout{Columns: 3, Rows: 7, Left: 7.2, Top: 15.1}},
		"wide margins":   {func(l *Layout) { l.Left, l.Top = 100, 200 }, Layout{Columns: 1, Rows: 2, Left: 100, Top: 200}},
		"fewer":          {func(l *Layout) { l.Columns, l.Rows = 2, 1 }, Layout{Columns: 2, Rows: 1, Left: 40.25, Top: 129.45}},
		"rounded sizes":  {func(l *Layout) { l.Label = Size{105.05, 148.6}; l.Gap = Size{} }, Layout{Columns: 2, Rows: 2, Left: 0, Top: 0}},
	} {
		l := ordinary()
		c.change(&l)
		got, err := l.plan()
		near := func(a, b float64) bool { return math.Abs(a-b) < 0.01 }
		if err != nil || got.Columns != c.want.Columns || got.Rows != c.want.Rows || !near(got.Left, c.want.Left) || !near(got.Top, c.want.Top) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, change := range map[string]func(*Layout){
		"no page":          func(l *Layout) { l.Page = Size{} },
		"endless page":     func(l *Layout) { l.Page.H = math.Inf(1) },
		"no number":        func(l *Layout) { l.Label.W = math.NaN() },
		"flat label":       func(l *Layout) { l.Label.H = 0 },
		"label too wide":   func(l *Layout) { l.Label.W = 211 },
		"too many columns": func(l *Layout) { l.Columns = 4 },
		"too many rows":    func(l *Layout) { l.Rows = 8 },
		"fewer than none":  func(l *Layout) { l.Rows = -1 },
		"margin too wide":  func(l *Layout) { l.Left = 150 },
		"margin":           func(l *Layout) { l.Top = math.NaN() },
		"gap":              func(l *Layout) { l.Gap.W = -1 },
		"all skipped":      func(l *Layout) { l.Skip = 21 },
		"skip back":        func(l *Layout) { l.Skip = -1 },
		"title":            func(l *Layout) { l.Title = "Σ" },
		"title breaks":     func(l *Layout) { l.Title = "a\nb" },
	} {
		l := ordinary()
		change(&l)
		if s, err := NewSheet(l); err == nil {
			t.Errorf("%s: %+v", name, s.layout)
		}
	}
}

// What does not fit is refused, takes no place, and is not repeated.
func TestSheetRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		label Size
		level Level
		want  string
	}{
		"code too fine":       {Size{20, 9}, LevelM, "modules would be"},
		"text too wide":       {Size{16, 40}, LevelL, "larger label"},
		"text too high":       {Size{30, 15}, LevelL, "larger label"},
		"no room for level H": {Size{20, 12}, LevelH, "modules would be"},
	} {
		l := ordinary()
		l.Label, l.Level = c.label, c.level
		s, err := NewSheet(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(device(0)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "TOKEN") || s.Len() != 0 || s.Pages() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := NewSheet(ordinary())
	if err != nil {
		t.Fatal(err)
	}
	bad := device(0)
	bad.OwnerToken = "lower case"
	if err := s.Add(bad); err == nil || strings.Contains(err.Error(), "lower case") || s.Len() != 0 {
		t.Errorf("%v", err)
	}
	if err := s.Add(device(1)); err != nil || s.Len() != 1 || s.Pages() != 1 {
		t.Errorf("%v", err)
	}
}

func TestList(t *testing.T) {
	for _, comma := range []rune{',', ';'} {
		var b bytes.Buffer
		l, err := NewList(&b, comma)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if err := l.Add(device(n)); err != nil {
				t.Fatal(err)
			}
		}
		bad := device(3)
		bad.Serial = "a:b"
		if err := l.Add(bad); err == nil {
			t.Error("a label that cannot be")
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		r := csv.NewReader(&b)
		r.Comma = comma
		rows, err := r.ReadAll()
		if err != nil || len(rows) != 4 || !slices.Equal(rows[0], []string{"Text", "JoinEUI", "DevEUI", "ProfileID", "OwnerToken", "Serial", "Proprietary"}) {
			t.Fatalf("%v, %v", rows, err)
		}
		d := device(2)
		if !slices.Equal(rows[3], []string{textOf(t, d), d.JoinEUI.String(), d.DevEUI.String(), "42FFFF42", d.OwnerToken, d.Serial, ""}) {
			t.Errorf("%q", rows[3])
		}
	}
}

// Two thousand labels are one sheet; the figure is in the benchmark.
func BenchmarkSheet2000(b *testing.B) {
	for b.Loop() {
		b.SetBytes(int64(len(sheetOf(b, ordinary(), 2000))))
	}
}
