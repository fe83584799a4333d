package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandHasAnExampleThatParses(t *testing.T) {
	commands := 0
	var each func(*cobra.Command)
	each = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		commands++
		own := false
		for line := range strings.Lines(c.Example) {
			line, ours := strings.CutPrefix(line, "  watchword-station ")
			if !ours { // of the other program
				continue
			}
			found, rest, err := newRoot().Find(strings.Fields(line))
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err == nil {
				err = found.Args(found, found.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				continue
			}
			own = own || strings.HasPrefix(found.CommandPath(), c.CommandPath())
		}
		if !own {
			t.Errorf("%s: none of its examples is of it", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(newRoot())
	if commands < 10 {
		t.Errorf("%d commands were looked at", commands)
	}
}
