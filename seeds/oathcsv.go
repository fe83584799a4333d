package seeds

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"watchword/hsm"
	"watchword/tokens"
)

// oathCSV is one token a line:
//
//	serial,hexseed[,totp|hotp[,digits[,period|counter[,sha1|sha256|sha512]]]]
//
// with totp, 6 digits, 30 s or counter 0 and sha1 where a column is missing or
// empty. For HOTP the fifth column is the next counter expected. Fields may be
// quoted as RFC 4180 has it, but none spans lines. Empty lines and those that
// begin with # are skipped; a header row is recognised.
var oathCSV = Format{
	Name:   "oath-csv",
	Title:  "OATH CSV",
	Detect: detectOATHCSV,
	Open:   func(r io.Reader, _ OpenOptions) Reader { return newCSVReader(r) },
}

// csvColumns are the columns, and the names that a header row may give them,
// in lower case and with letters and digits only.
var csvColumns = [...]struct {
	name  string
	names []string
}{
	{"serial", []string{"serial", "serialnumber", "serialno", "sn", "token", "tokenserial"}},
	{"hexseed", []string{"hexseed", "seed", "seedhex", "hexkey", "key", "secret", "secretkey", "hexsecret", "otpkey"}},
	{"type", []string{"type", "tokentype", "totphotp", "hotptotp", "algorithm", "kind", "mode"}},
	{"digits", []string{"digits", "otplen", "otplength", "length", "codelength"}},
	{"period|counter", []string{"period", "counter", "periodcounter", "counterperiod", "interval", "timestep", "timeinterval", "step", "movingfactor"}},
	{"hash", []string{"hash", "sha", "hashalgorithm", "hashlib", "digest", "algorithm", "sha1sha256sha512"}},
}

// columns is how many fields a line is split into at most; more are an error
// anyway.
const columns = len(csvColumns) + 1

type csvReader struct {
	lines  *lines
	rec    Record
	fields [columns][]byte
	header bool // a first row was looked at
	// Shape of the last good record: a file that was cut off shows in its last line.
	lastFields, lastSeed int
	lastField            []byte
}

func newCSVReader(r io.Reader) *csvReader {
	return &csvReader{lines: newLines(r), rec: Record{Seed: make([]byte, 0, MaxSeed)}}
}

func (c *csvReader) Close() {
	c.rec.reset()
	c.lines.wipe()
}

func (c *csvReader) Next() (*Record, error) {
	c.rec.reset()
	for {
		line, ended, err := c.lines.next()
		if err != nil {
			return nil, err
		}
		line = trimBlank(line)
		if len(line) == 0 {
			continue
		}
		if line[0] == '#' {
			if v := commentVersion(line); v != "" && v != "1" {
				return nil, &FileError{Line: c.lines.n, Reason: "the file says that it is of another version of the format, which has other columns"}
			}
			continue
		}
		rec := &c.rec
		rec.Line = c.lines.n
		n, err := splitCSV(line, c.fields[:])
		if !c.header {
			c.header = true
			if err == nil && isHeader(c.fields[:n]) {
				if col := strangeColumn(c.fields[:n]); col > 0 {
					return nil, &FileError{Line: c.lines.n, Reason: fmt.Sprintf("column %d of the header row is not the one expected there; the order is serial, hexseed, type, digits, period or counter, hash", col)}
				}
				continue
			}
		}
		if err == nil {
			err = c.parse(c.fields[:n])
		}
		if err == nil && !ended && c.shorter(n) {
			err = errors.New("the last line has no end and less in it than the one before; the file may have been cut off")
		}
		if err != nil {
			if tokens.ValidSerial(rec.Serial) != nil || mayBeSeed(rec.Serial) {
				rec.Serial = ""
			}
			rec.fail("%w", err)
			return rec, nil
		}
		c.lastFields, c.lastSeed, c.lastField = n, len(rec.Seed), c.lastField[:0]
		if n > 2 {
			c.lastField = append(c.lastField, c.fields[n-1]...)
		}
		return rec, nil
	}
}

// shorter says whether the record just read, of n fields, is what remains of
// one like the record before: fewer fields, a shorter seed, or a last field
// that is the beginning of the other's.
func (c *csvReader) shorter(n int) bool {
	if c.lastFields == 0 {
		return false
	}
	last := c.fields[n-1]
	return n < c.lastFields || len(c.rec.Seed) < c.lastSeed ||
		n > 2 && n == c.lastFields && len(last) < len(c.lastField) && bytes.HasPrefix(c.lastField, last)
}

