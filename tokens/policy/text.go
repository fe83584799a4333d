package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The text of a policy is cut into the words that Cedar's own scanner sees. Places
// of errors and slots of templates are found among them, so never in a string or a
// comment.

// What a word is.
type sort uint8

const (
	sortName sort = iota
	sortNumber
	sortString
	sortSign // an operator, a bracket, or what Cedar has no use for
	sortSlot // ?principal, ?resource
)

// A word of a text. Line and column begin at 1; columns count characters.
type word struct {
	sort         sort
	text         string
	offset       int
	line, column int
}

// The bounds of one policy, far from what people write.
const (
	maxText  = 16 << 10 // bytes
	maxWords = 2_000
	maxDeep  = 64 // brackets in brackets
)

// scan cuts a text into words. What cannot be cut, Cedar's scanner refuses too, and
// says better why: the problem is nil then, and the list ends there.
func scan(text string) ([]word, *Problem) {
	var list []word
	line, start := 1, 0 // start is where the line begins
	deep := 0
	for i := 0; i < len(text); {
		at := i
		c := text[i]
		w := word{offset: at, line: line, column: 1 + utf8.RuneCountInString(text[start:at])}
		switch {
		case c == '\n':
			i++
			line, start = line+1, i
			continue
		case c == ' ' || c == '\t' || c == '\r':
			i++
			continue
		case strings.HasPrefix(text[i:], "//"):
			if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(text)
			}
			continue
		case strings.HasPrefix(text[i:], "/*"):
			n := strings.Index(text[i+2:], "*/")
			if n < 0 {
				return list, nil
			}
			comment := text[i : i+n+4]
			if k := strings.LastIndexByte(comment, '\n'); k >= 0 {
				line, start = line+strings.Count(comment, "\n"), i+k+1
			}
			i += len(comment)
			continue
		case letter(c):
			w.sort, i = sortName, through(text, i)
		case c >= '0' && c <= '9':
			w.sort = sortNumber
			for i < len(text) && text[i] >= '0' && text[i] <= '9' {
				i++
			}
		case c == '"':
			w.sort = sortString
			for i++; ; i++ {
				if i >= len(text) || text[i] == '\n' {
					return list, nil
				}
				if text[i] == '"' {
					break
				}
				if text[i] == '\\' && i+1 < len(text) && text[i+1] != '\n' {
					i++
				}
			}
			i++
		case c == '?' && i+1 < len(text) && letter(text[i+1]):
			w.sort, i = sortSlot, through(text, i+1)
		default:
			_, size := utf8.DecodeRuneInString(text[i:])
			w.sort = sortSign
			switch i += size; {
			case i >= len(text):
			case text[at:i+1] == "::", text[at:i+1] == "==", text[at:i+1] == "!=", text[at:i+1] == "<=",
				text[at:i+1] == ">=", text[at:i+1] == "&&", text[at:i+1] == "||":
				i++
			}
			switch c {
			case '(', '[', '{':
				deep++
			case ')', ']', '}':
				deep--
			}
		}
		w.text = text[at:i]
		if list = append(list, w); deep > maxDeep {
			return nil, &Problem{Line: w.line, Column: w.column, Says: fmt.Sprintf("brackets stand more than %d deep in brackets", maxDeep)}
		}
	}
	return list, nil
}

func letter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// through is the end of the name that begins at i.
func through(text string, i int) int {
	for i < len(text) && (letter(text[i]) || text[i] >= '0' && text[i] <= '9') {
		i++
	}
	return i
}

// The type of the entity that stands in for a slot while the text is parsed. No
// policy can write it: reserved refuses the name.
const slotType = "__slot"

// The slots.
const (
	slotPrincipal = "principal"
	slotResource  = "resource"
)

// slotWider is by how many characters the entity of a slot is wider than the slot.
const slotWider = len(slotType+`::""`) - len("?")

// A draft is one text, ready to be parsed.
type draft struct {
	id    string
	text  string // as it was written
	words []word
	slots []word
}

// newDraft reads a text. A problem names its place.
func newDraft(id, text string) (*draft, *Problem) {
	fail := func(p *Problem) (*draft, *Problem) {
		p.ID = id
		return nil, p
	}
	if len(text) > maxText {
		return fail(&Problem{Says: fmt.Sprintf("the text is longer than %d bytes", maxText)})
	}
	if i := strings.IndexFunc(strings.ToValidUTF8(text, "\x00"), func(r rune) bool { return r == 0 }); i >= 0 {
		before := text[:i]
		line := 1 + strings.Count(before, "\n")
		return fail(&Problem{Line: line, Column: 1 + utf8.RuneCountInString(before[1+strings.LastIndexByte(before, '\n'):]), Says: "the text holds a byte that is no UTF-8, or zero"})
	}
	list, p := scan(text)
	if p != nil {
		return fail(p)
	}
	if len(list) > maxWords {
		w := list[maxWords]
		return fail(&Problem{Line: w.line, Column: w.column, Says: fmt.Sprintf("the policy has more than %d words: make it several", maxWords)})
	}
	d := &draft{id: id, text: text, words: list}
	for _, w := range list {
		switch {
		case w.sort == sortName && w.text == slotType:
			return fail(&Problem{Line: w.line, Column: w.column, Expression: w.text, Says: "this name is reserved"})
		case w.sort != sortSlot:
		case w.text == "?"+slotPrincipal || w.text == "?"+slotResource:
			d.slots = append(d.slots, w)
		default:
			return fail(&Problem{Line: w.line, Column: w.column, Expression: w.text, Says: "there are the slots ?principal and ?resource, and no others"})
		}
	}
	return d, nil
}

// filled is the text with an entity in each slot.
func (d *draft) filled() []byte {
	var b strings.Builder
	last := 0
	for _, s := range d.slots {
		b.WriteString(d.text[last:s.offset])
		b.WriteString(slotType + `::"` + s.text[1:] + `"`)
		last = s.offset + len(s.text)
	}
	b.WriteString(d.text[last:])
	return []byte(b.String())
}

// place is where a line and column of the filled text are in the written one.
func (d *draft) place(line, column int) (int, int) {
	shift := 0
	for _, s := range d.slots {
		if s.line != line || s.column+shift >= column {
			continue
		}
		if column < s.column+shift+len(s.text)+slotWider { // inside
			return line, s.column
		}
		shift += slotWider
	}
	return line, column - shift
}
