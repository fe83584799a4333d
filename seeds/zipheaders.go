package seeds

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The signatures of a zip archive's structures.
const (
	zipLocal      = 0x04034b50
	zipCentral    = 0x02014b50
	zipEnd        = 0x06054b50
	zipEnd64      = 0x06064b50
	zipLocator64  = 0x07064b50
	zipDescriptor = 0x08074b50
)

// maxZipEntries is how many entries an archive with one file may have; the
// others are folders.
const maxZipEntries = 100

// zipEntry is what an archive says of one of its entries.
type zipEntry struct {
	name     string
	flags    uint16
	method   uint16 // 99 if encrypted by AES
	time     uint16
	crc      uint32
	packed   int64 // with what encryption adds
	size     int64
	offset   int64
	wide     bool // has a zip64 extra field
	strength byte // AES: 1, 2 or 3 for 128, 192 or 256 bits; zero for none
	version  byte // AES: 1 or 2
	inner    uint16
}

func (e *zipEntry) folder() bool    { return strings.HasSuffix(e.name, "/") }
func (e *zipEntry) encrypted() bool { return e.flags&1 != 0 }
func (e *zipEntry) streamed() bool  { return e.flags&8 != 0 } // sizes follow the data

// local reads a local header behind its signature.
func (z *zipContent) local() (*zipEntry, error) {
	if len(z.entries) == maxZipEntries {
		return nil, fmt.Errorf("it has more than %d entries", maxZipEntries)
	}
	e := zipEntry{offset: z.w.n - 4}
	var h [26]byte
	if err := z.w.take(h[:]); err != nil {
		return nil, err
	}
	e.flags, e.method, e.time = le16(h[2:]), le16(h[4:]), le16(h[6:])
	e.crc, e.packed, e.size = le32(h[10:]), int64(le32(h[14:])), int64(le32(h[18:]))
	if err := z.named(&e, int(le16(h[22:])), int(le16(h[24:])), 0); err != nil {
		return nil, err
	}
	if e.flags&(1<<6|1<<13) != 0 {
		return nil, fmt.Errorf("its file %s is encrypted in a way (PKWARE's strong encryption) that is not read; pack it with AES", shown(e.name))
	}
	z.entries = append(z.entries, e)
	return &z.entries[len(z.entries)-1], nil
}

// named reads an entry's name, extra fields and comment.
func (z *zipContent) named(e *zipEntry, name, extra, comment int) error {
	text := make([]byte, name+extra)
	if err := z.w.take(text); err != nil {
		return err
	}
	e.name = string(text[:name])
	e.inner = e.method
	for x := text[name:]; len(x) >= 4; {
		id, n := le16(x), int(le16(x[2:]))
		if x = x[4:]; n > len(x) {
			return fmt.Errorf("the header of its file %s is damaged", shown(e.name))
		}
		field := x[:n]
		x = x[n:]
		switch id {
		case 0x0001: // zip64: those of the values that do not fit above, in this order
			e.wide = true
			for _, v := range []*int64{&e.size, &e.packed, &e.offset} {
				if *v == 0xffffffff && len(field) >= 8 {
					u := binary.LittleEndian.Uint64(field)
					if u > MaxBytes {
						return errBomb
					}
					*v, field = int64(u), field[8:]
				}
			}
		case 0x9901: // WinZip AES
			if n < 7 || string(field[2:4]) != "AE" || le16(field) < 1 || le16(field) > 2 || field[4] < 1 || field[4] > 3 {
				return fmt.Errorf("its file %s is encrypted in a way that is not known", shown(e.name))
			}
			e.version, e.strength, e.inner = byte(le16(field)), field[4], le16(field[5:])
		}
	}
	if e.method == 99 != (e.strength > 0) || e.method == 99 && !e.encrypted() {
		return fmt.Errorf("the header of its file %s contradicts itself", shown(e.name))
	}
	return z.w.skip(int64(comment))
}

// pass reads over an entry's data.
func (z *zipContent) pass(e *zipEntry) error {
	if e.streamed() && e.packed == 0 && !e.folder() || e.packed > MaxBytes {
		return fmt.Errorf("its file %s cannot be passed over", shown(e.name))
	}
	if err := z.w.skip(e.packed); err != nil {
		return err
	}
	return z.descriptor(e)
}

// descriptor reads what follows the data of an entry whose header did not know
// its sizes; they are taken over, or must be the same.
func (z *zipContent) descriptor(e *zipEntry) error {
	if !e.streamed() || e.folder() && e.packed == 0 && e.method == 0 && !z.follows(zipDescriptor) {
		return nil
	}
	crc, err := z.uint32()
	if err == nil && crc == zipDescriptor {
		crc, err = z.uint32()
	}
	if err != nil {
		return err
	}
	var b [16]byte
	sizes := b[:8]
	if e.wide {
		sizes = b[:]
	}
	if err := z.w.take(sizes); err != nil {
		return err
	}
	packed, size := uint64(le32(sizes)), uint64(le32(sizes[4:]))
	if e.wide {
		packed, size = binary.LittleEndian.Uint64(sizes), binary.LittleEndian.Uint64(sizes[8:])
	}
	if packed > MaxBytes || size > MaxBytes || e.packed != 0 && (e.packed != int64(packed) || e.size != int64(size) || e.crc != crc) {
		return errZipAltered
	}
	e.crc, e.packed, e.size = crc, int64(packed), int64(size)
	return nil
}

