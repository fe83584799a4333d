package main

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens/policy"
)

func policyCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say who may do what, in Cedar",
		Long: `Policies permit and forbid: administration, and being let in. What none permits is
denied, and a forbid beats every permit. The built-in ones give the roles superuser,
helpdesk, provisioner, enroller, auditor and verifier their rights; yours may permit more, and
forbid anything. All of them are one whole, which has versions.

A file holds any number of policies, each with its id:

  @id("no-revoking-at-night")
  forbid (principal, action == Watchword::Action::"token.revoke", resource)
  when { context.hour >= 22 || context.hour < 6 };

With ?principal or ?resource in its scope it is a template, which links fill in.
'watchword policy schema' prints what policies can speak of.`,
		Example: "  watchword policy check night.cedar\n  watchword policy replay night.cedar --last 1000\n  watchword policy put night.cedar\n  watchword policy list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyList(c), policyShow(c), policyPut(c), policyDelete(c), policyCheck(c), policyVersions(c), policyRollback(c),
		policyTest(c), policyReplay(c), policyApplying(c), policySchema(c), policyTemplate(c), policyLink(c))
	return c.flags(cmd)
}

// readPolicies reads a file of policies and templates; - is the standard input.
func readPolicies(what, name string) (policy.Source, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return policy.Source{}, &failure{What: what, Why: name + ": " + plainCause(err), Do: "name a file with policies in Cedar"}
	}
	src, err := policy.ReadFile(string(text))
	if err != nil {
		return src, &failure{What: what, Why: name + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return src, nil
}

func texts(list []policy.Item) []api.PolicyText {
	out := make([]api.PolicyText, len(list))
	for i, item := range list {
		out[i] = api.PolicyText{Id: item.ID, Text: item.Text}
	}
	return out
}

func draftOf(src *policy.Source) api.PolicySource {
	policies, templates := texts(src.Policies), texts(src.Templates)
	return api.PolicySource{Policies: &policies, Templates: &templates}
}

// madeVersion makes a change to the policies, and says which version there is then.
func (c *client) madeVersion(cmd *cobra.Command, r call) error {
	v, printed, err := get[api.PolicyVersion](cmd, c, r)
	if err != nil || printed {
		return err
	}
	return say(cmd, "Version %d of the policies: %s, %s, %s.", v.Version, policyCount(v.Policies), plural(v.Templates, "template"), plural(v.Links, "link"))
}

func policyCount(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return itoa(n) + " policies"
}

func policyList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the policies, templates and links",
		Example: "  watchword policy list\n  watchword policy list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, printed, err := get[api.PolicySet](cmd, c, call{what: "list the policies", path: pathTo("policies")})
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "KIND", "SAYS")
			for _, p := range set.Policies {
				t.add(p.Id, "policy", gist(p.Text))
			}
			for _, p := range set.Templates {
				t.add(p.Id, "template", gist(p.Text))
			}
			for _, l := range set.Links {
				t.add(l.Id, "link", strings.TrimSpace("of "+l.Template+" "+valueOf(l.Principal)+" "+valueOf(l.Resource)))
			}
			return printList(cmd, t, "there are no policies but the built-in ones")
		},
	}
}

// gist is a policy in one line.
func gist(text string) string {
	src, rest := text, ""
	if i := strings.Index(text, "permit"); i >= 0 {
		rest = text[i:]
	}
	if i := strings.Index(text, "forbid"); i >= 0 && (rest == "" || i < len(text)-len(rest)) {
		rest = text[i:]
	}
	if rest == "" {
		rest = src
	}
	line := []rune(strings.Join(strings.Fields(rest), " "))
	if len(line) > 80 {
		return string(line[:79]) + "…"
	}
	return string(line)
}

func policyShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Print a policy as it is written",
		Example: "  watchword policy show no-revoking-at-night",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.printItem(cmd, call{what: "show policy " + args[0], path: pathTo("policies", args[0])})
		},
	}
}

func (c *client) printItem(cmd *cobra.Command, r call) error {
	p, printed, err := get[api.PolicyItem](cmd, c, r)
	if err != nil || printed {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), cleanLines(p.Text)+"\n")
	return err
}

// cleanLines is clean for a text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = clean(strings.ReplaceAll(lines[i], "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

// versionFlag gives a command --if-version, and answers what it says.
func versionFlag(cmd *cobra.Command) func() *int64 {
	var n int64
	cmd.Flags().Int64Var(&n, "if-version", -1, "do it only if this is the version of the policies")
	return func() *int64 {
		if n < 0 {
			return nil
		}
		return &n
	}
}

func policyPut(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Store the policies and templates of a file",
		Long: `Each takes the place of what has its id, or is made. Policies that the file does not have
stay. All of them are stored in one version, or none: what is wrong is named with its
place. They count with the next act on any node.`,
		Example: "  watchword policy put night.cedar\n  watchword policy put night.cedar --if-version 3",
		Args:    cobra.ExactArgs(1),
	}
	version := versionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what := "store the policies in " + args[0]
		src, err := readPolicies(what, args[0])
		if err != nil {
			return err
		}
		put, templates := texts(src.Policies), texts(src.Templates)
		if len(put)+len(templates) == 0 {
			return &failure{What: what, Why: "there is no policy in it"}
		}
		return c.madeVersion(cmd, call{what: what, method: http.MethodPut, path: pathTo("policies"),
			body: api.PolicyEdit{Put: &put, PutTemplates: &templates, Version: version()}})
	}
	return cmd
}

