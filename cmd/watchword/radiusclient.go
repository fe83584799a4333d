package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens"
)

func clientCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "client",
		Short:   "Say which gateways may ask over RADIUS",
		Example: "  watchword client add vpn --address 192.0.2.10 --secret-file vpn.secret\n  watchword client list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(clientAdd(c), clientSet(c), clientShow(c), clientList(c), clientDelete(c), clientAttributes(c))
	return c.flags(cmd)
}

func clientAdd(c *client) *cobra.Command {
	var f clientFlags
	var replace bool
	cmd := &cobra.Command{
		Use:   "add NAME --address PREFIX --secret-file FILE",
		Short: "Add a RADIUS client (NAS), or replace one",
		Long: `Adds a RADIUS client: who sends from this address or prefix, and with this shared
secret, may ask. The most specific prefix counts. The secret is the only line of a
file; make one with: openssl rand -hex 16 > vpn.secret

` + clientFlagsHelp,
		Example: `  watchword client add vpn --address 192.0.2.10 --secret-file vpn.secret
  watchword client add vpn --address 192.0.2.0/28 --secret-file vpn.secret --replace
  watchword client add rras --address 192.0.2.20 --secret-file rras.secret --method pap,mschapv2
  watchword client add vpn --address 192.0.2.10 --secret-file vpn.secret --dialogue next_code,new_pin --reply staff:Class=staff`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "add RADIUS client " + args[0]
			if f.address == "" || f.secretFile == "" && !replace {
				return &failure{What: what, Why: "--address and --secret-file are needed", Do: "see watchword client add --help"}
			}
			settings := api.ClientSettings{Realm: ptr(c.realm)}
			if err := f.set(cmd, what, &settings); err != nil {
				return err
			}
			r := call{what: what, method: http.MethodPut, path: pathTo("clients", args[0]), body: settings}
			if !replace {
				r.method, r.path = http.MethodPost, pathTo("clients")
				r.body = api.NewClient{
					Name: args[0], Prefix: settings.Prefix, Secret: *settings.Secret, Realm: settings.Realm,
					RequireMessageAuthenticator: settings.RequireMessageAuthenticator, NameRule: settings.NameRule,
					Methods: settings.Methods, AllowUnsignedProxyState: settings.AllowUnsignedProxyState,
					Dialogues: settings.Dialogues, Joined: settings.Joined, Rate: settings.Rate,
					Replies: settings.Replies, Messages: settings.Messages,
				}
			}
			return c.putClient(cmd, r)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "replace the client if there is one of that name; it keeps its secret if none is named")
	return cmd
}

// putClient makes a call that answers a client, and says how it is now.
func (c *client) putClient(cmd *cobra.Command, r call) error {
	made, printed, err := get[api.Client](cmd, c, r)
	if err != nil {
		return err
	}
	warnClient(&made)
	if printed {
		return nil
	}
	return say(cmd, "RADIUS client %s may ask from %s, in realm %s.", made.Name, made.Prefix, made.Realm)
}

func clientList(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the RADIUS clients",
		Example: "  watchword client list\n  watchword client list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, printed, err := get[api.ClientPage](cmd, c, call{what: "list the RADIUS clients", path: pathTo("clients")})
			if err != nil || printed {
				return err
			}
			t := newTable("NAME", "ADDRESS", "REALM", "MESSAGE-AUTHENTICATOR", "METHODS", "NAME RULE", "SECRET", "DIALOGUES", "SINCE")
			for _, k := range page.Items {
				required := "required"
				if !k.RequireMessageAuthenticator {
					required = "NOT REQUIRED"
				}
				t.add(k.Name, k.Prefix, k.Realm, required, strings.Join(k.Methods, ","), string(k.NameRule), fmt.Sprintf("%d octets", k.SecretLength),
					orDash(dialoguesOf(&k)), toMinute(k.Created))
				if slices.Contains(k.Dialogues, string(tokens.DialogueNextCode)) {
					hint(nextCodeWarning, k.Name)
				}
			}
			return printList(cmd, t, "there is no RADIUS client; add one with: watchword client add NAME --address PREFIX --secret-file FILE")
		},
	}
}

func clientDelete(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME",
		Short:   "Remove a RADIUS client: its packets are dropped from then on",
		Example: "  watchword client delete vpn",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "delete RADIUS client " + args[0], method: http.MethodDelete, path: pathTo("clients", args[0])}
			if _, err := c.do(cmd.Context(), r); err != nil {
				return err
			}
			return c.deleted(cmd, "RADIUS client %s is deleted: its packets are dropped.", args[0])
		},
	}
}

// deleted says that a thing is gone; the server answers nothing then.
func (c *client) deleted(cmd *cobra.Command, sentence string, names ...any) error {
	if c.json {
		return printJSON(cmd.OutOrStdout(), []byte("{}"))
	}
	return say(cmd, sentence, names...)
}
