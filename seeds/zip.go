package seeds

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// zipArchive is a zip archive with one file in it, encrypted by a password or
// not. It is read as a stream, from local header to local header, and the
// directory at its end must say the same: what one program unpacks by the
// headers, another would by the directory.
var zipArchive = wrapper{
	title: "zip archive",
	is: func(prefix []byte) (bool, string) {
		switch {
		case len(prefix) < 4 || string(prefix[:2]) != "PK":
			return false, ""
		case string(prefix[:4]) == "PK\x03\x04":
			return true, ""
		case string(prefix[:4]) == "PK\x05\x06":
			return false, "this is a zip archive with nothing in it"
		case string(prefix[:4]) == "PK\x07\x08" || string(prefix[:4]) == "PK00":
			return false, "this is a part of a zip archive that was split; join its parts first"
		}
		return false, ""
	},
	open: openZip,
}

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

// zipContent is the one file of an archive.
type zipContent struct {
	w        *window
	password []byte
	entries  []zipEntry
	file     int   // index of the file; -1 until it is found
	data     *part // the file's packed bytes
	body     io.Reader
	plain    *zipCrypto
	aes      *winzipAES
	inflate  *inflater
	crc      uint32
	size     int64
	err      error
}

func openZip(r io.Reader, o *OpenOptions) (wrapped, error) {
	z := &zipContent{w: newWindow(r), password: o.Password, file: -1}
	if err := z.open(); err != nil {
		z.Close()
		return nil, z.explain(err)
	}
	return z, nil
}

// open reads up to the file's data.
func (z *zipContent) open() error {
	for {
		signature, err := z.uint32()
		if err != nil {
			return err
		}
		if signature != zipLocal {
			return errors.New("there is no file in it")
		}
		e, err := z.local()
		if err != nil {
			return err
		}
		if !e.folder() {
			z.file = len(z.entries) - 1
			return z.begin(e)
		}
		if err := z.pass(e); err != nil {
			return err
		}
	}
}

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

// begin sets up the way from the archive to the file's content.
func (z *zipContent) begin(e *zipEntry) error {
	z.data = &part{r: z.w, left: e.packed}
	if e.streamed() && e.packed == 0 {
		z.data.left = -1
		if e.inner != 8 {
			return errors.New("it was packed as a stream without compression, so that the end of its file cannot be found; pack it from a file, or with compression")
		}
	}
	if e.inner != 0 && e.inner != 8 {
		return fmt.Errorf("its file %s is compressed with method %d, which is not read; pack it with Deflate", shown(e.name), e.inner)
	}
	if e.packed > MaxBytes || e.size > MaxBytes {
		return errBomb
	}
	if e.encrypted() && len(z.password) == 0 {
		return errors.New("it is protected by a password; give it with --password-file")
	}
	var r byteReader = z.data
	var err error
	switch {
	case e.strength > 0:
		size := 8 + 8*int(e.strength)
		if e.packed > 0 {
			if z.data.left -= 10; z.data.left < 0 {
				return errZipAltered
			}
		}
		if z.aes, err = newWinzipAES(z.data, z.password, size); err != nil {
			return err
		}
		r = bytewise{z.aes}
	case e.encrypted():
		check := byte(e.crc >> 24)
		if e.streamed() {
			check = byte(e.time >> 8)
		}
		if z.plain, err = newZipCrypto(z.data, z.password, check); err != nil {
			return err
		}
		r = bytewise{z.plain}
	}
	z.body = r
	if e.inner == 8 {
		z.inflate = newInflater(r)
		z.body = z.inflate
	}
	return nil
}

func (z *zipContent) Read(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	n, err := z.body.Read(p)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p[:n])
	if z.size += int64(n); z.size > MaxBytes {
		err = errBomb
	}
	if err == io.EOF {
		err = z.end()
	}
	if z.err = err; err != nil && err != io.EOF {
		z.err = z.explain(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, z.err
}

// end checks the file that was read to its end, and reads the rest of the
// archive. It answers io.EOF if all is well.
func (z *zipContent) end() error {
	e := &z.entries[z.file]
	if z.data.left > 0 {
		return errBroken
	}
	if z.aes != nil {
		var tag [10]byte
		if err := z.w.take(tag[:]); err != nil {
			return err
		}
		if err := z.aes.verify(tag[:]); err != nil {
			return err
		}
	}
	packed := z.data.n
	if z.aes != nil {
		packed += 10
	}
	if err := z.descriptor(e); err != nil {
		return err
	}
	if e.version != 2 && e.crc != z.crc || e.size != z.size || e.packed != packed {
		return errZipAltered
	}
	return z.rest()
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

// explain makes an error one for people.
func (z *zipContent) explain(err error) error {
	var bad *FileError
	switch {
	case z.w.failed() != nil:
		return z.w.failed()
	case errors.As(err, &bad):
		return bad
	case errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF:
		return &FileError{Reason: "the zip archive breaks off before its end; it was cut off"}
	}
	return &FileError{Reason: "this is a zip archive, but " + err.Error()}
}

// Notes says what else the archive shows.
func (z *zipContent) Notes() []string {
	e := &z.entries[z.file]
	switch {
	case e.strength > 0:
		return nil
	case e.encrypted():
		return []string{"The zip archive is encrypted by ZipCrypto, which is broken: whoever has it and knows a few bytes of the content can read it without the password. Ask for AES."}
	}
	return []string{"The zip archive is not encrypted."}
}

func (z *zipContent) Close() {
	if z.inflate != nil {
		z.inflate.wipe()
	}
	if z.plain != nil {
		z.plain.wipe()
	}
	if z.aes != nil {
		z.aes.wipe()
	}
	z.w.wipe()
}

func (z *zipContent) uint32() (uint32, error) {
	var b [4]byte
	err := z.w.take(b[:])
	return le32(b[:]), err
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
