package main

// The rules for every printed line.
//
//   - What was asked for goes to standard output; everything else (errors,
//     warnings, progress, questions, hints) goes to standard error.
//   - An error is one line: "watchword: WHAT: WHY; WHAT TO DO". It never holds a
//     seed, PIN, code, secret or key.
//   - A list is a table: one line a thing, a head in capitals, columns two spaces
//     apart, no wider than the terminal (100 where there is none). An empty list
//     says so on standard error and prints nothing.
//   - A thing that changed is told in a sentence: "Token 24680017 is active; alice
//     holds it." The present tense, no exclamation marks, no colours.
//   - Times are local, to the second where things happened, to the minute
//     otherwise. "-" stands for what is not there.
//   - With --json the answer is the server's, indented, and nothing else. Times in
//     it are UTC.
//   - What others have written (names, reasons) is printed without control
//     characters: it cannot steer the terminal.
//   - Progress shows on a terminal only.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
)

// failure is an error as it is printed.
type failure struct {
	What string // was to be done
	Why  string // it was not
	Do   string // to do about it; may be empty
}

func (f *failure) Error() string {
	line := f.What + ": " + f.Why
	if f.Do != "" {
		line += "; " + f.Do
	}
	return line
}

func printError(err error) {
	var f *failure
	if errors.As(err, &f) {
		err = f
	}
	fmt.Fprintln(os.Stderr, "watchword: "+oneLine(err.Error()))
}

func hint(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "watchword: "+oneLine(fmt.Sprintf(format, args...)))
}

// plainCause is what the system says, without the path that we name ourselves.
func plainCause(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// clean takes the control characters out of what others have written.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

func oneLine(s string) string { return clean(strings.ReplaceAll(strings.TrimSpace(s), "\n", ", ")) }

// orDash is what a table shows of a text that may be empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// toSecond and toMinute are times as tables show them.
func toSecond(t time.Time) string { return localTime(t, "2006-01-02 15:04:05") }
func toMinute(t time.Time) string { return localTime(t, "2006-01-02 15:04") }

func localTime(t time.Time, layout string) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(layout)
}

func toMinuteOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return toMinute(*t)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// plural is "1 token", "2 tokens".
func plural[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// columns is how wide a line may be.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width >= 40 {
			return width
		}
	}
	return 100
}

// table is a list for people. The last column is folded over several lines
// where it does not fit; no other is cut.
type table struct {
	head []string
	rows [][]string
	more [][]string // further lines of each row, indented
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
	t.more = append(t.more, nil)
}

// note puts a line of its own under the row added last.
func (t *table) note(line string) {
	if line != "" {
		last := len(t.more) - 1
		t.more[last] = append(t.more[last], clean(line))
	}
}

func (t *table) print(w io.Writer) error {
	width := columns(w)
	sizes := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			sizes[i] = max(sizes[i], uniseg.StringWidth(cell))
		}
	}
	indent := 0
	for _, size := range sizes[:len(sizes)-1] {
		indent += size + 2
	}
	// A narrow terminal gets long lines rather than one word a line.
	room := max(width-indent, 30)
	var b strings.Builder
	line := func(cells []string) {
		for i, cell := range cells[:len(cells)-1] {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", sizes[i]-uniseg.StringWidth(cell)+2))
		}
		for i, part := range fold(cells[len(cells)-1], room) {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", indent))
			}
			b.WriteString(part)
			b.WriteByte('\n')
		}
	}
	line(t.head)
	for i, row := range t.rows {
		line(row)
		for _, note := range t.more[i] {
			for j, part := range fold(note, max(width-4, 30)) {
				b.WriteString("    " + strings.Repeat(" ", min(j, 1)*2) + part + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fold breaks a text between words into lines of at most width.
func fold(s string, width int) []string {
	if uniseg.StringWidth(s) <= width {
		return []string{s}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case line == "":
			line = word
		case uniseg.StringWidth(line)+1+uniseg.StringWidth(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// onTerminal says whether a person looks at it or types into it.
func onTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// askSecret reads a line that is not shown. Ctrl-C leaves the terminal as it was.
func askSecret(prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	fmt.Fprint(os.Stderr, prompt)
	type typed struct {
		line []byte
		err  error
	}
	done := make(chan typed, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- typed{line, err}
	}()
	select {
	case t := <-done:
		fmt.Fprintln(os.Stderr)
		return t.line, t.err
	case <-interrupted:
		fmt.Fprintln(os.Stderr)
		return nil, errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
