package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens/policy"
)

// versionNumber is a version, as people write it.
func versionNumber(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return n, err
}

func policyTest(c *client) *cobra.Command {
	var q api.SimulationQuery
	var principal, in, user, serial, at, source, path, nas, caller, draft, list string
	var roles, groups []string
	var mfa time.Duration
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Ask whether somebody might do something, and which policies would decide",
		Long: `Nothing is done. Who asks is --as key:ID, client:NAME or admin:REALM/USER, or --role. What
is not said is as it is now. With --draft the policies of a file are asked in the place
of the live ones. With --queries up to 30 questions are read from a JSON file, as
POST /v1/policies/simulate takes them. Exits 1 if any answer is no.`,
		Example: "  watchword policy test --role helpdesk --action token.revoke --serial 24680017\n" +
			"  watchword policy test --as client:vpn --action verify --user alice --draft night.cedar",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const what = "ask the policies"
			body := api.Simulation{Queries: []api.SimulationQuery{q}}
			if list != "" {
				text, err := os.ReadFile(list)
				if err != nil {
					return &failure{What: what, Why: list + ": " + plainCause(err)}
				}
				if err := json.Unmarshal(text, &body.Queries); err != nil {
					return &failure{What: what, Why: list + " is no JSON array of questions: " + err.Error()}
				}
			} else {
				one := &body.Queries[0]
				if one.Action == "" {
					return &failure{What: what, Why: "no action is named", Do: "name one with --action"}
				}
				for _, s := range []struct {
					text string
					to   **string
				}{{principal, &one.Principal}, {in, &one.In}, {c.realm, &one.Realm}, {user, &one.User}, {serial, &one.Serial}, {source, &one.Source}, {nas, &one.Nas}, {caller, &one.Caller}} {
					if s.text != "" {
						*s.to = &s.text
					}
				}
				if path != "" {
					p := api.SimulationQueryPath(path)
					one.Path = &p
				}
				if len(roles) > 0 {
					one.Roles = &roles
				}
				if len(groups) > 0 {
					one.Groups = &groups
				}
				if cmd.Flags().Changed("mfa-age") {
					age := int64(mfa / time.Second)
					one.MfaAge = &age
				}
				if at != "" {
					t, err := time.Parse(time.RFC3339, at)
					if err != nil {
						return &failure{What: what, Why: at + " is no time such as 2026-03-02T23:00:00Z"}
					}
					one.At = &t
				}
			}
			if draft != "" {
				src, err := readPolicies(what, draft)
				if err != nil {
					return err
				}
				d := draftOf(&src)
				body.Draft = &d
			}
			got, printed, err := get[api.SimulationPage](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("policies", "simulate"), body: body})
			if err != nil {
				return err
			}
			t := newTable("ANSWER", "WHO", "ACTION", "TO", "POLICIES", "WHY")
			no := false
			for _, r := range got.Items {
				answer := "allow"
				if !r.Allow {
					answer, no = "deny", true
				}
				t.add(answer, r.Principal, r.Action, r.Resource, strings.Join(r.Policies, " "), valueOf(r.Reason))
			}
			if !printed {
				if err := t.print(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			if no {
				return errNo
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&principal, "as", "", "who asks: key:ID, client:NAME or admin:REALM/USER")
	f.StringSliceVar(&roles, "role", nil, "the roles that they have, in the place of their own")
	f.StringVar(&in, "in", "", "the one realm in which a person acts (default all)")
	f.StringVar(&q.Action, "action", "", "what is done, as the audit names it")
	f.StringVar(&user, "user", "", "the user that it is done to")
	f.StringVar(&serial, "serial", "", "the token that it is done to")
	f.StringSliceVar(&groups, "group", nil, "the groups of the user, in the place of those there are")
	f.StringVar(&at, "at", "", "when (default now)")
	f.StringVar(&source, "source", "", "the address that the request comes from")
	f.StringVar(&path, "path", "", "radius, http or console")
	f.DurationVar(&mfa, "mfa-age", 0, "how long ago they proved a token (default: they did not)")
	f.StringVar(&nas, "nas", "", "the NAS-Identifier, or the name of the application")
	f.StringVar(&caller, "caller", "", "the address of the person")
	f.StringVar(&draft, "draft", "", "file with policies to ask in the place of the live ones")
	f.StringVar(&list, "queries", "", "JSON file with an array of questions")
	return cmd
}

func policyReplay(c *client) *cobra.Command {
	var last int
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Say what the policies of a file would have changed among what was decided",
		Long: `Reads the last audit records and asks the file's policies, in the place of the live ones,
what they would have decided: with the roles, groups and tokens of now. Nothing is
stored.`,
		Example: "  watchword policy replay night.cedar --last 5000",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "replay the audit against " + args[0]
			src, err := readPolicies(what, args[0])
			if err != nil {
				return err
			}
			r, printed, err := get[api.Replayed](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("policies", "replay"), slow: true,
				body: api.Replay{Draft: draftOf(&src), Last: last}})
			if err != nil || printed {
				return err
			}
			if err := say(cmd, "%s read, %s asked again, %d would be otherwise: %d allowed, %d denied.",
				plural(r.Read, "record"), plural(r.Compared, "decision"), r.Changed, r.Allowed, r.Denied); err != nil {
				return err
			}
			for _, l := range r.Left {
				hint("%s left out: %s", plural(l.Count, "decision"), l.Why)
			}
			if len(r.Changes) == 0 {
				return nil
			}
			t := newTable("RECORD", "TIME", "WHO", "ACTION", "REALM", "USER", "SERIAL", "WAS", "WOULD BE")
			for _, x := range r.Changes {
				t.add(fmt.Sprint(x.Record), toSecond(x.Time), x.Actor, x.Action, valueOf(x.Realm), valueOf(x.User), valueOf(x.Serial),
					strings.TrimSpace(verdict(x.Was)+" "+strings.Join(valueOf(x.WasPolicies), " ")), strings.TrimSpace(verdict(x.Now)+" "+strings.Join(valueOf(x.NowPolicies), " ")))
			}
			return t.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&last, "last", 1000, "how many audit records to read, up to 100,000")
	return cmd
}

