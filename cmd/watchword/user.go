package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func userCommand(c *client) *cobra.Command {
	user := &cobra.Command{
		Use:     "user",
		Short:   "Add, show and help people who hold tokens",
		Example: "  watchword user add alice\n  watchword user list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	user.AddCommand(
		userAdd(c), userEdit(c), userList(c), userShow(c), userImport(c), userExport(c),
		userPIN(c), userChangePIN(c), userGroups(c),
		userRecovery(c), userTemporary(c), userStory(c),
		userInvite(c), userInvitations(c), userUninvite(c),
		userAct(c, "enable", "Let a disabled user be verified again", "%s is enabled."),
		userAct(c, "disable", "Reject every code and key of a user", "%s is disabled: every code and key is rejected."),
		userAct(c, "unlock", "Forget a user's failures: the lock and every waiting time end", "%s is unlocked."),
	)
	return c.flags(user)
}

func userAct(c *client, act, short, sentence string) *cobra.Command {
	return &cobra.Command{
		Use:     act + " NAME",
		Short:   short,
		Example: "  watchword user " + act + " alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, printed, err := get[api.User](cmd, c, call{
				what: act + " user " + args[0], method: http.MethodPost, path: pathTo("users", args[0], act), query: c.query(),
			})
			if err != nil || printed {
				return err
			}
			return told(say(cmd, sentence, u.Name), u.Say)
		},
	}
}

func userList(c *client) *cobra.Command {
	var q, group, external string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users",
		Example: "  watchword user list\n  watchword user list --q ali --json\n  watchword user list --group board\n  watchword user list --external-id 4711",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, printed, err := list[api.User](cmd, c, call{
				what: "list users", path: pathTo("users"), query: c.query("q", q, "group", group, "external_id", external),
			}, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("NAME", "REALM", "STATE", "PIN", "TOKENS", "FAILURES", "ADDED")
			for _, u := range users {
				t.add(u.Name, u.Realm, standing(&u), pinOf(&u), fmt.Sprint(u.TokenCount), fmt.Sprint(u.Failures), toMinute(u.Created))
			}
			return printList(cmd, t, "there is no such user")
		},
	}
	cmd.Flags().StringVar(&q, "q", "", "part of the name")
	cmd.Flags().StringVar(&group, "group", "", "only who is in this group")
	cmd.Flags().StringVar(&external, "external-id", "", "only who has this id in the other directory")
	limitFlag(cmd, &limit)
	return cmd
}

// pinOf is "yes", "no", or "due" where it must be changed first.
func pinOf(u *api.User) string {
	if u.HasPin && u.PinDue {
		return "due"
	}
	return yesNo(u.HasPin)
}

func limitFlag(cmd *cobra.Command, limit *int) {
	cmd.Flags().IntVar(limit, "limit", 100, "how many to list at most; 0 is all")
}

// standing is what the helpdesk wants to know first.
func standing(u *api.User) string {
	if u.Locked {
		return "locked"
	}
	return string(u.State)
}

func userShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a user and the tokens held",
		Example: "  watchword user show alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, printed, err := get[api.User](cmd, c, call{what: "show user " + args[0], path: pathTo("users", args[0]), query: c.query()})
			if err != nil || printed {
				return err
			}
			if err := sayUser(cmd, &u); err != nil || u.Tokens == nil {
				return err
			}
			return printList(cmd, tokenTable(*u.Tokens), "the user holds no token; hand one over with: watchword token assign SERIAL "+u.Name)
		},
	}
}

// sayUser says how a user stands, and who it is.
func sayUser(cmd *cobra.Command, u *api.User) error {
	pin := map[string]string{"yes": "with a PIN", "no": "without a PIN", "due": "with a PIN that must be changed first"}[pinOf(u)]
	err := say(cmd, "User %s of realm %s, added %s: %s, %s, %s since the last accept.",
		u.Name, u.Realm, toMinute(u.Created), standing(u), pin, plural(u.Failures, "failure"))
	line := func(name, value string) {
		if err == nil && value != "" {
			err = say(cmd, "%s: %s", name, value)
		}
	}
	line("Full name", valueOf(u.Display))
	line("Mail", valueOf(u.Mail))
	line("External id", valueOf(u.ExternalId))
	line("Groups", strings.Join(valueOf(u.Groups), ", "))
	attributes := valueOf(u.Attributes)
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		line("Attribute "+clean(name), attributes[name])
	}
	return err
}

// told adds to an answer what to tell whoever called, which is no part of it.
func told(err error, words *string) error {
	if err == nil && words != nil {
		hint("tell them: %s", *words)
	}
	return err
}

// valueOf is what a member of an answer holds, or nothing where it is not there.
func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// say prints a sentence about what was done.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), clean(strings.TrimSpace(fmt.Sprintf(format, args...))))
	return err
}
