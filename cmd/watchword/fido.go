package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/webauthn"
)

func fidoCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fido",
		Short: "Say which FIDO keys may be enrolled, and what is known of their models",
		Long: `FIDO security keys are tokens like the others (see watchword token), enrolled by
invitation (see watchword user invite). What is here is about their models: the
metadata that describes and vouches for them, and the rules that say which are
allowed.`,
		Example: "  watchword fido mds import blob.jwt\n  watchword fido models yubikey\n  watchword fido allowed 01020304-0506-0708-0102-030405060708",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(fidoMDS(c), fidoModels(c), fidoAllowed(c), fidoRules(c), fidoConcerns(c), fidoRoots(c))
	return c.flags(cmd)
}

func fidoMDS(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "mds",
		Short:   "Bring the metadata of all models, and see which is in use",
		Example: "  watchword fido mds import blob.jwt\n  watchword fido mds show",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(mdsImport(c), mdsShow(c))
	return cmd
}

func mdsImport(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Import metadata from a file, where there is no network",
		Long: `Imports a blob of the FIDO Metadata Service, as it is had from
https://mds3.fidoalliance.org/ on a machine with a network. It must be signed by
the FIDO Alliance, or whom the configuration names; be no older than the one in
use; and the day when the next one is due must not be past.`,
		Example: "  curl -o blob.jwt https://mds3.fidoalliance.org/ && watchword fido mds import blob.jwt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "import metadata from " + args[0]
			file, err := os.Open(args[0])
			if err != nil {
				return &failure{What: what, Why: plainCause(err), Do: "name a file that can be read"}
			}
			defer file.Close()
			info, err := file.Stat()
			if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
				return &failure{What: what, Why: "it is empty, or no file", Do: "name a file that can be read"}
			}
			m, printed, err := get[webauthn.MetadataInfo](cmd, c, call{
				what: what, method: http.MethodPost, path: pathTo("fido", "metadata"),
				stream: file, length: info.Size(), kind: "application/octet-stream", slow: true,
			})
			if err != nil || printed {
				return err
			}
			return sayMetadata(cmd, &m)
		},
	}
}

func mdsShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show which metadata is in use, and how old it is",
		Example: "  watchword fido mds show",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, printed, err := get[webauthn.MetadataInfo](cmd, c, call{what: "show the metadata", path: pathTo("fido", "metadata")})
			if err != nil || printed {
				return err
			}
			return sayMetadata(cmd, &m)
		},
	}
}

func sayMetadata(cmd *cobra.Command, m *webauthn.MetadataInfo) error {
	err := say(cmd, "Metadata %d is in use: %s, %s old, imported %s; the next is due on %s.",
		m.Number, plural(m.Entries, "model"), m.Age, toMinute(m.Imported), m.NextUpdate.Format(time.DateOnly))
	if m.Refused != "" {
		hint("warning: no key is enrolled by it: %s", m.Refused)
	} else if m.Stale {
		hint("warning: it is stale: the next is overdue since %s; import it", m.NextUpdate.Format(time.DateOnly))
	}
	for _, u := range m.Unread {
		hint("not understood: %s", u)
	}
	return err
}

func fidoModels(c *client) *cobra.Command {
	var aaguid string
	var limit int
	cmd := &cobra.Command{
		Use:   "models [PART OF THE NAME]",
		Short: "List the models that the metadata knows, and how many of them are ours",
		Long: `Lists the models that the metadata knows. OURS is how many enrolled keys are of
the model. What is reported of a model other than certifications stands below it;
with --aaguid also what else there is to say.`,
		Example: "  watchword fido models yubikey\n  watchword fido models --aaguid 01020304-0506-0708-0102-030405060708\n  watchword fido models --limit 0 --json",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "list the models", path: pathTo("fido", "models"), query: (&client{}).query("q", strings.Join(args, " "), "aaguid", aaguid)}
			models, printed, err := list[api.Model](cmd, c, r, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("AAGUID", "CERTIFIED", "PROTOCOL", "OURS", "NAME")
			for _, m := range models {
				t.add(orDash(m.AAGUID), orDash(certificationName(m.Certification)), m.Protocol, fmt.Sprint(m.Ours), orDash(m.Name))
				for _, s := range m.Status {
					if !strings.HasPrefix(s.Status, "FIDO_CERTIFIED") || aaguid != "" {
						t.note(statusNote(&s))
					}
				}
				if aaguid != "" {
					describeModel(t, &m)
				}
			}
			return printList(cmd, t, "the metadata knows no such model")
		},
	}
	cmd.Flags().StringVar(&aaguid, "aaguid", "", "only this model, with all that is known of it")
	limitFlag(cmd, &limit)
	return cmd
}

// certificationName is FIDO_CERTIFIED_L2 as people say it.
func certificationName(status string) string {
	name, ok := strings.CutPrefix(status, "FIDO_CERTIFIED")
	switch {
	case !ok:
		return status
	case name == "":
		return "yes"
	}
	return strings.TrimPrefix(name, "_")
}

func statusNote(s *webauthn.StatusReport) string {
	note := s.Status
	if !s.Since.IsZero() {
		note += " since " + s.Since.Format(time.DateOnly)
	}
	if !s.Until.IsZero() {
		note += " until " + s.Until.Format(time.DateOnly)
	}
	if s.Version != 0 {
		note += fmt.Sprintf(", version %d", s.Version)
	}
	if len(s.Certificate) > 0 {
		note += ", one batch of it"
	}
	if s.URL != "" {
		note += ", " + s.URL
	}
	return note
}

