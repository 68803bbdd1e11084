package label

import (
	"bufio"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"
)

// maxScale bounds the pixels of a module, so that a picture stays below 100
// million.
const maxScale = 50

// Terminal draws the code with characters of half a height, each two modules.
// Light modules are blocks: on a dark background the code is as printed. With
// colour it is as printed on any background.
func (c Code) Terminal(colour bool) string {
	var b strings.Builder
	for y := 0; y < c.Side(); y += 2 {
		if colour {
			b.WriteString("\x1b[97;40m")
		}
		for x := range c.Side() {
			// Below the last row of an odd number of them there is nothing.
			top, bottom := !c.at(x, y), y+1 < c.Side() && !c.at(x, y+1)
			b.WriteString(map[[2]bool]string{
				{true, true}: "█", {true, false}: "▀", {false, true}: "▄", {false, false}: " ",
			}[[2]bool{top, bottom}])
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// PNG draws the code in black and white, each module scale pixels a side.
func (c Code) PNG(w io.Writer, scale int) error {
	if scale < 1 || scale > maxScale {
		return fmt.Errorf("pixels of a module: want 1 to %d", maxScale)
	}
	side := c.Side() * scale
	picture := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for i := range picture.Pix {
		if c.at(i%side/scale, i/side/scale) {
			picture.Pix[i] = 1
		}
	}
	return png.Encode(w, picture)
}

// SVG draws the code side millimetres wide and high, quiet zone included.
func (c Code) SVG(w io.Writer, side float64) error {
	if side <= 0 {
		return errors.New("side of the code: want more than 0 mm")
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]gmm" height="%[1]gmm" viewBox="0 0 %[2]d %[2]d" shape-rendering="crispEdges">`+
		`<path fill="#fff" d="M0 0h%[2]dv%[2]dh-%[2]dz"/><path d="`, side, c.Side())
	for r := range c.runs() {
		fmt.Fprintf(b, "M%d %dh%dv1h-%dz", r.x, r.y, r.n, r.n)
	}
	fmt.Fprint(b, `"/></svg>`, "\n")
	return b.Flush()
}
