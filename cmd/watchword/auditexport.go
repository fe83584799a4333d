package main

import (
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

// auditFilter are the flags that say which records are meant.
type auditFilter struct{ user, serial, action, outcome, actor, policy, since, until string }

const auditFilterHelp = `BY is who asked: admin:REALM/USER, key:ID, client:NAME or system. With --actor
verifications are among what is found only with '--action verify'. Times are days, such
as 2026-01-31, or as RFC 3339 has them; a day begins at midnight where this runs.`

func (a *auditFilter) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.user, "user", "", "only what concerns this user")
	f.StringVar(&a.serial, "serial", "", "only what concerns this token")
	f.StringVar(&a.action, "action", "", "only this action, such as verify or token.assign")
	f.StringVar(&a.outcome, "outcome", "", "only this outcome: accept, reject, ok, denied or error")
	f.StringVar(&a.actor, "actor", "", "only what this one asked for, such as admin:default/bob or key:ID")
	f.StringVar(&a.policy, "policy", "", "only what this policy decided, alone or with others")
	f.StringVar(&a.since, "since", "", "only from this time on")
	f.StringVar(&a.until, "until", "", "only before this time")
}

func (a *auditFilter) query(c *client, what string) (url.Values, error) {
	q := c.query("user", a.user, "serial", a.serial, "action", a.action, "outcome", a.outcome, "actor", a.actor, "policy", a.policy)
	for _, t := range []struct{ name, text string }{{"since", a.since}, {"until", a.until}} {
		if t.text == "" {
			continue
		}
		at, err := dayOrTime(t.text)
		if err != nil {
			return nil, &failure{What: what, Why: "--" + t.name + " is no time", Do: "name a day, such as 2026-01-31, or a time, such as 2026-01-31T12:00:00Z"}
		}
		q.Set(t.name, at.UTC().Format(time.RFC3339Nano))
	}
	return q, nil
}

// dayOrTime reads a day, which begins at midnight here, or a time.
func dayOrTime(text string) (time.Time, error) {
	if at, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return at, nil
	}
	return time.Parse(time.RFC3339, text)
}

func auditExport(c *client) *cobra.Command {
	var of auditFilter
	var format, out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the audit to a file, oldest first",
		Long: `As JSON lines it holds all that the hashes are over, so that 'watchword audit verify
--against' can hold the audit against it later. As CSV it is for spreadsheets: a cell
that one would take for a formula begins with '.

` + auditFilterHelp,
		Example: "  watchword audit export --out audit.jsonl\n  watchword audit export --format csv --since 2026-01-01 --out january.csv",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "export the audit", method: http.MethodGet, path: "/v1/audit/export", slow: true}
			if format != "jsonl" && format != "csv" {
				return &failure{What: r.what, Why: "there is no such format", Do: "--format is jsonl or csv"}
			}
			var err error
			if r.query, err = of.query(c, r.what); err != nil {
				return err
			}
			r.query.Set("format", format)
			r.shown = func(in io.Reader) (io.Reader, func()) { return progressOf("exporting", in, -1) }
			return c.save(cmd, r, out)
		},
	}
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or csv")
	cmd.Flags().StringVar(&out, "out", "", "new file to write to, instead of printing it")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"jsonl", "csv"}, cobra.ShellCompDirectiveNoFileComp))
	of.flags(cmd)
	return cmd
}

func auditCheckpoint(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoint",
		Short: "Have the HSM sign where all chains of the audit end, and print it",
		Long: `One is signed every minute anyway. Keep what this prints where nobody who can write to
the database can: with it, it can be shown later that something was taken away.`,
		Example: "  watchword audit checkpoint\n  watchword audit checkpoint --json > checkpoint.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, printed, err := get[api.AuditCheckpoint](cmd, c, call{what: "sign a checkpoint", method: http.MethodPost, path: pathTo("audit", "checkpoint")})
			if err != nil || printed {
				return err
			}
			t := newTable("CHAIN", "ENDS AT", "HASH")
			for _, h := range k.Heads {
				t.add(itoa(int(h.Chain)), itoa(int(h.Seq)), h.Hash)
			}
			if err := say(cmd, "The heads of all chains are signed by record %d of chain %d.", k.Seq, k.Chain); err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout())
		},
	}
}

func auditCut(c *client) *cobra.Command {
	var before string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "cut --before TIME",
		Short: "Remove old records behind a signed cut, so that the rest stays provable",
		Long: `Removes the oldest records up to the first that is not older. They are proven first,
must be at least 30 days old, and every sink must have been told of them. The HSM signs
what goes before it goes: the audit is verified from there on. Export it first if you
want to keep it. A removal that is broken off is gone on with by itself.`,
		Example: "  watchword audit cut --before 2025-01-01 --dry-run\n  watchword audit cut --before 2025-01-01",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const what = "cut the audit"
			at, err := dayOrTime(before)
			if err != nil {
				return &failure{What: what, Why: "--before is no time", Do: "name a day, such as 2025-01-31"}
			}
			r, printed, err := get[api.AuditCut](cmd, c, call{
				what: what, method: http.MethodPost, path: pathTo("audit", "cut"), slow: true, body: api.AuditCutRequest{Before: at.UTC(), DryRun: &dryRun},
			})
			if err != nil || printed {
				return err
			}
			switch {
			case dryRun:
				err = say(cmd, "%s would be removed. Nothing was.", plural(r.Records, "record"))
			case r.Chain == nil:
				err = say(cmd, "Nothing is older.")
			default:
				err = say(cmd, "%s removed behind the signed cut in record %d of chain %d.", plural(r.Removed, "record"), *r.Seq, *r.Chain)
			}
			if r.Oldest != nil {
				err = firstOf(err, say(cmd, "What stays begins at %s.", toSecond(*r.Oldest)))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "remove what is older than this day or time")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "look, and remove nothing")
	_ = cmd.MarkFlagRequired("before")
	return cmd
}
