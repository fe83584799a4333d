package seeds

import (
	"bytes"
	"fmt"
)

// blanks as a separator stands for any run of blanks and tabs.
const blanks = ' '

// splitRow splits a line into fields, as many as there is room for; of a line
// with more the remainder is ignored. Fields may be quoted as RFC 4180 has it,
// but none spans lines; quotes are taken off in place.
func splitRow(line []byte, separator byte, fields [][]byte) (n int, err error) {
	if separator == blanks {
		return splitBlanks(line, fields), nil
	}
	trim := trimBlank
	if separator == '\t' {
		trim = trimSpaces
	}
	for n < len(fields) {
		line = trim(line)
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
			field, line = line[:end], trim(line[i+1:])
			if len(line) > 0 && line[0] != separator {
				return n, fmt.Errorf("column %d: there is text after the closing quote", n+1)
			}
		} else {
			i := bytes.IndexByte(line, separator)
			if i < 0 {
				i = len(line)
			}
			field, line = trim(line[:i]), line[i:]
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

func splitBlanks(line []byte, fields [][]byte) (n int) {
	for line = trimBlank(line); len(line) > 0 && n < len(fields); n++ {
		end := bytes.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		fields[n], line = line[:end], trimBlank(line[end:])
	}
	return n
}

func trimBlank(b []byte) []byte { return bytes.Trim(b, " \t") }

func trimSpaces(b []byte) []byte { return bytes.Trim(b, " ") }