func policyDelete(c *client) *cobra.Command {
	return policyRemoval(c, "", "Delete policies", "watchword policy delete no-revoking-at-night",
		func(ids *[]string) api.PolicyEdit { return api.PolicyEdit{Delete: ids} })
}

// policyRemoval is a command that takes policies, templates or links away, in one new
// version; kind is what the failure calls them.
func policyRemoval(c *client, kind, short, example string, edit func(ids *[]string) api.PolicyEdit) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete ID...",
		Short:   short,
		Example: "  " + example,
		Args:    cobra.MinimumNArgs(1),
	}
	version := versionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := edit(&args)
		body.Version = version()
		return c.madeVersion(cmd, call{what: "delete " + kind + strings.Join(args, ", "), method: http.MethodPut, path: pathTo("policies"), body: body})
	}
	return cmd
}

func policyCheck(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Say what is wrong with the policies and templates of a file; nothing is stored",
		Long:    "Exits 0 if nothing is wrong with them, and 1 if something is.",
		Example: "  watchword policy check night.cedar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "check the policies in " + args[0]
			src, err := readPolicies(what, args[0])
			if err != nil {
				printError(err)
				return errNo
			}
			if _, err = c.do(cmd.Context(), call{what: what, method: http.MethodPost, path: pathTo("policies", "check"), body: draftOf(&src)}); err != nil {
				var r *refusal
				if errors.As(err, &r) && r.problem.Status == http.StatusBadRequest {
					printError(err)
					return errNo
				}
				return err
			}
			return say(cmd, "Nothing is wrong with %s and %s.", policyCount(len(src.Policies)), plural(len(src.Templates), "template"))
		},
	}
}

func policyVersions(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "versions",
		Short:   "List the versions that can be gone back to, the newest first",
		Example: "  watchword policy versions",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, printed, err := get[api.PolicyVersionPage](cmd, c, call{what: "list the versions of the policies", path: pathTo("policies", "versions")})
			if err != nil || printed {
				return err
			}
			t := newTable("VERSION", "TIME", "BY", "POLICIES", "TEMPLATES", "LINKS", "BACK TO")
			for _, v := range list.Items {
				back := ""
				if v.From != nil {
					back = itoa(int(*v.From))
				}
				t.add(itoa(int(v.Version)), toSecond(valueOf(v.Time)), valueOf(v.Actor), itoa(v.Policies), itoa(v.Templates), itoa(v.Links), back)
			}
			return printList(cmd, t, "nothing was stored yet")
		},
	}
}

func policyRollback(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "rollback VERSION",
		Short:   "Make a version that says what an earlier one did; 0 is none but the built-in policies",
		Example: "  watchword policy rollback 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := versionNumber(args[0])
			if err != nil {
				return &failure{What: "go back to a version", Why: args[0] + " is no version", Do: "watchword policy versions lists them"}
			}
			return c.madeVersion(cmd, call{what: "go back to version " + args[0], method: http.MethodPost, path: pathTo("policies", "rollback"),
				body: api.PolicyRollback{Version: n}})
		},
	}
}

func policyApplying(c *client) *cobra.Command {
	var principal, resource string
	cmd := &cobra.Command{
		Use:   "applying",
		Short: "Say which policies can concern a principal, a resource, or both",
		Long: `A principal is key:ID, client:NAME, admin:REALM/USER or role:NAME; a resource is
installation, realm:REALM, user:REALM/USER or token:REALM/SERIAL.`,
		Example: "  watchword policy applying --principal role:helpdesk\n  watchword policy applying --resource user:default/alice",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			for name, v := range map[string]string{"principal": principal, "resource": resource} {
				if v != "" {
					query.Set(name, v)
				}
			}
			list, printed, err := get[api.AppliedPage](cmd, c, call{what: "say which policies apply", path: pathTo("policies", "applying"), query: query})
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "EFFECT", "CONDITIONS", "ACTIONS")
			for _, p := range list.Items {
				actions := strings.Join(valueOf(p.Actions), " ")
				if actions == "" {
					actions = "all"
				}
				if r := []rune(actions); len(r) > 60 {
					actions = string(r[:59]) + "…"
				}
				t.add(p.Id, string(p.Effect), yesNo(p.Conditional), actions)
			}
			return printList(cmd, t, "no policy applies")
		},
	}
	cmd.Flags().StringVar(&principal, "principal", "", "who acts")
	cmd.Flags().StringVar(&resource, "resource", "", "what it is done to")
	return cmd
}

func policySchema(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print what policies can speak of, as a Cedar schema",
		Example: "  watchword policy schema",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := c.do(cmd.Context(), call{what: "print the schema of policies", method: http.MethodGet, path: pathTo("policies", "schema")})
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
