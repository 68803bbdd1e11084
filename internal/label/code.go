package label

import (
	"errors"
	"iter"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is the quiet zone around a code, in modules.
const quiet = 4

// Level is how much of a code may be spoilt until it cannot be read any more.
type Level byte

// The levels of error correction, from the smallest codes to the largest.
const (
	LevelL Level = iota // about 7 % may be spoilt
	LevelM              // 15 %
	LevelQ              // 25 %
	LevelH              // 30 %
)

const levelLetters = "LMQH"

// ParseLevel reads L, M, Q or H.
func ParseLevel(s string) (Level, error) {
	i := strings.Index(levelLetters, strings.ToUpper(s))
	if i < 0 || len(s) != 1 {
		return 0, errors.New("want L, M, Q or H")
	}
	return Level(i), nil
}

func (l Level) String() string {
	if int(l) < len(levelLetters) {
		return levelLetters[l : l+1]
	}
	return "unknown"
}

// Code is a QR code.
type Code struct {
	size int    // modules a side, without the quiet zone
	dark []bool // row by row from the top
}

// Encode makes the smallest code that holds text.
func Encode(text string, level Level) (Code, error) {
	drawn, err := qr.Encode(text, []qr.ErrorCorrectionLevel{qr.L, qr.M, qr.Q, qr.H}[level&3], qr.Auto)
	if err != nil {
		// The library's own words repeat the text.
		return Code{}, errors.New("the text is too long for a QR code")
	}
	c := Code{size: drawn.Bounds().Dx()}
	c.dark = make([]bool, c.size*c.size)
	for i := range c.dark {
		r, _, _, _ := drawn.At(i%c.size, i/c.size).RGBA()
		c.dark[i] = r == 0
	}
	return c, nil
}

// Side is how many modules a side of the code has with its quiet zone.
func (c Code) Side() int { return c.size + 2*quiet }

// at tells whether the module in column x and row y is dark, counted from the
// quiet zone's corner.
func (c Code) at(x, y int) bool {
	x, y = x-quiet, y-quiet
	return x >= 0 && x < c.size && y >= 0 && y < c.size && c.dark[y*c.size+x]
}

// run is n dark modules side by side.
type run struct{ x, y, n int }

// runs gives all dark modules, counted from the quiet zone's corner.
func (c Code) runs() iter.Seq[run] {
	return func(yield func(run) bool) {
		for y := range c.Side() {
			begun := -1
			for x := range c.Side() {
				dark := c.at(x, y)
				if dark && begun < 0 {
					begun = x
				}
				if dark || begun < 0 {
					continue
				}
				if !yield(run{begun, y, x - begun}) {
					return
				}
				begun = -1
			}
		}
	}
}
