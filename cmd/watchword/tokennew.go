package main

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func tokenNew(c *client) *cobra.Command {
	var issuer, algorithm, png string
	var digits, period int
	var uri bool
	cmd := &cobra.Command{
		Use:   "new USER",
		Short: "Make a software token, for an authenticator app",
		Long: `Makes a software TOTP token, whose seed the HSM draws, and shows the seed this once:
on a terminal as a QR code to be read by the app, with --png in a picture that only
you can read, with --uri as the text of the QR code. It is good for nothing until two
codes of the app, one right after the other, have shown that it works:

  watchword token activate SERIAL CODE1 CODE2

Where a token of the user waits for that already, it gets a new seed. Some apps know
no hash but sha1, and no codes but those of 6 digits and 30 seconds. That the user
does it without you: watchword user invite.`,
		Example: "  watchword token new alice\n  watchword token new alice --png alice.png --issuer 'Example Ltd'\n  watchword token new alice --uri --algorithm sha256 --digits 8",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "make a software token for " + args[0]
			if png != "" && uri {
				return &failure{What: what, Why: "--png and --uri exclude each other"}
			}
			body := map[string]any{"type": "totp"}
			for name, value := range map[string]string{"issuer": issuer, "algorithm": algorithm} {
				if value != "" {
					body[name] = value
				}
			}
			for name, value := range map[string]int{"digits": digits, "period": period} {
				if value != 0 {
					body[name] = value
				}
			}
			// The file is made first: a token whose picture cannot be kept is better not
			// made.
			file, err := createNew(png)
			if err != nil {
				return &failure{What: what, Why: png + ": " + plainCause(err), Do: "name a new file with --png"}
			}
			quiet := *c
			quiet.json = c.json && png == ""
			made, printed, err := get[api.MadeToken](cmd, &quiet, call{
				what: what, method: http.MethodPost, path: pathTo("users", args[0], "tokens"), query: c.query(), body: body,
			})
			if err == nil && file != nil {
				err = writePicture(&made, what, file)
			}
			if err != nil {
				if file != nil {
					file.Close()
					os.Remove(png)
				}
				return err
			}
			if printed {
				return nil
			}
			if file != nil {
				err = say(cmd, "Token %s of %s is made; its QR code is in %s.", made.Token.Serial, made.Token.User, png)
			} else {
				err = showSeed(cmd, &made, what, uri)
			}
			hint("token %s waits for two codes: watchword token activate %s CODE1 CODE2", made.Token.Serial, made.Token.Serial)
			return told(err, made.Say)
		},
	}
	f := cmd.Flags()
	f.StringVar(&issuer, "issuer", "", "whose token it is, as the app shows it")
	f.StringVar(&algorithm, "algorithm", "", "sha1, sha256 or sha512 (default sha1)")
	f.IntVar(&digits, "digits", 0, "how long a code is: 6, 7 or 8 (default 6)")
	f.IntVar(&period, "period", 0, "seconds of a time step: 30 or 60 (default 30)")
	f.StringVar(&png, "png", "", "new file for the picture of the QR code")
	f.BoolVar(&uri, "uri", false, "print the key URI alone")
	_ = cmd.RegisterFlagCompletionFunc("algorithm", cobra.FixedCompletions([]string{"sha1", "sha256", "sha512"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// showSeed prints the seed: for an app that looks at the terminal, and for fingers; or
// as text.
func showSeed(cmd *cobra.Command, e *api.MadeToken, what string, uri bool) error {
	if e.Uri == "" || e.Secret == "" {
		return &failure{What: what, Why: "the server answered no key URI", Do: "take token " + e.Token.Serial + " back: watchword token revoke " + e.Token.Serial}
	}
	if uri || !onTerminal(os.Stdout) {
		return say(cmd, "%s", e.Uri)
	}
	if err := printQR(cmd.OutOrStdout(), e.Uri); err != nil {
		return err
	}
	var typed []string
	for rest := e.Secret; rest != ""; {
		n := min(4, len(rest))
		typed, rest = append(typed, rest[:n]), rest[n:]
	}
	return say(cmd, "To type instead: %s", strings.Join(typed, " "))
}

// writePicture puts the QR code into a file, and ends it.
func writePicture(e *api.MadeToken, what string, file *os.File) error {
	text, found := strings.CutPrefix(e.Qr, "data:image/png;base64,")
	picture, err := base64.StdEncoding.DecodeString(text)
	if !found || err != nil || !bytes.HasPrefix(picture, []byte("\x89PNG\r\n")) {
		return &failure{What: what, Why: "the server answered no picture", Do: "take token " + e.Token.Serial + " back: watchword token revoke " + e.Token.Serial}
	}
	defer clear(picture)
	_, err = file.Write(picture)
	if err := firstOf(err, file.Sync(), file.Close()); err != nil {
		return &failure{What: what, Why: file.Name() + ": " + plainCause(err), Do: "take token " + e.Token.Serial + " back: watchword token revoke " + e.Token.Serial}
	}
	return nil
}

func tokenActivate(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "activate SERIAL CODE1 CODE2",
		Short: "Turn a token on by two consecutive codes",
		Long: `Turns a token on that waits for proof that its owner has it and it works: a software
token, or any token where the rules of the realm ask for that. The codes are two that
it showed one after the other, without PIN. Neither can be used any more.`,
		Example: "  watchword token activate 24680017 755224 287082",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.actOnToken(cmd, "activate", args[0], map[string]string{"code1": args[1], "code2": args[2]})
		},
	}
}

func tokenReplace(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "replace SERIAL NEW",
		Short: "Replace a token by another one, in one act",
		Long: `Revokes a token for good, its seed is destroyed, and hands the other one to the same
user. Either both are done or none. Where the rules of the realm ask for codes, the
new one waits for them, and a temporary passcode lives on until it is activated.`,
		Example: "  watchword token replace 24680017 24680023 --reason 'battery is empty'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]string{"by": args[1]}
			if reason != "" {
				body["reason"] = reason
			}
			r, printed, err := get[api.Replaced](cmd, c, call{
				what: "replace token " + args[0], method: http.MethodPost, path: pathTo("tokens", args[0], "replace"), query: c.query(), body: body,
			})
			if err != nil || printed {
				return err
			}
			return told(firstOf(sayToken(cmd, &r.Old), sayToken(cmd, &r.Token)), r.Say)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words; for the audit")
	return cmd
}
