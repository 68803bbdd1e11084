package label

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"joinery/tr005"

	"codeberg.org/go-pdf/fpdf"
)

// MaxSheet is the most labels of one PDF, which is made in memory.
const MaxSheet = 50_000

// Sheet is labels on pages.
type Sheet struct {
	layout Layout
	pdf    *fpdf.Fpdf
	ruler  *fpdf.Fpdf // measures text: a document without pages
	count  int
}

const pointsPerMM = 72 / 25.4

// ErrFull is the error of a label for which a PDF has no room.
var ErrFull = fmt.Errorf("a PDF takes at most %d labels; make several", MaxSheet)

// NewSheet begins a sheet.
func NewSheet(l Layout) (*Sheet, error) {
	l, err := l.plan()
	if err != nil {
		return nil, err
	}
	for _, r := range l.Title {
		if r < ' ' || r > '~' && r < '\u00a0' || r > '\u00ff' {
			return nil, errors.New("title: the PDF's fonts have letters of western Europe only")
		}
	}
	pdf := fpdf.NewCustom(&fpdf.InitType{OrientationStr: "P", UnitStr: "mm", Size: fpdf.SizeType{Wd: l.Page.W, Ht: l.Page.H}})
	pdf.SetAutoPageBreak(false, 0)
	pdf.SetMargins(0, 0, 0)
	pdf.SetTitle("LoRaWAN device labels", false)
	pdf.SetCreationDate(time.Now())
	return &Sheet{layout: l, pdf: pdf, ruler: fpdf.New("P", "mm", "A4", "")}, pdf.Error()
}

// Len is how many labels the sheet has.
func (s *Sheet) Len() int { return s.count }

// Pages is how many pages it has.
func (s *Sheet) Pages() int { return s.pdf.PageCount() }

// Check tells whether a label could be added, but for the room that is left.
func (s *Sheet) Check(l tr005.Label) error {
	_, _, err := s.prepare(l)
	return err
}

// prepare makes the code of a label, and the words beside it.
func (s *Sheet) prepare(l tr005.Label) (code Code, words words, err error) {
	text, err := l.Encode()
	if err != nil {
		return code, words, err
	}
	if code, err = Encode(text, s.layout.Level); err != nil {
		return code, words, err
	}
	at, room := s.layout.split()
	if module := at.w / float64(code.Side()); module < minModule {
		return code, words, fmt.Errorf("the code's modules would be %.2f mm, too fine for printers: its side needs %.1f mm and has %.1f; take a larger label, or a lower level of error correction",
			module, minModule*float64(code.Side()), at.w)
	}
	words, err = s.fit(s.lines(l), room)
	return code, words, err
}

// Add puts a label in the next place. A label that cannot be drawn is not
// there, and its place is the next one's.
func (s *Sheet) Add(l tr005.Label) error {
	if s.count >= MaxSheet {
		return ErrFull
	}
	code, words, err := s.prepare(l)
	if err != nil {
		return err
	}
	at, room := s.layout.split()
	page, x, y := s.layout.place(s.layout.Skip + s.count)
	for s.pdf.PageCount() <= page {
		s.pdf.AddPage()
	}
	s.count++
	s.outline(x, y)
	s.code(code, x+at.x, y+at.y, at.w)
	s.write(words, x+room.x, y+room.y)
	return s.pdf.Error()
}

// Write writes the PDF, once.
func (s *Sheet) Write(w io.Writer) error { return s.pdf.Output(w) }

func (s *Sheet) outline(x, y float64) {
	if !s.layout.Outline {
		return
	}
	s.pdf.SetDrawColor(160, 160, 160)
	s.pdf.SetLineWidth(0.1)
	s.pdf.Rect(x, y, s.layout.Label.W, s.layout.Label.H, "D")
}

// code draws all modules as one shape, in a system of coordinates of whole
// modules with the y axis down, so that nothing is rounded and no seams show.
func (s *Sheet) code(c Code, x, y, side float64) {
	module := side / float64(c.Side()) * pointsPerMM
	var b strings.Builder
	fmt.Fprintf(&b, "q 0 g %.5f 0 0 %.5f %.3f %.3f cm\n", module, -module, x*pointsPerMM, (s.layout.Page.H-y)*pointsPerMM)
	for r := range c.runs() {
		fmt.Fprintf(&b, "%d %d %d 1 re\n", r.x, r.y, r.n)
	}
	b.WriteString("f Q")
	s.pdf.RawWriteStr(b.String())
}
