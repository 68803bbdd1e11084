package label

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

// texts are what labels hold, from short to long: each form, and lengths at
// which codes change their size.
func texts() []string {
	list := []string{
		"4242FFFFFFFFFFFF",
		"LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:OC05EA29C:C1A17",
		"LW:D0:1122334455667788:AABBCCDDEEFF0011:AABB1122:OAABBCCDDEEFF:SYYWWNNNNNN:PFOOBAR:CAF2C",
		"URN:LW:DP:42FFFFFFFFFFFFFF:4242FFFFFFFFFFFF:42FFFF42:%V0102%SSERIAL%PPROPRIETARY",
		"URN:DEV:LW:42FFFFFFFFFFFFFF_4242FFFFFFFFFFFF_42FFFF42_V0102_SSERIAL_PPROPRIETARY",
	}
	for n := 0; n < 900; n += 37 {
		list = append(list, "LW:D0:70B3D57ED0000000:0004A310001AA90A:00000000:P"+strings.Repeat("0A-Z %./", n/8)+strconv.Itoa(n))
	}
	return list
}

// scan reads the one code in a picture with a decoder that is none of ours. It
// gives up on one code in two hundred of any encoder at some sizes, so that, as
// with a scanner in the hand, there are several looks from further away.
func scan(t testing.TB, picture image.Image) string {
	t.Helper()
	var failure error
	for away := 1; away <= 5; away++ {
		bits, err := gozxing.NewBinaryBitmapFromImage(shrunk(picture, away))
		if err != nil {
			t.Fatal(err)
		}
		found, err := qrcode.NewQRCodeReader().Decode(bits, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true})
		if err == nil {
			return found.GetText()
		}
		failure = err
	}
	t.Fatalf("no code can be read: %v", failure)
	return ""
}

// shrunk takes every n-th pixel.
func shrunk(in image.Image, n int) image.Image {
	if n == 1 {
		return in
	}
	out := image.NewGray(image.Rect(0, 0, in.Bounds().Dx()/n, in.Bounds().Dy()/n))
	for i := range out.Pix {
		out.Pix[i] = color.GrayModel.Convert(in.At(i%out.Stride*n, i/out.Stride*n)).(color.Gray).Y
	}
	return out
}

func encode(t testing.TB, text string, level Level) Code {
	t.Helper()
	c, err := Encode(text, level)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodesAreRead(t *testing.T) {
	for i, text := range texts() {
		level := Level(i % 4)
		c := encode(t, text, level)
		var b bytes.Buffer
		if err := c.PNG(&b, 1+i%5); err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		if side := c.Side() * (1 + i%5); picture.Bounds() != image.Rect(0, 0, side, side) {
			t.Errorf("a picture of %v", picture.Bounds())
		}
		if got := scan(t, enlarged(picture)); got != text {
			t.Errorf("PNG, %s: %q is read as %q", level, text, got)
		}
		for _, colour := range []bool{false, true} {
			if got := scan(t, fromTerminal(t, c.Terminal(colour))); got != text {
				t.Errorf("terminal, %s: %q is read as %q", level, text, got)
			}
		}
		if got := scan(t, fromSVG(t, c)); got != text {
			t.Errorf("SVG, %s: %q is read as %q", level, text, got)
		}
	}
}

// A label's text takes the densest way of writing, so that its code is small.
func TestCodesAreSmall(t *testing.T) {
	const text = "LW:D0:1122334455667788:AABBCCDDEEFF0011:AABB1122:OABCDEFGHIJKLM:S0123AABBCCDDEEFF27:C0000"
	for level, want := range map[Level]int{LevelL: 33, LevelM: 33, LevelQ: 41, LevelH: 45} {
		if c := encode(t, text, level); c.size != want || c.Side() != want+8 {
			t.Errorf("%s: %d modules, want %d", level, c.size, want)
		}
	}
}

func TestLevels(t *testing.T) {
	for i, letter := range []string{"L", "m", "Q", "h"} {
		if l, err := ParseLevel(letter); err != nil || l != Level(i) || l.String() != strings.ToUpper(letter) {
			t.Errorf("%s: %v, %v", letter, l, err)
		}
	}
	for _, text := range []string{"", "X", "LM"} {
		if _, err := ParseLevel(text); err == nil {
			t.Errorf("%q is a level", text)
		}
	}
}

// The library repeats in its error what it could not encode.
func TestErrorsKeepTheText(t *testing.T) {
	if _, err := Encode("SECRET"+strings.Repeat("A", 8000), LevelH); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("%v", err)
	}
	c := encode(t, "A", LevelL)
	for _, scale := range []int{0, -1, maxScale + 1} {
		if err := c.PNG(io.Discard, scale); err == nil {
			t.Errorf("%d pixels a module", scale)
		}
	}
	if err := c.SVG(io.Discard, 0); err == nil {
		t.Error("an SVG of no size")
	}
}

