package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

// clientFlags say what a RADIUS client is.
type clientFlags struct {
	address, secretFile, nameRule string
	noMA, proxyState              bool
	methods, dialogues, joined    []string
	rate                          int
	replies, messages             []string
}

const clientFlagsHelp = `--no-require-message-authenticator is for gateways that send no
Message-Authenticator. Their requests can be forged by who sits between.

--method says how the client may show a code, by default pap alone. chap, mschap and
mschapv2 send no code but what was computed from it: who records that finds the code
within moments, and users with a PIN cannot use them.

--allow-unsigned-proxy-state is for a proxy that sends no Message-Authenticator, beside
--no-require-message-authenticator. Replies to such requests can be forged.

--name-rule says what DOMAIN\alice and alice@corp mean: plain takes the name as
it stands, strip drops the domain, realm takes the domain as the realm.

--dialogue says what users may be asked, where the gateway can show a question: pin for
the PIN first and then the code, next_code for the code after one that is far ahead,
new_pin for another PIN where it must be changed. --joined has users type the answers to
next_code and new_pin into one password, for a gateway that cannot ask.

--reply adds an attribute to each accept, or to those of a group's members. 'watchword
client attributes' lists the names. --message is the text that a question, an accept or
a reject shows: code, next_code, new_pin, bad_pin, new_pin_again, accept, reject.`

func (f *clientFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "its address, or a prefix such as 192.0.2.0/28")
	flags.StringVar(&f.secretFile, "secret-file", "", "file whose only line is the shared secret")
	flags.BoolVar(&f.noMA, "no-require-message-authenticator", false, "let requests without Message-Authenticator in")
	flags.BoolVar(&f.proxyState, "allow-unsigned-proxy-state", false, "let requests with Proxy-State and without Message-Authenticator in")
	flags.StringSliceVar(&f.methods, "method", nil, "pap, chap, mschap, mschapv2; several divided by commas (default pap)")
	flags.StringVar(&f.nameRule, "name-rule", "plain", "plain, strip or realm")
	flags.StringSliceVar(&f.dialogues, "dialogue", nil, "pin, next_code, new_pin; several divided by commas (default none)")
	flags.StringSliceVar(&f.joined, "joined", nil, "next_code, new_pin; both divided by a comma (default none)")
	flags.IntVar(&f.rate, "rate", 0, "requests a second that are taken, on each node; 0: no limit")
	flags.StringArrayVar(&f.replies, "reply", nil, "[GROUP:]NAME[:TAG]=VALUE: an attribute of accepts; may be given several times")
	flags.StringArrayVar(&f.messages, "message", nil, "KEY=TEXT: a text that users see; may be given several times")
}

// set puts what the flags name into settings. What no flag names stays as it is there.
func (f *clientFlags) set(cmd *cobra.Command, what string, s *api.ClientSettings) error {
	named := cmd.Flags().Changed
	if named("address") {
		s.Prefix = f.address
	}
	if f.secretFile != "" {
		line, err := readLine(f.secretFile)
		if err != nil {
			return &failure{What: what, Why: err.Error(), Do: "the secret is the only line of the file that --secret-file names"}
		}
		s.Secret = &line
	}
	if named("no-require-message-authenticator") {
		require := !f.noMA
		s.RequireMessageAuthenticator = &require
	}
	if named("allow-unsigned-proxy-state") {
		s.AllowUnsignedProxyState = &f.proxyState
	}
	if named("name-rule") {
		rule := api.NameRule(f.nameRule)
		s.NameRule = &rule
	}
	for _, l := range []struct {
		flag string
		list []string
		to   **[]string
	}{{"method", f.methods, &s.Methods}, {"dialogue", f.dialogues, &s.Dialogues}, {"joined", f.joined, &s.Joined}} {
		if named(l.flag) {
			list := append([]string{}, l.list...) // not null, which would be nothing said
			*l.to = &list
		}
	}
	if named("rate") {
		s.Rate = &f.rate
	}
	if named("reply") {
		replies, ok := repliesOf(f.replies)
		if !ok {
			return &failure{What: what, Why: "--reply is not NAME=VALUE or GROUP:NAME=VALUE", Do: "write it like --reply Class=vpn or --reply staff:Filter-Id=staff"}
		}
		s.Replies = &replies
	}
	if named("message") {
		messages := api.RadiusMessages{}
		for _, m := range without(f.messages, "") {
			key, text, found := strings.Cut(m, "=")
			if _, twice := messages[key]; !found || twice {
				return &failure{What: what, Why: "--message is not KEY=TEXT, or names a key twice", Do: "write it like --message reject='Ask the helpdesk.'"}
			}
			messages[key] = text
		}
		s.Messages = &messages
	}
	return nil
}

// without is a list but for one of its items.
func without(list []string, item string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == item })
}

// repliesOf reads attributes, those of a group together.
func repliesOf(list []string) (api.RadiusReplies, bool) {
	replies := api.RadiusReplies{}
	for _, item := range without(list, "") {
		name, value, found := strings.Cut(item, "=")
		if !found {
			return nil, false
		}
		group, tag := "", ""
		if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.Trim(name[i+1:], "0123456789") == "" { // Tunnel-Type:1
			name, tag = name[:i], name[i:]
		}
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			if group, name = name[:i], name[i+1:]; group == "" {
				return nil, false
			}
		}
		name += tag
		i := slices.IndexFunc(replies, func(r api.RadiusReply) bool { return valueOf(r.Group) == group })
		if i < 0 {
			i = len(replies)
			replies = append(replies, api.RadiusReply{Group: ptr(group)})
		}
		replies[i].Attributes = append(replies[i].Attributes, api.RadiusAttribute{Name: name, Value: value})
	}
	return replies, true
}

