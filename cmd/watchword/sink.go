package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func sinkCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Say where the audit is told to",
		Long: `The audit leaves the building by sinks: files on the server's disk, a syslog server,
webhooks. Each record is told to each sink at least once, in order, whatever ends in
between. Needs a key of all realms.`,
		Example: "  watchword sink add siem --syslog tls://logs.example.org:6514 --ca-file ca.pem\n  watchword sink list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sinkAdd(c), sinkList(c), sinkShow(c), sinkDelete(c), sinkTest(c))
	return c.flags(cmd)
}

// sinkFlags are what a sink is made of.
type sinkFlags struct {
	file, plaintext, newSecret                bool
	format, syslog, serverName, webhook, from string
	caFile, certFile, keyFile, out            string
	secretFile                                string
	maxBytes                                  int64
	keep                                      int
	events                                    []string
}

func sinkAdd(c *client) *cobra.Command {
	var f sinkFlags
	cmd := &cobra.Command{
		Use:   "add NAME {--file | --syslog ADDRESS | --webhook URL}",
		Short: "Have the audit told to a sink, or change one",
		Long: `Has the audit told to a sink, from its start; a webhook from now on. A sink that is
there gets these settings, and goes on where it is.

  --file     audit/NAME/audit.jsonl in the server's data directory, one record a line
  --syslog   RFC 5424 over TLS; tcp:// and udp:// only with --allow-plaintext
  --webhook  some events, each by a request that is signed. The secret is printed
             this once, or written to --out

The events are fido.status, import.published, key.changed, policy.changed,
role.changed, sink.failing, tampering, token.lost and user.locked.`,
		Example: "  watchword sink add archive --file --format ocsf --keep 30\n" +
			"  watchword sink add siem --syslog tls://logs.example.org:6514 --ca-file ca.pem\n" +
			"  watchword sink add pager --webhook https://hooks.example.org/watchword --event tampering --event token.lost --out pager.secret",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "add sink " + args[0]
			body, err := f.settings(what)
			if err != nil {
				return err
			}
			// The file is made first: a secret that cannot be kept is better not made.
			file, err := createNew(f.out)
			if err != nil {
				return &failure{What: what, Why: f.out + ": " + plainCause(err), Do: "name a new file with --out"}
			}
			quiet := *c
			quiet.json = c.json && f.out == ""
			sink, printed, err := get[api.Sink](cmd, &quiet, call{what: what, method: http.MethodPut, path: pathTo("sinks", args[0]), body: body})
			if err != nil || sink.Secret == nil {
				if file != nil {
					file.Close()
					os.Remove(f.out)
				}
			}
			if err != nil || printed {
				return err
			}
			if sink.Plaintext {
				hint("warning: sink %s is told without encryption: whoever stands between can read and change the audit", sink.Name)
			}
			if sink.Secret != nil {
				if file == nil {
					return say(cmd, "%s", *sink.Secret)
				}
				_, err = file.WriteString(*sink.Secret + "\n")
				if err := firstOf(err, file.Sync(), file.Close()); err != nil {
					return &failure{What: what, Why: f.out + ": " + plainCause(err), Do: "get another secret with --new-secret"}
				}
				return say(cmd, "Sink %s is told from now on; its secret is in %s.", sink.Name, f.out)
			}
			return say(cmd, "Sink %s is told at %s. Try it: watchword sink test %s", sink.Name, sinkPlace(&sink), sink.Name)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.file, "file", false, "a file on the server's disk")
	flags.StringVar(&f.syslog, "syslog", "", "a syslog server: tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT")
	flags.StringVar(&f.webhook, "webhook", "", "a webhook's URL")
	flags.StringVar(&f.from, "from", "", "start: with all of the audit; now: with what comes")
	flags.StringVar(&f.format, "format", "", "of a file: json (default) or ocsf")
	flags.Int64Var(&f.maxBytes, "max-bytes", 0, "of a file: how long it grows before it is rotated (default 100 MiB)")
	flags.IntVar(&f.keep, "keep", 0, "of a file: how many rotated ones are kept (default all)")
	flags.BoolVar(&f.plaintext, "allow-plaintext", false, "of syslog: without TLS")
	flags.StringVar(&f.serverName, "server-name", "", "of syslog: the name in the server's certificate (default the host)")
	flags.StringVar(&f.caFile, "ca-file", "", "authorities in PEM that sign the certificate of syslog server or webhook (default the system's)")
	flags.StringVar(&f.certFile, "cert-file", "", "of syslog: our certificate in PEM")
	flags.StringVar(&f.keyFile, "key-file", "", "of syslog: its key in PEM; the HSM seals it")
	flags.StringArrayVar(&f.events, "event", nil, "of a webhook: a type of event; may be given again (default all)")
	flags.BoolVar(&f.newSecret, "new-secret", false, "of a webhook: it gets another secret")
	flags.StringVar(&f.secretFile, "secret-file", "", "of a webhook: file with the secret that it is to have, whsec_ and base64 (default: its own, or one is made)")
	flags.StringVar(&f.out, "out", "", "of a webhook: new file to write the secret to, instead of printing it")
	return cmd
}