// follows says whether a signature stands next, without reading it.
func (z *zipContent) follows(signature uint32) bool {
	if z.w.end-z.w.start < 4 {
		// The buffer ends here: move what is left to its front and read more.
		n := copy(z.w.buf, z.w.buf[z.w.start:z.w.end])
		clear(z.w.buf[n:z.w.end])
		z.w.start, z.w.end = 0, n
		for z.w.end < 4 && z.w.err == nil {
			var k int
			k, z.w.err = z.w.r.Read(z.w.buf[z.w.end:])
			z.w.end += k
		}
	}
	return z.w.end-z.w.start >= 4 && le32(z.w.buf[z.w.start:]) == signature
}

// rest reads what follows the file: other folders, and the directory.
func (z *zipContent) rest() error {
	var others []string
	seen := 0 // entries of the directory
	for {
		signature, err := z.uint32()
		if err != nil {
			return err
		}
		switch {
		case signature == zipLocal && seen == 0:
			e, err := z.local()
			if err != nil {
				return several(z.entries[z.file].name, others, err)
			}
			if !e.folder() {
				others = append(others, e.name)
			}
			if err := z.pass(e); err != nil {
				return several(z.entries[z.file].name, others, err)
			}
		case signature == zipCentral:
			if err := several(z.entries[z.file].name, others, nil); err != nil {
				return err
			}
			if err := z.central(); err != nil {
				return err
			}
			seen++
		case signature == zipEnd64:
			var b [8]byte
			if err := z.w.take(b[:]); err != nil {
				return err
			}
			n := binary.LittleEndian.Uint64(b[:])
			if n > 1<<16 {
				return errZipAltered
			}
			if err := z.w.skip(int64(n)); err != nil {
				return err
			}
		case signature == zipLocator64:
			if err := z.w.skip(16); err != nil {
				return err
			}
		case signature == zipEnd:
			var b [18]byte
			if err := z.w.take(b[:]); err != nil {
				return err
			}
			if seen != len(z.entries) {
				return errors.New("its directory lists other files than it holds")
			}
			if err := z.w.skip(int64(le16(b[16:]))); err != nil {
				return err
			}
			if _, err := z.w.ReadByte(); err != io.EOF {
				if err == nil {
					err = errors.New("something follows its end")
				}
				return err
			}
			return io.EOF
		default:
			return errors.New("it is damaged, or has parts that are not known")
		}
	}
}

// central reads an entry of the directory, and holds it against the local header.
func (z *zipContent) central() error {
	var h [42]byte
	if err := z.w.take(h[:]); err != nil {
		return err
	}
	e := zipEntry{
		flags: le16(h[4:]), method: le16(h[6:]), crc: le32(h[12:]), packed: int64(le32(h[16:])), size: int64(le32(h[20:])),
		offset: int64(le32(h[38:])),
	}
	if err := z.named(&e, int(le16(h[24:])), int(le16(h[26:])), int(le16(h[28:]))); err != nil {
		return err
	}
	if h[1] == 3 && le16(h[36:])&0xf000 == 0xa000 { // made on Unix: the file's mode
		return fmt.Errorf("its file %s is a link, not a file", shown(e.name))
	}
	for i := range z.entries {
		l := &z.entries[i]
		if l.offset != e.offset {
			continue
		}
		if l.name != e.name || l.method != e.method || l.inner != e.inner || l.size != e.size || l.packed != e.packed || l.crc != e.crc || l.encrypted() != e.encrypted() {
			break
		}
		return nil
	}
	return fmt.Errorf("its directory does not say the same of the file %s as the header before it does", shown(e.name))
}

// several refuses an archive with more than the one file, after err if the rest
// could not be read.
func several(file string, others []string, err error) error {
	if len(others) == 0 {
		return err
	}
	names := []string{shown(file)}
	for i, n := range others {
		if i == 9 {
			names = append(names, fmt.Sprintf("%d more", len(others)-i))
			break
		}
		names = append(names, shown(n))
	}
	if err != nil {
		names = append(names, "and maybe more")
	}
	return fmt.Errorf("there are several files in it (%s); which one holds the tokens is not guessed: pack that alone", strings.Join(names, ", "))
}

// shown is a file's name as an error shows it.
func shown(name string) string { return fmt.Sprintf("%.60q", name) }

func (z *zipContent) uint32() (uint32, error) {
	var b [4]byte
	err := z.w.take(b[:])
	return le32(b[:]), err
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
