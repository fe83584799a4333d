package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

func tokenExpire(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "expire SERIAL... WHEN",
		Short: "Set the day from which on tokens are rejected, or take it away",
		Long: `From that day or time on nothing of the token is accepted. WHEN is a day such as
2027-01-31 (its beginning), a time such as 2027-01-31T18:00:00+01:00, or never.`,
		Example: "  watchword token expire 24680017 2027-01-31\n  watchword token expire 24680017 24680018 never",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			last := len(args) - 1
			when, err := parseExpiry(args[last])
			if err != nil {
				return &failure{What: "set when tokens expire", Why: args[last] + " is no day such as 2027-01-31, no time such as 2027-01-31T18:00:00+01:00, and not never"}
			}
			for _, serial := range args[:last] {
				r := call{what: "set when token " + serial + " expires", method: http.MethodPut, path: pathTo("tokens", serial, "expiry"), query: c.query()}
				r.body = map[string]*time.Time{"expires": when}
				t, printed, err := get[api.Token](cmd, c, r)
				if err != nil {
					return err
				}
				if printed {
					continue
				}
				sentence := "Token %s expires %s."
				if t.Expires == nil {
					sentence = "Token %s does not expire%s."
				}
				if err := told(say(cmd, sentence, t.Serial, strings.TrimPrefix(toMinuteOf(t.Expires), "-")), t.Say); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// parseExpiry is nil for never.
func parseExpiry(s string) (*time.Time, error) {
	if s == "never" {
		return nil, nil
	}
	t, err := parseDay(s)
	return &t, err
}

func tokenNote(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "note SERIAL TEXT",
		Short:   "Note something on a token, for whoever helps next; an empty text removes it",
		Example: "  watchword token note 24680017 'spare, in the drawer of room 12'\n  watchword token note 24680017 ''",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, printed, err := get[api.Token](cmd, c, noteCall(c, args[0], map[string]any{"note": args[1]}))
			switch {
			case err != nil || printed:
				return err
			case valueOf(t.Note) == "":
				return say(cmd, "Nothing is noted on token %s.", t.Serial)
			}
			return say(cmd, "Noted on token %s: %s", t.Serial, *t.Note)
		},
	}
}

func tokenTag(c *client) *cobra.Command {
	var drop []string
	cmd := &cobra.Command{
		Use:   "tag SERIAL [TAG...]",
		Short: "Put tags on a token, or take them off",
		Long: `Tags are short words by which tokens are found again: watchword token list --tag,
watchword token bulk --tag. Letters, digits, dots, hyphens and underscores.`,
		Example: "  watchword token tag 24680017 contractor berlin\n  watchword token tag 24680017 --drop contractor",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			if len(args) > 1 {
				body["add_tags"] = args[1:]
			}
			if len(drop) > 0 {
				body["drop_tags"] = drop
			}
			r := noteCall(c, args[0], body)
			if len(body) == 0 {
				return &failure{What: r.what, Why: "no tag is named", Do: "'watchword token show " + args[0] + "' shows what is there"}
			}
			t, printed, err := get[api.Token](cmd, c, r)
			switch {
			case err != nil || printed:
				return err
			case len(valueOf(t.Tags)) == 0:
				return say(cmd, "Token %s has no tags.", t.Serial)
			}
			return say(cmd, "Token %s has tags %s.", t.Serial, strings.Join(*t.Tags, ", "))
		},
	}
	cmd.Flags().StringSliceVar(&drop, "drop", nil, "a tag to take off; may be given several times")
	return cmd
}

func noteCall(c *client, serial string, body map[string]any) call {
	return call{what: "note on token " + serial, method: http.MethodPatch, path: pathTo("tokens", serial), query: c.query(), body: body}
}