// settings are the flags as the API takes them.
func (f *sinkFlags) settings(what string) (*api.SinkSettings, error) {
	body := &api.SinkSettings{
		Format: ptr(f.format), Address: ptr(f.syslog), ServerName: ptr(f.serverName), Url: ptr(f.webhook), From: ptr(f.from),
	}
	n := 0
	for kind, asked := range map[api.SinkKind]bool{
		api.SinkKindFile: f.file, api.SinkKindSyslog: f.syslog != "", api.SinkKindWebhook: f.webhook != "",
	} {
		if asked {
			n++
			body.Kind = kind
		}
	}
	if n != 1 {
		return nil, &failure{What: what, Why: "one of --file, --syslog and --webhook is needed", Do: "see watchword sink add --help"}
	}
	if f.maxBytes != 0 {
		body.MaxBytes = &f.maxBytes
	}
	if f.keep != 0 {
		body.Keep = &f.keep
	}
	if f.plaintext {
		body.AllowPlaintext = &f.plaintext
	}
	if f.newSecret {
		body.NewSecret = &f.newSecret
	}
	if len(f.events) > 0 {
		body.Events = &f.events
	}
	if f.secretFile != "" {
		if f.out != "" {
			return nil, &failure{What: what, Why: "--out is for a secret that is made, and --secret-file brings one", Do: "leave one of them out"}
		}
		secret, err := readLine(f.secretFile)
		if err != nil {
			return nil, &failure{What: what, Why: err.Error()}
		}
		body.Secret = &secret
	}
	for _, pem := range []struct {
		path string
		into **string
	}{{f.caFile, &body.Ca}, {f.certFile, &body.Certificate}, {f.keyFile, &body.Key}} {
		if pem.path == "" {
			continue
		}
		b, err := os.ReadFile(pem.path)
		if err != nil {
			return nil, &failure{What: what, Why: pem.path + ": " + plainCause(err)}
		}
		*pem.into = ptr(string(b))
		clear(b)
	}
	return body, nil
}

// sinkPlace is where a sink is, in one word.
func sinkPlace(k *api.Sink) string {
	switch {
	case k.Address != nil:
		return *k.Address
	case k.Url != nil:
		return *k.Url
	}
	return "audit/" + k.Name
}

// sinkHealth is how a sink is, in a few words.
func sinkHealth(k *api.Sink) string {
	switch {
	case k.Stopped != nil:
		return "stopped: " + *k.Stopped
	case k.LastError != nil:
		return "failing: " + *k.LastError
	case k.Lag > 0 && k.Behind != nil:
		return fmt.Sprintf("%d behind, since %s", k.Lag, toMinute(*k.Behind))
	}
	return "told"
}

func sinkList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the sinks, and how far they were told",
		Example: "  watchword sink list\n  watchword sink list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.SinkPage](cmd, c, call{what: "list the sinks", path: pathTo("sinks")})
			if err != nil || printed {
				return err
			}
			t := newTable("NAME", "KIND", "WHERE", "LAG", "STATE")
			for i := range page.Items {
				k := &page.Items[i]
				t.add(k.Name, string(k.Kind), sinkPlace(k), fmt.Sprint(k.Lag), sinkHealth(k))
			}
			return printList(cmd, t, "the audit is told to nobody")
		},
	}
}

func sinkShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a sink",
		Example: "  watchword sink show siem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, printed, err := get[api.Sink](cmd, c, call{what: "show sink " + args[0], path: pathTo("sinks", args[0])})
			if err != nil || printed {
				return err
			}
			lines := []string{
				fmt.Sprintf("%s: %s, %s", k.Name, k.Kind, sinkPlace(&k)),
				"state: " + sinkHealth(&k),
				fmt.Sprintf("records not told yet: %d", k.Lag),
				fmt.Sprintf("failures of this server: %d", k.Failures),
			}
			if k.Plaintext {
				lines = append(lines, "without encryption: whoever stands between can read and change what is told")
			}
			if k.Events != nil {
				lines = append(lines, "events: "+strings.Join(*k.Events, ", "))
			}
			return say(cmd, "%s", strings.Join(lines, "\n"))
		},
	}
}

func sinkDelete(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME",
		Short:   "Tell a sink nothing any more, and forget how far it was told",
		Example: "  watchword sink delete siem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "delete sink " + args[0], method: http.MethodDelete, path: pathTo("sinks", args[0])}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "Sink %s is deleted: it is told nothing any more.", args[0])
		},
	}
}

func sinkTest(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "test NAME",
		Short: "Try whether a sink would take records",
		Long: `Tries, from the server that answers, whether a sink would take records. A webhook is
sent an event of type test; a syslog server is connected to, and a file opened.`,
		Example: "  watchword sink test siem",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "test sink " + args[0], method: http.MethodPost, path: pathTo("sinks", args[0], "test")}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return say(cmd, "Sink %s would take records.", args[0])
		},
	}
}
