package seeds

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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

// explain makes an error one for people.
func (z *zipContent) explain(err error) error {
	var bad *FileError
	switch {
	case z.w.failed() != nil:
		return z.w.failed()
	case errors.As(err, &bad):
		return bad
	case z.plain != nil && err != errZipAltered && err != errZipPassword:
		// One in 256 wrong passwords passes the check, and what it decrypts to is
		// noise, which fails in any way.
		return &FileError{Reason: "the password is wrong, or the zip archive was altered, damaged or cut off"}
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