// parse reads the fields of a line into c.rec. Its errors name the column.
func (c *csvReader) parse(fields [][]byte) error {
	rec := &c.rec
	rec.Serial = string(fields[0])
	if err := tokens.ValidSerial(rec.Serial); err != nil {
		return columnError(0, strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": "))
	}
	if len(fields) < 2 || len(fields[1]) == 0 {
		return columnError(1, "there is no seed")
	}
	if len(fields) >= columns {
		return fmt.Errorf("column %d: there are %d columns at most", columns, columns-1)
	}
	field := func(i int) []byte {
		if i < len(fields) {
			return fields[i]
		}
		return nil
	}
	if err := decodeSeed(rec, fields[1]); err != nil {
		return err
	}
	if swapped(rec.Serial, rec.Seed) {
		return columnError(0, "it looks like a seed; are the columns swapped?")
	}
	rec.Type, rec.Digits, rec.Algorithm = tokens.TOTP, 6, hsm.SHA1
	switch f := field(2); {
	case len(f) == 0, bytes.EqualFold(f, []byte("totp")):
	case bytes.EqualFold(f, []byte("hotp")):
		rec.Type = tokens.HOTP
	default:
		return columnError(2, "it is neither totp nor hotp")
	}
	if f := field(3); len(f) > 0 {
		if len(f) != 1 || f[0] < '6' || f[0] > '8' {
			return columnError(3, "6, 7 and 8 digits are possible")
		}
		rec.Digits = int(f[0] - '0')
	}
	if rec.Type == tokens.TOTP {
		rec.Period = 30
	}
	if f := field(4); len(f) > 0 {
		n, err := strconv.ParseUint(string(f), 10, 64)
		switch {
		case err != nil:
			return columnError(4, "it is not a number")
		case rec.Type == tokens.HOTP && n > maxCounter:
			return columnError(4, "the counter is too great")
		case rec.Type == tokens.TOTP && (n < 1 || n > 86400):
			return columnError(4, "a time step has 1 to 86400 seconds")
		case rec.Type == tokens.HOTP:
			rec.Counter = n
		default:
			rec.Period = int(n)
		}
	}
	if f := field(5); len(f) > 0 {
		hash, ok := parseHash(string(f))
		if !ok {
			return columnError(5, "it is not sha1, sha256 or sha512")
		}
		rec.Algorithm = hash
	}
	return rec.check()
}

// decodeSeed reads a seed in hex. Its errors say where, never what.
func decodeSeed(rec *Record, digits []byte) error {
	for i, b := range digits {
		if !isHex(b) {
			return columnError(1, fmt.Sprintf("character %d is not a hex digit; the seed must be in hex, without blanks", i+1))
		}
	}
	n := len(digits) / 2
	switch {
	case len(digits)%2 != 0:
		return columnError(1, "the seed has an odd number of hex digits")
	case n < MinSeed:
		return columnError(1, fmt.Sprintf("a seed of %d bytes; %d are the least (RFC 4226 wants 16 or more)", n, MinSeed))
	case n > MaxSeed:
		return columnError(1, fmt.Sprintf("a seed of %d bytes; %d are the most", n, MaxSeed))
	}
	rec.Seed = rec.Seed[:n]
	_, err := hex.Decode(rec.Seed, digits)
	return err
}

func columnError(i int, says string) error {
	return fmt.Errorf("column %d (%s): %s", i+1, csvColumns[i].name, says)
}

// splitCSV splits a line at its commas into fields, as many as there is room
// for; quotes are taken off in place. The last of them holds no rest: a line
// with more fields has its remainder ignored.
func splitCSV(line []byte, fields [][]byte) (n int, err error) {
	for n < len(fields) {
		line = trimBlank(line)
		var field []byte
		if len(line) > 0 && line[0] == '"' {
			end := 0 // of the unquoted text, which is moved to the front
			i := 1
			for ; ; i++ {
				if i >= len(line) {
					return n, fmt.Errorf("column %d: a quote is not closed on its line", n+1)
				}
				if line[i] == '"' {
					if i+1 >= len(line) || line[i+1] != '"' {
						break
					}
					i++
				}
				line[end] = line[i]
				end++
			}
			field, line = line[:end], trimBlank(line[i+1:])
			if len(line) > 0 && line[0] != ',' {
				return n, fmt.Errorf("column %d: there is text after the closing quote", n+1)
			}
		} else {
			i := bytes.IndexByte(line, ',')
			if i < 0 {
				i = len(line)
			}
			field, line = trimBlank(line[:i]), line[i:]
			if bytes.IndexByte(field, '"') >= 0 {
				return n, fmt.Errorf("column %d: a quote in the middle of a field", n+1)
			}
		}
		fields[n] = field
		n++
		if len(line) == 0 {
			return n, nil
		}
		line = line[1:]
	}
	return n, nil
}

