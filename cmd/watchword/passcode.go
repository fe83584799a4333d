package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"github.com/spf13/cobra"

	"watchword/api"
)

func userRecovery(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "recovery NAME",
		Short: "Print a sheet of recovery codes for a user",
		Long: `Makes codes that the user keeps for the day on which no token is at hand, each good
once in the place of a code (behind the PIN, if there is one), and prints them as a
sheet, this once. A sheet that was made before is worthless from then on. The rules
of the realm say how many codes there are (see watchword realm rules).`,
		Example: "  watchword user recovery alice\n  watchword user recovery alice | lp",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "make recovery codes for " + args[0], method: http.MethodPost, path: pathTo("users", args[0], "recovery"), query: c.query()}
			sheet, printed, err := get[api.RecoverySheet](cmd, c, r)
			if err != nil || printed {
				return err
			}
			if len(sheet.Codes) == 0 {
				return &failure{What: r.what, Why: "the server answered no codes"}
			}
			return told(printSheet(cmd, &sheet), sheet.Say)
		},
	}
}

// printSheet prints recovery codes to be kept on paper.
func printSheet(cmd *cobra.Command, sheet *api.RecoverySheet) error {
	t := &sheet.Token
	rule := strings.Repeat("-", 64)
	head := "Recovery codes of " + clean(t.User)
	day := t.Created.Local().Format(time.DateOnly)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s%s%s\n\n", rule, head, strings.Repeat(" ", max(2, len(rule)-uniseg.StringWidth(head)-len(day))), day)
	rows := (len(sheet.Codes) + 1) / 2
	for i := range rows {
		line := fmt.Sprintf("   %2d.  [ ] %s", i+1, clean(sheet.Codes[i]))
		if j := i + rows; j < len(sheet.Codes) {
			line += fmt.Sprintf("     %2d.  [ ] %s", j+1, clean(sheet.Codes[j]))
		}
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, `
Each works once, in the place of the code that the token shows; with a
PIN, type the PIN before it. Cross it out then. Hyphens and capitals do
not matter. Keep this sheet where nobody else sees it; if somebody may
have seen it, say so, and it is made worthless.

Sheet %s, realm %s
%s
`, clean(t.Serial), clean(t.Realm), rule)
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

// temporaryFlags say how long a temporary passcode is good, and how often.
type temporaryFlags struct {
	valid time.Duration
	uses  int
}

func (f *temporaryFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.valid, "valid", 0, "for how long the passcode is good, such as 8h (default what the realm's rules say)")
	cmd.Flags().IntVar(&f.uses, "uses", 0, "how often the passcode is good (default what the realm's rules say)")
}

// request is what the flags ask for; what they leave open is not in it.
func (f *temporaryFlags) request(cmd *cobra.Command, what string) (map[string]any, error) {
	body := map[string]any{}
	if cmd.Flags().Changed("valid") {
		if f.valid < time.Minute || f.valid%time.Minute != 0 {
			return nil, &failure{What: what, Why: "--valid is no number of minutes", Do: "name a duration such as 8h or 90m"}
		}
		body["valid_minutes"] = int(f.valid / time.Minute)
	}
	if cmd.Flags().Changed("uses") {
		if f.uses < 1 {
			return nil, &failure{What: what, Why: "--uses is below 1"}
		}
		body["uses"] = f.uses
	}
	return body, nil
}

func userTemporary(c *client) *cobra.Command {
	var f temporaryFlags
	cmd := &cobra.Command{
		Use:   "temporary NAME",
		Short: "Print a temporary passcode for a user whose token is not at hand",
		Long: `Makes a passcode that is good for some hours and some uses, in the place of a code
(behind the PIN, if there is one), and prints it, this once. One that was made before
is worthless from then on, and it ends by itself when a token of the user is resumed,
replaced or activated. The rules of the realm say whether there are any, and set the
limits (see watchword realm rules).`,
		Example: "  watchword user temporary alice\n  watchword user temporary alice --valid 4h --uses 2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "make a temporary passcode for " + args[0], method: http.MethodPost, path: pathTo("users", args[0], "temporary"), query: c.query()}
			body, err := f.request(cmd, r.what)
			if err != nil {
				return err
			}
			r.body = body
			pass, printed, err := get[api.TemporaryPasscode](cmd, c, r)
			if err != nil || printed {
				return err
			}
			return told(printTemporary(cmd, r.what, &pass), pass.Say)
		},
	}
	f.add(cmd)
	return cmd
}

// printTemporary prints a temporary passcode in a line of its own.
func printTemporary(cmd *cobra.Command, what string, pass *api.TemporaryPasscode) error {
	if pass.Code == "" {
		return &failure{What: what, Why: "the server answered no passcode"}
	}
	if err := say(cmd, "%s", pass.Code); err != nil {
		return err
	}
	hint("%s can use it %s until %s; it is not shown again; 'watchword token revoke %s' ends it",
		pass.Token.User, plural(valueOf(pass.Token.Left), "time"), toMinuteOf(pass.Token.Expires), pass.Token.Serial)
	return nil
}
