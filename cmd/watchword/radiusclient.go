package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func clientCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "client",
		Short:   "Say which gateways may ask over RADIUS",
		Example: "  watchword client add vpn --address 192.0.2.10 --secret-file vpn.secret\n  watchword client list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(clientAdd(c), clientList(c), clientDelete(c))
	return c.flags(cmd)
}

func clientAdd(c *client) *cobra.Command {
	var address, secretFile, nameRule string
	var noMA, proxyState, replace bool
	var methods []string
	cmd := &cobra.Command{
		Use:   "add NAME --address PREFIX --secret-file FILE",
		Short: "Add a RADIUS client (NAS), or replace one",
		Long: `Adds a RADIUS client: who sends from this address or prefix, and with this shared
secret, may ask. The most specific prefix counts. The secret is the only line of a
file; make one with: openssl rand -hex 16 > vpn.secret

--no-require-message-authenticator is for gateways that send no
Message-Authenticator. Their requests can be forged by who sits between.

--method says how the client may show a code, by default pap alone. chap, mschap and
mschapv2 send no code but what was computed from it: who records that finds the code
within moments, and users with a PIN cannot use them.

--allow-unsigned-proxy-state is for a proxy that sends no Message-Authenticator, beside
--no-require-message-authenticator. Replies to such requests can be forged.

--name-rule says what DOMAIN\alice and alice@corp mean: plain takes the name as
it stands, strip drops the domain, realm takes the domain as the realm.`,
		Example: "  watchword client add vpn --address 192.0.2.10 --secret-file vpn.secret\n  watchword client add vpn --address 192.0.2.0/28 --secret-file vpn.secret --replace\n  watchword client add rras --address 192.0.2.20 --secret-file rras.secret --method pap,mschapv2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "add RADIUS client " + args[0]
			if address == "" || secretFile == "" && !replace {
				return &failure{What: what, Why: "--address and --secret-file are needed", Do: "see watchword client add --help"}
			}
			var secret *string // none: the client keeps its own
			if secretFile != "" {
				line, err := readLine(secretFile)
				if err != nil {
					return &failure{What: what, Why: err.Error(), Do: "the secret is the only line of the file that --secret-file names"}
				}
				secret = &line
			}
			rule, require := api.NameRule(nameRule), !noMA
			settings := api.ClientSettings{
				Prefix: address, Secret: secret, Realm: ptr(c.realm), RequireMessageAuthenticator: &require, NameRule: &rule,
				AllowUnsignedProxyState: &proxyState,
			}
			if len(methods) > 0 {
				settings.Methods = &methods
			}
			r := call{what: what, method: http.MethodPut, path: pathTo("clients", args[0]), body: settings}
			if !replace {
				r.method, r.path = http.MethodPost, pathTo("clients")
				r.body = api.NewClient{
					Name: args[0], Prefix: settings.Prefix, Secret: *secret, Realm: settings.Realm,
					RequireMessageAuthenticator: &require, NameRule: &rule,
					Methods: settings.Methods, AllowUnsignedProxyState: &proxyState,
				}
			}
			made, printed, err := get[api.Client](cmd, c, r)
			if err != nil {
				return err
			}
			if made.SecretLength < 16 {
				hint("warning: the shared secret of %s has %d octets; RFC 2865 asks for 16 at least", made.Name, made.SecretLength)
			}
			if printed {
				return nil
			}
			return say(cmd, "RADIUS client %s may ask from %s, in realm %s.", made.Name, made.Prefix, made.Realm)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "its address, or a prefix such as 192.0.2.0/28")
	f.StringVar(&secretFile, "secret-file", "", "file whose only line is the shared secret")
	f.BoolVar(&noMA, "no-require-message-authenticator", false, "let requests without Message-Authenticator in")
	f.BoolVar(&proxyState, "allow-unsigned-proxy-state", false, "let requests with Proxy-State and without Message-Authenticator in")
	f.StringSliceVar(&methods, "method", nil, "pap, chap, mschap, mschapv2; several divided by commas (default pap)")
	f.StringVar(&nameRule, "name-rule", "plain", "plain, strip or realm")
	f.BoolVar(&replace, "replace", false, "replace the client if there is one of that name; it keeps its secret if none is named")
	return cmd
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
			t := newTable("NAME", "ADDRESS", "REALM", "MESSAGE-AUTHENTICATOR", "METHODS", "NAME RULE", "SECRET", "SINCE")
			for _, k := range page.Items {
				required := "required"
				if !k.RequireMessageAuthenticator {
					required = "NOT REQUIRED"
				}
				t.add(k.Name, k.Prefix, k.Realm, required, strings.Join(k.Methods, ","), string(k.NameRule), fmt.Sprintf("%d octets", k.SecretLength), toMinute(k.Created))
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
