package seeds

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"watchword/tokens"
)

// layout is how a kind of table is made up: a text with a token a line. Empty
// lines, and those that begin with #, are skipped.
type layout struct {
	columns    []column // of a row, where no header row says otherwise
	separators string   // of fields, where no header row shows another; the first that a line has is the file's

	// rowColumns, if not nil, tells the columns of a row from its fields, and the
	// type that this kind of row says the token has, if it does.
	rowColumns func(fields [][]byte) ([]column, tokens.Type)

	header   bool     // there may be a header row, which may change the order
	headed   bool     // there must be one
	versions bool     // a comment may say that it is of version 2, see userColumns
	full     bool     // a row has all columns, and a value in each but the manufacturer's
	assumed  bool     // what silence means is an assumption, which the notes tell
	encoding Encoding // of seeds; empty: told from the file's seeds
	silence  Choices  // what a missing or empty field means; zero: it must be chosen
}

// maxColumns is the most columns that any table has.
const maxColumns = 16

// userColumns stand before the others in version 2 of privacyIDEA's table.
var userColumns = []column{colUser, colResolver, colRealm}

// tableReader reads a table.
type tableReader struct {
	layout  *layout
	chosen  Choices
	silence Choices
	lines   *lines
	rec     Record
	fields  [maxColumns + 1][]byte
	values  [colCount][]byte // of the row
	at      [colCount]int    // columns, from 1, that they stand in; zero: the file has none

	begun     bool     // a first row was looked at
	columns   []column // of the rows, unless layout.rowColumns tells
	separator byte
	version2  bool
	encoding  Encoding // of the file's seeds, as far as it is known
	shownBy   int      // line that showed it; zero if it was not told from the file
	looked    bool     // ahead for it
	tail      tail

	// What was taken for granted, in good records.
	typeSilent, hashSilent, digitsSilent int
}

func (l *layout) open(r io.Reader, o OpenOptions) Reader { return l.reader(r, o.Choices) }

func (l *layout) reader(r io.Reader, chosen Choices) *tableReader {
	t := &tableReader{layout: l, chosen: chosen, silence: l.silence, lines: newLines(r), rec: Record{Seed: make([]byte, 0, MaxSeed)}, columns: l.columns}
	t.encoding = l.encoding
	if chosen.Encoding != "" {
		t.encoding = chosen.Encoding
	}
	return t
}

func (t *tableReader) Close() {
	t.rec.reset()
	t.lines.wipe()
}

// Notes says what was taken for granted where products differ.
func (t *tableReader) Notes() []string {
	var notes []string
	if !t.layout.assumed {
		return nil
	}
	if t.typeSilent > 0 {
		notes = append(notes, fmt.Sprintf("Tokens of which the file does not say whether they are TOTP or HOTP: %d. They are taken for TOTP; privacyIDEA and others take such rows for HOTP. If that is what they are, import with --type hotp.", t.typeSilent))
	}
	if t.hashSilent > 0 {
		notes = append(notes, fmt.Sprintf("Tokens with a seed of the length that SHA-2 has, of which the file names no hash: %d. They are taken for SHA-1; privacyIDEA tells the hash from the length. If that is right, import with --hash.", t.hashSilent))
	}
	if t.digitsSilent > 0 && t.silence.Period == 0 {
		notes = append(notes, fmt.Sprintf("Tokens of which the file does not say how many digits a code has: %d. They are taken to have 6; if that is wrong, import with --digits.", t.digitsSilent))
	}
	return notes
}

func (t *tableReader) Next() (*Record, error) {
	rec := &t.rec
	rec.reset()
	for {
		line, ended, err := t.lines.next()
		if err != nil {
			return nil, err
		}
		content := trimBlank(line)
		if len(content) == 0 {
			continue
		}
		if content[0] == '#' {
			if err := t.comment(content); err != nil {
				return nil, err
			}
			continue
		}
		if !t.begun {
			header, err := t.begin(line)
			if err != nil {
				return nil, err
			}
			if header {
				continue
			}
		}
		rec.Line = t.lines.n
		n, err := splitRow(line, t.separator, t.fields[:])
		if err == nil {
			err = t.parse(t.fields[:n])
		}
		if bad, ok := err.(*FileError); ok {
			return nil, bad
		}
		var last []byte
		if err == nil && t.at[colSeed] != n {
			last = t.fields[n-1]
		}
		if err == nil && !ended {
			err = t.tail.check(n, len(rec.Seed), last)
		}
		if err != nil {
			rec.spoil(err)
			return rec, nil
		}
		t.tail.keep(n, len(rec.Seed), last)
		return rec, nil
	}
}

// spoil makes r a bad record, and takes out what might be a seed in the wrong
// column.
func (r *Record) spoil(err error) {
	if tokens.ValidSerial(r.Serial) != nil || mayBeSeed(r.Serial) {
		r.Serial = ""
	}
	if mayBeSeed(r.User) {
		r.User = ""
	}
	if mayBeSeed(r.UserRealm) {
		r.UserRealm = ""
	}
	r.Model = ""
	r.fail("%w", err)
}

// comment obeys a comment that says of which version the table is.
func (t *tableReader) comment(line []byte) error {
	version := commentVersion(line)
	if !t.layout.versions || version == "" {
		return nil
	}
	if version != "1" && version != "2" {
		return &FileError{Line: t.lines.n, Reason: "the file says that it is of a version of the format that is not known: 1 and 2 are"}
	}
	if t.begun && (version == "2") != t.version2 {
		return &FileError{Line: t.lines.n, Reason: "the version of the format changes within the file; import its parts one by one"}
	}
	if t.version2 = version == "2"; t.version2 {
		// This is privacyIDEA's own, which takes silence otherwise than the
		// table of version 1 is defined here.
		t.silence = Choices{Digits: 6, Period: 30}
	}
	return nil
}

// begin looks at the first row: whether it names the columns, and how its fields
// are separated.
func (t *tableReader) begin(line []byte) (header bool, err error) {
	t.begun = true
	if t.version2 {
		t.columns = slices.Concat(userColumns, t.layout.columns)
	}
	t.separator = t.layout.separator(line)
	if t.layout.header {
		copied := make([]byte, len(line))
		defer clear(copied)
		if separator, n := headerRow(line, copied, t.fields[:]); n > 0 {
			columns, strange := headerColumns(t.fields[:n], t.columns)
			if strange > 0 {
				return false, &FileError{Line: t.lines.n, Reason: fmt.Sprintf("column %d of the header row has a name that is not known, or stands for the same as another; known are %s", strange, knownColumns)}
			}
			t.columns, t.separator = columns, separator
			return true, nil
		}
	}
	if t.layout.headed {
		return false, &FileError{Line: t.lines.n, Reason: "there is no header row that names the columns, among them serial number and secret key"}
	}
	return false, nil
}

// headerRow splits a line that is a header row, at whatever its fields are
// separated by; n is zero if it is none. copied has room for the line.
func headerRow(line, copied []byte, fields [][]byte) (separator byte, n int) {
	for _, separator := range []byte(headerSeparators) {
		if n, err := splitRow(copied[:copy(copied, line)], separator, fields); err == nil && isHeader(fields[:n]) {
			return separator, n
		}
	}
	return 0, 0
}

// separator tells what a row's fields are separated by.
func (l *layout) separator(line []byte) byte {
	for _, s := range []byte(l.separators) {
		if bytes.IndexByte(line, s) >= 0 {
			return s
		}
	}
	return l.separators[0]
}
