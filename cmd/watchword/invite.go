package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"watchword/api"
)

func userInvite(c *client) *cobra.Command {
	var kinds []string
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "Make a link by which a user enrols a key or an authenticator app",
		Long: `Prints a link, and on a terminal its QR code. Whoever opens it can enrol one token
for the user, once, until it expires: hand it over so that nobody else sees it. The
link cannot be shown again.`,
		Example: "  watchword user invite alice\n  watchword user invite alice --kind fido --valid 72h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "invite " + args[0]
			body := api.NewInvitation{}
			if valid != 0 {
				if valid < time.Minute {
					return &failure{What: what, Why: "--valid is below 1m", Do: "name a duration such as 24h, at most 336h"}
				}
				seconds := int(valid / time.Second)
				body.Valid = &seconds
			}
			if len(kinds) > 0 {
				list := make([]api.NewInvitationKinds, len(kinds))
				for i, k := range kinds {
					if k != "fido" && k != "totp" {
						return &failure{What: what, Why: "--kind is fido or totp"}
					}
					list[i] = api.NewInvitationKinds(k)
				}
				body.Kinds = &list
			}
			i, printed, err := get[api.Invitation](cmd, c, call{
				what: what, method: http.MethodPost, path: pathTo("users", args[0], "invitations"), query: c.query(), body: body,
			})
			if err != nil || printed {
				return err
			}
			link := ""
			switch {
			case i.Url != nil:
				link = *i.Url
			case i.Path != nil:
				link = strings.TrimSuffix(c.url, "/") + *i.Path
			default:
				return &failure{What: what, Why: "the server answered no link"}
			}
			if err := say(cmd, "%s", link); err != nil {
				return err
			}
			if onTerminal(os.Stdout) {
				if err := printQR(cmd.OutOrStdout(), link); err != nil {
					return err
				}
			}
			hint("%s enrols one token with it (%s) until %s; the link is not shown again; 'watchword user uninvite %s' takes it back",
				i.User, strings.Join(i.Kinds, " or "), toMinute(i.Expires), i.Id)
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "what may be enrolled: fido or totp (default both)")
	cmd.Flags().DurationVar(&valid, "valid", 0, "for how long, at most 336h (default 24h)")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"fido", "totp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printQR draws a QR code with two modules a character, dark on light whatever the
// terminal's colours are, in a margin of four modules (ISO/IEC 18004, section
// 6.3.8).
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return err
	}
	const quiet = 4
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func userInvitations(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "invitations NAME",
		Short:   "List a user's invitations, without their links",
		Example: "  watchword user invitations alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			page, printed, err := get[api.InvitationPage](cmd, c, call{
				what: "list the invitations of " + args[0], path: pathTo("users", args[0], "invitations"), query: c.query(),
			})
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "FOR", "MADE", "UNTIL", "USED", "SERIAL", "BY")
			for _, i := range page.Items {
				serial := ""
				if i.Serial != nil {
					serial = *i.Serial
				}
				t.add(i.Id, strings.Join(i.Kinds, " "), toMinute(i.Created), toMinute(i.Expires), toMinuteOf(i.Used), orDash(serial), i.Actor)
			}
			return printList(cmd, t, "there is no invitation of this user")
		},
	}
}

func userUninvite(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "uninvite ID",
		Short:   "Take an invitation back: its link opens nothing from then on",
		Example: "  watchword user uninvite 7f3q2c9d",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "take invitation " + args[0] + " back", method: http.MethodDelete, path: pathTo("invitations", args[0])}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "Invitation %s is taken back: its link opens nothing any more.", args[0])
		},
	}
}

func userGroups(c *client) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use:   "groups NAME [GROUP...]",
		Short: "Show a user's groups, or set them",
		Long: `Without groups it shows those that the user is in; with groups it sets exactly these,
with --none none. Groups are what rules about FIDO keys go by (see watchword fido).`,
		Example: "  watchword user groups alice\n  watchword user groups alice staff board\n  watchword user groups alice --none",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "show the groups of " + args[0], path: pathTo("users", args[0], "groups"), query: c.query()}
			if none && len(args) > 1 {
				return &failure{What: "set the groups of " + args[0], Why: "groups and --none exclude each other"}
			}
			if none || len(args) > 1 {
				r.what, r.method = "set the groups of "+args[0], http.MethodPut
				r.body = api.NewGroups{Groups: append([]string{}, args[1:]...)}
			}
			g, printed, err := get[api.Groups](cmd, c, r)
			if err != nil || printed {
				return err
			}
			if len(g.Groups) == 0 {
				return say(cmd, "%s is in no group.", args[0])
			}
			return say(cmd, "%s is in %s.", args[0], strings.Join(g.Groups, ", "))
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "take the user out of all groups")
	return cmd
}
