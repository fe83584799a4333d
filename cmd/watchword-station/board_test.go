package main

import (
	"bytes"
	"strings"
	"testing"

	"watchword/webauthn/station"
)

// Every word that the board shows has its letters, and lines that are as long as each
// other; what keys call themselves cannot steer the terminal.
func TestTheBoardIsReadable(t *testing.T) {
	for _, word := range []string{"PLUG IN", "TOUCH", "DONE", "ASIDE", "WAIT"} {
		for _, c := range word {
			rows, ok := letters[c]
			if !ok {
				t.Errorf("there is no letter %c", c)
			}
			for _, row := range rows {
				if len(row) != len(rows[0]) {
					t.Errorf("letter %c is crooked", c)
				}
			}
		}
		if n := strings.Count(enlarge(word), "\n"); n != 5 {
			t.Errorf("%s is %d lines high", word, n)
		}
	}
	var out bytes.Buffer
	b := newBoard(&out, 2, 0)
	b.big = true
	b.tell(station.Event{Event: "next", Number: 1, User: "alice"})
	b.tell(station.Event{Event: "plugged", Number: 1, Key: &station.Key{Maker: "Evil\x1b[2J", Name: "Key\n2", Path: "/dev/x"}})
	b.tell(station.Event{Event: "aside", Number: 1, Reason: "it \x1b]0;x\a is refused", Left: "it was reset"})
	b.tell(station.Event{Event: "end", Enrolled: 0, Aside: 1})
	text := out.String()
	for _, want := range []string{"█", "Plug in key 1 (2 in all), for alice.", "Key 1: Evil", "it was reset", "0 enrolled, 1 set aside."} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%q", want, text)
		}
	}
	for _, bad := range []string{"\x1b[2J", "\x1b]0", "Key\n2"} {
		if strings.Contains(text, bad) {
			t.Errorf("the terminal is steered by %q", bad)
		}
	}
}
