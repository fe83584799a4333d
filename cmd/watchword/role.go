package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"watchword/api"
)

func roleCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "role",
		Short: "Give people roles, and take them back",
		Long: `A person with a role signs in with 'watchword login', or on the pages, and may do what
the role says. The roles that come with rights are

  superuser    everything; some acts take a code of the last five minutes
  helpdesk     users and tokens
  provisioner  brings users and tokens in, and hands them out
  enroller     enrols FIDO keys, for users or as stock, and sees what is known of their models
  auditor      looks at everything, changes nothing
  verifier     checks codes and keys, and nothing else

Any other name is a role of your own, which may do what your policies say.`,
		Example: "  watchword role grant alice helpdesk --in default\n  watchword role list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(roleList(c), roleGrant(c), roleRevoke(c))
	return c.flags(cmd)
}

func roleList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the roles that people have",
		Example: "  watchword role list\n  watchword role list --realm default --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.RolePage](cmd, c, call{what: "list the roles", path: pathTo("roles"), query: c.query()})
			if err != nil || printed {
				return err
			}
			t := newTable("USER", "REALM", "ROLE", "IN", "GIVEN", "BY")
			for _, g := range page.Items {
				in := "all"
				if g.In != nil {
					in = *g.In
				}
				t.add(g.User, g.Realm, g.Role, in, toMinute(g.Created), g.Actor)
			}
			return printList(cmd, t, "nobody has a role")
		},
	}
}

func roleGrant(c *client) *cobra.Command {
	var in string
	cmd := &cobra.Command{
		Use:   "grant USER ROLE",
		Short: "Give a person a role",
		Long: `The role counts in the user's own realm, or in the one that --in names; in all with
--in '*'. Who signs in by a role needs two things: a PIN and a code, or a FIDO key that
asks for its own PIN or finger.`,
		Example: "  watchword role grant alice helpdesk\n  watchword role grant alice superuser --in '*'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "give " + args[0] + " the role " + args[1], method: http.MethodPut, path: pathTo("roles", args[1], "users", args[0]), query: c.query("in", in)}
			g, printed, err := get[api.RoleGrant](cmd, c, r)
			if err != nil || printed {
				return err
			}
			where := "all realms"
			if g.In != nil {
				where = "realm " + *g.In
			}
			return say(cmd, "%s has the role %s in %s.", g.User, g.Role, where)
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "the realm where it counts, or '*' for all (default the user's own)")
	return cmd
}

func roleRevoke(c *client) *cobra.Command {
	var in string
	cmd := &cobra.Command{
		Use:     "revoke USER ROLE",
		Short:   "Take a role back, at once",
		Example: "  watchword role revoke alice helpdesk\n  watchword role revoke alice superuser --in '*'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "take the role " + args[1] + " from " + args[0], method: http.MethodDelete, path: pathTo("roles", args[1], "users", args[0]), query: c.query("in", in)}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "%s no longer has the role %s there.", args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "the realm where it counts, or '*' for all (default the user's own)")
	return cmd
}
