package seeds

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"watchword/hsm"
	"watchword/tokens"
)

// place puts a row's fields into t.values, each under its column, and answers
// the type that this kind of row has, if it says so.
func (t *tableReader) place(fields [][]byte) ([]column, tokens.Type) {
	columns, typ := t.columns, tokens.Type("")
	if t.layout.rowColumns != nil {
		columns, typ = t.layout.rowColumns(fields)
	}
	clear(t.values[:])
	clear(t.at[:])
	for i, c := range columns {
		t.at[c] = i + 1
		if i < len(fields) {
			t.values[c] = fields[i]
		}
	}
	return columns, typ
}

// parse reads a row into t.rec. Its errors name the column; a *FileError ends
// the file.
func (t *tableReader) parse(fields [][]byte) error {
	columns, typ := t.place(fields)
	rec := &t.rec
	rec.Serial = string(t.values[colSerial])
	if err := tokens.ValidSerial(rec.Serial); err != nil {
		return t.wrong(colSerial, strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": "))
	}
	if err := t.parseOwner(); err != nil {
		return err
	}
	if len(t.values[colSeed]) == 0 {
		return t.wrong(colSeed, "there is no seed")
	}
	if len(fields) > len(columns) {
		return fmt.Errorf("column %d: there are %d columns at most", len(columns)+1, len(columns))
	}
	if t.layout.full {
		for i, c := range columns {
			if len(t.values[c]) == 0 && c != colMaker {
				return fmt.Errorf("column %d (%s): there is nothing in it; a row has %d columns", i+1, t.label(c), len(columns))
			}
		}
	}
	if err := t.parseSeed(); err != nil {
		return err
	}
	if swapped(rec.Serial, rec.Seed) {
		return t.wrong(colSerial, "it looks like a seed; are the columns swapped?")
	}
	rec.Type = typ
	if err := t.parseStated(); err != nil {
		return err
	}
	silent := [...]bool{rec.Type == "" && t.chosen.Type == "", rec.Algorithm == 0 && t.chosen.Hash == 0 && likelyHash(len(rec.Seed)) != "", rec.Digits == 0 && t.chosen.Digits == 0}
	rec.Type = cmp.Or(rec.Type, t.chosen.Type, t.silence.Type)
	if err := t.parseMoving(); err != nil {
		return err
	}
	if err := rec.settle(t.chosen, t.silence); err != nil {
		return err
	}
	if err := rec.check(); err != nil {
		return err
	}
	for i, counter := range [...]*int{&t.typeSilent, &t.hashSilent, &t.digitsSilent} {
		if silent[i] {
			*counter++
		}
	}
	rec.Model = deviceName(string(t.values[colMaker]), string(t.values[colModel]))
	return nil
}

// parseSeed reads the seed, in the encoding of the file.
func (t *tableReader) parseSeed() error {
	text := t.values[colSeed]
	if t.layout.encoding == "" && t.chosen.Encoding == "" {
		inHex, inBase32 := seedText(text)
		switch {
		case t.encoding == "" && inHex && inBase32:
			if !t.looked {
				t.lookAhead()
			}
			if t.encoding == "" {
				return t.wrong(colSeed, "it can be read as hex and as base32, and so can all seeds before it; say which with --encoding hex or --encoding base32")
			}
		case t.encoding == "" && inHex:
			t.encoding, t.shownBy = Hex, t.lines.n
		case t.encoding == "" && inBase32:
			t.encoding, t.shownBy = Base32, t.lines.n
		case t.encoding == "":
			return t.wrong(colSeed, "it is no seed in hex nor in base32")
		case t.encoding == Hex && inBase32 && !inHex, t.encoding == Base32 && inHex && !inBase32:
			return &FileError{Line: t.lines.n, Reason: fmt.Sprintf("the seed in this line is not in %s, as that in line %d is; a file has seeds in one encoding: split it, or say which with --encoding", t.encoding, t.shownBy)}
		}
	}
	if err := t.encoding.decode(&t.rec, text); err != nil {
		if _, inBase32 := seedText(text); inBase32 && t.encoding == Hex && t.chosen.Encoding == "" {
			return t.wrong(colSeed, err.Error()+" (it may be in base32: --encoding base32)")
		}
		return t.wrong(colSeed, err.Error())
	}
	return nil
}

// lookAhead tells the encoding of seeds from the rows that are read already and
// not yet handed out, if one of them has a seed in one encoding only. A later row
// that contradicts ends the file.
func (t *tableReader) lookAhead() {
	t.looked = true
	values, at := t.values, t.at
	defer func() { t.values, t.at = values, at }()
	row := make([]byte, maxLine)
	defer clear(row)
	var fields [maxColumns + 1][]byte
	text, n := t.lines.ahead(), t.lines.n
	for len(text) > 0 {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		n++
		if !ended && t.lines.err != io.EOF || len(line) > len(row) {
			return
		}
		line = row[:copy(row, line)]
		content := trimBlank(bytes.TrimSuffix(line, []byte("\r")))
		if len(content) == 0 || content[0] == '#' {
			continue
		}
		got, err := splitRow(bytes.TrimSuffix(line, []byte("\r")), t.separator, fields[:])
		if err != nil {
			continue
		}
		t.place(fields[:got])
		switch inHex, inBase32 := seedText(t.values[colSeed]); {
		case inHex && !inBase32:
			t.encoding, t.shownBy = Hex, n
			return
		case inBase32 && !inHex:
			t.encoding, t.shownBy = Base32, n
			return
		}
	}
}

