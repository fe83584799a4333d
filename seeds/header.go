package seeds

import (
	"bytes"
	"slices"
	"strings"
)

// column is what a field of a table holds.
type column int

const (
	colSerial column = iota
	colSeed
	colType
	colDigits
	colMoving // period of a TOTP token, next counter of an HOTP token
	colPeriod
	colCounter
	colHash
	colAlgorithm // type or hash, as its values show
	colUser
	colResolver // of the user in privacyIDEA
	colRealm
	colMaker
	colModel
	colEpoch // what time steps count from
	colCount
)

// columnNames are what errors call a column, and the names that a header row may
// give it, in lower case and with letters and digits only.
var columnNames = [colCount]struct {
	label string
	names []string
}{
	colSerial:    {"serial", []string{"serial", "serialnumber", "serialno", "sn", "token", "tokenserial"}},
	colSeed:      {"seed", []string{"seed", "hexseed", "seedhex", "hexkey", "key", "secret", "secretkey", "hexsecret", "otpkey"}},
	colType:      {"type", []string{"type", "tokentype", "totphotp", "hotptotp", "kind", "mode"}},
	colDigits:    {"digits", []string{"digits", "otplen", "otplength", "length", "codelength", "responselength"}},
	colMoving:    {"period|counter", []string{"periodcounter", "counterperiod", "intervalorcounter", "intervalorevent"}},
	colPeriod:    {"period", []string{"period", "interval", "timestep", "timeinterval", "step"}},
	colCounter:   {"counter", []string{"counter", "movingfactor"}},
	colHash:      {"hash", []string{"hash", "sha", "hashalgorithm", "hashfunction", "hashlib", "digest", "sha1sha256sha512"}},
	colAlgorithm: {"algorithm", []string{"algorithm", "alg"}},
	colUser:      {"user", []string{"user", "username", "upn", "userprincipalname"}},
	colResolver:  {"resolver", []string{"resolver"}},
	colRealm:     {"realm", []string{"realm"}},
	colMaker:     {"manufacturer", []string{"manufacturer", "vendor"}},
	colModel:     {"model", []string{"model"}},
	colEpoch:     {"epoch", []string{"epoch"}},
}

// headerSeparators are what the fields of a header row may be separated by:
// spreadsheets write what the country is used to.
const headerSeparators = ",;\t"

// knownColumns lists what a header row may name, for people.
const knownColumns = "serial, seed, type, digits, period, counter, hash, user, resolver, realm, manufacturer and model"

// isHeader says whether a first row names columns rather than holding a token:
// it has a name for the serial, and one for the seed.
func isHeader(fields [][]byte) bool {
	serial, seed := false, false
	for _, f := range fields {
		switch c, ok := columnNamed(f); {
		case !ok:
		case c == colSerial:
			serial = true
		case c == colSeed:
			seed = true
		}
	}
	return serial && seed
}

// headerColumns tells the columns that a header row names. Columns in the usual
// order may have names of their own, and there may be fewer names than columns:
// the rows are read as if there were no header. In another order each must have a
// known name. strange is the first column, from
// 1, that has none, or that there is twice; zero if there is none.
func headerColumns(fields [][]byte, usual []column) (columns []column, strange int) {
	columns = make([]column, len(fields))
	inOrder, unknown := true, 0
	for i, f := range fields {
		c, ok := columnNamed(f)
		switch {
		case !ok && i < len(usual):
			columns[i] = usual[i]
			if unknown == 0 {
				unknown = i + 1
			}
			continue
		case !ok:
			return nil, i + 1
		}
		columns[i] = c
		inOrder = inOrder && i < len(usual) && inPlaceOf(c, usual[i])
	}
	if unknown > 0 && !inOrder {
		return nil, unknown
	}
	moving := 0
	for i, c := range columns {
		if slices.Contains(columns[:i], c) {
			return nil, i + 1
		}
		if c == colMoving || c == colPeriod || c == colCounter {
			if moving++; moving > 1 && slices.Contains(columns[:i+1], colMoving) {
				return nil, i + 1
			}
		}
	}
	// An algorithm is a hash beside a type, and a type beside a hash.
	if i := slices.Index(columns, colAlgorithm); i >= 0 {
		hasType, hasHash := slices.Contains(columns, colType), slices.Contains(columns, colHash)
		switch {
		case hasType && hasHash:
			return nil, i + 1
		case hasType:
			columns[i] = colHash
		case hasHash:
			columns[i] = colType
		}
	}
	if i := slices.Index(usual, colMoving); inOrder && i >= 0 {
		// Of one token it is the period, of the next the counter.
		if i < len(columns) {
			columns[i] = colMoving
		}
		columns = append(columns, usual[min(len(columns), len(usual)):]...)
	}
	return columns, 0
}

// inPlaceOf says whether a column named c stands where usual is.
func inPlaceOf(c, usual column) bool {
	switch usual {
	case colMoving:
		return c == colMoving || c == colPeriod || c == colCounter
	case colType, colHash:
		return c == usual || c == colAlgorithm
	}
	return c == usual
}

// columnNamed tells the column that a field of a header row names. It makes no
// copy that outlives it: in a file without a header the field may be a seed.
func columnNamed(field []byte) (column, bool) {
	var buf [40]byte
	defer clear(buf[:])
	if len(field) > len(buf) {
		return 0, false
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
	for c := range columnNames {
		for _, known := range columnNames[c].names {
			if string(name) == known {
				return column(c), true
			}
		}
	}
	return 0, false
}

// commentVersion answers N of a comment "# version: N"; empty if it is none.
func commentVersion(line []byte) string {
	text := bytes.TrimLeft(line, "# \t")
	const word = "version"
	if len(text) < len(word) || !bytes.EqualFold(text[:len(word)], []byte(word)) {
		return ""
	}
	rest := string(text[len(word):])
	rest, ok := strings.CutPrefix(strings.TrimSpace(rest), ":")
	if !ok {
		return ""
	}
	return strings.TrimSpace(rest)
}
