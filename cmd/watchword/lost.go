package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"watchword/api"
)

func tokenLost(c *client) *cobra.Command {
	var f temporaryFlags
	var reason string
	var temporary bool
	cmd := &cobra.Command{
		Use:   "lost SERIAL...",
		Short: "Mark tokens as lost: nothing of them is accepted any more",
		Long: `Mark tokens as lost: nothing of them is accepted any more.
When this has answered, no code of the token is accepted any more, nor the key if
it is one, on any node.

With --temporary the user gets, in the same act, a passcode that is good for some
hours and some uses in the place of a code; it is printed this once (see watchword
user temporary).`,
		Example: "  watchword token lost 24680017 --reason 'stolen on the train'\n  watchword token lost 24680017 --temporary --valid 8h",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "lost token " + args[0]
			wanted, err := f.request(cmd, what)
			switch {
			case err != nil:
				return err
			case len(wanted) > 0 && !temporary:
				return &failure{What: what, Why: "--valid and --uses need --temporary"}
			case temporary && len(args) > 1:
				return &failure{What: what, Why: "--temporary is for one token", Do: "mark the others as lost by themselves"}
			}
			body := map[string]any{}
			if reason != "" {
				body["reason"] = reason
			}
			if temporary {
				body["temporary"] = wanted
			}
			for _, serial := range args {
				if err := c.lose(cmd, serial, body); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&temporary, "temporary", false, "make a temporary passcode for the user")
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words; for the audit")
	return cmd
}

func (c *client) lose(cmd *cobra.Command, serial string, body map[string]any) error {
	r := call{what: "lost token " + serial, method: http.MethodPost, path: pathTo("tokens", serial, "lost"), query: c.query(), body: body}
	t, printed, err := get[api.Token](cmd, c, r)
	if err != nil || printed {
		return err
	}
	err = sayToken(cmd, &t)
	if t.Temporary != nil {
		err = told(firstOf(err, printTemporary(cmd, r.what, t.Temporary)), t.Temporary.Say)
	}
	return told(err, t.Say)
}
