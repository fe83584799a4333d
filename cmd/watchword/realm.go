package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"watchword/api"
)

func realmCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "realm",
		Short: "List the realms, and say what each asks of its users and tokens",
		Long: `A realm is a tenant: its users, tokens, RADIUS clients and API keys are its own, and
nothing crosses. It comes to be with the first of them. A site that needs no tenants
has one, default, and never names it.`,
		Example: "  watchword realm list\n  watchword realm rules show --realm lab",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(realmList(c), realmRules(c))
	return c.flags(cmd)
}

func realmList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the realms in which there is anything",
		Example: "  watchword realm list\n  watchword realm list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.RealmPage](cmd, c, call{what: "list the realms", path: pathTo("realms")})
			if err != nil || printed {
				return err
			}
			t := newTable("REALM", "USERS", "TOKENS", "CLIENTS", "KEYS")
			for _, r := range page.Items {
				t.add(r.Name, counted(r.Users, r.MoreUsers), counted(r.Tokens, r.MoreTokens), itoa(r.Clients), itoa(r.Keys))
			}
			return printList(cmd, t, "there is nothing in any realm yet")
		},
	}
}

// counted is a number, with a + behind it where not all were counted.
func counted(n int, more *bool) string {
	if more != nil && *more {
		return itoa(n) + "+"
	}
	return itoa(n)
}

func realmRules(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Say what a realm asks: how many tokens, what PINs, which passcodes",
		Long: `The rules of the realm that --realm names, of default if it names none. A realm without
rules of its own has those of --realm '*', which an administrator of all realms can set.`,
		Example: "  watchword realm rules show\n  watchword realm rules set --temporary --temporary-valid 8h\n" +
			"  watchword realm rules set --realm '*' --max-tokens 4\n  watchword realm rules drop --realm lab",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(realmRulesShow(c), realmRulesSet(c), realmRulesDrop(c))
	return cmd
}

// realmName is the realm whose rules are meant.
func (c *client) realmName() string {
	if c.realm == "" {
		return "default"
	}
	return c.realm
}

func realmRulesShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the rules of a realm; with --json as 'realm rules set' takes them",
		Example: "  watchword realm rules show --realm lab\n  watchword realm rules show --json > rules.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.sayRules(cmd, call{what: "show the rules of realm " + c.realmName(), path: pathTo("realms", c.realmName(), "rules")})
		},
	}
}

// sayRules makes a call that answers rules, and prints them.
func (c *client) sayRules(cmd *cobra.Command, r call) error {
	d, printed, err := get[api.RealmRules](cmd, c, r)
	if err != nil || printed {
		return err
	}
	if !d.Own {
		hint("realm %s has no rules of its own: these are those of all such realms", d.Realm)
	}
	t := newTable("RULE", "VALUE", "FLAG OF 'REALM RULES SET'")
	activation := "by assigning"
	if d.Rules.Activation == api.RulesActivationCodes {
		activation = "by two codes"
	}
	t.add("tokens a user may hold", itoa(d.Rules.MaxTokens), "--max-tokens")
	t.add("hardware tokens become active", activation, "--activation assign|codes")
	t.add("PIN, characters", fmt.Sprintf("%d to %d", d.Rules.Pin.Min, d.Rules.Pin.Max), "--pin-min, --pin-max")
	t.add("PINs such as 1234 and 1111", allowed(d.Rules.Pin.Sequences), "--pin-sequences")
	t.add("a PIN must be changed at first use", yesNo(d.Rules.Pin.Change), "--pin-change")
	t.add("recovery codes", allowed(d.Rules.Recovery.Allow), "--recovery")
	t.add("recovery codes on a sheet", itoa(d.Rules.Recovery.Codes), "--recovery-codes")
	t.add("temporary passcodes", allowed(d.Rules.Temporary.Allow), "--temporary")
	t.add("a temporary passcode is good for", fmt.Sprintf("%d h at most", d.Rules.Temporary.ValidHours), "--temporary-valid")
	t.add("and for", plural(d.Rules.Temporary.Uses, "use")+" at most", "--temporary-uses")
	return t.print(cmd.OutOrStdout())
}

func allowed(b bool) string {
	if b {
		return "allowed"
	}
	return "not allowed"
}

func realmRulesSet(c *client) *cobra.Command {
	var file string
	var f ruleFlags
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Change rules of a realm",
		Long: `Changes the rules that flags name and leaves the others as they are; or, with --file,
replaces all by those of a JSON file, which is what 'realm rules show --json' prints,
changed. Either way, what somebody else changes meanwhile is not undone. They hold
from the next act on; what users hold already stays.`,
		Example: "  watchword realm rules set --temporary --temporary-valid 8h --temporary-uses 3\n" +
			"  watchword realm rules set --activation codes --pin-min 6 --realm lab\n  watchword realm rules set --file rules.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "set the rules of realm " + c.realmName(), path: pathTo("realms", c.realmName(), "rules")}
			var next api.NewRealmRules
			switch given := f.given(cmd); {
			case file != "" && given:
				return &failure{What: r.what, Why: "--file and other flags exclude each other"}
			case file != "":
				text, err := os.ReadFile(file)
				if err != nil {
					return &failure{What: r.what, Why: file + ": " + plainCause(err), Do: "name a JSON file with the rules"}
				}
				if err := json.Unmarshal(text, &next); err != nil {
					return &failure{What: r.what, Why: file + " is no JSON object with rules: " + err.Error(), Do: "'watchword realm rules show --json' prints one"}
				}
			case !given:
				return &failure{What: r.what, Why: "no rule is named", Do: "see watchword realm rules set --help"}
			default:
				quiet := *c
				quiet.json = false
				now, _, err := get[api.RealmRules](cmd, &quiet, r)
				if err != nil {
					return err
				}
				next.Version, next.Rules = &now.Version, now.Rules
				if err := f.apply(cmd, &next.Rules); err != nil {
					return &failure{What: r.what, Why: err.Error()}
				}
			}
			r.method = http.MethodPut
			r.body = next
			return c.sayRules(cmd, r)
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "JSON file with all the rules")
	f.add(cmd)
	return cmd
}

func realmRulesDrop(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "drop",
		Short:   "Forget a realm's own rules: it has those of all such realms from then on",
		Example: "  watchword realm rules drop --realm lab",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.sayRules(cmd, call{what: "drop the rules of realm " + c.realmName(), method: http.MethodDelete, path: pathTo("realms", c.realmName(), "rules")})
		},
	}
}
