package main

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func importList(c *client) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the imports, newest first",
		Example: "  watchword import list\n  watchword import list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			imports, printed, err := list[api.Import](cmd, c, call{what: "list the imports", path: pathTo("imports"), query: c.query()}, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "IMPORTED", "REALM", "FORMAT", "TOKENS", "DUPLICATE", "REJECTED", "REMOVED", "BY", "FILE")
			for _, i := range imports {
				t.add(fmt.Sprint(i.Id), toMinute(i.Published), i.Realm, i.Format, itoa(i.Tokens), itoa(i.Duplicate), itoa(i.Rejected), removedOf(&i), i.Actor, i.Name)
			}
			return printList(cmd, t, "nothing was imported yet")
		},
	}
	limitFlag(cmd, &limit)
	return cmd
}

// removedOf is how many tokens undoing an import has removed.
func removedOf(i *api.Import) string {
	if i.Removed == nil {
		return "-"
	}
	return itoa(*i.Removed)
}

// batchArg refuses what is no import's number.
func batchArg(what, arg string) error {
	if n, err := strconv.ParseInt(arg, 10, 64); err != nil || n < 1 {
		return &failure{What: what, Why: "an import is named by its number", Do: "see watchword import list"}
	}
	return nil
}

func importShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show IMPORT",
		Short:   "Show an import, and what is there of it",
		Example: "  watchword import show 3\n  watchword token list --batch 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "show import " + args[0]
			if err := batchArg(what, args[0]); err != nil {
				return err
			}
			d, printed, err := get[api.ImportDetail](cmd, c, call{what: what, path: pathTo("imports", args[0])})
			if err != nil || printed {
				return err
			}
			return importFacts(&d).print(cmd.OutOrStdout())
		},
	}
}

// importFacts are what there is to know of an import, one a line.
func importFacts(d *api.ImportDetail) *table {
	i := &d.Import
	t := newTable("IMPORT", fmt.Sprint(i.Id))
	t.add("file", i.Name)
	t.add("sha256", i.Sha256)
	t.add("format", i.Format)
	t.add("realm", i.Realm)
	t.add("by", i.Actor)
	t.add("when", toSecond(i.Published))
	t.add("created", plural(i.Tokens, "token"))
	t.add("duplicate", plural(i.Duplicate, "record"))
	t.add("rejected", plural(i.Rejected, "record"))
	if i.Undone != nil {
		t.add("undone", fmt.Sprintf("%s, %s removed", toSecond(*i.Undone), plural(*i.Removed, "token")))
	}
	for _, state := range slices.Sorted(maps.Keys(d.States)) {
		t.add(state, plural(d.States[state], "token"))
	}
	t.add("untouched", plural(d.Fresh, "token")+" that undoing it would remove")
	for _, m := range d.Models {
		t.add("model", fmt.Sprintf("%s (%s)", orDash(m.Model), plural(m.Tokens, "token")))
	}
	return t
}

func importUndo(c *client) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "undo IMPORT",
		Short: "Remove those tokens of an import that nobody ever got",
		Long: `Removes the tokens of an import that were never assigned nor changed in any other
way, with their seeds, and keeps the others. Their serials can be imported again.
On a terminal it asks first; elsewhere it needs --yes.`,
		Example: "  watchword import undo 3\n  watchword import undo 3 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "undo import " + args[0]
			if err := batchArg(what, args[0]); err != nil {
				return err
			}
			if !yes {
				if err := confirmUndo(cmd, c, what, args[0]); err != nil {
					return err
				}
			}
			d, printed, err := get[api.ImportDetail](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("imports", args[0], "undo"), slow: true})
			if err != nil || printed {
				return err
			}
			kept := 0
			for _, n := range d.States {
				kept += n
			}
			removed := 0
			if d.Import.Removed != nil {
				removed = *d.Import.Removed
			}
			rest := "none is left."
			if kept > 0 {
				rest = fmt.Sprintf("%d kept, for they were assigned or changed.", kept)
			}
			return say(cmd, "Import %d is undone: %s removed; %s", d.Import.Id, plural(removed, "token"), rest)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmUndo asks where a person can answer.
func confirmUndo(cmd *cobra.Command, c *client, what, id string) error {
	if !onTerminal(os.Stdin) {
		return &failure{What: what, Why: "nobody can be asked", Do: "give --yes; nothing was done"}
	}
	quiet := *c
	quiet.json = false
	d, _, err := get[api.ImportDetail](cmd, &quiet, call{what: what, path: pathTo("imports", id)})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "This destroys %s of %s (%s). Type the import's number to go on: ", plural(d.Fresh, "seed"), clean(d.Import.Name), plural(d.Import.Tokens, "token"))
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if strings.TrimSpace(line) != id {
		return &failure{What: what, Why: "it was not confirmed", Do: "nothing was done"}
	}
	return nil
}
