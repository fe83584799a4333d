package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

// heldSession is what the session file keeps.
type heldSession struct {
	URL     string    `json:"url"` // of the server that it is shown to, and to no other
	Session string    `json:"session"`
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
}

// sessionFile is where the session is kept: beside the API key, if nothing else is
// said.
func (c *client) sessionFile() string {
	if path := os.Getenv("WATCHWORD_SESSION_FILE"); path != "" {
		return path
	}
	return filepath.Join(filepath.Dir(c.keyFile), "watchword.session")
}

// held answers the session that is kept for this server, if it has not expired; not
// where an API key was named on the command line.
func (c *client) held() *heldSession {
	if c.keyNamed {
		return nil
	}
	text, err := os.ReadFile(c.sessionFile())
	if err != nil {
		return nil
	}
	var h heldSession
	if json.Unmarshal(text, &h) != nil || h.Session == "" || h.URL != c.url || !time.Now().Before(h.Expires) {
		return nil
	}
	return &h
}

// keep writes the session file anew, readable for its owner only.
func (c *client) keep(h heldSession) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	path := c.sessionFile()
	f, err := os.CreateTemp(filepath.Dir(path), ".watchword-session-*") // which makes it 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = firstOf(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// readPINAndCode reads PIN and code, unseen at a terminal, else a line of standard input.
func readPINAndCode() (string, error) {
	if onTerminal(os.Stdin) {
		typed, err := askSecret("PIN and code: ")
		return string(typed), err
	}
	code, err := readLineFrom(os.Stdin)
	if err == nil && code == "" {
		err = errors.New("standard input has no code")
	}
	return code, err
}

func loginCommand(c *client) *cobra.Command {
	var in, from string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "login USER",
		Short: "Sign in, to act by your roles instead of an API key",
		Long: `Asks for your PIN and the code behind it, unseen, or reads them from standard input,
and keeps the session in $WATCHWORD_SESSION_FILE, or beside the API key file as
watchword.session. From then on commands are done by it, until it expires or
'watchword logout', unless --api-key-file names a key.

A session acts in all realms if you have a role for all, or else in the only one;
--in names one, or '*' for all. What is protected (revoking, imports, exports, keys,
roles, policies) asks for a fresh code where the last is older than five minutes.`,
		Example: "  watchword login alice\n  watchword login alice --in default --for 2h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "sign in as " + args[0]
			code, err := readPINAndCode()
			if err != nil {
				return &failure{What: what, Why: err.Error(), Do: "type PIN and code at the terminal, or pipe them in as one line"}
			}
			body := api.SignIn{User: args[0], Code: code, Realm: ptr(from), In: ptr(in)}
			if from == "" {
				body.Realm = ptr(c.realm)
			}
			if life != 0 {
				body.DurationSeconds = new(int)
				*body.DurationSeconds = int(life / time.Second)
			}
			quiet := *c
			quiet.json = false
			got, _, err := get[api.SignedIn](cmd, &quiet, call{what: what, method: http.MethodPost, path: pathTo("session"), body: body, keyless: true})
			switch {
			case err != nil:
				return err
			case got.Result == api.VerdictReject:
				hint("rejected: the code is wrong or was used, or %s has no role here", args[0])
				return errNo
			case got.Session == nil || got.Info == nil:
				return &failure{What: what, Why: "the server answered no session"}
			}
			if err := c.keep(heldSession{URL: c.url, Session: *got.Session, User: got.Info.User, Expires: got.Info.Expires}); err != nil {
				return &failure{What: what, Why: c.sessionFile() + ": " + plainCause(err), Do: "name a file that can be written with WATCHWORD_SESSION_FILE"}
			}
			if c.json { // without the session itself
				text, err := json.Marshal(got.Info)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), text)
			}
			return say(cmd, "You are %s (%s), %s, until %s.", got.Info.User, rolesOf(got.Info), whereOf(got.Info), toMinute(got.Info.Expires))
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "the realm to act in, or '*' for all")
	cmd.Flags().StringVar(&from, "from", "", "the realm that you are a user of (default --realm, or default)")
	cmd.Flags().DurationVar(&life, "for", 0, "how long the session lasts, 15m to 36h (default as the server is set)")
	return c.flags(cmd)
}

func rolesOf(v *api.Session) string {
	if v.Roles == nil || len(*v.Roles) == 0 {
		return "no role"
	}
	return strings.Join(*v.Roles, ", ")
}

func whereOf(v *api.Session) string {
	if v.In == nil {
		return "in all realms"
	}
	return "in realm " + *v.In
}

func logoutCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logout",
		Short:   "End the session that 'watchword login' began",
		Example: "  watchword logout",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := c.held()
			if h != nil {
				_, err := c.do(cmd.Context(), call{what: "sign out", method: http.MethodDelete, path: pathTo("session")})
				var r *refusal
				if err != nil && !(errors.As(err, &r) && r.problem.Status == http.StatusUnauthorized) { // it has ended already
					return err
				}
			}
			if err := os.Remove(c.sessionFile()); err != nil && !os.IsNotExist(err) {
				return &failure{What: "sign out", Why: c.sessionFile() + ": " + plainCause(err), Do: "remove the file; the session has ended"}
			}
			if h == nil {
				hint("nobody is signed in")
				return nil
			}
			return c.deleted(cmd, "%s is signed out.", h.User)
		},
	}
	return c.flags(cmd)
}

func whoamiCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "whoami",
		Short:   "Say who is signed in, by which roles and until when",
		Example: "  watchword whoami\n  watchword whoami --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.held() == nil {
				hint("nobody is signed in: commands use the API key in %s", c.keyFile)
				return errNo
			}
			v, printed, err := get[api.Session](cmd, c, call{what: "see who is signed in", path: pathTo("session")})
			if err != nil || printed {
				return err
			}
			return say(cmd, "You are %s of realm %s (%s), %s, until %s. Your last code was %s ago.",
				v.User, v.Realm, rolesOf(&v), whereOf(&v), toMinute(v.Expires), max(time.Since(v.Authenticated), 0).Round(time.Second))
		},
	}
	return c.flags(cmd)
}

// fresh proves anew who is signed in, where the server asks for that and somebody can
// be asked.
func (c *client) fresh(cmd call, err error) (again bool) {
	var r *refusal
	if !errors.As(err, &r) || r.problem.Type != "urn:watchword:problem:mfa-required" || cmd.stream != nil || c.renewed || c.held() == nil || !onTerminal(os.Stdin) {
		return false
	}
	hint("this takes a fresh code")
	c.renewed = true
	return true
}

// renew asks for a fresh code and shows it to the server.
func (c *client) renew(ctx context.Context) error {
	what := "prove who you are"
	code, err := readPINAndCode()
	if err != nil {
		return &failure{What: what, Why: err.Error()}
	}
	body, err := c.do(ctx, call{what: what, method: http.MethodPost, path: pathTo("session", "renew"), body: api.Renewal{Code: code}})
	if err != nil {
		return err
	}
	var got api.SignedIn
	if err := json.Unmarshal(body, &got); err != nil || got.Result != api.VerdictAccept {
		return &failure{What: what, Why: "the code was rejected", Do: "wait for the next one, and try again"}
	}
	return nil
}
