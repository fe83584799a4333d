package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ReadFile makes a Source of a text with any number of policies and templates, each of
// which says its id by the annotation @id("..."). A template is what has a slot. What
// is wrong with them otherwise Compile says; lines in a Problem of it count from the
// policy's first.
func ReadFile(text string) (Source, error) {
	var src Source
	var errs Errors
	list, p := scan(text)
	if p != nil {
		return src, &Errors{Problems: []Problem{*p}}
	}
	from, first := 0, 0 // where the policy begins: in the text, and among the words
	for i, w := range list {
		if w.text != ";" || w.sort != sortSign {
			continue
		}
		words := list[first : i+1]
		to := w.offset + len(w.text)
		item := Item{Text: strings.TrimSpace(text[from:to])}
		from, first = to, i+1
		id, says := annotated(words)
		if says != "" {
			errs.add(Problem{Line: words[0].line, Column: words[0].column, Says: says})
			continue
		}
		item.ID = id
		slots := false
		for _, w := range words {
			slots = slots || w.sort == sortSlot
		}
		if slots {
			src.Templates = append(src.Templates, item)
		} else {
			src.Policies = append(src.Policies, item)
		}
	}
	if rest := uncommented(text[from:]); rest != "" { // also what could not be cut into words
		at := len(text) - len(rest)
		line := 1 + strings.Count(text[:at], "\n")
		column := 1 + utf8.RuneCountInString(text[strings.LastIndexByte(text[:at], '\n')+1:at])
		errs.add(Problem{Line: line, Column: column, Says: "what begins here does not end: a semicolon must stand behind a policy"})
	}
	return src, errs.err()
}

// uncommented is a text from its first word on.
func uncommented(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		var found bool
		switch {
		case strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			var rest string
			if _, rest, found = strings.Cut(text[2:], "*/"); !found {
				return text
			}
			text = rest
		default:
			return text
		}
	}
}

// annotated is the id that a policy's annotation says.
func annotated(list []word) (id, says string) {
	for i := 0; i+4 < len(list) && list[i].text == "@"; i++ {
		if list[i+1].text == "id" && list[i+2].text == "(" && list[i+3].sort == sortString && list[i+4].text == ")" {
			id, err := strconv.Unquote(list[i+3].text)
			if err != nil {
				return "", fmt.Sprintf("the id %s is no text", list[i+3].text)
			}
			return id, ""
		}
		for i+1 < len(list) && list[i+1].text != "@" && list[i].text != ")" {
			i++
		}
	}
	return "", `the policy has no id: write @id("...") before it`
}
