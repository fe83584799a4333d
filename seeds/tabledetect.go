package seeds

import (
	"bytes"
	"fmt"
	"slices"
)

// hexSeed says whether a field looks like a seed in hex. One that is too long is
// for the reader to refuse.
func hexSeed(f []byte) bool {
	return len(f)%2 == 0 && len(f) >= 2*MinSeed && !slices.ContainsFunc(f, func(b byte) bool { return !isHex(b) })
}

// enough is how many lines with content Detect looks at: one of them may be bad.
const enough = 16

// detect looks for a header row that names columns as wanted has it (nil: any),
// or for a row of which row finds nothing to say against. It says what row found
// wrong with the first one.
func (l *layout) detect(prefix []byte, whole bool, wanted func([]column) bool, row func(fields [][]byte) string, isRow string) (bool, string) {
	var fields [maxColumns + 1][]byte
	why := "no line with content at its beginning"
	text := bytes.Clone(prefix) // splitRow writes
	copied := make([]byte, len(text))
	defer clear(text) // all of it: text moves on
	defer clear(copied)
	version2 := false
	for n, seen := 1, 0; len(text) > 0 && seen < enough; n++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		if !ended && !whole {
			break
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		content := trimBlank(line)
		if len(content) == 0 {
			continue
		}
		if content[0] == '#' {
			version2 = version2 || l.versions && commentVersion(content) == "2"
			continue
		}
		seen++
		if seen == 1 {
			if _, got := headerRow(line, copied, fields[:]); got > 0 && !l.header {
				return false, fmt.Sprintf("line %d: a header row, which it has not", n)
			} else if got > 0 {
				columns, strange := headerColumns(fields[:got], l.columns)
				switch {
				case wanted == nil, strange == 0 && wanted(columns):
					return true, fmt.Sprintf("header row in line %d", n)
				}
				return false, fmt.Sprintf("line %d: the header row names other columns", n)
			}
		}
		if l.headed {
			return false, fmt.Sprintf("line %d: it is no header row", n)
		}
		got, err := splitRow(line, l.separator(line), fields[:])
		values := fields[:got]
		if version2 {
			values = values[min(got, len(userColumns)):]
		}
		says := ""
		if err != nil {
			says = err.Error()
		} else if says = row(values); says == "" {
			if version2 {
				return true, fmt.Sprintf("version 2, and line %d has %s behind the user", n, isRow)
			}
			return true, fmt.Sprintf("line %d is %s", n, isRow)
		}
		if seen == 1 {
			why = fmt.Sprintf("line %d: %s", n, says)
		}
	}
	return false, why
}
