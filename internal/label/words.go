package label

import (
	"fmt"
	"math"

	"joinery/tr005"
)

// Sizes of type, in points.
const (
	maxType = 9.0
	minType = 4.0
	// captionPart is how large captions are beside what they stand above,
	// lineHeight how high a line is, captionGap what is left free above a caption:
	// parts of the size of type.
	captionPart = 0.7
	lineHeight  = 1.15
	captionGap  = 0.35
)

const (
	typeface = "Helvetica"
	bold     = "B"
)

// line is one line of text.
type line struct {
	text    string
	style   string // "" or bold
	caption bool
}

// words is lines at the size of type in which they fit.
type words struct {
	lines []line
	size  float64 // of what is no caption
	top   float64 // free above them, in millimetres
}

// lines is what stands beside a code.
func (s *Sheet) lines(l tr005.Label) (lines []line) {
	if s.layout.Title != "" {
		lines = append(lines, line{text: western(s.layout.Title), style: bold})
	}
	if s.layout.Words == WordsNone {
		return lines
	}
	add := func(caption, value string) {
		if value != "" {
			lines = append(lines, line{text: caption, caption: true}, line{text: value})
		}
	}
	add("DevEUI", l.DevEUI.String())
	if l.Format != tr005.BareDevEUI {
		add("JoinEUI", l.JoinEUI.String())
	}
	if s.layout.Words == WordsAll {
		add("Owner token", l.OwnerToken)
	}
	add("Serial number", l.Serial)
	return lines
}

// western gives text in the one-byte encoding of the PDF's own fonts.
func western(text string) string {
	b := make([]byte, 0, len(text))
	for _, r := range text {
		b = append(b, byte(r))
	}
	return string(b)
}

// fit finds the largest type in which lines fit into a box.
func (s *Sheet) fit(lines []line, room box) (words, error) {
	if len(lines) == 0 {
		return words{}, nil
	}
	var w, h float64 // at one point of type, in millimetres
	for _, l := range lines {
		w = max(w, s.width(l))
		h += l.above() + l.height()
	}
	size := math.Min(maxType, math.Floor(4*math.Min(room.w/w, room.h/h))/4)
	if size < minType {
		return words{}, fmt.Errorf("the text needs %.0f × %.0f mm beside the code and has %.0f × %.0f; take a larger label, or less text",
			math.Ceil(w*minType), math.Ceil(h*minType), room.w, room.h)
	}
	return words{lines, size, (room.h - h*size) / 2}, nil
}

// width is that of a line at one point of type.
func (s *Sheet) width(l line) float64 {
	s.ruler.SetFont(typeface, l.style, maxType)
	return s.ruler.GetStringWidth(l.text) * l.part() / maxType
}

func (l line) part() float64 {
	if l.caption {
		return captionPart
	}
	return 1
}

// height and above, what is left free above it, are those of a line at one point
// of type, in millimetres.
func (l line) height() float64 { return l.part() * lineHeight / pointsPerMM }

func (l line) above() float64 {
	if l.caption {
		return captionGap / pointsPerMM
	}
	return 0
}

// write puts lines one below the other, into the box at (x, y) for which they
// were made to fit.
func (s *Sheet) write(w words, x, y float64) {
	y += w.top
	for _, l := range w.lines {
		grey := 0
		if l.caption {
			grey = 90
		}
		size := w.size * l.part()
		s.pdf.SetTextColor(grey, grey, grey)
		s.pdf.SetFont(typeface, l.style, size)
		y += w.size * l.above()
		// The base line is the size of type below the upper edge of the line.
		s.pdf.Text(x, y+size/pointsPerMM, l.text)
		y += w.size * l.height()
	}
}
