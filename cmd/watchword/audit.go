package main

import (
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func auditCommand(c *client) *cobra.Command {
	audit := &cobra.Command{
		Use:     "audit",
		Short:   "Say what happened, and prove that nothing was altered",
		Example: "  watchword audit list --user alice\n  watchword audit verify",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	audit.AddCommand(auditList(c), auditVerify(c))
	return c.flags(audit)
}

func auditList(c *client) *cobra.Command {
	var user, serial, action, outcome string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what happened, newest first",
		Example: "  watchword audit list --user alice --outcome reject\n  watchword audit list --action token.assign --limit 0 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			items, printed, err := list[api.AuditItem](cmd, c, call{
				what: "list the audit", path: pathTo("audit"),
				query: c.query("user", user, "serial", serial, "action", action, "outcome", outcome),
			}, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("TIME", "ACTION", "OUTCOME", "USER", "TOKEN", "BY", "REASON AND DETAIL")
			for _, i := range items {
				t.add(toSecond(i.Time), i.Action, i.Outcome, orDash(i.User), orDash(i.Serial), i.Actor, orDash(reasonOf(&i)))
			}
			return printList(cmd, t, "nothing of the kind has happened")
		},
	}
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "only what concerns this user")
	f.StringVar(&serial, "serial", "", "only what concerns this token")
	f.StringVar(&action, "action", "", "only this action, such as verify or token.assign")
	f.StringVar(&outcome, "outcome", "", "only this outcome: accept, reject, ok, denied or error")
	limitFlag(cmd, &limit)
	return cmd
}

// shorten cuts hashes and signatures, which --json has in full.
func shorten(s string, most int) string {
	if letters := []rune(s); len(letters) > most {
		return string(letters[:most]) + "..."
	}
	return s
}

// reasonOf is the reason with what else is known, in one text.
func reasonOf(i *api.AuditItem) string {
	var parts []string
	if i.Reason != "" {
		parts = append(parts, i.Reason)
	}
	if i.Source != "" {
		parts = append(parts, "from "+i.Source)
	}
	for _, f := range i.Detail {
		if f.Value != "" {
			parts = append(parts, f.Name+" "+shorten(f.Value, 24))
		}
	}
	return strings.Join(parts, ", ")
}

func auditVerify(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Prove that the audit is whole: exits 0 if intact, 1 if not, 2 on error",
		Long: `Has the server read every chain from its beginning and check each hash and each
signed checkpoint. It takes as long as it takes.`,
		Example: "  watchword audit verify\n  watchword audit verify --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, printed, err := get[api.AuditReport](cmd, c, call{what: "verify the audit", path: pathTo("audit", "verify"), slow: true})
			if err != nil {
				return err
			}
			if !printed {
				word := "intact"
				if !r.Intact {
					word = "NOT intact"
				}
				err := say(cmd, "The audit is %s: %s in %s, %s.", word, plural(r.Records, "record"), plural(r.Chains, "chain"), plural(r.Checkpoints, "signed checkpoint"))
				for _, p := range r.Problems {
					err = firstOf(err, say(cmd, "  %s", "- "+p))
				}
				if err != nil {
					return err
				}
			}
			if !r.Intact {
				return errNo
			}
			return nil
		},
	}
}
