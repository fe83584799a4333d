package tokens

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Users in a file are CSV (RFC 4180) with a header row, in UTF-8:
//
//	name,display,mail,external_id,groups,attr:site
//	alice,Alice Example,alice@example.com,4711,staff;board,Berlin
//
// Only name must be there, and columns come in any order. Groups are separated by
// semicolons; one that is part of a group's name has a backslash before it, as a
// backslash before either has. A cell that a spreadsheet might take for a formula
// begins with an apostrophe, which does not belong to it: see guard.
const (
	columnName      = "name"
	columnDisplay   = "display"
	columnMail      = "mail"
	columnExternal  = "external_id"
	columnGroups    = "groups"
	columnAttribute = "attr:" // and the attribute's name
)

// The bounds of such a file.
const (
	maxUserFile    = 100_000_000
	maxUserRecords = 250_000
	maxUserColumns = 1000
	maxUserRecord  = 500_000 // bytes; the longest that is good, with all its quotes, has less
)

// guard keeps spreadsheets from running what somebody has put into a profile: what
// begins a formula (= + - @, full-width ones too, and, in some, a tab) gets an
// apostrophe before it. So does what unguard would take one from, so that each cell
// comes back as it was.
func guard(cell string) string {
	if formula(cell) {
		return "'" + cell
	}
	return cell
}

// unguard takes off what guard put on.
func unguard(cell string) string {
	if rest, ok := strings.CutPrefix(cell, "'"); ok && formula(rest) {
		return rest
	}
	return cell
}

// formula says whether a cell begins one, behind any apostrophes and blanks.
func formula(cell string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(cell, "' \u00a0"))
	return strings.ContainsRune("=+-@\t\uff1d\uff0b\uff0d\uff20", first)
}

