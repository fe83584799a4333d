package console

import (
	"fmt"
	"strconv"

	"rsc.io/qr/coding"
)

// qrQuiet is the width of the margin around a QR code, in modules (ISO/IEC 18004,
// section 6.3.8).
const qrQuiet = 4

// qrSVG draws a text as a QR code, level M, as an SVG image. Nothing of the text
// stays in memory but in the answer, which the caller wipes.
func qrSVG(text []byte) ([]byte, error) { return drawQR(&qrContent{text: text}, svgOf) }

// drawQR encodes what draw then makes a picture of. Nothing of it stays but the
// picture.
func drawQR(content *qrContent, draw func(*coding.Code) []byte) ([]byte, error) {
	version := coding.Version(coding.MinVersion)
	for content.Bits(version) > version.DataBytes(coding.M)*8 {
		if version++; version > coding.MaxVersion {
			return nil, fmt.Errorf("a text of %d bytes is too long for a QR code", len(content.text))
		}
	}
	plan, err := coding.NewPlan(version, coding.M, 0)
	if err != nil {
		return nil, fmt.Errorf("plan a QR code: %w", err)
	}
	defer content.wipe()
	code, err := plan.Encode(content)
	if err != nil {
		return nil, fmt.Errorf("draw a QR code: %w", err)
	}
	defer clear(code.Bitmap)
	return draw(code), nil
}

// svgOf draws a code as SVG.
func svgOf(code *coding.Code) []byte {
	side := strconv.Itoa(code.Size + 2*qrQuiet)
	// Every other module of a row begins a run of at most 24 bytes: the buffer never
	// grows, and so leaves no copy behind.
	svg := make([]byte, 0, 300+24*code.Size*(code.Size+1)/2)
	svg = append(svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 `+side+" "+side+
		`" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h`+side+"v"+side+`H0z"/><path fill="#000" d="`...)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for code.Black(x, y) {
				x++
			}
			if x == from {
				continue
			}
			svg = append(svg, 'M')
			svg = strconv.AppendInt(svg, int64(from+qrQuiet), 10)
			svg = append(svg, ' ')
			svg = strconv.AppendInt(svg, int64(y+qrQuiet), 10)
			svg = append(svg, 'h')
			svg = strconv.AppendInt(svg, int64(x-from), 10)
			svg = append(svg, "v1H"...)
			svg = strconv.AppendInt(svg, int64(from+qrQuiet), 10)
			svg = append(svg, 'z')
		}
	}
	return append(svg, `"/></svg>`...)
}

// qrContent is a text in byte mode (ISO/IEC 18004, section 7.4.5) that can be
// wiped from where the library puts it.
type qrContent struct {
	text []byte
	bits *coding.Bits
}

// Check is part of coding.Encoding: every byte can be encoded.
func (c *qrContent) Check() error { return nil }

// Bits is the length of the encoding.
func (c *qrContent) Bits(v coding.Version) int { return 4 + c.lengthBits(v) + 8*len(c.text) }

func (c *qrContent) lengthBits(v coding.Version) int {
	if v < 10 {
		return 8
	}
	return 16
}

// Encode writes the text. First it makes the library's buffer as large as it can
// become, so that there is one alone.
func (c *qrContent) Encode(b *coding.Bits, v coding.Version) {
	for range coding.Version(coding.MaxVersion).DataBytes(coding.L) + 1024 {
		b.Write(0, 8)
	}
	b.Reset()
	c.bits = b
	b.Write(4, 4)
	b.Write(uint(len(c.text)), c.lengthBits(v))
	for _, char := range c.text {
		b.Write(uint(char), 8)
	}
}

func (c *qrContent) wipe() {
	if c.bits == nil {
		return
	}
	for c.bits.Bits()%8 != 0 { // it was broken off
		c.bits.Write(0, 1)
	}
	clear(c.bits.Bytes())
}
