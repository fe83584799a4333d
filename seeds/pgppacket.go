package seeds

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
)

// pgpPackets reads the packets of a message, one after another (RFC 9580,
// section 4.2).
type pgpPackets struct {
	r    byteReader
	open *pgpBody // the packet that is being read
}

// next answers the next packet, which is to be read before the one after it;
// io.EOF where there is none.
func (p *pgpPackets) next() (tag int, body *pgpBody, err error) {
	b, err := p.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	if b&0x80 == 0 {
		return 0, nil, errPGPOrder
	}
	body = &pgpBody{r: p.r}
	if b&0x40 != 0 {
		return int(b & 0x3f), body, body.length()
	}
	// The format of PGP 2.
	tag = int(b >> 2 & 0xf)
	if b&3 == 3 {
		body.toEnd = true
		return tag, body, nil
	}
	for range 1 << (b & 3) {
		c, err := p.r.ReadByte()
		if err != nil {
			return 0, nil, unexpected(err)
		}
		body.left = body.left<<8 | int64(c)
	}
	return tag, body, nil
}

// pgpBody is what a packet holds. Its end is io.EOF; where the source ends
// before that it is io.ErrUnexpectedEOF.
type pgpBody struct {
	r       byteReader
	left    int64
	partial bool // another length follows
	toEnd   bool // all that the source has
	trailer int  // bytes at the end that the decompressor leaves
}

// length reads a length (section 4.2.1).
func (b *pgpBody) length() error {
	var l [4]byte
	read := func(l []byte) (err error) {
		for i := range l {
			if l[i], err = b.r.ReadByte(); err != nil {
				return unexpected(err)
			}
		}
		return nil
	}
	if err := read(l[:1]); err != nil {
		return err
	}
	b.partial = false
	switch n := int64(l[0]); {
	case n < 192:
		b.left = n
	case n < 224:
		if err := read(l[1:2]); err != nil {
			return err
		}
		b.left = (n-192)<<8 + int64(l[1]) + 192
	case n < 255:
		b.left, b.partial = 1<<(n&0x1f), true
	default:
		if err := read(l[:]); err != nil {
			return err
		}
		b.left = int64(l[0])<<24 | int64(l[1])<<16 | int64(l[2])<<8 | int64(l[3])
	}
	return nil
}

// more makes sure that there is something to read.
func (b *pgpBody) more() error {
	for b.left == 0 && !b.toEnd {
		if !b.partial {
			return io.EOF
		}
		if err := b.length(); err != nil {
			return err
		}
	}
	return nil
}

func (b *pgpBody) ReadByte() (byte, error) {
	if err := b.more(); err != nil {
		return 0, err
	}
	c, err := b.r.ReadByte()
	switch {
	case err != nil && !b.toEnd:
		return 0, unexpected(err)
	case err != nil:
		return 0, err
	}
	b.left--
	return c, nil
}

func (b *pgpBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := b.more(); err != nil {
		return 0, err
	}
	if !b.toEnd && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); !b.toEnd {
		err = unexpected(err)
	}
	return n, err
}

// all reads a packet that is small.
func (b *pgpBody) all() ([]byte, error) {
	var text []byte
	for {
		c, err := b.ReadByte()
		if err == io.EOF {
			return text, nil
		}
		if err == nil && len(text) == maxPGPSmall {
			err = errPGPOrder
		}
		if err != nil {
			return nil, err
		}
		text = append(text, c)
	}
}

// drop reads over a packet that says nothing.
func (b *pgpBody) drop() error {
	_, err := b.all()
	return err
}

// finish makes sure that a packet of data was read to its end.
func (b *pgpBody) finish() error {
	for range b.trailer {
		if _, err := b.ReadByte(); err != nil {
			return unexpected(err)
		}
	}
	b.trailer = 0
	if _, err := b.ReadByte(); err != io.EOF {
		if err == nil {
			err = errPGPOrder
		}
		return err
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errArmour = errors.New("its armour (the lines between BEGIN and END) is damaged")

// armourReader undoes the ASCII armour of a message (section 6.2). The checksum
// of old armour protects from nothing, and is passed over.
type armourReader struct {
	lines   *lines
	begun   bool
	out     []byte // decoded and not handed out
	used    int
	padded  bool // no data may follow
	checked bool
	err     error
}

func newArmourReader(r io.Reader) *armourReader {
	return &armourReader{lines: newLines(r), out: make([]byte, 0, maxLine)}
}

func (a *armourReader) Read(p []byte) (int, error) {
	for a.used == len(a.out) {
		if a.err == nil {
			a.err = a.fill()
		}
		if a.err != nil {
			return 0, a.err
		}
	}
	n := copy(p, a.out[a.used:])
	clear(a.out[a.used : a.used+n])
	a.used += n
	return n, nil
}

// line answers the next line without white space around it.
func (a *armourReader) line() ([]byte, error) {
	line, _, err := a.lines.next()
	var bad *FileError
	if errors.As(err, &bad) && a.lines.err == nil {
		return nil, errArmour // a line that is too long
	}
	return bytes.TrimSpace(line), unexpected(err)
}

// fill decodes the next line.
func (a *armourReader) fill() error {
	a.out, a.used = a.out[:0], 0
	for !a.begun {
		line, err := a.line()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte("-----BEGIN")) {
			for len(line) > 0 && err == nil { // header lines, up to an empty one
				line, err = a.line()
			}
			if err != nil {
				return err
			}
			a.begun = true
		}
	}
	line, err := a.line()
	switch {
	case err != nil:
		return err
	case len(line) == 0:
		return nil
	case bytes.HasPrefix(line, []byte("-----END PGP MESSAGE-----")):
		for {
			switch line, err := a.line(); {
			case err == io.ErrUnexpectedEOF:
				return io.EOF
			case err != nil:
				return err
			case len(line) > 0:
				return errArmour
			}
		}
	case a.checked || line[0] == '-':
		return errArmour
	case line[0] == '=' && len(line) == 5:
		a.checked = true
		return nil
	case a.padded || len(line)%4 != 0 || len(line)/4*3 > cap(a.out):
		return errArmour
	}
	n, err := base64.StdEncoding.Strict().Decode(a.out[:cap(a.out)], line)
	if err != nil {
		return errArmour
	}
	a.out, a.padded = a.out[:n], line[len(line)-1] == '='
	return nil
}

func (a *armourReader) wipe() {
	clear(a.out[:cap(a.out)])
	a.lines.wipe()
	a.err = io.EOF
}
