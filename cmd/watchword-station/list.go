package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"watchword/webauthn/station"
)

// listed is a key as list shows it.
type listed struct {
	station.Key
	Info    *station.Info    `json:"info,omitempty"`
	Verdict *station.Verdict `json:"verdict,omitempty"`
	Problem string           `json:"problem,omitempty"`
}

func listCommand() *cobra.Command {
	var f keyFlags
	var server serverFlags
	var asJSON, watch, offline bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keys that are plugged in, with what is known of their models",
		Example: "  watchword-station list\n  watchword-station list --offline --json\n  watchword-station list --watch",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s *station.Server
			if !offline {
				var err error
				if s, err = server.open(); err != nil {
					return fmt.Errorf("%w (or say --offline)", err)
				}
			}
			w := f.watcher()
			look := func(k station.Key) listed { return describe(c, s, k) }
			out := c.OutOrStdout()
			if watch {
				for {
					k, err := w.Next(c.Context())
					if c.Context().Err() != nil {
						return nil
					} else if err != nil {
						return err
					}
					if err := show(out, asJSON, look(k)); err != nil {
						return err
					}
				}
			}
			list, err := w.Now()
			if err != nil {
				return err
			}
			if len(list) == 0 && !asJSON {
				fmt.Fprintln(c.ErrOrStderr(), "There is no key; plug one in.")
			}
			for _, k := range list {
				if err := show(out, asJSON, look(k)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd)
	server.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each key")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with the keys that are plugged in, until it is broken off")
	cmd.Flags().BoolVar(&offline, "offline", false, "ask no server about the models")
	return cmd
}

func describe(c *cobra.Command, s *station.Server, k station.Key) listed {
	l := listed{Key: k}
	d, err := station.Open(k.Path)
	if err != nil {
		l.Problem = err.Error()
		return l
	}
	defer d.Close()
	if l.Info, err = d.Info(); err != nil {
		l.Problem = err.Error()
		return l
	}
	if s != nil {
		v, err := s.Allowed(c.Context(), l.Info.Model)
		if err != nil {
			l.Problem = err.Error()
			return l
		}
		l.Verdict = &v
	}
	return l
}

func show(w io.Writer, asJSON bool, l listed) error {
	if asJSON {
		return json.NewEncoder(w).Encode(l)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", l.Path, clean(strings.TrimSpace(l.Maker+" "+l.Name)))
	if i := l.Info; i != nil {
		pin := "no PIN"
		switch {
		case i.PINDue:
			pin = fmt.Sprintf("a PIN that must be changed, %d tries left", i.Retries)
		case i.Retries >= 0:
			pin = fmt.Sprintf("a PIN, %d tries left", i.Retries)
		}
		fmt.Fprintf(&b, "    AAGUID %s, %s, %s\n", i.Model, clean(strings.Join(i.Versions, " ")), pin)
	}
	if v := l.Verdict; v != nil {
		fmt.Fprintf(&b, "    %s\n", known(v.Model))
		if v.Allowed {
			b.WriteString("    may be enrolled\n")
		} else {
			fmt.Fprintf(&b, "    may not be enrolled: %s\n", clean(strings.Join(v.Reasons, "; ")))
		}
	}
	if l.Problem != "" {
		fmt.Fprintf(&b, "    %s\n", clean(l.Problem))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// known is what the metadata has of a model.
func known(m *station.Model) string {
	if m == nil {
		return "a model that is in no metadata"
	}
	certified := "not certified"
	if m.Certification != "" {
		certified = m.Certification
	}
	return clean(m.Name) + ", " + clean(certified)
}

func credentialsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "credentials",
		Short:   "List the credentials on a key, and delete them",
		Example: "  watchword-station credentials list\n  watchword-station credentials delete 5f0c7b",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(credentialsList(), credentialsDelete())
	return cmd
}

// heldFlags name a key of which the PIN is needed.
type heldFlags struct {
	keyFlags
	pinFile, device string
}

func (f *heldFlags) add(c *cobra.Command) {
	f.keyFlags.add(c)
	c.Flags().StringVar(&f.pinFile, "pin-file", "", "file with the key's PIN; - is standard input")
	c.Flags().StringVar(&f.device, "device", "", "the key, as list shows it (default: the only one)")
}

// with does something with the key and its PIN, and leaves neither behind.
func (f *heldFlags) with(do func(*station.Device, *station.Secret) error) error {
	d, err := f.oneKey(f.device)
	if err != nil {
		return err
	}
	defer d.Close()
	pin, err := askPIN(f.pinFile, "PIN: ")
	if err != nil {
		return err
	}
	defer pin.Wipe()
	return do(d, pin)
}

func credentialsList() *cobra.Command {
	var f heldFlags
	var rp string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the credentials that a key holds", Args: cobra.NoArgs,
		Example: "  watchword-station credentials list\n  watchword-station credentials list --rp example.com --pin-file pin.txt --json",
		RunE: func(c *cobra.Command, _ []string) error {
			return f.with(func(d *station.Device, pin *station.Secret) error {
				list, err := d.Credentials(pin, rp)
				if err != nil {
					return err
				}
				if asJSON {
					if list == nil {
						list = []station.Held{}
					}
					return json.NewEncoder(c.OutOrStdout()).Encode(list)
				}
				for _, h := range list {
					fmt.Fprintf(c.OutOrStdout(), "%s  %s  %s\n", hex.EncodeToString(h.ID), clean(h.RPID), clean(h.User))
				}
				return nil
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&rp, "rp", "", "those of one relying party")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func credentialsDelete() *cobra.Command {
	var f heldFlags
	cmd := &cobra.Command{
		Use: "delete ID", Short: "Delete a credential from a key", Args: cobra.ExactArgs(1),
		Example: "  watchword-station credentials delete 5f0c7b",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := hex.DecodeString(args[0])
			if err != nil || len(id) == 0 {
				return errors.New("a credential is named by its id in hex, as 'credentials list' shows it")
			}
			return f.with(func(d *station.Device, pin *station.Secret) error {
				if err := d.Delete(id, pin); err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), "The credential is deleted from the key. Revoke its token, too: watchword token revoke SERIAL.")
				return nil
			})
		},
	}
	f.add(cmd)
	return cmd
}
