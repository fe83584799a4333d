package console

import (
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"

	"rsc.io/qr/coding"
)

// pngScale is how many pixels a module of a QR code is wide.
const pngScale = 6

// QRPNG draws a text as a QR code, level M, as a PNG image. Nothing of the text
// stays in memory but in the answer, which the caller wipes: image/png would leave
// it in what compresses, so the image is stored as it is.
func QRPNG(text []byte) ([]byte, error) { return drawQR(&qrContent{text: text}, pngOf) }

// The parts of a PNG image (ISO/IEC 15948).
const (
	pngSignature = "\x89PNG\r\n\x1a\n"
	pngChunk     = 4 + 4 + 4 // length, type and CRC around the data of a chunk
	zlibStored   = 65535     // bytes in a stored block at most (RFC 1951, section 3.2.4)
)

// pngOf draws a code with one bit for a pixel. The buffer is made as long as it
// gets.
func pngOf(code *coding.Code) []byte {
	side := (code.Size + 2*qrQuiet) * pngScale
	row := 1 + (side+7)/8 // the filter's type, and the pixels
	raw := row * side
	blocks := (raw + zlibStored - 1) / zlibStored
	data := 2 + 5*blocks + raw + 4
	png := make([]byte, 0, len(pngSignature)+3*pngChunk+13+data)

	png = append(png, pngSignature...)
	var header [13]byte
	binary.BigEndian.PutUint32(header[0:], uint32(side))
	binary.BigEndian.PutUint32(header[4:], uint32(side))
	header[8] = 1 // bit depth; what follows is zero: greyscale, and the only methods there are
	png, from := beginChunk(png, "IHDR", len(header))
	png = endChunk(append(png, header[:]...), from)

	pixels := make([]byte, raw)
	defer clear(pixels)
	for y := range side {
		line := pixels[y*row+1 : (y+1)*row]
		for x := range side {
			if !code.Black(x/pngScale-qrQuiet, y/pngScale-qrQuiet) {
				line[x/8] |= 0x80 >> (x % 8) // white
			}
		}
	}
	png, from = beginChunk(png, "IDAT", data)
	png = append(png, 0x78, 0x01) // zlib (RFC 1950), fastest
	for rest := pixels; len(rest) > 0; {
		n := min(len(rest), zlibStored)
		var last byte
		if n == len(rest) {
			last = 1
		}
		png = append(png, last)
		png = binary.LittleEndian.AppendUint16(png, uint16(n))
		png = binary.LittleEndian.AppendUint16(png, ^uint16(n))
		png = append(png, rest[:n]...)
		rest = rest[n:]
	}
	png = binary.BigEndian.AppendUint32(png, adler32.Checksum(pixels))
	png = endChunk(png, from)

	png, from = beginChunk(png, "IEND", 0)
	return endChunk(png, from)
}

// beginChunk writes what stands before a chunk's data. from is where its type, and
// so what its CRC is of, begins.
func beginChunk(png []byte, kind string, size int) (_ []byte, from int) {
	png = binary.BigEndian.AppendUint32(png, uint32(size))
	return append(png, kind...), len(png)
}

// endChunk writes the CRC of a chunk.
func endChunk(png []byte, from int) []byte {
	return binary.BigEndian.AppendUint32(png, crc32.ChecksumIEEE(png[from:]))
}
