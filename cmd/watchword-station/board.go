package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"watchword/webauthn/station"
)

// board tells a person, who has keys in both hands, what to do: in letters that are
// read at arm's length, one word at a time, and below it in a sentence. What stays to
// be read, it writes in lines, without colours, so that a file of it is readable too.
type board struct {
	w     io.Writer
	big   bool // it is a terminal
	users int
	stock int
}

func newBoard(w io.Writer, users, stock int) *board {
	b := &board{w: w, users: users, stock: stock}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.big = true
	}
	return b
}

// Colours of the big words: what to do, what is well, what is not.
const (
	doIt = "\x1b[1;33m"
	well = "\x1b[1;32m"
	bad  = "\x1b[1;31m"
)

func (b *board) tell(e station.Event) {
	who := "for stock"
	if e.User != "" {
		who = "for " + e.User
	}
	switch e.Event {
	case "next":
		of := ""
		if n := max(b.users, b.stock); n > 0 {
			of = fmt.Sprintf(" (%d in all)", n)
		}
		b.word(doIt, "PLUG IN", fmt.Sprintf("Plug in key %d%s, %s.", e.Number, of, who))
	case "plugged":
		b.line("Key %d: %s at %s", e.Number, strings.TrimSpace(e.Key.Maker+" "+e.Key.Name), e.Key.Path)
	case "model":
		b.line("Key %d: %s", e.Number, known(e.Model))
	case "touch":
		b.word(doIt, "TOUCH", fmt.Sprintf("Touch key %d when it blinks, %s.", e.Number, e.Reason))
	case "enrolled", "resumed":
		b.word(well, "DONE", fmt.Sprintf("Key %d is enrolled %s: %s, %s. Label it, and put it away.", e.Number, who, e.Token.Serial, e.Token.State))
		for _, n := range e.Notes {
			b.line("Key %d: %s", e.Number, n)
		}
	case "aside":
		b.word(bad, "ASIDE", fmt.Sprintf("Key %d is set aside: %s.", e.Number, e.Reason))
		if e.Left != "" {
			b.line("Key %d: %s", e.Number, e.Left)
		}
	case "skipped":
		b.line("%s is skipped: %s", e.User, e.Reason)
	case "doubt":
		b.word(bad, "WAIT", fmt.Sprintf("Keep key %d: nobody knows whether it was enrolled (%s).", e.Number, e.Reason))
	case "server":
		b.line("Waiting for the server: %s", e.Reason)
	case "end":
		b.line("%d enrolled, %d set aside.", e.Enrolled, e.Aside)
	}
}

func (b *board) line(format string, args ...any) {
	fmt.Fprintln(b.w, clean(fmt.Sprintf(format, args...)))
}

// word shows a word in big letters, and a sentence.
func (b *board) word(colour, word, sentence string) {
	if b.big {
		fmt.Fprint(b.w, "\n", colour, enlarge(word), "\x1b[0m\n")
	}
	b.line("%s", sentence)
}

// letters are those that the words need, five lines high.
var letters = map[rune][5]string{
	'A': {" ### ", "#   #", "#####", "#   #", "#   #"},
	'C': {" ####", "#    ", "#    ", "#    ", " ####"},
	'D': {"#### ", "#   #", "#   #", "#   #", "#### "},
	'E': {"#####", "#    ", "###  ", "#    ", "#####"},
	'G': {" ####", "#    ", "#  ##", "#   #", " ####"},
	'H': {"#   #", "#   #", "#####", "#   #", "#   #"},
	'I': {"###", " # ", " # ", " # ", "###"},
	'L': {"#    ", "#    ", "#    ", "#    ", "#####"},
	'N': {"#   #", "##  #", "# # #", "#  ##", "#   #"},
	'O': {" ### ", "#   #", "#   #", "#   #", " ### "},
	'P': {"#### ", "#   #", "#### ", "#    ", "#    "},
	'S': {" ####", "#    ", " ### ", "    #", "#### "},
	'T': {"#####", "  #  ", "  #  ", "  #  ", "  #  "},
	'U': {"#   #", "#   #", "#   #", "#   #", " ### "},
	'W': {"#   #", "#   #", "# # #", "## ##", "#   #"},
	' ': {"  ", "  ", "  ", "  ", "  "},
}

// enlarge writes a word five lines high, with full blocks.
func enlarge(word string) string {
	var b strings.Builder
	for row := range 5 {
		for _, c := range word {
			b.WriteString(strings.ReplaceAll(letters[c][row], "#", "█") + "  ")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
