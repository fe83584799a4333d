package seeds

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// WriteCSV writes the report's records as CSV (RFC 4180: a header row, lines that
// end in CRLF, all text in quotes), in the report's order. The columns are line,
// key, serial, outcome, reason, user and path. A line or key that a record does not
// have is empty. If records were left off, a last row says how many.
//
// Serials and users are from the file, and a spreadsheet would take some for
// formulas: a text that begins like one has an apostrophe in front.
func (r *Report) WriteCSV(w io.Writer) error {
	out := bufio.NewWriter(w)
	out.WriteString("line,key,serial,outcome,reason,user,path\r\n")
	for i := range r.Records {
		o := &r.Records[i]
		writeRow(out, o.Line, o.Key, o.Serial, string(o.Outcome), o.Reason, o.User, string(o.Path))
	}
	if r.Omitted > 0 {
		writeRow(out, 0, 0, "", "", count(r.Omitted, "more record")+" not listed here", "", "")
	}
	return out.Flush() // with the first error of all
}

func writeRow(out *bufio.Writer, line, key int, texts ...string) {
	for _, n := range []int{line, key} {
		if n > 0 {
			out.WriteString(strconv.Itoa(n))
		}
		out.WriteByte(',')
	}
	for i, s := range texts {
		if i > 0 {
			out.WriteByte(',')
		}
		if s != "" {
			out.WriteString(`"` + strings.ReplaceAll(inert(s), `"`, `""`) + `"`)
		}
	}
	out.WriteString("\r\n")
}

// inert makes a text safe to open in a spreadsheet, which looks for formulas
// behind blanks too, and takes full-width signs for the usual ones.
func inert(s string) string {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, " \u00a0"))
	if strings.ContainsRune("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", first) {
		return "'" + s
	}
	return s
}
