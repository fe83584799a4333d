package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens"
)

func statementCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "statement",
		Short: "Check signed statements of accepts, and rotate the keys that sign them",
		Long: `With an accept, applications can get a signed statement of it: who, when, how and
with what token (a JWT, signed with ES256 in the HSM). They check it by the keys at
/.well-known/jwks.json, or by asking.`,
		Example: "  watchword verify alice 755224 --statement https://wiki.example.org\n  watchword statement keys",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(statementKeys(c), statementRotate(c), statementCheck(c))
	return c.flags(cmd)
}

func statementKeys(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "keys",
		Short:   "List the keys that sign statements",
		Example: "  watchword statement keys",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.printStatementKeys(cmd, call{what: "list the keys that sign statements", path: pathTo("statements", "keys")})
		},
	}
}

func statementRotate(c *client) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Let the next key sign statements, and make another next one",
		Long: `The next key signs as soon as it was published long enough for applications to know
it; the one before stays published until its last statement has expired. With --now
it signs at once, and what was signed before is worth nothing: for a key that is no
longer trusted. Back up the HSM's token and the database again afterwards.`,
		Example: "  watchword statement rotate\n  watchword statement rotate --now",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.printStatementKeys(cmd, call{
				what: "rotate the key that signs statements", method: http.MethodPost, path: pathTo("statements", "keys"), body: api.Rotation{Now: &now},
			})
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "at once; statements that were signed before are worth nothing")
	return cmd
}

func (c *client) printStatementKeys(cmd *cobra.Command, r call) error {
	page, printed, err := get[api.StatementKeyPage](cmd, c, r)
	if err != nil || printed {
		return err
	}
	t := newTable("VERSION", "STATE", "MADE", "SIGNS FROM", "PUBLISHED UNTIL", "KID")
	for _, k := range page.Items {
		t.add(fmt.Sprint(k.Version), string(k.State), toMinute(k.Created), toSecondOf(k.Signs), toSecondOf(k.Until), k.Kid)
	}
	return printList(cmd, t, "there is no key that signs statements")
}

func toSecondOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return toSecond(*t)
}

func statementCheck(c *client) *cobra.Command {
	var audience string
	var maxAge time.Duration
	cmd := &cobra.Command{
		Use:   "check STATEMENT",
		Short: "Check a statement: exits 0 if it is good, 1 if not, 2 on error",
		Long: `Asks the server whether a statement is its own, for this audience, and valid. With
--max-age the user must have been verified no longer ago than that. With - the
statement is read from standard input.`,
		Example: "  watchword verify alice 755224 --statement https://wiki.example.org | tail -1 > statement.jwt\n" +
			"  watchword statement check - --audience https://wiki.example.org --max-age 15m < statement.jwt",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const what = "check the statement"
			if audience == "" {
				return &failure{What: what, Why: "--audience is needed", Do: "it is whom the statement must be for, as verify's --statement named it"}
			}
			in := api.StatementCheck{Statement: args[0], Audience: audience}
			if args[0] == "-" {
				line, err := readLineFrom(cmd.InOrStdin())
				if err != nil {
					return &failure{What: what, Why: err.Error(), Do: "pipe the statement in"}
				}
				in.Statement = strings.TrimSpace(line)
			}
			if cmd.Flags().Changed("max-age") {
				if maxAge < time.Second {
					return &failure{What: what, Why: "--max-age is below 1s", Do: "name a duration such as 15m"}
				}
				seconds := int(maxAge / time.Second)
				in.MaxAge = &seconds
			}
			v, printed, err := get[api.StatementVerdict](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("statements", "check"), body: in})
			if err != nil {
				return err
			}
			if !printed {
				if err := sayStatement(cmd, &v); err != nil {
					return err
				}
			}
			if !v.Active {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&audience, "audience", "", "whom it must be for")
	cmd.Flags().DurationVar(&maxAge, "max-age", 0, "how long ago the user was verified at most, such as 15m")
	return cmd
}

func sayStatement(cmd *cobra.Command, v *api.StatementVerdict) error {
	if !v.Active {
		why := "it does not say why"
		if v.Detail != nil {
			why = *v.Detail
		} else if v.Reason != nil {
			why = *v.Reason
		}
		return say(cmd, "The statement is not good: %s.", why)
	}
	var claims tokens.StatementClaims
	if v.Claims == nil || json.Unmarshal(*v.Claims, &claims) != nil {
		return &failure{What: "check the statement", Why: "the answer cannot be read", Do: "see that --url names a Watchword server of this version"}
	}
	t := newTable("USER", "REALM", "VERIFIED", "UNTIL", "METHODS", "TOKEN", "MODEL")
	_, user := claims.User()
	t.add(user, claims.Realm, toSecond(time.Unix(claims.AuthTime, 0)), toSecond(time.Unix(claims.Expires, 0)),
		strings.Join(claims.Methods, " "), string(claims.Token.Type)+" "+claims.Token.Serial, orDash(claims.Token.Model))
	return t.print(cmd.OutOrStdout())
}
