package seeds

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"watchword/hsm"
	"watchword/tokens"
)

// migrationExport is what Google Authenticator shows to transfer accounts, one
// URI a line for each QR code:
//
//	otpauth-migration://offline?data=BASE64
//
// The data is a protocol buffer that Google does not document; its fields are
// known from programs that read it (qistoph/otp_export, Aegis):
//
//	payload: 1 parameters (repeated), 2 version, 3 batch size, 4 batch index, 5 batch id
//	parameters: 1 secret, 2 name, 3 issuer, 4 algorithm (1 SHA1, 2 SHA256, 3 SHA512, 4 MD5),
//	            5 digits (1 six, 2 eight), 6 type (1 HOTP, 2 TOTP), 7 counter
//
// An export of several QR codes is imported only if all are there. The app has
// time steps of 30 s only. Serial, user and model are as in a list of key URIs.
var migrationExport = Format{Name: "otpauth-migration", Title: "export of Google Authenticator", Detect: detectMigration, Open: openMigration}

// maxExports is how many exports a file may hold, and how many codes an export.
const maxExports = 1000

type migrationReader struct {
	lines   *lines
	chosen  Choices
	rec     Record
	payload []byte // of the line; wiped with the next
	left    protoFields
	keys    int
	exports map[uint64]*export // by batch id
}

// export is what was seen of an export.
type export struct {
	line, size int // where it was first seen; how many codes it has
	seen       map[uint64]bool
}

func openMigration(r io.Reader, o OpenOptions) Reader {
	return &migrationReader{
		lines: newLines(r), chosen: o.Choices, rec: Record{Seed: make([]byte, 0, MaxSeed)},
		payload: make([]byte, 0, base64.StdEncoding.DecodedLen(maxLine)+1), exports: map[uint64]*export{},
	}
}

func (m *migrationReader) Close() {
	m.rec.reset()
	m.wipe()
	m.lines.wipe()
}

func (m *migrationReader) wipe() {
	clear(m.payload)
	m.payload, m.left = m.payload[:0], nil
}

func (m *migrationReader) Next() (*Record, error) {
	rec := &m.rec
	rec.reset()
	for {
		for len(m.left) > 0 {
			number, _, data, ok := m.left.next()
			if !ok {
				return nil, m.bad("the data are damaged or cut off")
			}
			if number != 1 {
				continue
			}
			m.keys++
			rec.Line, rec.Key = m.lines.n, m.keys
			if err := m.take(data); err != nil {
				if mayBeSeed(rec.User) {
					rec.User = ""
				}
				rec.fail("%w", err)
			}
			return rec, nil
		}
		if err := m.nextLine(); err != nil {
			return nil, err
		}
	}
}

// nextLine reads the next URI. Its error is io.EOF if all is there.
func (m *migrationReader) nextLine() error {
	m.wipe()
	line, ended, err := m.lines.next()
	if err == io.EOF {
		return m.complete()
	}
	if err != nil {
		return err
	}
	if line = trimBlank(line); len(line) == 0 || line[0] == '#' {
		return nil
	}
	if !hasScheme(line, migrationScheme) {
		return m.bad("it is no otpauth-migration:// URI; import other lines in a file of their own")
	}
	_, query, _ := bytes.Cut(line, []byte("?"))
	data, ok := []byte(nil), false
	for more := true; more && !ok; {
		var pair []byte
		pair, query, more = bytes.Cut(query, []byte("&"))
		data, ok = bytes.CutPrefix(pair, []byte("data="))
	}
	if !ok {
		return m.bad("there are no data in the URI")
	}
	if data, err = unescape(data, false); err != nil { // a plus sign is a digit of base64
		return m.bad(err.Error())
	}
	m.payload = m.payload[:base64.RawStdEncoding.DecodedLen(len(data))]
	n, err := base64.RawStdEncoding.Decode(m.payload, bytes.TrimRight(data, "="))
	if err != nil {
		return m.bad("the data are not base64, or cut off")
	}
	m.payload = m.payload[:n]
	m.left = protoFields(m.payload)
	return m.enter(ended)
}

// enter reads what the payload says of the export, and checks that its fields
// are whole.
func (m *migrationReader) enter(ended bool) error {
	var version, size, index, id uint64
	sized := false
	for rest := m.left; len(rest) > 0; {
		number, value, data, ok := rest.next()
		if !ok {
			return m.bad("the data are damaged or cut off")
		}
		switch number {
		case 1:
			for inner := protoFields(data); len(inner) > 0; {
				if _, _, _, ok := inner.next(); !ok {
					return m.bad("the data are damaged or cut off")
				}
			}
		case 2:
			version = value
		case 3:
			size, sized = value, true
		case 4:
			index = value
		case 5:
			id = value
		}
	}
	switch {
	case version > 2:
		return m.bad("the export is of a version that is not known: 1 and 2 are")
	case !sized && !ended:
		return m.bad("the data do not say where they end, nor does the line; the file may have been cut off")
	case !sized:
		return nil // an export of one code, written by another program
	case size < 1 || size > maxExports || index >= size:
		return m.bad("the data name an impossible number of QR codes")
	}
	e := m.exports[id]
	if e == nil {
		if len(m.exports) == maxExports {
			return m.bad(fmt.Sprintf("there are more than %d exports; split the file", maxExports))
		}
		e = &export{line: m.lines.n, size: int(size), seen: map[uint64]bool{}}
		m.exports[id] = e
	}
	if e.size != int(size) {
		return m.bad(fmt.Sprintf("the export that began in line %d has another number of QR codes", e.line))
	}
	if e.seen[index] {
		return m.bad(fmt.Sprintf("QR code %d of the export that began in line %d is there twice", index+1, e.line))
	}
	e.seen[index] = true
	return nil
}

