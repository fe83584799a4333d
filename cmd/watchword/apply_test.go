package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"watchword/api"
	"watchword/tokens"
	"watchword/tokens/policy"
)

// anyText is a text with all that YAML could take for something else.
func anyText() *rapid.Generator[string] {
	piece := rapid.SampledFrom([]string{"a", "permit", " ", "  ", "\n", "\n\n", "\t", "#", " # x", ": ", "- ", "---\n", "...\n", "'", "\"", "\\", "é", "😀", "\u2028", "\u0085", "\ufeff", "\x07", "|", ">", "&a", "*a", "!t", "{", "]", "%", "@", "null", "true", "1", "~", "\u00a0", ",", "?"})
	return rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(piece, 1, 12).Draw(t, "pieces"), "") })
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyText()
		src := policy.Source{
			Policies:  []policy.Item{{ID: "p1", Text: text.Draw(t, "text"), Note: text.Draw(t, "note")}, {ID: "10", Text: text.Draw(t, "text")}},
			Templates: []policy.Item{{ID: "true", Text: text.Draw(t, "text")}},
			Links:     []policy.Link{{ID: "l.1", Template: "true", Principal: text.Draw(t, "principal")}, {ID: "-", Template: "true", Resource: text.Draw(t, "resource")}},
		}
		role := wantedRole{role: "helpdesk", user: text.Draw(t, "user"), realm: text.Draw(t, "realm"), in: "*"}
		user, err1 := tokens.FoldName(role.user)
		realm, err2 := tokens.FoldName(role.realm)
		if err1 != nil || err2 != nil {
			user, realm = "null", "10"
		}
		role.user, role.realm = user, realm
		written := policiesText(&src) + "---\n" + rolesText([]wantedRole{role})
		w := &wanted{kinds: map[string]bool{}, texts: map[string]func(int, int) spot{}}
		if err := w.yaml("written.yaml", written, ""); err != nil {
			t.Fatalf("%v:\n%s", err, written)
		}
		if !slices.Equal(w.source.Policies, src.Policies) || !slices.Equal(w.source.Templates, src.Templates) || !slices.Equal(w.source.Links, src.Links) {
			t.Fatalf("it reads %+v, and was %+v:\n%s", w.source, src, written)
		}
		got := w.roles[0]
		got.at = spot{}
		if got != role {
			t.Fatalf("it reads %+v, and was %+v:\n%s", got, role, written)
		}
	})
}

func TestASinkThatIsWrittenIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyText()
		shapes := []sinkShape{
			{Kind: "file", Format: rapid.SampledFrom([]string{"json", "ocsf"}).Draw(t, "format"), MaxBytes: rapid.Int64Range(64<<10, 1<<40).Draw(t, "bytes"), Keep: rapid.IntRange(0, 100).Draw(t, "keep")},
			{Kind: "syslog", Address: "tls://logs.example.org:6514", ServerName: text.Draw(t, "server name"), CA: text.Draw(t, "ca")},
			{Kind: "syslog", Address: "udp://[::1]:514", AllowPlaintext: true},
			{Kind: "webhook", URL: "https://example.org/?q=" + rapid.StringMatching(`[a-z:#,&%0-9 ]{0,20}`).Draw(t, "query"), CA: text.Draw(t, "ca"), Events: rapid.SampledFrom([][]string{nil, {"tampering"}, {"import.published", "token.lost"}}).Draw(t, "events")},
		}
		shape := rapid.SampledFrom(shapes).Draw(t, "shape")
		if rapid.Bool().Draw(t, "none") {
			shape.CA, shape.ServerName = "", ""
		}
		w := &wanted{kinds: map[string]bool{}, texts: map[string]func(int, int) spot{}}
		written := sinkText("siem", &shape)
		err := w.yaml("written.yaml", written, "")
		if n := (tokens.NewSink{Name: "siem", Kind: tokens.SinkKind(shape.Kind), Format: shape.Format, MaxBytes: shape.MaxBytes, Keep: shape.Keep, Address: shape.Address,
			AllowPlaintext: shape.AllowPlaintext, ServerName: shape.ServerName, CA: shape.CA, URL: shape.URL, Events: shape.Events}); err != nil {
			if _, refused := n.Sink(); refused == nil {
				t.Fatalf("%v:\n%s", err, written)
			}
			return // no server has such a one
		}
		if len(w.sinks) != 1 || !reflect.DeepEqual(w.sinks[0].shape, shape) {
			t.Fatalf("it reads %+v, and was %+v:\n%s", w.sinks, shape, written)
		}
	})
}