// enlarged gives each pixel several: the decoder wants some to a module.
func enlarged(in image.Image) image.Image {
	const factor = 3
	out := image.NewGray(image.Rect(0, 0, in.Bounds().Dx()*factor, in.Bounds().Dy()*factor))
	for i := range out.Pix {
		out.Pix[i] = color.GrayModel.Convert(in.At(i%out.Stride/factor, i/out.Stride/factor)).(color.Gray).Y
	}
	return out
}

// fromTerminal draws what a terminal with a dark background shows.
func fromTerminal(t *testing.T, text string) image.Image {
	t.Helper()
	text = regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(text, "")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	width := len([]rune(lines[0]))
	picture := image.NewGray(image.Rect(0, 0, width, 2*len(lines)))
	for y, line := range lines {
		if n := len([]rune(line)); n != width {
			t.Fatalf("line %d has %d characters, the first %d", y, n, width)
		}
		for x, r := range []rune(line) {
			halves := map[rune][2]uint8{'█': {255, 255}, '▀': {255, 0}, '▄': {0, 255}, ' ': {0, 0}}
			half, known := halves[r]
			if !known {
				t.Fatalf("character %q", r)
			}
			picture.Pix[2*y*picture.Stride+x], picture.Pix[(2*y+1)*picture.Stride+x] = half[0], half[1]
		}
	}
	return enlarged(picture)
}

// fromSVG draws the paths of an SVG.
func fromSVG(t *testing.T, c Code) image.Image {
	t.Helper()
	var b bytes.Buffer
	if err := c.SVG(&b, 21.5); err != nil {
		t.Fatal(err)
	}
	var svg struct {
		XMLName xml.Name `xml:"http://www.w3.org/2000/svg svg"`
		Width   string   `xml:"width,attr"`
		Height  string   `xml:"height,attr"`
		ViewBox string   `xml:"viewBox,attr"`
		Paths   []struct {
			Fill string `xml:"fill,attr"`
			D    string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal(b.Bytes(), &svg); err != nil {
		t.Fatal(err)
	}
	var side int
	if _, err := fmt.Sscanf(svg.ViewBox, "0 0 %d", &side); err != nil || side != c.Side() || svg.Width != "21.5mm" || svg.Height != "21.5mm" {
		t.Fatalf("viewBox %q, %s × %s: %v", svg.ViewBox, svg.Width, svg.Height, err)
	}
	const scale = 4
	picture := image.NewGray(image.Rect(0, 0, side*scale, side*scale))
	shape := regexp.MustCompile(`^M(\d+) (\d+)h(\d+)v(\d+)h-(\d+)z`)
	for _, p := range svg.Paths {
		ink := map[string]color.Color{"#fff": color.White, "": color.Black}[p.Fill]
		if ink == nil {
			t.Fatalf("fill %q", p.Fill)
		}
		for p.D != "" {
			m := shape.FindStringSubmatch(p.D)
			if m == nil {
				t.Fatalf("path %.40s", p.D)
			}
			p.D = p.D[len(m[0]):]
			var n [5]int
			for i := range n {
				n[i], _ = strconv.Atoi(m[i+1])
			}
			if n[2] != n[4] {
				t.Fatalf("%s is no rectangle", m[0])
			}
			draw.Draw(picture, image.Rect(n[0]*scale, n[1]*scale, (n[0]+n[2])*scale, (n[1]+n[3])*scale), image.NewUniform(ink), image.Point{}, draw.Src)
		}
	}
	return picture
}
