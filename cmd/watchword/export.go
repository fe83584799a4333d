package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

func exportCommand(c *client) *cobra.Command {
	var dir string
	var kinds []string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write what is live as 'watchword apply' reads it",
		Long: `Writes realms with rules of their own, RADIUS clients, policies, roles, FIDO rules, own
attestation roots and sinks: as one YAML stream, or with --out as a file a kind. There
are no secrets in it: clients and sinks keep theirs where it is applied again, and
elsewhere need --secret-dir.`,
		Example: "  watchword export --out site\n  watchword export --kind Role,Client",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "out", "", "directory to write files to")
	cmd.Flags().StringSliceVar(&kinds, "kind", everyKind, "only these kinds, divided by commas")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		const what = "export"
		for _, k := range kinds {
			if !slices.Contains(everyKind, k) {
				return &failure{What: what, Why: "there is no kind " + k, Do: "there are " + strings.Join(everyKind, ", ")}
			}
		}
		if c.json {
			return &failure{What: what, Why: "what is exported is YAML", Do: "leave --json out"}
		}
		texts := map[string]string{}
		for _, k := range everyKind {
			if !slices.Contains(kinds, k) {
				continue
			}
			text, err := c.exported(cmd, k)
			if refused := (*refusal)(nil); !cmd.Flags().Changed("kind") && errors.As(err, &refused) {
				switch status := refused.problem.Status; {
				case k == kindFIDO && status == http.StatusConflict: // without FIDO there are no rules for it
					hint("there are no FIDO rules: %s", refused.Why)
					continue
				case k == kindRoots && status == http.StatusConflict:
					continue
				case k == kindSink && status == http.StatusForbidden: // they are of all realms
					hint("the sinks are left out: %s", refused.Why)
					continue
				}
			}
			if err != nil {
				return err
			}
			texts[k] = text
		}
		if dir == "" {
			var all []string
			for _, k := range everyKind {
				if texts[k] != "" {
					all = append(all, texts[k])
				}
			}
			_, err := cmd.OutOrStdout().Write([]byte(strings.Join(all, "---\n")))
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return &failure{What: what, Why: dir + ": " + plainCause(err)}
		}
		for k, text := range texts {
			path := filepath.Join(dir, exportFiles[k])
			if err := writeWhole(path, []byte(exportHead+text)); err != nil {
				return &failure{What: what, Why: path + ": " + plainCause(err)}
			}
		}
		return say(cmd, "%s holds what is live, in %s.", dir, plural(len(texts), "file"))
	}
	return c.flags(cmd)
}

const exportHead = "# Written by 'watchword export'.\n"

var exportFiles = map[string]string{
	kindRealm: "realms.yaml", kindClient: "clients.yaml", kindPolicies: "policies.yaml", kindRole: "roles.yaml", kindFIDO: "fido.yaml", kindRoots: "roots.yaml", kindSink: "sinks.yaml",
}

// exported is what is live of a kind, as documents; empty if there is nothing.
func (c *client) exported(cmd *cobra.Command, kind string) (string, error) {
	switch kind {
	case kindRealm:
		live, err := c.liveRealms(cmd)
		var docs []string
		for _, name := range slices.Sorted(maps.Keys(live)) {
			rules := live[name].Rules
			docs = append(docs, realmText(name, &rules))
		}
		return strings.Join(docs, "---\n"), err
	case kindClient:
		list, err := c.liveClients(cmd)
		var docs []string
		for i := range list {
			form := formOf(&list[i])
			docs = append(docs, clientText(&form))
		}
		return strings.Join(docs, "---\n"), err
	case kindPolicies:
		src, _, err := c.livePolicies(cmd)
		if err != nil || len(src.Policies)+len(src.Templates)+len(src.Links) == 0 {
			return "", err
		}
		return policiesText(&src), nil
	case kindRole:
		list, err := c.liveRoles(cmd)
		return rolesText(list), err
	case kindRoots:
		all, err := c.liveRoots(cmd)
		return rootsText(all), err
	case kindSink:
		list, err := c.liveSinks(cmd)
		var docs []string
		for i := range list {
			shape := shapeOf(&list[i])
			docs = append(docs, sinkText(list[i].Name, &shape))
		}
		return strings.Join(docs, "---\n"), err
	}
	rules, version, err := c.liveKeyRules(cmd)
	if err != nil || version == 0 {
		return "", err
	}
	return fidoText(&rules), nil
}

// writer writes YAML, line by line.
type writer struct{ strings.Builder }