// Whoever writes a document does not get what other files hold into the differences.
func TestOnlyCertificatesAreReadFromTheFilesOfADocument(t *testing.T) {
	dir := t.TempDir()
	const certificate, key = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"
	for text, good := range map[string]bool{certificate: true, "root:x:0:0\n": false, key: false, certificate + key: false} {
		if err := os.WriteFile(filepath.Join(dir, "some.pem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, of := range []string{"syslog:\n  address: tls://logs.example.org:6514\n  ca_file", "webhook:\n  url: https://example.org/\n  ca_file"} {
			w := &wanted{kinds: map[string]bool{}, texts: map[string]func(int, int) spot{}}
			err := w.yaml(filepath.Join(dir, "sink.yaml"), "kind: Sink\nname: siem\n"+of+": some.pem\n", "")
			if (err == nil) != good || err != nil && (strings.Contains(err.Error(), "root:") || strings.Contains(err.Error(), "MA==")) {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func TestTheLinesOfADifferenceMakeBothTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 12)
		a, b := lines.Draw(t, "a"), lines.Draw(t, "b")
		var from, to []string
		for _, line := range lineDifference(strings.Join(a, "\n")+"\n", strings.Join(b, "\n")+"\n") {
			if line[0] != '+' {
				from = append(from, line[2:])
			}
			if line[0] != '-' {
				to = append(to, line[2:])
			}
		}
		if !slices.Equal(from, a) || !slices.Equal(to, b) {
			t.Fatalf("%q and %q", from, to)
		}
	})
}

// TestTheExampleOfTheDocumentIsApplied applies what docs/as-code.md shows.
func TestTheExampleOfTheDocumentIsApplied(t *testing.T) {
	page, err := os.ReadFile("../../docs/as-code.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for kind, name := range map[string]string{"yaml": "main.yaml", "cedar": "policies.cedar"} {
		m := regexp.MustCompile("(?s)\n```" + kind + "\n(.*?)```\n").FindSubmatch(page)
		if m == nil {
			t.Fatalf("the document has no %s", kind)
		}
		if err := os.WriteFile(filepath.Join(dir, name), m[1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lab-vpn.secret"), []byte("correct-horse-battery-staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, nodeOptions{env: []string{"WATCHWORD_FIDO_PARTIES=login.example.org"}})
	n.must("POST", "/v1/users", map[string]string{"name": "alice"}, nil)
	n.must("POST", "/v1/users?realm=lab", map[string]string{"name": "bob"}, nil)
	out := n.cli("apply", "-f", dir, "--yes")
	if !strings.Contains(out, "changes made.") || strings.Contains(out, "horse") {
		t.Errorf("it says\n%s", out)
	}
	var rules api.RealmRules
	n.must("GET", "/v1/realms/lab/rules", nil, &rules)
	var roles api.RolePage
	n.must("GET", "/v1/roles", nil, &roles)
	var set api.PolicySet
	n.must("GET", "/v1/policies", nil, &set)
	if rules.Rules.MaxTokens != 3 || rules.Rules.Pin.Min != 6 || len(roles.Items) != 2 || len(set.Policies) != 1 || len(set.Templates) != 1 || len(set.Links) != 1 {
		t.Errorf("%+v, %+v, %+v", rules, roles, set)
	}
	if out := n.cli("apply", "-f", dir, "--dry-run", "--exit-code"); out != "" {
		t.Errorf("applied again it says\n%s", out)
	}
}

// Whatever a client has of options, a file that was exported says the same when it is
// read, and is no difference.
func TestAClientThatIsWrittenIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "7", "0x1", "null", "true", "~", " ", "#", ": ", "- ", "'", "\"", "\\", "é", "😀", "\u2028", "\u00a0", "\ufeff", "{", "}", "[", ",", "&a", "*a", "!t", "|", ">", "%", "@", "=", "-", "1e3", ".5", "?", "<<"})
		text := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(t, "pieces"), "")
		})
		name := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_.~!&*#:|>\[\]{}%@,-]{1,10}`), rapid.SampledFrom([]string{"1", "0x10", "1.5", "null", "true", "~", "-", "on", "1_000", ".inf", "2027-01-01", "Tunnel-Type:1"}))
		f := defaultClientForm()
		f.Name, f.Address, f.Realm = "vpn", "192.0.2.1/32", "default"
		for g := range rapid.IntRange(0, 3).Draw(t, "replies") {
			r := replyForm{}
			if g > 0 {
				r.Group = strings.ToLower(name.Draw(t, "group")) + rapid.SampledFrom([]string{"", "", " x"}).Draw(t, "more")
			}
			for range rapid.IntRange(1, 3).Draw(t, "attributes") {
				r.Attributes = append(r.Attributes, attributeForm{name.Draw(t, "name"), text.Draw(t, "value")})
			}
			f.Replies = append(f.Replies, r)
		}
		f.Dialogues = rapid.SampledFrom([][]string{nil, {"pin"}, {"new_pin", "pin"}}).Draw(t, "dialogues")
		f.Joined = rapid.SampledFrom([][]string{nil, {"next_code"}}).Draw(t, "joined")
		f.Rate = rapid.SampledFrom([]int{0, 1, 1_000_000}).Draw(t, "rate")
		for _, key := range []string{"accept", "reject", "code"} {
			if rapid.Bool().Draw(t, key) {
				if f.Messages == nil {
					f.Messages = map[string]string{}
				}
				f.Messages[key] = rapid.SampledFrom([]string{"", text.Draw(t, "text")}).Draw(t, "message")
			}
		}
		o := f.options()
		held, err := o.Normal()
		if err != nil {
			return // no server has it
		}
		f.setOptions(&held)
		written := clientText(&f)
		docs, err := documents("x.yaml", written)
		if err != nil || len(docs) != 1 {
			t.Fatalf("%v\n%s", err, written)
		}
		w := &wanted{}
		if err := w.client(&docs[0], ""); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		got := w.clients[0].clientForm
		got.Kind = f.Kind
		if d := fieldsThatDiffer(f.shown(), got.shown()); len(d) > 0 {
			t.Fatalf("%+v\n%s", d, written)
		}
		if !reflect.DeepEqual(got, f) {
			t.Fatalf("%+v\n%+v\n%s", got, f, written)
		}
	})
}