// parseStated reads what the row says of type, digits and hash.
func (t *tableReader) parseStated() error {
	rec := &t.rec
	if f := t.values[colType]; len(f) > 0 {
		if rec.Type = typeNamed(f); rec.Type == "" {
			says := "it is neither totp nor hotp"
			if _, err := strconv.ParseUint(string(f[:min(len(f), 10)]), 10, 64); err == nil && t.layout.versions {
				says += "; a table with a counter here is PingID's (--format pingid)"
			}
			return t.wrong(colType, says)
		}
	}
	if f := t.values[colHash]; len(f) > 0 {
		if rec.Algorithm = hashNamed(f); rec.Algorithm == 0 {
			return t.wrong(colHash, "it is not sha1, sha256 or sha512")
		}
	}
	if f := t.values[colAlgorithm]; len(f) > 0 {
		rec.Type = typeNamed(f)
		if rec.Type == "" {
			rec.Algorithm = hashNamed(f)
		}
		if rec.Type == "" && rec.Algorithm == 0 {
			return t.wrong(colAlgorithm, "it is neither a type (totp, hotp) nor a hash (sha1, sha256, sha512)")
		}
	}
	if f := t.values[colDigits]; len(f) > 0 {
		if len(f) != 1 || f[0] < '6' || f[0] > '8' {
			return t.wrong(colDigits, "6, 7 and 8 digits are possible")
		}
		rec.Digits = int(f[0] - '0')
	}
	if f := t.values[colEpoch]; len(f) > 0 && string(f) != "0" {
		return t.wrong(colEpoch, "its time steps do not count from 1970, which is 0")
	}
	return nil
}

// parseMoving reads the time step or the counter of a token whose type is known,
// and sees to it that nothing stands where only the other type has something.
func (t *tableReader) parseMoving() error {
	rec := &t.rec
	c := colPeriod
	switch {
	case t.at[colMoving] > 0:
		c = colMoving
	case rec.Type == tokens.HOTP:
		if c = colCounter; t.at[c] == 0 && len(t.values[colPeriod]) > 0 {
			return t.wrong(colPeriod, "an HOTP token has no time step (a column of counters is named counter)")
		}
	case t.at[c] == 0 && len(t.values[colCounter]) > 0 && rec.Type == tokens.TOTP:
		return t.wrong(colCounter, "a TOTP token has no counter (a column of time steps is named period)")
	}
	f := t.values[c]
	if len(f) == 0 || rec.Type == "" {
		return nil
	}
	n, err := strconv.ParseUint(string(f[:min(len(f), 21)]), 10, 64)
	switch {
	case err != nil:
		return t.wrong(c, "it is not a number")
	case rec.Type == tokens.HOTP && n > maxCounter:
		return t.wrong(c, "the counter is too great")
	case rec.Type == tokens.TOTP && (n < 1 || n > 86400):
		return t.wrong(c, "a time step has 1 to 86400 seconds")
	case rec.Type == tokens.HOTP:
		rec.Counter = n
	default:
		rec.Period = int(n)
	}
	return nil
}

// parseOwner reads whom the row names as the owner. A user's resolver is not
// kept: it is a matter of the product that the table comes from.
func (t *tableReader) parseOwner() error {
	for _, o := range []struct {
		c    column
		into *string
	}{{colUser, &t.rec.User}, {colRealm, &t.rec.UserRealm}} {
		f := t.values[o.c]
		if len(f) == 0 {
			continue
		}
		name := string(f)
		if _, err := tokens.FoldName(name); err != nil {
			return t.wrong(o.c, strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": "))
		}
		*o.into = name
	}
	return nil
}

// wrong is what is wrong with the value of a column.
func (t *tableReader) wrong(c column, says string) error {
	return fmt.Errorf("column %d (%s): %s", t.at[c], t.label(c), says)
}

// label is what errors call a column.
func (t *tableReader) label(c column) string {
	if c == colSeed && t.layout.encoding == Hex {
		return "hexseed"
	}
	return columnNames[c].label
}

// typeNamed reads a type; empty if it is none.
func typeNamed(f []byte) tokens.Type {
	switch {
	case bytes.EqualFold(f, []byte("totp")):
		return tokens.TOTP
	case bytes.EqualFold(f, []byte("hotp")):
		return tokens.HOTP
	}
	return ""
}

// hashNamed reads a hash; zero if it is none.
func hashNamed(f []byte) hsm.Hash {
	if len(f) > 16 { // no name of a hash, and what it is makes no string
		return 0
	}
	hash, _ := parseHash(string(f))
	return hash
}