func verdict(allow bool) string {
	if allow {
		return "allowed"
	}
	return "denied"
}

func policyTemplate(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "template",
		Short:   "Show and delete templates; 'policy put' stores them",
		Example: "  watchword policy template show resync",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	remove := policyRemoval(c, "template ", "Delete templates that have no links", "watchword policy template delete resync",
		func(ids *[]string) api.PolicyEdit { return api.PolicyEdit{DeleteTemplates: ids} })
	cmd.AddCommand(&cobra.Command{
		Use:     "show ID",
		Short:   "Print a template as it is written",
		Example: "  watchword policy template show resync",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.printItem(cmd, call{what: "show template " + args[0], path: pathTo("policies", "templates", args[0])})
		},
	}, remove)
	return cmd
}

func policyLink(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "link",
		Short:   "Fill the slots of a template",
		Example: "  watchword policy link put desk.corp --template resync --principal 'Watchword::Role::\"desk\"' --resource 'Watchword::Realm::\"corp\"'",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var l policy.Link
	put := &cobra.Command{
		Use:   "put ID",
		Short: "Make a link, or replace it",
		Long: `Principal and resource are written as Cedar writes entities: Watchword::Role::"desk",
Watchword::Group::"corp/staff", Watchword::User::"corp/alice".`,
		Example: "  watchword policy link put desk.corp --template resync --principal 'Watchword::Role::\"desk\"' --resource 'Watchword::Realm::\"corp\"'",
		Args:    cobra.ExactArgs(1),
	}
	put.Flags().StringVar(&l.Template, "template", "", "the template")
	put.Flags().StringVar(&l.Principal, "principal", "", "what fills ?principal")
	put.Flags().StringVar(&l.Resource, "resource", "", "what fills ?resource")
	version := versionFlag(put)
	put.RunE = func(cmd *cobra.Command, args []string) error {
		if l.Template == "" {
			return &failure{What: "link " + args[0], Why: "no template is named", Do: "name one with --template"}
		}
		link := api.PolicyLink{Id: args[0], Template: l.Template}
		if l.Principal != "" {
			link.Principal = &l.Principal
		}
		if l.Resource != "" {
			link.Resource = &l.Resource
		}
		return c.madeVersion(cmd, call{what: "link " + args[0], method: http.MethodPut, path: pathTo("policies"),
			body: api.PolicyEdit{PutLinks: &[]api.PolicyLink{link}, Version: version()}})
	}
	remove := policyRemoval(c, "link ", "Delete links", "watchword policy link delete desk.corp",
		func(ids *[]string) api.PolicyEdit { return api.PolicyEdit{DeleteLinks: ids} })
	cmd.AddCommand(put, remove)
	return cmd
}