const nextCodeWarning = "warning: who guesses at codes of %s's users may learn by a question that one was right: next_code says so; see docs/dialogues.md"

// warnClient says what makes a client weaker than it could be.
func warnClient(k *api.Client) {
	if k.SecretLength < 16 {
		hint("warning: the shared secret of %s has %d octets; RFC 2865 asks for 16 at least", k.Name, k.SecretLength)
	}
	if slices.Contains(k.Dialogues, "next_code") {
		hint(nextCodeWarning, k.Name)
	}
}

// dialoguesOf are the dialogues of a client and the joined ones.
func dialoguesOf(k *api.Client) string {
	list := slices.Clone(k.Dialogues)
	for _, d := range k.Joined {
		list = append(list, d+" (joined)")
	}
	return strings.Join(list, ",")
}

// oneClient is a client as it is.
func (c *client) oneClient(cmd *cobra.Command, what, name string) (api.Client, error) {
	quiet := *c
	quiet.json = false
	page, _, err := get[api.ClientPage](cmd, &quiet, call{what: what, path: pathTo("clients")})
	if err != nil {
		return api.Client{}, err
	}
	for _, k := range page.Items {
		if strings.EqualFold(k.Name, name) {
			return k, nil
		}
	}
	return api.Client{}, &failure{What: what, Why: "there is no RADIUS client of that name", Do: "'watchword client list' has them"}
}

// settingsOf are what a client would be put with to stay as it is.
func settingsOf(k *api.Client) api.ClientSettings {
	return api.ClientSettings{
		Prefix: k.Prefix, Realm: &k.Realm, RequireMessageAuthenticator: &k.RequireMessageAuthenticator, NameRule: &k.NameRule,
		Methods: &k.Methods, AllowUnsignedProxyState: &k.AllowUnsignedProxyState,
		Dialogues: &k.Dialogues, Joined: &k.Joined, Rate: &k.Rate, Replies: &k.Replies, Messages: &k.Messages,
	}
}

func clientSet(c *client) *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a RADIUS client",
		Long: `Changes what the flags name; everything else stays, the shared secret among it. A list
is replaced wholly: --dialogue "" empties it, as do --reply "" and --message "".

` + clientFlagsHelp,
		Example: "  watchword client set vpn --dialogue next_code --message next_code='And the next one:'\n  watchword client set vpn --reply staff:Class=staff --reply Class=others --rate 50",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "change RADIUS client " + args[0]
			moved := cmd.Flags().Changed("realm") // by the flag, not by where the command acts by default
			if !moved && !f.any(cmd) {
				return &failure{What: what, Why: "no flag says what is to be other", Do: "see watchword client set --help"}
			}
			k, err := c.oneClient(cmd, what, args[0])
			if err != nil {
				return err
			}
			settings := settingsOf(&k)
			if moved {
				settings.Realm = &c.realm
			}
			if err := f.set(cmd, what, &settings); err != nil {
				return err
			}
			return c.putClient(cmd, call{what: what, method: http.MethodPut, path: pathTo("clients", k.Name), body: settings})
		},
	}
	f.add(cmd)
	return cmd
}

// any says whether a flag of a client's was given.
func (f *clientFlags) any(cmd *cobra.Command) bool {
	for _, name := range []string{"address", "secret-file", "no-require-message-authenticator", "allow-unsigned-proxy-state", "method",
		"name-rule", "dialogue", "joined", "rate", "reply", "message"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

func clientShow(c *client) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a RADIUS client",
		Example: "  watchword client show vpn",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := c.oneClient(cmd, "show RADIUS client "+args[0], args[0])
			if err != nil {
				return err
			}
			if c.json {
				body, err := json.Marshal(k)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), body)
			}
			return clientDetails(&k).print(cmd.OutOrStdout())
		},
	}
}

// clientDetails are all that is known of a client, with the flags that change it.
func clientDetails(k *api.Client) *table {
	t := newTable("SETTING", "VALUE", "FLAG OF 'CLIENT SET'")
	required := "required"
	if !k.RequireMessageAuthenticator {
		required = "NOT REQUIRED"
	}
	t.add("name", k.Name, "")
	t.add("address", k.Prefix, "--address")
	t.add("realm", k.Realm, "--realm")
	t.add("shared secret", plural(k.SecretLength, "octet"), "--secret-file")
	t.add("Message-Authenticator", required, "--no-require-message-authenticator")
	t.add("Proxy-State without it", allowed(k.AllowUnsignedProxyState), "--allow-unsigned-proxy-state")
	t.add("methods", strings.Join(k.Methods, ","), "--method")
	t.add("names", string(k.NameRule), "--name-rule")
	t.add("dialogues", orDash(strings.Join(k.Dialogues, ",")), "--dialogue")
	t.add("joined", orDash(strings.Join(k.Joined, ",")), "--joined")
	rate := "no limit"
	if k.Rate > 0 {
		rate = plural(k.Rate, "request") + " a second"
	}
	t.add("rate", rate, "--rate")
	for _, r := range k.Replies {
		whose := "reply"
		if group := valueOf(r.Group); group != "" {
			whose += " for " + group
		}
		for _, a := range r.Attributes {
			t.add(whose, a.Name+" = "+a.Value, "--reply")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(k.Messages)) {
		t.add("message "+key, k.Messages[key], "--message")
	}
	t.add("since", toMinute(k.Created), "")
	return t
}
