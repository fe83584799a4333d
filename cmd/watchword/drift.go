package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func tokenDrift(c *client) *cobra.Command {
	var svg string
	cmd := &cobra.Command{
		Use:   "drift SERIAL",
		Short: "Show how a token's clock went, and what is wrong with it",
		Long: `Draws how far a TOTP token's clock was from the server's whenever a code of it was
accepted, and says what that means: a good clock, a fast or slow one, a battery that
dies, a whole batch that is bad, or a period that was imported wrong.`,
		Example: "  watchword token drift 24680017\n  watchword token drift 24680017 --svg drift.svg\n  watchword token drift 24680017 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "show the drift of token " + args[0], method: http.MethodGet, path: pathTo("tokens", args[0], "drift"), query: c.query()}
			switch {
			case svg != "" && c.json:
				return &failure{What: r.what, Why: "--svg and --json exclude each other"}
			case svg != "":
				r.query.Set("format", "svg")
				return c.save(cmd, r, svg)
			case c.json:
				body, err := c.do(cmd.Context(), r)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), body)
			}
			r.query.Set("format", "text")
			text, err := c.open(cmd.Context(), r)
			if err != nil {
				return err
			}
			defer text.Close()
			return printClean(cmd.OutOrStdout(), r, text)
		},
	}
	cmd.Flags().StringVar(&svg, "svg", "", "new file for a picture of it, instead")
	return cmd
}