func (w *writer) line(indent int, key, value string) {
	w.WriteString(strings.Repeat("  ", indent) + key + ":")
	if value != "" {
		w.WriteString(" " + value)
	}
	w.WriteByte('\n')
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._/-]*$`)

// scalar is a text as a value: as it is where nobody can take it for something else.
func scalar(s string) string {
	if plain.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return quoted(s)
}

// quoted is a text in double quotes. JSON's escapes are YAML's, too.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// text writes a text of several lines so that people can read it, where that says all
// of it.
func (w *writer) text(indent int, key, s string) {
	lines := strings.Split(s, "\n")
	readable := strings.TrimSpace(lines[0]) != "" && !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, "\n\n")
	for _, line := range lines {
		readable = readable && strings.TrimRight(line, " ") == line && !strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) })
	}
	if !readable {
		w.line(indent, key, quoted(s))
		return
	}
	sign := "|-"
	if body, ended := strings.CutSuffix(s, "\n"); ended {
		sign, lines = "|", strings.Split(body, "\n")
	}
	w.line(indent, key, sign)
	for _, line := range lines {
		if line != "" {
			w.WriteString(strings.Repeat("  ", indent+1) + line)
		}
		w.WriteByte('\n')
	}
}

func (w *writer) flag(indent int, key string, b bool) { w.line(indent, key, strconv.FormatBool(b)) }

func flow(list []string) string {
	items := make([]string, len(list))
	for i, s := range list {
		items[i] = scalar(s)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func realmText(name string, r *api.Rules) string {
	var w writer
	w.line(0, "kind", kindRealm)
	w.line(0, "name", scalar(name))
	w.line(0, "rules", "")
	w.line(1, "max_tokens", itoa(r.MaxTokens))
	w.line(1, "activation", scalar(string(r.Activation)))
	w.line(1, "pin", "")
	w.line(2, "min", itoa(r.Pin.Min))
	w.line(2, "max", itoa(r.Pin.Max))
	w.flag(2, "sequences", r.Pin.Sequences)
	w.flag(2, "change", r.Pin.Change)
	w.line(1, "recovery", "")
	w.flag(2, "allow", r.Recovery.Allow)
	w.line(2, "codes", itoa(r.Recovery.Codes))
	w.line(1, "temporary", "")
	w.flag(2, "allow", r.Temporary.Allow)
	w.line(2, "valid_hours", itoa(r.Temporary.ValidHours))
	w.line(2, "uses", itoa(r.Temporary.Uses))
	return w.String()
}

func clientText(f *clientForm) string {
	var w writer
	w.line(0, "kind", kindClient)
	w.line(0, "name", scalar(f.Name))
	w.line(0, "address", quoted(f.Address))
	w.line(0, "realm", scalar(f.Realm))
	w.flag(0, "require_message_authenticator", f.RequireMA)
	w.flag(0, "allow_unsigned_proxy_state", f.ProxyState)
	w.line(0, "methods", flow(f.Methods))
	w.line(0, "name_rule", scalar(f.NameRule))
	w.clientOptions(f)
	return w.String()
}

func rolesText(list []wantedRole) string {
	var docs []string
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(r wantedRole) bool { return r.role != list[0].role })
		if n < 0 {
			n = len(list)
		}
		var w writer
		w.line(0, "kind", kindRole)
		w.line(0, "role", scalar(list[0].role))
		w.line(0, "people", "")
		for _, r := range list[:n] {
			w.line(1, "- user", scalar(r.user))
			w.line(2, "realm", scalar(r.realm))
			w.line(2, "in", scalar(r.in))
		}
		docs = append(docs, w.String())
		list = list[n:]
	}
	return strings.Join(docs, "---\n")
}

func policiesText(src *policy.Source) string {
	var w writer
	w.line(0, "kind", kindPolicies)
	for _, l := range []struct {
		key  string
		list []policy.Item
	}{{"policies", src.Policies}, {"templates", src.Templates}} {
		if len(l.list) > 0 {
			w.line(0, l.key, "")
		}
		for _, i := range l.list {
			w.line(1, "- id", scalar(i.ID))
			if i.Note != "" {
				w.line(2, "note", quoted(i.Note))
			}
			w.text(2, "text", i.Text)
		}
	}
	if len(src.Links) > 0 {
		w.line(0, "links", "")
	}
	for _, l := range src.Links {
		w.line(1, "- id", scalar(l.ID))
		w.line(2, "template", scalar(l.Template))
		for _, slot := range [][2]string{{"principal", l.Principal}, {"resource", l.Resource}} {
			if slot[1] != "" {
				w.line(2, slot[0], quoted(slot[1]))
			}
		}
	}
	return w.String()
}

func fidoText(rs *webauthn.RuleSet) string {
	var w writer
	w.line(0, "kind", kindFIDO)
	w.level(0, "default", &rs.Default)
	if len(rs.Realms) > 0 {
		w.line(0, "realms", "")
	}
	for _, name := range slices.Sorted(maps.Keys(rs.Realms)) {
		r := rs.Realms[name]
		if len(r.Groups) == 0 {
			w.level(1, scalar(name), &r.Rules)
			continue
		}
		w.line(1, scalar(name), "")
		w.rules(2, &r.Rules)
		w.line(2, "groups", "")
		for _, group := range slices.Sorted(maps.Keys(r.Groups)) {
			own := r.Groups[group]
			w.level(3, scalar(group), &own)
		}
	}
	return w.String()
}

// level writes the rules of one level.
func (w *writer) level(indent int, key string, r *webauthn.Rules) {
	if text, _ := json.Marshal(r); string(text) == "{}" {
		w.line(indent, key, "{}")
		return
	}
	w.line(indent, key, "")
	w.rules(indent+1, r)
}

func (w *writer) rules(indent int, r *webauthn.Rules) {
	for _, l := range []struct {
		key  string
		list []string
	}{{"permitted_aaguids", r.PermittedAAGUIDs}, {"prohibited_aaguids", r.ProhibitedAAGUIDs}} {
		if len(l.list) == 0 {
			continue
		}
		w.line(indent, l.key, "")
		for _, id := range l.list {
			w.WriteString(strings.Repeat("  ", indent+1) + "- " + quoted(id) + "\n")
		}
	}
	for _, l := range [][2]string{{"least_certification", r.LeastCertification}, {"required_attestation", r.RequiredAttestation}} {
		if l[1] != "" {
			w.line(indent, l[0], scalar(l[1]))
		}
	}
	if r.AllowUnknown {
		w.flag(indent, "allow_unknown", true)
	}
	if r.AllowZeroAAGUID {
		w.flag(indent, "allow_zero_aaguid", true)
	}
	if r.Synced != nil {
		w.flag(indent, "synced", *r.Synced)
	}
}