func describeModel(t *table, m *api.Model) {
	for _, about := range []struct {
		what  string
		words []string
	}{
		{"attestation", m.AttestationTypes}, {"algorithms", m.Algorithms}, {"verifies its user by", m.Verification},
		{"protects its keys by", m.KeyProtection}, {"transports", m.Transports}, {"attestation keys", m.Attesters},
	} {
		if len(about.words) > 0 {
			t.note(about.what + ": " + strings.Join(about.words, ", "))
		}
	}
	if m.MultiDevice != "" && m.MultiDevice != "unsupported" {
		t.note("its credentials may be synced to other devices")
	}
}

func fidoAllowed(c *client) *cobra.Command {
	var groups []string
	cmd := &cobra.Command{
		Use:   "allowed AAGUID",
		Short: "Would a model be allowed, and why not: exits 0 if it would, 1 if not",
		Long: `Says whether a key of the model could be enrolled under the rules and the metadata
in use, by somebody of the realm and the groups, if it attests as well as its model
can; and if not, all reasons.`,
		Example: "  watchword fido allowed 01020304-0506-0708-0102-030405060708\n  watchword fido allowed 01020304-0506-0708-0102-030405060708 --realm lab --group board",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, printed, err := get[api.ModelVerdict](cmd, c, call{
				what: "ask about model " + args[0], path: pathTo("fido", "allowed"), query: c.query("aaguid", args[0], "groups", strings.Join(groups, ",")),
			})
			if err != nil {
				return err
			}
			if !printed {
				name := args[0]
				if v.Model != nil && v.Model.Name != "" {
					name = v.Model.Name + " (" + name + ")"
				}
				sentence := "%s is allowed."
				if !v.Allowed {
					sentence = "%s is not allowed:"
				}
				err := say(cmd, sentence, name)
				for _, reason := range v.Reasons {
					err = firstOf(err, say(cmd, "- %s", reason))
				}
				if err != nil {
					return err
				}
			}
			if !v.Allowed {
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a group of whoever would enrol it; may be given several times")
	return cmd
}

func fidoConcerns(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "concerns",
		Short: "List the enrolled keys that a status report concerns: exits 1 if there are any",
		Long: `Lists enrolled keys whose model the metadata reports not to be trusted any more:
revoked, broken, bypassed. With fido.suspend_on_status they are suspended.`,
		Example: "  watchword fido concerns\n  watchword fido concerns --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.ConcernPage](cmd, c, call{what: "list the concerns", path: pathTo("fido", "concerns")})
			if err != nil {
				return err
			}
			t := newTable("SERIAL", "STATE", "USER", "REALM", "REPORTED", "SINCE", "MODEL")
			for _, k := range page.Items {
				since := "-"
				if !k.Since.IsZero() {
					since = k.Since.Format(time.DateOnly)
				}
				t.add(k.Serial, k.State, orDash(k.User), k.Realm, k.Status, since, orDash(k.Model))
				if len(k.Others) > 0 {
					t.note("also " + strings.Join(k.Others, ", "))
				}
				t.note(k.Note)
			}
			if !printed {
				if err := printList(cmd, t, "no enrolled key is concerned"); err != nil {
					return err
				}
			}
			if len(page.Items) > 0 {
				return errNo
			}
			return nil
		},
	}
}

func fidoRoots(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "roots",
		Short:   "Trust attestation roots of one's own, for keys that are in no metadata",
		Example: "  watchword fido roots set vendor.pem\n  watchword fido roots show",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(rootsSet(c), rootsShow(c))
	return cmd
}

func rootsSet(c *client) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use:   "set FILE",
		Short: "Replace the own roots by the certificates of a PEM file",
		Long: `Replaces the own roots by the certificates in a PEM file; with --none by none. A
key that no metadata knows can be enrolled if its attestation leads to one of them.`,
		Example: "  watchword fido roots set vendor.pem\n  watchword fido roots set --none",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "set the own roots", method: http.MethodPut, path: pathTo("fido", "roots")}
			if none == (len(args) == 1) {
				return &failure{What: r.what, Why: "one of a file and --none is needed", Do: "the usage is: " + cmd.UseLine()}
			}
			in := api.AttestationRoots{}
			if !none {
				text, err := os.ReadFile(args[0])
				if err != nil {
					return &failure{What: r.what, Why: args[0] + ": " + plainCause(err), Do: "name a PEM file of certificates"}
				}
				if len(strings.TrimSpace(string(text))) == 0 {
					return &failure{What: r.what, Why: args[0] + " is empty", Do: "name a PEM file of certificates, or say --none"}
				}
				in.Pem = string(text)
			}
			r.body = in
			return c.printRoots(cmd, r)
		},
	}
	cmd.Flags().BoolVar(&none, "none", false, "trust no root but those of the metadata")
	return cmd
}

func rootsShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "List the own roots",
		Example: "  watchword fido roots show",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.printRoots(cmd, call{what: "list the own roots", path: pathTo("fido", "roots")})
		},
	}
}

func (c *client) printRoots(cmd *cobra.Command, r call) error {
	page, printed, err := get[api.RootPage](cmd, c, r)
	if err != nil || printed {
		return err
	}
	t := newTable("UNTIL", "SHA-256", "SUBJECT")
	for _, root := range page.Items {
		t.add(root.Until.Format(time.DateOnly), root.SHA256, root.Subject)
	}
	return printList(cmd, t, "there is no own root")
}