// isHeader says whether a first row names columns rather than holding a token:
// its first two fields are names that those columns may have.
func isHeader(fields [][]byte) bool {
	return len(fields) >= 2 && isColumn(0, fields[0]) && isColumn(1, fields[1])
}

// strangeColumn answers the first column, from 1, to which a header row gives
// the name of another one, or that is one too many; zero if there is none. A name
// that is nobody's is let pass: what it names shows in the values.
func strangeColumn(fields [][]byte) int {
	for i, f := range fields {
		if i >= len(csvColumns) {
			return i + 1
		}
		if isColumn(i, f) {
			continue
		}
		for other := range csvColumns {
			if isColumn(other, f) {
				return i + 1
			}
		}
	}
	return 0
}

// isColumn says whether a field of a header row is a name of column i. It makes
// no copy that outlives it: in a file without a header the field may be a seed.
func isColumn(i int, field []byte) bool {
	var buf [40]byte
	defer clear(buf[:])
	if len(field) > len(buf) {
		return false
	}
	name := buf[:0]
	for _, b := range field {
		switch {
		case b >= 'A' && b <= 'Z':
			name = append(name, b+'a'-'A')
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9':
			name = append(name, b)
		}
	}
	for _, known := range csvColumns[i].names {
		if string(name) == known {
			return true
		}
	}
	return false
}

// commentVersion answers N of a comment "# version: N"; empty if it is none.
func commentVersion(line []byte) string {
	text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(string(line), "#")))
	rest, ok := strings.CutPrefix(text, "version")
	if !ok {
		return ""
	}
	rest, ok = strings.CutPrefix(strings.TrimSpace(rest), ":")
	if !ok {
		return ""
	}
	return strings.TrimSpace(rest)
}

// detectOATHCSV looks for a header row, or for a line that holds a serial and a
// seed in hex, among the first lines: one of them may be bad.
func detectOATHCSV(prefix []byte, whole bool) (bool, string) {
	const enough = 16 // lines with content that are looked at
	var fields [columns][]byte
	why := "no line with content at its beginning"
	text := bytes.Clone(prefix) // splitCSV writes
	defer clear(text)
	for n, seen := 1, 0; len(text) > 0 && seen < enough; n++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		if !ended && !whole {
			break
		}
		line = trimBlank(bytes.TrimSuffix(line, []byte("\r")))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		seen++
		got, err := splitCSV(line, fields[:])
		says := ""
		switch {
		case err != nil:
			says = err.Error()
		case seen == 1 && isHeader(fields[:got]):
			return true, fmt.Sprintf("header row in line %d", n)
		case got < 2:
			says = "there is no second column"
		case len(fields[1])%2 != 0 || len(fields[1]) < 2*MinSeed || bytes.IndexFunc(fields[1], func(r rune) bool { return r > 0x7f || !isHex(byte(r)) }) >= 0:
			says = "column 2 is not a seed in hex"
		case got > 2 && len(fields[2]) > 0 && !bytes.EqualFold(fields[2], []byte("totp")) && !bytes.EqualFold(fields[2], []byte("hotp")):
			says = "column 3 is neither totp nor hotp"
		default:
			return true, fmt.Sprintf("line %d is a serial and a seed in hex", n)
		}
		if seen == 1 {
			why = fmt.Sprintf("line %d: %s", n, says)
		}
	}
	return false, why
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

func trimBlank(b []byte) []byte { return bytes.Trim(b, " \t") }

// mayBeSeed says whether a text in the serial's column could hold a seed in
// hex, base32 or base64: where columns are swapped or wrongly separated, no
// report may show it.
func mayBeSeed(s string) bool {
	run := 0
	for _, r := range s {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '+' || r == '/' {
			if run++; run == 16 {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}

// swapped says whether serial and seed seem to have changed places: the serial
// is a key in hex and no shorter than the seed.
func swapped(serial string, seed []byte) bool {
	return len(serial) >= 32 && len(serial) >= 2*len(seed) && strings.IndexFunc(serial, func(r rune) bool { return r > 0x7f || !isHex(byte(r)) }) < 0
}
