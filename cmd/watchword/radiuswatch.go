package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func radiusCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "radius",
		Short:   "See what RADIUS clients ask, and try them out",
		Example: "  watchword radius watch --client vpn\n  watchword radius test vpn --user alice",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(radiusWatch(c), radiusTest(c))
	return c.flags(cmd)
}

func radiusWatch(c *client) *cobra.Command {
	var name, user string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show RADIUS requests as they come",
		Long: `Shows the requests that one server gets, as they come, until it is interrupted:
time, client, the gateway's address, user, method, outcome, reply and how long
it took, or why a packet was dropped. No password or code is shown. Of what was
dropped nothing proves who sent it. With several servers each shows its own.`,
		Example: "  watchword radius watch\n  watchword radius watch --client vpn --user alice --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "watch RADIUS requests", method: http.MethodGet, path: pathTo("radius", "watch"), query: c.query("client", name, "user", user), slow: true}
			stream, err := c.open(cmd.Context(), r)
			if err != nil {
				return err
			}
			defer stream.Close()
			err = c.showSights(cmd.OutOrStdout(), stream)
			switch {
			case cmd.Context().Err() != nil: // interrupted, as it is meant to
				return nil
			case err != nil:
				return &failure{What: r.what, Why: "the answer broke off: " + err.Error(), Do: "begin again"}
			}
			return &failure{What: r.what, Why: "the server shows no more", Do: "it ends, or the key or the session did"}
		},
	}
	cmd.Flags().StringVar(&name, "client", "", "only requests of this client")
	cmd.Flags().StringVar(&user, "user", "", "only requests for this user")
	return cmd
}

// maxSight bounds a line of what is watched, in bytes.
const maxSight = 64 << 10

func (c *client) showSights(w io.Writer, stream io.Reader) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxSight)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if c.json {
			if _, err := fmt.Fprintln(w, lines.Text()); err != nil {
				return err
			}
			continue
		}
		var v api.RadiusSight
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("a line cannot be read: %w", err)
		}
		if v.Missed > 0 {
			hint("%s not shown: they come quicker than they can be read", plural(v.Missed, "request"))
		}
		if _, err := fmt.Fprintln(w, sightLine(&v)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// sightLine is a request in one line.
func sightLine(v *api.RadiusSight) string {
	outcome := v.Outcome
	if v.Test {
		outcome += " (test)"
	}
	last := v.Cause
	if v.Reply != "" {
		last = fmt.Sprintf("%s in %.1f ms", v.Reply, v.TookMs)
	}
	line := fmt.Sprintf("%s  %-12s  %-15s  %-20s  %-8s  %-9s  %s", v.Time.Local().Format("15:04:05.000"),
		orDash(clean(v.Client)), orDash(clean(v.Address)), orDash(clean(v.User)), orDash(clean(v.Method)), clean(outcome), clean(last))
	return strings.TrimRight(line, " ")
}
