package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

// profileFlags say who a user is, beside the name.
type profileFlags struct {
	display, mail, external string
	attributes              []string
}

func (f *profileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.display, "display", "", "full name")
	cmd.Flags().StringVar(&f.mail, "mail", "", "mail address")
	cmd.Flags().StringVar(&f.external, "external-id", "", "id in another directory; no two users of a realm have the same")
	cmd.Flags().StringArrayVar(&f.attributes, "attribute", nil, "NAME=VALUE: whatever else is to be kept; may be given several times")
}

// fields are those of a request that the flags name. What no flag names is not
// among them.
func (f *profileFlags) fields(cmd *cobra.Command, what string) (map[string]any, error) {
	body := map[string]any{}
	for _, field := range []struct{ flag, name, value string }{
		{"display", "display", f.display}, {"mail", "mail", f.mail}, {"external-id", "external_id", f.external},
	} {
		if cmd.Flags().Changed(field.flag) {
			body[field.name] = field.value
		}
	}
	if len(f.attributes) > 0 {
		all := map[string]*string{}
		for _, a := range f.attributes {
			name, value, found := strings.Cut(a, "=")
			if !found || name == "" {
				return nil, &failure{What: what, Why: "--attribute is not NAME=VALUE", Do: "write it like --attribute department=sales"}
			}
			all[name] = &value
		}
		body["attributes"] = all
	}
	return body, nil
}

func userAdd(c *client) *cobra.Command {
	var f profileFlags
	var groups []string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Example: "  watchword user add alice\n" +
			"  watchword user add alice --display 'Alice Liddell' --mail alice@example.org --group staff --attribute room=12",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "add user " + args[0], method: http.MethodPost, path: pathTo("users"), query: c.query()}
			body, err := f.fields(cmd, r.what)
			if err != nil {
				return err
			}
			body["name"] = args[0]
			if len(groups) > 0 {
				body["groups"] = groups
			}
			r.body = body
			u, printed, err := get[api.User](cmd, c, r)
			if err != nil || printed {
				return err
			}
			return say(cmd, "User %s is added; hand over a token with: watchword token assign SERIAL %s", u.Name, u.Name)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a group that the user is in; may be given several times")
	return cmd
}

func userEdit(c *client) *cobra.Command {
	var f profileFlags
	var drop []string
	cmd := &cobra.Command{
		Use:   "edit NAME",
		Short: "Change who a user is: full name, mail address, external id, attributes",
		Long: `Changes what flags name and leaves the rest as it is; an empty text removes. The
name by which a user signs in stays. Groups are set with 'watchword user groups'.`,
		Example: "  watchword user edit alice --display 'Alice Hargreaves' --mail ''\n  watchword user edit alice --attribute room=14 --drop-attribute phone",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "edit user " + args[0], method: http.MethodPatch, path: pathTo("users", args[0]), query: c.query()}
			body, err := f.fields(cmd, r.what)
			if err != nil {
				return err
			}
			all, _ := body["attributes"].(map[string]*string)
			for _, name := range drop {
				if all == nil {
					all = map[string]*string{}
				}
				if _, set := all[name]; set {
					return &failure{What: r.what, Why: "attribute " + name + " is both set and dropped"}
				}
				all[name] = nil
			}
			if all != nil {
				body["attributes"] = all
			}
			if len(body) == 0 {
				return &failure{What: r.what, Why: "nothing is to be changed", Do: "see watchword user edit --help"}
			}
			r.body = body
			u, printed, err := get[api.User](cmd, c, r)
			if err != nil || printed {
				return err
			}
			return sayUser(cmd, &u)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&drop, "drop-attribute", nil, "an attribute to remove; may be given several times")
	return cmd
}
