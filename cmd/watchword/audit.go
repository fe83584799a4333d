package main

import (
	"io"
	"net/http"
	"os"
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
	audit.AddCommand(auditList(c), auditVerify(c), auditExport(c), auditCheckpoint(c), auditCut(c))
	return c.flags(audit)
}

func auditList(c *client) *cobra.Command {
	var of auditFilter
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what happened, newest first",
		Long:    auditFilterHelp,
		Example: "  watchword audit list --user alice --outcome reject\n  watchword audit list --actor admin:default/bob --since 2026-01-01\n  watchword audit list --action token.assign --limit 0 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := of.query(c, "list the audit")
			if err != nil {
				return err
			}
			items, printed, err := list[api.AuditItem](cmd, c, call{
				what: "list the audit", path: pathTo("audit"),
				query: query,
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
	of.flags(cmd)
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
	var against string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that the audit is whole: exits 0 if intact, 1 if not, 2 on error",
		Long: `Has the server read every chain, from its beginning or from a signed cut on, and
check each hash and each signed checkpoint. It takes as long as it takes.

With --against it is held against what was kept elsewhere, too: the JSON lines that a
sink or 'watchword audit export' wrote. Each of their records must be there as it was. So
it is found when somebody took away the end of a chain, which nothing in the database
itself can show.`,
		Example: "  watchword audit verify\n  watchword audit verify --against kept.jsonl\n  cat /mnt/archive/*.jsonl | watchword audit verify --against -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if against != "" {
				return c.compareAudit(cmd, against)
			}
			r, printed, err := get[api.AuditReport](cmd, c, call{what: "verify the audit", path: pathTo("audit", "verify"), slow: true})
			if err != nil {
				return err
			}
			if !printed {
				if err := printVerified(cmd, &r); err != nil {
					return err
				}
			}
			if !r.Intact {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "file with JSON lines that a sink or an export wrote; - reads standard input")
	return cmd
}

// printVerified says what a verification found.
func printVerified(cmd *cobra.Command, r *api.AuditReport) error {
	word := "intact"
	if !r.Intact {
		word = "NOT intact"
	}
	err := say(cmd, "The audit is %s: %s in %s, %s.", word, plural(r.Records, "record"), plural(r.Chains, "chain"), plural(r.Checkpoints, "signed checkpoint"))
	if r.Cuts > 0 {
		err = firstOf(err, say(cmd, "What was before was removed behind %s.", plural(r.Cuts, "signed cut")))
	}
	if r.Unremoved > 0 {
		err = firstOf(err, say(cmd, "%s are still to be removed behind a signed cut.", plural(r.Unremoved, "record")))
	}
	for _, p := range r.Problems {
		err = firstOf(err, say(cmd, "  %s", "- "+p))
	}
	return err
}

// compareAudit verifies the audit against a file.
func (c *client) compareAudit(cmd *cobra.Command, path string) error {
	const what = "verify the audit"
	in := io.NopCloser(cmd.InOrStdin())
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return &failure{What: what, Why: path + ": " + plainCause(err), Do: "name the file that a sink or 'watchword audit export' wrote"}
		}
		in = f
	}
	defer in.Close()
	r, printed, err := get[api.AuditComparison](cmd, c, call{
		what: what, method: http.MethodPost, path: pathTo("audit", "verify"), stream: in, length: -1, kind: "application/x-ndjson", slow: true,
	})
	if err != nil {
		return err
	}
	if !printed {
		err := printVerified(cmd, &api.AuditReport{
			Intact: r.Intact, Records: r.Records, Chains: r.Chains, Checkpoints: r.Checkpoints, Cuts: r.Cuts, Unremoved: r.Unremoved, Problems: r.Problems,
		})
		if err := firstOf(err, say(cmd, "%s of the file were looked for; %d of them went behind a signed cut.", plural(r.Compared, "record"), r.Removed)); err != nil {
			return err
		}
	}
	if !r.Intact {
		return errNo
	}
	return nil
}
