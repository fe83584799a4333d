package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

func tokenCommand(c *client) *cobra.Command {
	token := &cobra.Command{
		Use:     "token",
		Short:   "Show tokens, hand them out, set them right, take them out of use",
		Example: "  watchword token list\n  watchword token assign 24680017 alice",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	token.AddCommand(
		tokenList(c), tokenShow(c), tokenStory(c), tokenDrift(c),
		tokenNew(c), tokenAssign(c), tokenActivate(c), tokenReplace(c), tokenResync(c), tokenUnlock(c),
		tokenExpire(c), tokenNote(c), tokenTag(c), tokenLost(c), tokenBulk(c),
		tokenAct(c, act{
			name: "unassign", short: "Take tokens back from their user",
			long:    "The token can be handed to somebody else then. Codes that were used stay used.",
			example: "  watchword token unassign 24680017",
		}),
		tokenAct(c, act{
			name: "suspend", short: "Reject tokens until they are resumed",
			long:    "For a while, such as a holiday. For a token that is gone there is lost.",
			example: "  watchword token suspend 24680017 --reason 'on leave'",
		}),
		tokenAct(c, act{
			name: "resume", short: "Let suspended or lost tokens be used again",
			long:    "A token that was marked lost is resumed only with a reason, which the audit keeps.",
			example: "  watchword token resume 24680017 --reason 'found in the car'",
		}),
		tokenAct(c, act{
			name: "revoke", short: "Revoke tokens for good: their seeds are destroyed",
			long:    "There is no way back, and a FIDO key can never be enrolled again. On a terminal the serial is asked for once more, unless --yes is given.",
			example: "  watchword token revoke 24680017 --yes", final: true,
		}),
	)
	return c.flags(token)
}

func tokenList(c *client) *cobra.Command {
	var user, state, kind, q, tag string
	var batch, limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List tokens",
		Example: "  watchword token list --state imported\n  watchword token list --user alice\n  watchword token list --q 2468 --limit 0 --json\n  watchword token list --tag contractor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := call{what: "list tokens", path: pathTo("tokens"), query: c.query("user", user, "state", state, "type", kind, "q", q, "tag", tag)}
			if batch != 0 {
				r.query.Set("batch", itoa(batch))
			}
			tokens, printed, err := list[api.Token](cmd, c, r, limit)
			if err != nil || printed {
				return err
			}
			return printList(cmd, tokenTable(tokens), "there is no such token")
		},
	}
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "only this user's")
	f.StringVar(&state, "state", "", "only in this state: imported, pending, active, suspended, lost or revoked")
	f.StringVar(&kind, "type", "", "only of this type: totp, hotp, yubico, fido, recovery or temporary")
	f.StringVar(&q, "q", "", "part of the serial or of the user's name")
	f.StringVar(&tag, "tag", "", "only with this tag")
	f.IntVar(&batch, "batch", 0, "only of this import (see watchword import list)")
	limitFlag(cmd, &limit)
	return cmd
}

func tokenTable(tokens []api.Token) *table {
	t := newTable("SERIAL", "STATE", "USER", "KIND", "MOVES", "REALM", "LAST USED", "MODEL")
	for _, k := range tokens {
		t.add(k.Serial, string(k.State), orDash(k.User), kindOf(&k), movesOf(&k), k.Realm, toMinuteOf(k.LastUsed), orDash(k.Model))
	}
	return t
}

// kindOf is "totp sha1 6 30s", "yubico vvhvcccccccd", or "fido example.org".
func kindOf(t *api.Token) string {
	if t.Type == "recovery" || t.Type == "temporary" {
		return string(t.Type) + map[bool]string{true: " codes", false: " passcode"}[t.Type == "recovery"]
	}
	if t.PublicId != nil {
		return strings.TrimSpace(string(t.Type) + " " + clean(*t.PublicId))
	}
	if t.RpId != nil {
		return string(t.Type) + " " + *t.RpId
	}
	s := fmt.Sprintf("%s %s %d", t.Type, t.Algorithm, t.Digits)
	if t.Period != nil {
		s += fmt.Sprintf(" %ds", *t.Period)
	}
	return s
}

// movesOf is a token's drift in steps, its next counter, the last one that a key
// answered, or how many codes or uses are left.
func movesOf(t *api.Token) string {
	switch {
	case t.Left != nil:
		return fmt.Sprintf("%d left", *t.Left)
	case t.Drift != nil:
		return fmt.Sprintf("drift %+d", *t.Drift)
	case t.RpId != nil && t.Counter != nil && *t.Counter > 0:
		return fmt.Sprintf("last %d", *t.Counter)
	case t.RpId != nil:
	case t.Counter != nil:
		return fmt.Sprintf("next %d", *t.Counter)
	}
	return "-"
}

func tokenShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show SERIAL",
		Short:   "Show a token",
		Example: "  watchword token show 24680017",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, printed, err := get[api.Token](cmd, c, call{what: "show token " + args[0], path: pathTo("tokens", args[0]), query: c.query()})
			if err != nil || printed {
				return err
			}
			table := tokenTable([]api.Token{t})
			noteLife(table, &t)
			if t.Hint != nil {
				table.note("The file that it came with names " + *t.Hint + ".")
			}
			noteKey(table, &t)
			return table.print(cmd.OutOrStdout())
		},
	}
}

// noteLife says what there is to say of any token, beside the table.
func noteLife(table *table, t *api.Token) {
	if t.Assigned != nil {
		table.note("Assigned " + toMinuteOf(t.Assigned) + ".")
	}
	if t.Expires != nil {
		verb := "Expires "
		if !t.Expires.After(time.Now()) {
			verb = "Expired "
		}
		table.note(verb + toMinuteOf(t.Expires) + ".")
	}
	if tags := valueOf(t.Tags); len(tags) > 0 {
		table.note("Tags: " + strings.Join(tags, ", "))
	}
	if note := valueOf(t.Note); note != "" {
		table.note("Note: " + note)
	}
}

// noteKey says what there is to say of a FIDO key.
func noteKey(table *table, t *api.Token) {
	if t.RpId == nil {
		return
	}
	is := func(b *bool, yes, no string) string {
		if b != nil && *b {
			return yes
		}
		return no
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	table.note(fmt.Sprintf("AAGUID %s, attestation %s (%s)", text(t.Aaguid), text(t.Attestation), text(t.Format)))
	line := is(t.Discoverable, "a passkey (works without a user name)", "not a passkey") + ", " +
		is(t.UserVerified, "verified its user when it was enrolled", "did not verify its user when it was enrolled") + ", " +
		is(t.Synced, "may be synced to other devices", "bound to one device")
	if t.Transports != nil && len(*t.Transports) > 0 {
		line += ", by " + strings.Join(*t.Transports, ", ")
	}
	table.note(line)
}

func tokenAssign(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "assign SERIAL USER",
		Short:   "Hand a token to a user",
		Example: "  watchword token assign 24680017 alice",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.actOnToken(cmd, "assign", args[0], map[string]string{"user": args[1]})
		},
	}
}

func tokenResync(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "resync SERIAL CODE1 CODE2",
		Short: "Resynchronise a token by two consecutive codes",
		Long: `Finds two codes that the token showed one after the other in a wide window, and
sets the token right by them. Neither can be used any more. Without PIN.`,
		Example: "  watchword token resync 24680017 755224 287082",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.actOnToken(cmd, "resync", args[0], map[string]string{"code1": args[1], "code2": args[2]})
		},
	}
}

func tokenUnlock(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "unlock SERIAL",
		Short:   "Unlock the user who holds a token",
		Example: "  watchword token unlock 24680017",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, printed, err := get[api.User](cmd, c, call{
				what: "unlock the holder of token " + args[0], method: http.MethodPost, path: pathTo("tokens", args[0], "unlock"), query: c.query(),
			})
			if err != nil || printed {
				return err
			}
			return told(say(cmd, "%s is unlocked.", u.Name), u.Say)
		},
	}
}

// act is something done to tokens with, perhaps, a reason.
type act struct {
	name, short, long, example string
	final                      bool
}

func tokenAct(c *client, a act) *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:     a.name + " SERIAL...",
		Short:   a.short,
		Long:    a.short + ".\n" + a.long,
		Example: a.example,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, serial := range args {
				if a.final && !yes && !confirm(serial) {
					return &failure{What: a.name + " token " + serial, Why: "it was not confirmed", Do: "nothing was done to it"}
				}
				var body any
				if reason != "" {
					body = map[string]string{"reason": reason}
				}
				if err := c.actOnToken(cmd, a.name, serial, body); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words; for the audit")
	if a.final {
		cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	}
	return cmd
}

// confirm asks for a serial once more where a person can answer.
func confirm(serial string) bool {
	if !onTerminal(os.Stdin) {
		return true
	}
	fmt.Fprintf(os.Stderr, "This destroys the seed of token %s. Type the serial to go on: ", clean(serial))
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.TrimSpace(line) == serial
}

// actOnToken does something to a token and says how it is then.
func (c *client) actOnToken(cmd *cobra.Command, name, serial string, body any) error {
	t, printed, err := get[api.Token](cmd, c, call{
		what: name + " token " + serial, method: http.MethodPost, path: pathTo("tokens", serial, name), query: c.query(), body: body,
	})
	if err != nil || printed {
		return err
	}
	if name == "resync" {
		err = say(cmd, "Token %s is resynchronised (%s); %s.", t.Serial, movesOf(&t), holderOf(&t))
	} else {
		err = sayToken(cmd, &t)
	}
	return told(err, t.Say)
}

// sayToken says how a token is now.
func sayToken(cmd *cobra.Command, t *api.Token) error {
	return say(cmd, "Token %s is %s; %s.", t.Serial, t.State, holderOf(t))
}

func holderOf(t *api.Token) string {
	if t.User == "" {
		return "nobody holds it"
	}
	return t.User + " holds it"
}

func itoa(n int) string { return strconv.Itoa(n) }