// complete refuses an export of which a QR code is missing, so that nothing is
// imported of it.
func (m *migrationReader) complete() error {
	var short *export
	for _, e := range m.exports {
		if len(e.seen) < e.size && (short == nil || e.line < short.line) {
			short = e
		}
	}
	if short == nil {
		return io.EOF
	}
	missing := uint64(0)
	for short.seen[missing] {
		missing++
	}
	return &FileError{Line: short.line, Reason: fmt.Sprintf("the export that begins here has %d QR codes, and number %d of them is missing; scan all of them into the file", short.size, missing+1)}
}

// take reads the parameters of one account into m.rec.
func (m *migrationReader) take(data protoFields) error {
	rec := &m.rec
	var name, issuer string
	var secret []byte
	var algorithm, digits, kind, counter uint64
	for len(data) > 0 {
		number, value, text, ok := data.next()
		if !ok {
			return errors.New("its data are damaged")
		}
		switch number {
		case 1:
			if secret != nil {
				return errors.New("there is more than one secret")
			}
			secret = text
		case 2:
			name = string(text)
		case 3:
			issuer = string(text)
		case 4:
			algorithm = value
		case 5:
			digits = value
		case 6:
			kind = value
		case 7:
			counter = value
		}
	}
	switch kind {
	case 0:
		rec.Type = m.chosen.Type
	case 1:
		rec.Type = tokens.HOTP
	case 2:
		rec.Type = tokens.TOTP
	default:
		return errors.New("the type is neither TOTP nor HOTP")
	}
	if err := rec.label(name, issuer); err != nil {
		return err
	}
	if kind == 0 && rec.Type == "" {
		rec.Serial = "" // the type is a part of it
	}
	switch algorithm {
	case 0: // as the key URI format has it
	case 1, 2, 3:
		rec.Algorithm = [...]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}[algorithm-1]
	case 4:
		return errors.New("the hash is MD5, which is not imported; enrol this account anew")
	default:
		return errors.New("the hash is none that is known")
	}
	switch digits {
	case 0: // as the key URI format has it
	case 1:
		rec.Digits = 6
	case 2:
		rec.Digits = 8
	default:
		return errors.New("the number of digits is none that is known")
	}
	if rec.Type == tokens.HOTP {
		if counter > maxCounter {
			return errors.New("the counter is negative or too great")
		}
		rec.Counter = counter
	}
	if len(secret) > MaxSeed {
		return seedLength(len(secret))
	}
	rec.Seed = append(rec.Seed[:0], secret...)
	if err := rec.settle(m.chosen, uriSilence); err != nil {
		return err
	}
	return rec.check()
}

func (m *migrationReader) bad(reason string) error {
	return &FileError{Line: m.lines.n, Reason: reason}
}

func detectMigration(prefix []byte, whole bool) (bool, string) {
	return detectScheme(prefix, whole, migrationScheme)
}

// protoFields is a protocol buffer as it goes over the wire, or what is left of it.
type protoFields []byte

// next takes the next field off: its number, and its value or its bytes, which
// lie in the message. ok is false if the message is malformed.
func (m *protoFields) next() (number, value uint64, data protoFields, ok bool) {
	tag, ok := m.varint()
	if !ok || tag>>3 == 0 {
		return 0, 0, nil, false
	}
	switch tag & 7 {
	case 0:
		value, ok = m.varint()
		return tag >> 3, value, nil, ok
	case 1:
		data, ok = m.take(8)
	case 2:
		var n uint64
		if n, ok = m.varint(); ok {
			data, ok = m.take(n)
		}
	case 5:
		data, ok = m.take(4)
	default: // groups
		return 0, 0, nil, false
	}
	return tag >> 3, 0, data, ok
}

func (m *protoFields) take(n uint64) (protoFields, bool) {
	if n > uint64(len(*m)) {
		return nil, false
	}
	data := (*m)[:n:n]
	*m = (*m)[n:]
	return data, true
}

func (m *protoFields) varint() (v uint64, ok bool) {
	for i, b := range *m {
		if i == 9 && b > 1 { // more than 64 bits
			return 0, false
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			*m = (*m)[i+1:]
			return v, true
		}
	}
	return 0, false
}
