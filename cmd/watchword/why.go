package main

import (
	"github.com/spf13/cobra"

	"watchword/api"
)

func whyCommand(c *client) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "why USER",
		Short: "Explain a user's last attempts, and what to do",
		Long: `Lists what last happened to a user, newest first: each attempt with its reason in
words and, the first time, what to do about it. Users themselves are never told: to
them every reject looks the same.`,
		Example: "  watchword why alice\n  watchword why alice --limit 50 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "explain " + args[0], path: pathTo("users", args[0], "why"), query: c.query()}
			if limit < 1 || limit > pageSize {
				return &failure{What: r.what, Why: "--limit is not between 1 and 500"}
			}
			r.query.Set("limit", itoa(limit))
			page, printed, err := get[api.ExplanationPage](cmd, c, r)
			if err != nil || printed {
				return err
			}
			t := newTable("TIME", "OUTCOME", "THROUGH", "TOKEN", "WHAT HAPPENED")
			told := map[string]bool{"": true} // each advice once, under the newest that it is for
			for _, x := range page.Items {
				t.add(toSecond(x.Time), x.Outcome, through(x.Client, x.Source), orDash(x.Serial), x.Words)
				if !told[x.Advice] {
					t.note("-> " + x.Advice)
				}
				told[x.Advice] = true
			}
			return printList(cmd, t, "nothing has happened to "+args[0]+" yet")
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many to show at most (up to 500)")
	return c.flags(cmd)
}

// through is where an attempt came from: the client's name and its address.
func through(client, source string) string {
	if source == "" {
		return orDash(client)
	}
	if client == "" {
		return source
	}
	return client + " " + source
}
