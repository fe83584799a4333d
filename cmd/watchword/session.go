package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func sessionCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "session",
		Short:   "See who is signed in, and end sessions",
		Example: "  watchword session list\n  watchword session end 9c1e5a7702f4d3b8",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sessionList(c), sessionEnd(c))
	return c.flags(cmd)
}

func sessionList(c *client) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the open sessions, newest first",
		Example: "  watchword session list\n  watchword session list --user alice --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.SessionPage](cmd, c, call{what: "list the sessions", path: pathTo("sessions"), query: c.query("user", user)})
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "USER", "REALM", "ACTS IN", "TOKEN", "BY", "FROM", "BEGAN", "PROVED", "EXPIRES")
			for _, v := range page.Items {
				in := "all"
				switch {
				case v.Through != nil:
					in = "none (" + *v.Through + ")"
				case v.In != nil:
					in = *v.In
				}
				from := "any"
				if v.Source != nil {
					from = *v.Source
				}
				t.add(v.Id, v.User, v.Realm, in, v.Serial, strings.Join(v.Amr, ","), from, toMinute(v.Created), toMinute(v.Authenticated), toMinute(v.Expires))
			}
			return printList(cmd, t, "nobody is signed in")
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "those of one user")
	return cmd
}

func sessionEnd(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "end ID",
		Short:   "End somebody's session: it opens nothing from then on",
		Example: "  watchword session end 9c1e5a7702f4d3b8",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "end session " + args[0], method: http.MethodDelete, path: pathTo("sessions", args[0])}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "Session %s has ended.", args[0])
		},
	}
}
