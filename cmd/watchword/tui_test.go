package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/rivo/uniseg"
)

func TestATableIsAlignedAndFitsTheWidth(t *testing.T) {
	table := newTable("NAME", "N", "WORDS")
	table.add("ä", "1", strings.Repeat("word ", 40))
	table.add("日本", "22", "short")
	table.note("-> " + strings.Repeat("advice ", 30))
	var b strings.Builder
	if err := table.print(&b); err != nil {
		t.Fatal(err)
	}
	column := -1
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if w := uniseg.StringWidth(line); w > 100 {
			t.Errorf("%d wide: %q", w, line)
		}
		for _, word := range []string{"WORDS", "word", "short"} {
			if before, _, ok := strings.Cut(line, word); ok && !strings.Contains(line, "->") {
				if w := uniseg.StringWidth(before); column >= 0 && w != column {
					t.Errorf("%q begins at %d, and not at %d", word, w, column)
				} else {
					column = w
				}
			}
		}
	}
	if got, want := strings.Count(b.String(), "word "), 30; got < want {
		t.Errorf("words are missing: %d", got)
	}
	if !strings.Contains(b.String(), "\n    -> advice") {
		t.Errorf("the note is not indented:\n%s", b.String())
	}
}

func TestAnErrorIsOneLine(t *testing.T) {
	err := &failure{What: "start", Why: "two\nlines", Do: "do\nthis"}
	if got, want := oneLine(err.Error()), "start: two, lines; do, this"; got != want {
		t.Errorf("%q, and not %q", got, want)
	}
	wrapped := hsmFailure("open", errors.New("no"))
	if got := wrapped.Error(); got != "open: no" {
		t.Errorf("%q", got)
	}
}

func TestFoldKeepsEveryWord(t *testing.T) {
	for _, s := range []string{"", "one", "one two three four", strings.Repeat("x", 60), "short " + strings.Repeat("y", 60) + " end"} {
		lines := fold(s, 20)
		if got := strings.Join(strings.Fields(strings.Join(lines, " ")), " "); got != s {
			t.Errorf("fold(%q) = %q", s, lines)
		}
		for _, line := range lines {
			if len(line) > 20 && strings.Contains(line, " ") {
				t.Errorf("fold(%q) has the line %q", s, line)
			}
		}
	}
}
