package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"watchword/api"
)

func userImport(c *client) *cobra.Command {
	var dryRun, update bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add users from a CSV file, or bring them up to date",
		Long: `Reads a CSV file with a header row; - is standard input. The columns are

  name         by which the user signs in; the only one that must be there
  display      full name
  mail         mail address
  external_id  id in another directory
  groups       separated by ;
  attr:NAME    an attribute, a column each

The whole file is checked before anything is written: where a record is bad, its
line and column are told and nothing is done. Users who exist already stay as they
are; with --update what the file has columns for is set for them too. 'watchword
user export' writes such a file.`,
		Example: "  watchword user import people.csv --dry-run\n  watchword user import people.csv --update",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "import users from " + args[0]
			file, _, size, err := openSeeds(args[0])
			if err != nil {
				return &failure{What: what, Why: plainCause(err), Do: "name a CSV file, or - for standard input"}
			}
			defer file.Close()
			query := c.query()
			if dryRun {
				query.Set("dry_run", "true")
			}
			if update {
				query.Set("update", "true")
			}
			stream, done := withProgress(file, size)
			defer done()
			answer, printed, err := get[api.UserImportReport](cmd, c, call{
				what: what, method: http.MethodPost, path: pathTo("users", "import"), query: query,
				stream: stream, length: size, kind: "text/csv", slow: true,
			})
			done()
			var refused *refusal
			if errors.As(err, &refused) && len(refused.problem.Report) > 0 && json.Unmarshal(refused.problem.Report, &answer) == nil {
				if c.json {
					return firstOf(printJSON(cmd.OutOrStdout(), refused.problem.Report), err)
				}
				return firstOf(printUserReport(cmd, &answer, false), err)
			}
			if err == nil && !printed {
				err = printUserReport(cmd, &answer, true)
			}
			if err == nil && answer.DryRun && answer.Rejected > 0 {
				err = &failure{What: what, Why: plural(answer.Rejected, "record") + " would keep the file from being imported", Do: "correct the file"}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check everything, write nothing")
	cmd.Flags().BoolVar(&update, "update", false, "set what the file has columns for, also for users who exist already")
	return cmd
}

// printUserReport lists what was not just done, and says how many were.
func printUserReport(cmd *cobra.Command, r *api.UserImportReport, done bool) error {
	t := newTable("LINE", "NAME", "OUTCOME", "REASON")
	for _, rec := range r.Records {
		if rec.Reason != "" || rec.Outcome == "rejected" {
			t.add(fmt.Sprint(rec.Line), orDash(rec.Name), rec.Outcome, orDash(rec.Reason))
		}
	}
	if len(t.rows) > 0 {
		if err := t.print(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if r.Omitted > 0 {
		hint("%s more are not listed", plural(r.Omitted, "record"))
	}
	if !done {
		return nil
	}
	were, what := "were", ""
	switch {
	case r.DryRun:
		were, what = "would be", "Nothing was written: "
	case r.Created == 1:
		were = "was"
	}
	return say(cmd, "%s%s %s added, %d changed, %d stay as they are.", what, plural(r.Created, "user"), were, r.Updated, r.Unchanged)
}

func userExport(c *client) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all users as a CSV file, as 'user import' reads it",
		Long: `Writes the users of a realm with their names, mail addresses, external ids, groups
and attributes. A cell that a spreadsheet would take for a formula begins with ',
which 'watchword user import' takes off again.`,
		Example: "  watchword user export > people.csv\n  watchword user export --out people.csv",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.save(cmd, call{what: "export users", path: "/v1/users/export", query: c.query(), slow: true}, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "new file to write to, instead of printing it")
	return cmd
}

// save writes an answer as it comes, to a new file or to standard output.
func (c *client) save(cmd *cobra.Command, r call, out string) error {
	r.method = http.MethodGet
	file, err := createNew(out)
	if err != nil {
		return &failure{What: r.what, Why: out + ": " + plainCause(err), Do: "name a new file with --out"}
	}
	stream, err := c.open(cmd.Context(), r)
	if err != nil {
		if file != nil {
			file.Close()
			os.Remove(out)
		}
		return err
	}
	defer stream.Close()
	if file == nil {
		if onTerminal(os.Stdout) {
			return printClean(cmd.OutOrStdout(), r, stream)
		}
		if _, err := io.Copy(cmd.OutOrStdout(), stream); err != nil {
			return brokeOff(r, err)
		}
		return nil
	}
	from, done := io.Reader(stream), func() {}
	if r.shown != nil {
		from, done = r.shown(stream)
	}
	_, err = io.Copy(file, from)
	done()
	if err != nil {
		file.Close()
		os.Remove(out) // half of it looks like all of it
		return brokeOff(r, err)
	}
	if err := firstOf(file.Sync(), file.Close()); err != nil {
		return &failure{What: r.what, Why: out + ": " + plainCause(err)}
	}
	return say(cmd, "It is in %s.", out)
}

// printClean prints lines that others wrote on a terminal.
func printClean(w io.Writer, r call, stream io.Reader) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if _, err := fmt.Fprintln(w, clean(lines.Text())); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return brokeOff(r, err)
	}
	return nil
}
