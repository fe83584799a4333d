package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// Problem is one thing that is wrong with a Source.
type Problem struct {
	ID         string `json:"id,omitempty"`         // of the policy, template or link; empty: the whole
	Line       int    `json:"line,omitempty"`       // in its text, from 1; 0: no place
	Column     int    `json:"column,omitempty"`     // in characters, from 1
	Expression string `json:"expression,omitempty"` // what is wrong, as Cedar writes it
	Says       string `json:"says"`
}

// String is one line for people.
func (p Problem) String() string {
	var b strings.Builder
	if p.ID != "" {
		b.WriteString(strconv.Quote(p.ID))
	}
	if p.Line > 0 {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "line %d, column %d", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(p.Says)
	if p.Expression != "" {
		b.WriteString(": " + p.Expression)
	}
	return b.String()
}

// Errors are all the problems of a Source, or the first hundred, by id and place.
type Errors struct {
	Problems []Problem
}

// Error is all of them, one a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

const maxProblems = 100

func (e *Errors) add(p ...Problem) {
	e.Problems = append(e.Problems, p...)
}

// err is nil if there is no problem.
func (e *Errors) err() error {
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		if c := strings.Compare(a.ID, b.ID); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	if len(e.Problems) > maxProblems {
		e.Problems = e.Problems[:maxProblems]
	}
	return e
}

// parse has Cedar read the text.
func (d *draft) parse() (*cedar.Policy, *Problem) {
	list, err := cedar.NewPolicyListFromBytes(d.id, d.filled())
	if err != nil {
		p := d.syntax(err.Error())
		return nil, &p
	}
	switch len(list) {
	case 0:
		return nil, &Problem{ID: d.id, Says: "the text holds no policy"}
	case 1:
		return list[0], nil
	}
	at := list[1].Position()
	line, column := d.place(at.Line, at.Column)
	return nil, &Problem{ID: d.id, Line: line, Column: column, Says: "a second policy begins here: each has an id of its own"}
}

var (
	placed = regexp.MustCompile(`<input>:(\d+):(\d+)( "(?:[^"\\]|\\.)*")?: (?s:(.*))$`)
	exact  = regexp.MustCompile(`^(?:exact )?got (?s:(.*)) want (\S+)$`)
	named  = regexp.MustCompile("^`([^`]*)` is (?:not )?a (?:method|function)|^(\\w+) expects |^duplicate key: (?s:(.*))$")
)

// syntax is what Cedar's parser says of a text, at the place of the word that it
// means. It reports the place where it stands, often the word behind that.
func (d *draft) syntax(says string) Problem {
	p := Problem{ID: d.id, Says: says}
	m := placed.FindStringSubmatch(says)
	if m == nil {
		d.unplaced(&p)
		return p
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	p.Line, p.Column = d.place(line, column)
	p.Says = m[4]
	if m[3] == "" && !strings.Contains(says, "parse error") { // the scanner's, and right
		return p
	}
	i := slices.IndexFunc(d.words, func(w word) bool { return w.line > p.Line || w.line == p.Line && w.column >= p.Column })
	if i < 0 {
		i = len(d.words)
	}
	i = d.meant(i, p.Says)
	found := "the end of the text"
	if i < len(d.words) {
		w := d.words[i]
		p.Line, p.Column, p.Expression = w.line, w.column, w.text
		found = w.text
	}
	switch m := exact.FindStringSubmatch(p.Says); {
	case m != nil && m[2] == ",":
		p.Says = `"," or the closing bracket must stand here`
	case m != nil:
		p.Says = strconv.Quote(m[2]) + " must stand here"
	case strings.HasPrefix(p.Says, "unexpected effect"):
		p.Says = "a policy begins with permit or forbid, and before it may stand @annotations"
	case p.Says == "invalid primary":
		p.Says = "a value must stand here: principal, action, resource, context, a number, a text, an entity"
	case strings.HasPrefix(p.Says, "expected ident"):
		p.Says = "a name must stand here"
	case p.Says == "unexpected token":
		p.Says = "this cannot stand here"
	}
	switch found {
	case "=":
		p.Says += " (equal is ==)"
	case "|", "&":
		p.Says += " (and is &&, or is ||)"
	case "the end of the text":
		p.Expression = ""
		p.Says += ", and the text ends"
	}
	return p
}

// meant is the word that the parser speaks of when it stands at word i.
func (d *draft) meant(i int, says string) int {
	if m := named.FindStringSubmatch(says); m != nil {
		name := m[1] + m[2] + m[3]
		for k := min(i, len(d.words)-1); k >= 0; k-- {
			if t := d.words[k].text; t == name || t == strconv.Quote(name) {
				return k
			}
		}
		return i
	}
	if says == "got" || strings.HasPrefix(says, "got ") { // it did not step on
		return i
	}
	if m := exact.FindStringSubmatch(says); m != nil && m[1] == "" {
		return len(d.words)
	}
	if i == len(d.words) && !d.steppedAtEnd(says) {
		return i
	}
	return max(i-1, 0)
}

// steppedAtEnd says whether a parser that stands at the end of the text means the
// word before it, and not the end.
func (d *draft) steppedAtEnd(says string) bool {
	if m := exact.FindStringSubmatch(says); m != nil {
		return true // it names a word
	}
	if effect, ok := strings.CutPrefix(says, "unexpected effect: "); ok {
		return effect != ""
	}
	// The end is no name and no value. A last word that could be either was read.
	w := d.words
	if len(w) == 0 {
		return false
	}
	last := w[len(w)-1]
	return last.sort == sortName && says == "invalid primary" || last.text == ";"
}

// unplaced finds the number or text that Cedar could not read, of which it does not
// say where it is.
func (d *draft) unplaced(p *Problem) {
	for _, w := range d.words {
		switch w.sort {
		case sortNumber:
			if _, err := strconv.ParseInt(w.text, 10, 64); err != nil {
				p.Line, p.Column, p.Expression, p.Says = w.line, w.column, w.text, "the number is too big"
				return
			}
		case sortString:
			_, err := cedar.NewPolicyListFromBytes("", []byte("permit (principal, action, resource) when { "+w.text+" like "+w.text+" };"))
			if err != nil {
				p.Line, p.Column, p.Expression, p.Says = w.line, w.column, w.text, "the text holds an escape that there is not"
				return
			}
		}
	}
}