// joinGroups is the cell of groups.
func joinGroups(groups []string) string {
	escaped := make([]string, len(groups))
	for i, g := range groups {
		escaped[i] = strings.NewReplacer(`\`, `\\`, `;`, `\;`).Replace(g)
	}
	return strings.Join(escaped, ";")
}

// splitGroups are the groups in a cell, without those that are empty.
func splitGroups(cell string) []string {
	var groups []string
	var b strings.Builder
	end := func() {
		if g := strings.TrimSpace(b.String()); g != "" {
			groups = append(groups, g)
		}
		b.Reset()
	}
	for i := 0; i < len(cell); i++ {
		switch {
		case cell[i] == '\\' && i+1 < len(cell) && (cell[i+1] == '\\' || cell[i+1] == ';'):
			i++
			b.WriteByte(cell[i])
		case cell[i] == ';':
			end()
		default:
			b.WriteByte(cell[i])
		}
	}
	end()
	return groups
}

// userRecord is a record of a file of users.
type userRecord struct {
	line int
	user NewUser // without realm and time
	bad  string  // why it is none, and in which column; empty if it is one
}

// userFile reads users.
type userFile struct {
	csv     *csv.Reader
	counted *counted
	columns []string
	records int
}

// counted counts what is read, of the file and of the record: one that does not end
// would cost many times what it has before it is looked at.
type counted struct {
	r      io.Reader
	n      int64
	record int  // bytes of the record that is being read
	quoted bool // within quotes, where a line feed ends no record
	line   int  // line feeds before here
	first  int  // and before the record
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n > maxUserFile {
		return 0, errUserFile
	}
	for _, b := range p[:n] {
		c.record++
		switch b {
		case '"': // two that stand for one leave it as it was
			c.quoted = !c.quoted
		case '\n':
			if c.line++; !c.quoted {
				c.record, c.first = 0, c.line
			}
		}
		if c.record > maxUserRecord {
			return 0, fmt.Errorf("%w: the record on line %d is longer than %d bytes; is a quote missing?", ErrInvalid, c.first+1, maxUserRecord)
		}
	}
	return n, err
}

var errUserFile = fmt.Errorf("%w: the file is larger than %d MB; split it", ErrInvalid, maxUserFile/1_000_000)

// readUsers begins to read a file, with its header row.
func readUsers(r io.Reader) (*userFile, error) {
	f := &userFile{counted: &counted{r: r}}
	b := bufio.NewReader(f.counted)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\ufeff" {
		b.Discard(len(mark))
	}
	f.csv = csv.NewReader(b)
	f.csv.FieldsPerRecord = -1
	f.csv.ReuseRecord = true
	header, err := f.read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: the file is empty; its first row names the columns: name, and any of display, mail, external_id, groups, attr:NAME", ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	if len(header) > maxUserColumns {
		return nil, fmt.Errorf("%w: %d columns; a file of users has %d at most", ErrInvalid, len(header), maxUserColumns)
	}
	for i, cell := range header {
		name := strings.TrimSpace(unguard(cell))
		attribute, is := strings.CutPrefix(name, columnAttribute)
		if is {
			if err := checkAttributeName(attribute); err != nil {
				return nil, f.at(i, err)
			}
		} else if name = strings.ToLower(name); !slices.Contains([]string{columnName, columnDisplay, columnMail, columnExternal, columnGroups}, name) {
			return nil, f.at(i, fmt.Errorf("%w: a column %q is not known; there are name, display, mail, external_id, groups and attr:NAME", ErrInvalid, clip(name, 80)))
		}
		if slices.Contains(f.columns, name) {
			return nil, f.at(i, fmt.Errorf("%w: a second column %s", ErrInvalid, name))
		}
		f.columns = append(f.columns, name)
	}
	if !slices.Contains(f.columns, columnName) {
		return nil, fmt.Errorf("%w: line 1: there is no column name", ErrInvalid)
	}
	return f, nil
}

// has says whether the file has a column.
func (f *userFile) has(column string) bool { return slices.Contains(f.columns, column) }

// at says where in the record that was read last something is wrong.
func (f *userFile) at(column int, err error) error {
	line, at := f.csv.FieldPos(column)
	return fmt.Errorf("%w: line %d, column %d: %s", ErrInvalid, line, at, reasonOf(err))
}

// read answers the next row; io.EOF after the last one.
func (f *userFile) read() ([]string, error) {
	row, err := f.csv.Read()
	var wrong *csv.ParseError
	switch {
	case errors.As(err, &wrong):
		return nil, fmt.Errorf("%w: line %d, column %d: this is no CSV: %w", ErrInvalid, wrong.Line, wrong.Column, wrong.Err)
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, ErrInvalid):
		return nil, fmt.Errorf("%w: the file could not be read to its end: %w", ErrInvalid, err)
	}
	return row, err
}

// next answers the next record, good or bad; io.EOF after the last one. After any
// other error the rest cannot be read.
func (f *userFile) next() (userRecord, error) {
	row, err := f.read()
	if err != nil {
		return userRecord{}, err
	}
	if f.records++; f.records > maxUserRecords {
		return userRecord{}, fmt.Errorf("%w: the file has more than %d records; split it", ErrInvalid, maxUserRecords)
	}
	r := userRecord{}
	r.line, _ = f.csv.FieldPos(0)
	if len(row) != len(f.columns) {
		r.bad = fmt.Sprintf("it has %d cells, and the header row %d", len(row), len(f.columns))
		return r, nil
	}
	in := NewUserRequest{}
	bad := func(column int, err error) (userRecord, error) {
		_, at := f.csv.FieldPos(column)
		r.bad = fmt.Sprintf("column %d (%s): %s", at, f.columns[column], reasonOf(err))
		return r, nil
	}
	for i, cell := range row {
		cell = unguard(cell)
		var err error
		switch column := f.columns[i]; column {
		case columnName:
			in.Name = strings.Clone(cell)
			_, err = FoldName(cell)
		case columnDisplay:
			in.Profile.Display = strings.Clone(cell)
			err = profileText(column, cell, maxDisplay)
		case columnMail:
			in.Profile.Mail = strings.Clone(cell)
			err = checkMail(cell)
		case columnExternal:
			in.Profile.External = strings.Clone(cell)
			err = profileText(column, cell, maxExternal)
		case columnGroups:
			in.Groups = splitGroups(cell)
			_, err = foldGroups(in.Groups)
		default:
			if cell == "" {
				break
			}
			name := strings.TrimPrefix(column, columnAttribute)
			if in.Profile.Attributes == nil {
				in.Profile.Attributes = map[string]string{}
			}
			in.Profile.Attributes[name] = strings.Clone(cell)
			if err = checkAttribute(name, cell); err == nil && len(in.Profile.Attributes) > maxAttributes {
				err = fmt.Errorf("%w: more than %d attributes", ErrInvalid, maxAttributes)
			}
		}
		if err != nil {
			return bad(i, err)
		}
	}
	if r.user, err = newUser("", in); err != nil {
		r.bad = reasonOf(err)
	}
	return r, nil
}

// replace is a user's profile where the file says otherwise: what it has no column
// for stays.
func (f *userFile) replace(was Profile, r *userRecord) Profile {
	from := &r.user.User.Profile
	e := ProfileEdit{Attributes: map[string]*string{}}
	for _, column := range f.columns {
		switch column {
		case columnName, columnGroups:
		case columnDisplay:
			e.Display = &from.Display
		case columnMail:
			e.Mail = &from.Mail
		case columnExternal:
			e.External = &from.External
		default:
			name := strings.TrimPrefix(column, columnAttribute)
			value := from.Attributes[name]
			e.Attributes[name] = &value
		}
	}
	return e.apply(was)
}

// userWriter writes users as readUsers reads them.
type userWriter struct {
	csv        *csv.Writer
	attributes []string
	row        []string
}

// writeUsers begins a file whose columns hold these attributes.
func writeUsers(w io.Writer, attributes []string) (*userWriter, error) {
	u := &userWriter{csv: csv.NewWriter(w), attributes: attributes}
	u.row = []string{columnName, columnDisplay, columnMail, columnExternal, columnGroups}
	for _, name := range attributes {
		u.row = append(u.row, columnAttribute+name)
	}
	return u, u.csv.Write(u.row)
}

// write writes one user. It fails if the user has an attribute that there is no
// column for.
func (w *userWriter) write(u *UserEntry) error {
	p := &u.Profile
	w.row = append(w.row[:0], u.Name, p.Display, p.Mail, p.External, joinGroups(u.Groups))
	held := 0
	for _, name := range w.attributes {
		value, ok := p.Attributes[name]
		if ok {
			held++
		}
		w.row = append(w.row, value)
	}
	if held != len(p.Attributes) {
		return fmt.Errorf("%w: %s got an attribute while the users were exported; export them again", ErrUnavailable, u.Name)
	}
	for i := range w.row {
		w.row[i] = guard(w.row[i])
	}
	return w.csv.Write(w.row)
}

// end writes what is still held back.
func (w *userWriter) end() error {
	w.csv.Flush()
	return w.csv.Error()
}
