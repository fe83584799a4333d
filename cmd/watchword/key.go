package main

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

func keyCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Make and remove API keys",
		Example: "  watchword key add portal --scope verify --out portal.key\n  watchword key list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keyAdd(c), keyList(c), keyRotate(c), keyDelete(c))
	return c.flags(cmd)
}

func keyAdd(c *client) *cobra.Command {
	var scope, expires, out string
	var sources []string
	cmd := &cobra.Command{
		Use:   "add NAME --scope SCOPE",
		Short: "Make an API key",
		Long: `Makes an API key and prints it, this once: the server keeps only its hash.
With --realm the key may act in that realm only. The scopes are

  admin      everything
  helpdesk   users and tokens
  provision  bring users and tokens in, and hand them out
  station    enrol FIDO keys at an enrolment station, and see what is known of their models
  verify     check codes, keys and sessions, and nothing else
  read       look at everything, change nothing
  role:NAME  what your own policies say of the role

With --source, once or more, the key is good from those networks only.`,
		Example: "  watchword key add portal --scope verify --out portal.key\n  watchword key add audit --scope read --expires 2027-01-01 --realm default --source 192.0.2.0/24",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "make API key " + args[0]
			if scope == "" {
				return &failure{What: what, Why: "--scope is needed", Do: "it is admin, helpdesk, provision, station, verify, read or role:NAME"}
			}
			body := api.NewKey{Name: args[0], Scope: api.Scope(scope), Realm: ptr(c.realm)}
			if expires != "" {
				t, err := parseDay(expires)
				if err != nil {
					return &failure{What: what, Why: "--expires is not a date such as 2027-01-31 or 2027-01-31T12:00:00Z"}
				}
				body.Expires = &t
			}
			if len(sources) > 0 {
				body.Sources = &sources
			}
			return makeKey(cmd, c, call{what: what, method: http.MethodPost, path: pathTo("keys"), body: body}, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&scope, "scope", "", "admin, helpdesk, provision, station, verify, read or role:NAME")
	f.StringArrayVar(&sources, "source", nil, "a network that it is good from, such as 192.0.2.0/24; may be repeated (default any)")
	f.StringVar(&expires, "expires", "", "the day on which it ends to be valid (default never)")
	f.StringVar(&out, "out", "", "new file to write the key to, instead of printing it")
	return cmd
}

// makeKey has a key made and prints it, or writes it to a new file.
func makeKey(cmd *cobra.Command, c *client, r call, out string) error {
	// The file is made first: a key that cannot be kept is better not made.
	file, err := createNew(out)
	if err != nil {
		return &failure{What: r.what, Why: out + ": " + plainCause(err), Do: "name a new file with --out"}
	}
	quiet := *c
	quiet.json = c.json && out == ""
	key, printed, err := get[api.Key](cmd, &quiet, r)
	if err != nil {
		if file != nil {
			file.Close()
			os.Remove(out)
		}
		return err
	}
	if printed {
		return nil
	}
	if key.Key == nil {
		return &failure{What: r.what, Why: "the server answered no key"}
	}
	if file == nil {
		return say(cmd, "%s", *key.Key)
	}
	_, err = file.WriteString(*key.Key + "\n")
	if err := firstOf(err, file.Sync(), file.Close()); err != nil {
		return &failure{What: r.what, Why: out + ": " + plainCause(err), Do: "delete the key again: watchword key delete " + key.Id}
	}
	return say(cmd, "API key %s (%s, %s) is in %s.", key.Id, key.Name, key.Scope, out)
}

func keyRotate(c *client) *cobra.Command {
	var overlap time.Duration
	var out string
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a key that takes another's place",
		Long: `Makes a key with the same name, scope, realm and networks, good for as long as the
old one was made for, and prints it, this once. The old one stays good for as long as
--overlap says, up to 30 days, so that whoever uses it can change over; without it, it
opens nothing any more.`,
		Example: "  watchword key rotate 5d1f0a3c9b7e2468 --overlap 48h --out portal-2.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "rotate API key " + args[0]
			if overlap < 0 || overlap%time.Second != 0 {
				return &failure{What: what, Why: "--overlap is not a number of whole seconds", Do: "48h, for example"}
			}
			n := int(overlap / time.Second)
			return makeKey(cmd, c, call{what: what, method: http.MethodPost, path: pathTo("keys", args[0], "rotate"), body: api.KeyRotation{OverlapSeconds: &n}}, out)
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "how long the old key stays good, up to 720h")
	cmd.Flags().StringVar(&out, "out", "", "new file to write the key to, instead of printing it")
	return cmd
}

// createNew makes a file that only its owner can read; none if path is empty.
func createNew(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func parseDay(s string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("no date")
}

func keyList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the API keys, without the keys themselves",
		Example: "  watchword key list\n  watchword key list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.KeyPage](cmd, c, call{what: "list the API keys", path: pathTo("keys")})
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "SCOPE", "REALM", "MADE", "EXPIRES", "LAST USED", "FROM", "NAME")
			for _, k := range page.Items {
				realm := "all"
				if k.Realm != nil && *k.Realm != "" {
					realm = *k.Realm
				}
				from := "any"
				if k.Sources != nil {
					from = strings.Join(*k.Sources, " ")
				}
				name := k.Name
				if k.Successor != nil {
					name += " (until it expires; then " + *k.Successor + ")"
				}
				t.add(k.Id, k.Scope, realm, toMinute(k.Created), toMinuteOf(k.Expires), toMinuteOf(k.LastUsed), from, name)
			}
			return printList(cmd, t, "there is no API key")
		},
	}
}

func keyDelete(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "delete ID",
		Short:   "Remove an API key: it opens nothing from then on",
		Example: "  watchword key delete 5d1f0a3c9b7e2468",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "delete API key " + args[0], method: http.MethodDelete, path: pathTo("keys", args[0])}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "API key %s is deleted: it opens nothing any more.", args[0])
		},
	}
}
