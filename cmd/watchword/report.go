package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func reportCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "report",
		Short:   "Report on all users and tokens: what they have, and what is wrong with it",
		Example: "  watchword report summary\n  watchword report credentials --csv --out credentials.csv",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(reportCredentials(c), reportSummary(c))
	return c.flags(cmd)
}

// findings are what the credential report finds.
var findings = []string{"no_second_factor", "unused", "sha1", "expired", "locked", "pin_due", "never_used", "drift"}

func reportCredentials(c *client) *cobra.Command {
	var csv, unowned bool
	var unused, limit int
	var find, out string
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Report every user and token with type, state, last use and what is wrong",
		Long: `A line for each user and each token that the user holds; users without a token have
one, too. With --unowned the tokens that nobody holds follow. FINDINGS are

  no_second_factor  the user has no token that could let anybody in
  unused            it was not used for --unused-days days
  never_used        it was never used
  sha1              its codes are made with SHA-1
  expired           its day is past
  drift             its clock is far off
  locked, pin_due   the user is locked; the PIN must be changed

--csv and --json write all there is, as it comes, with more columns than fit a
terminal.`,
		Example: "  watchword report credentials --find no_second_factor\n  watchword report credentials --unused-days 90 --find unused\n" +
			"  watchword report credentials --csv --unowned --out credentials.csv",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "report the credentials", method: http.MethodGet, path: pathTo("reports", "credentials"), query: c.query("find", find), slow: true}
			if unowned {
				r.query.Set("unowned", "true")
			}
			if unused != 0 {
				r.query.Set("unused_days", itoa(unused))
			}
			switch {
			case csv && c.json:
				return &failure{What: r.what, Why: "--csv and --json exclude each other"}
			case out != "" && !csv && !c.json:
				return &failure{What: r.what, Why: "--out is for --csv and --json"}
			case limit < 0:
				return &failure{What: r.what, Why: "--limit is negative", Do: "0 lists all"}
			case csv:
				r.query.Set("format", "csv")
				return c.save(cmd, r, out)
			}
			r.query.Set("format", "json")
			if c.json {
				return c.save(cmd, r, out)
			}
			return c.listCredentials(cmd, r, limit)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&csv, "csv", false, "as CSV, all rows and columns")
	f.StringVar(&out, "out", "", "new file to write to; with --csv or --json")
	f.BoolVar(&unowned, "unowned", false, "also the tokens that nobody holds")
	f.IntVar(&unused, "unused-days", 0, "from how many days on a token counts as unused (default 90)")
	f.StringVar(&find, "find", "", "only where this is found: "+strings.Join(findings, ", "))
	_ = cmd.RegisterFlagCompletionFunc("find", cobra.FixedCompletions(findings, cobra.ShellCompDirectiveNoFileComp))
	limitFlag(cmd, &limit)
	return cmd
}

// listCredentials prints the first rows of the report, without waiting for the
// others.
func (c *client) listCredentials(cmd *cobra.Command, r call, limit int) error {
	stream, err := c.open(cmd.Context(), r)
	if err != nil {
		return err
	}
	defer stream.Close()
	unreadable := &failure{What: r.what, Why: "the answer cannot be read, or broke off", Do: "try again"}
	in := json.NewDecoder(stream)
	// {"items":[ROW,ROW...]}
	for {
		token, err := in.Token()
		if err != nil {
			return unreadable
		}
		if token == json.Delim('[') {
			break
		}
	}
	t := newTable("USER", "PIN", "TOKEN", "TYPE", "STATE", "LAST USED", "FINDINGS")
	for in.More() {
		if limit > 0 && len(t.rows) == limit {
			hint("there is more than these %d; --limit 0 lists all", limit)
			return t.print(cmd.OutOrStdout())
		}
		var row api.CredentialRow
		if in.Decode(&row) != nil {
			return unreadable
		}
		state := row.State
		if row.Serial == "" {
			state = row.UserState
		}
		t.add(orDash(row.User), orDash(row.Pin), orDash(row.Serial), orDash(row.Type), orDash(state), toMinuteOf(row.LastUsed), orDash(strings.Join(row.Findings, " ")))
	}
	// What ends as it must is whole.
	for _, want := range []json.Delim{']', '}'} {
		if token, err := in.Token(); err != nil || token != want {
			return unreadable
		}
	}
	return printList(cmd, t, "there is nothing to report")
}

func reportSummary(c *client) *cobra.Command {
	var unused int
	cmd := &cobra.Command{
		Use:     "summary",
		Short:   "Count users and tokens, and what is wrong with them",
		Example: "  watchword report summary\n  watchword report summary --unused-days 180 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "report the summary", path: pathTo("reports", "summary"), query: c.query(), slow: true}
			if unused != 0 {
				r.query.Set("unused_days", itoa(unused))
			}
			s, printed, err := get[api.Summary](cmd, c, r)
			if err != nil || printed {
				return err
			}
			return printSummary(cmd, &s)
		},
	}
	cmd.Flags().IntVar(&unused, "unused-days", 0, "from how many days on a token counts as unused (default 90)")
	return cmd
}

// printSummary prints everything counted.
func printSummary(cmd *cobra.Command, s *api.Summary) error {
	err := say(cmd, "%s, %d of them disabled; %s that nobody holds.", plural(s.Users, "user"), s.Disabled, plural(s.Unowned, "token"))
	if err != nil {
		return err
	}
	kinds := newTable("TYPE", "STATE", "TOKENS")
	for _, k := range s.Tokens {
		kinds.add(string(k.Type), string(k.State), itoa(k.Count))
	}
	found := newTable("FINDING", "HOW MANY")
	for _, f := range s.Findings {
		found.add(string(f.Finding), itoa(f.Count))
	}
	batches := newTable("IMPORT", "TOKENS", "RESYNCS IN 90 DAYS", "FILE")
	for _, b := range s.Resyncs {
		batches.add(fmt.Sprint(b.Batch), itoa(b.Tokens), itoa(b.Resyncs), orDash(b.Name))
	}
	for _, t := range []*table{kinds, found, batches} {
		if len(t.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout()); err != nil {
			return err
		}
		if err := t.print(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	return nil
}
