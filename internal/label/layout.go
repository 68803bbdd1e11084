package label

import (
	"fmt"
	"math"
)

// Size is a width and a height in millimetres.
type Size struct{ W, H float64 }

// The pages that printers have everywhere.
var (
	A4     = Size{210, 297}
	Letter = Size{215.9, 279.4}
)

// Wording is which text stands beside the code for people.
type Wording byte

// The wordings.
const (
	WordsAll  Wording = iota // identifiers, serial number and owner token
	WordsIDs                 // without the owner token, which is in the code only
	WordsNone                // the code alone
)

// Layout says where labels are on a page.
type Layout struct {
	Page, Label Size
	// Columns and Rows are how many labels stand side by side and one below the
	// other; 0 is as many as there is room for.
	Columns, Rows int
	// Left and Top are the margins before the first label; negative puts the
	// labels in the middle of the page.
	Left, Top float64
	// Gap is between labels.
	Gap Size
	// Skip leaves out the first places of the first page: labels that were used.
	Skip int
	// Level is the error correction of the codes.
	Level Level
	// Words and Title stand beside the code. Title comes first, on every label.
	Words Wording
	Title string
	// Outline draws the edge of each label, for scissors.
	Outline bool
}

// Bounds of what is printed.
const (
	maxPage = 2000 // of a side, mm
	// minModule is the smallest module that is drawn: three dots at 300 dpi.
	minModule = 0.25
	// slack lets sizes in inches, rounded to a tenth of a millimetre, fit.
	slack = 0.2
)

// plan fills in what is left open, and refuses what does not fit.
func (l Layout) plan() (Layout, error) {
	for name, s := range map[string]Size{"page": l.Page, "label": l.Label} {
		if !(s.W > 0 && s.H > 0 && s.W <= maxPage && s.H <= maxPage) {
			return l, fmt.Errorf("%s: want a width and a height of more than 0 and at most %d mm", name, maxPage)
		}
	}
	if !(l.Gap.W >= 0 && l.Gap.H >= 0 && l.Gap.W <= maxPage && l.Gap.H <= maxPage) {
		return l, fmt.Errorf("gap: want 0 to %d mm", maxPage)
	}
	var err error
	if l.Columns, l.Left, err = along(l.Columns, l.Left, l.Page.W, l.Label.W, l.Gap.W, "columns", "wide"); err != nil {
		return l, err
	}
	if l.Rows, l.Top, err = along(l.Rows, l.Top, l.Page.H, l.Label.H, l.Gap.H, "rows", "high"); err != nil {
		return l, err
	}
	if l.Skip < 0 || l.Skip >= l.Columns*l.Rows {
		return l, fmt.Errorf("places to skip: a page has %d, want 0 to %d", l.Columns*l.Rows, l.Columns*l.Rows-1)
	}
	return l, nil
}

// along places n labels along one side of a page.
func along(n int, margin, page, label, gap float64, plural, extent string) (int, float64, error) {
	room := page - math.Max(margin, 0) + slack
	fit := int(math.Floor((room + gap) / (label + gap)))
	switch {
	case math.IsNaN(margin) || n < 0:
		return 0, 0, fmt.Errorf("%s and margins: want numbers", plural)
	case fit < 1:
		return 0, 0, fmt.Errorf("a label %g mm %s does not fit on a page %g mm %s", label, extent, page, extent)
	case n > fit:
		return 0, 0, fmt.Errorf("%d %s need %g mm; the page is %g mm %s", n, plural,
			math.Max(margin, 0)+float64(n)*(label+gap)-gap, page, extent)
	case n == 0:
		n = fit
	}
	if margin < 0 {
		margin = math.Max(0, (page-float64(n)*(label+gap)+gap)/2)
	}
	return n, margin, nil
}

// place gives the corner of place i, counted over all pages, and its page.
func (l Layout) place(i int) (page int, x, y float64) {
	column, row := i%l.Columns, i/l.Columns%l.Rows
	return i / (l.Columns * l.Rows), l.Left + float64(column)*(l.Label.W+l.Gap.W), l.Top + float64(row)*(l.Label.H+l.Gap.H)
}

// box is a part of a label, from its corner.
type box struct{ x, y, w, h float64 }

// split divides a label into the place of the code, a square, and that of the
// text: beside the code on a wide label, else below it.
func (l Layout) split() (code, words box) {
	w, h := l.Label.W, l.Label.H
	if l.Words == WordsNone && l.Title == "" {
		side := math.Min(w, h)
		return box{(w - side) / 2, (h - side) / 2, side, side}, box{}
	}
	pad := math.Min(2, math.Min(w, h)*0.06)
	if w >= 1.4*h {
		side := math.Min(h, w*0.55)
		return box{0, (h - side) / 2, side, side}, box{side, pad, w - side - pad, h - 2*pad}
	}
	side := math.Min(w, h*0.7)
	return box{(w - side) / 2, 0, side, side}, box{pad, side, w - 2*pad, h - side - pad}
}
