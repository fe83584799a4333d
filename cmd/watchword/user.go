package main

import (
	"fmt"
	"net/http"
	"os"
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
		userAdd(c), userList(c), userShow(c), userPIN(c), userGroups(c),
		userInvite(c), userInvitations(c), userUninvite(c),
		userAct(c, "enable", "Let a disabled user be verified again", "%s is enabled."),
		userAct(c, "disable", "Reject every code and key of a user", "%s is disabled: every code and key is rejected."),
		userAct(c, "unlock", "Forget a user's failures: the lock and every waiting time end", "%s is unlocked."),
	)
	return c.flags(user)
}

func userAdd(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a user",
		Example: "  watchword user add alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, printed, err := get[api.User](cmd, c, call{
				what: "add user " + args[0], method: http.MethodPost, path: pathTo("users"), query: c.query(),
				body: map[string]string{"name": args[0]},
			})
			if err != nil || printed {
				return err
			}
			return say(cmd, "User %s is added; hand over a token with: watchword token assign SERIAL %s", u.Name, u.Name)
		},
	}
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
			return say(cmd, sentence, u.Name)
		},
	}
}

func userList(c *client) *cobra.Command {
	var q string
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users",
		Example: "  watchword user list\n  watchword user list --q ali --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, printed, err := list[api.User](cmd, c, call{what: "list users", path: pathTo("users"), query: c.query("q", q)}, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("NAME", "REALM", "STATE", "PIN", "TOKENS", "FAILURES", "ADDED")
			for _, u := range users {
				t.add(u.Name, u.Realm, standing(&u), yesNo(u.HasPin), fmt.Sprint(u.TokenCount), fmt.Sprint(u.Failures), toMinute(u.Created))
			}
			return printList(cmd, t, "there is no such user")
		},
	}
	cmd.Flags().StringVar(&q, "q", "", "part of the name")
	limitFlag(cmd, &limit)
	return cmd
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
			err = say(cmd, "User %s of realm %s, added %s: %s, %s, %s since the last accept.",
				u.Name, u.Realm, toMinute(u.Created), standing(&u), map[bool]string{true: "with a PIN", false: "without a PIN"}[u.HasPin], plural(u.Failures, "failure"))
			if err != nil || u.Tokens == nil {
				return err
			}
			return printList(cmd, tokenTable(*u.Tokens), "the user holds no token; hand one over with: watchword token assign SERIAL "+u.Name)
		},
	}
}

func userPIN(c *client) *cobra.Command {
	var file string
	var remove bool
	cmd := &cobra.Command{
		Use:   "pin NAME",
		Short: "Set or remove a user's PIN",
		Long: `Sets the PIN, read from the terminal or from a file, never from the command line,
where others could see it. From then on a code is the PIN followed by the OTP.`,
		Example: "  watchword user pin alice\n  watchword user pin alice --pin-file pin.txt\n  watchword user pin alice --remove",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "set the PIN of " + args[0], method: http.MethodPut, path: pathTo("users", args[0], "pin"), query: c.query()}
			sentence := "%s has a PIN: a code is the PIN followed by the OTP."
			switch {
			case remove && file != "":
				return &failure{What: r.what, Why: "--pin-file and --remove exclude each other"}
			case remove:
				r.what, r.method, sentence = "remove the PIN of "+args[0], http.MethodDelete, "%s has no PIN: a code is the OTP alone."
			default:
				pin, err := readPIN(file)
				if err != nil {
					return &failure{What: r.what, Why: err.Error(), Do: "type it at the terminal, or name a file whose only line it is with --pin-file"}
				}
				r.body = map[string]string{"pin": pin}
			}
			u, printed, err := get[api.User](cmd, c, r)
			if err != nil || printed {
				return err
			}
			return say(cmd, sentence, u.Name)
		},
	}
	cmd.Flags().StringVar(&file, "pin-file", "", "file whose only line is the PIN")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove the PIN")
	return cmd
}

func readPIN(file string) (string, error) {
	if file != "" {
		return readLine(file)
	}
	if !onTerminal(os.Stdin) {
		return "", fmt.Errorf("standard input is no terminal")
	}
	first, err := askSecret("New PIN: ")
	if err != nil {
		return "", err
	}
	second, err := askSecret("Again: ")
	switch {
	case err != nil:
		return "", err
	case len(first) == 0:
		return "", fmt.Errorf("the PIN is empty")
	case string(first) != string(second):
		return "", fmt.Errorf("the two PINs differ")
	}
	return string(first), nil
}

// say prints a sentence about what was done.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), clean(strings.TrimSpace(fmt.Sprintf(format, args...))))
	return err
}
