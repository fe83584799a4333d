package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/api"
	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

// wanted is what the files say, in the form in which the server answers it.
type wanted struct {
	kinds   map[string]bool // that the files mention
	realms  []wantedRealm
	clients []wantedClient
	roles   []wantedRole
	source  policy.Source
	texts   map[string]func(line, column int) spot // where a policy, template or link is, by id
	fido    *fidoForm
	fidoAt  spot
	roots   map[string]root // by fingerprint
	sinks   []wantedSink
}

type wantedRealm struct {
	name  string
	rules api.Rules
	at    spot
}

type wantedClient struct {
	clientForm
	secret []byte // nil: it has one
	at     spot
}

type wantedRole struct {
	role, user, realm, in string
	at                    spot
}

// maxApplied bounds one file, in bytes.
const maxApplied = 32 << 20

// readWanted reads a file, or those of a directory, and finds what is wrong with them.
func readWanted(path, secrets string) (*wanted, error) {
	w := &wanted{kinds: map[string]bool{}, texts: map[string]func(int, int) spot{}}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = applied(path); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Size() > maxApplied {
			return nil, fmt.Errorf("%s is larger than %d MiB", file, maxApplied>>20)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", file, plainCause(err))
		}
		if !utf8.Valid(text) {
			return nil, fmt.Errorf("%s is not UTF-8", file)
		}
		if strings.HasSuffix(file, ".cedar") {
			err = w.cedar(file, string(text))
		} else {
			err = w.yaml(file, string(text), secrets)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(w.kinds) == 0 {
		return nil, fmt.Errorf("%s says nothing: there is no document in it", path)
	}
	return w, nil
}

// applied are the files of a directory that count, by name.
func applied(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", dir, plainCause(err))
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		if slices.Contains([]string{".yaml", ".yml", ".cedar"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no .yaml and no .cedar file", dir)
	}
	return files, nil
}

// cedar takes the policies and templates of a file in Cedar.
func (w *wanted) cedar(file, text string) error {
	src, err := policy.ReadFile(text)
	if err != nil {
		list, ok := err.(*policy.Errors)
		if !ok || len(list.Problems) == 0 {
			return fmt.Errorf("%s: %w", file, err)
		}
		p := list.Problems[0]
		return spot{file, max(p.Line, 1), max(p.Column, 1)}.wrong("%s", p.Says)
	}
	w.kinds[kindPolicies] = true
	for _, list := range []*[]policy.Item{&src.Policies, &src.Templates} {
		for _, item := range *list {
			at := 0
			if i := strings.Index(text, item.Text); i >= 0 {
				at = i
			}
			line := strings.Count(text[:at], "\n")
			column := utf8.RuneCountInString(text[strings.LastIndexByte(text[:at], '\n')+1 : at])
			where := func(l, c int) spot {
				switch {
				case l == 0:
					return spot{file, line + 1, column + 1}
				case l == 1:
					c += column
				}
				return spot{file, line + l, c}
			}
			if err := w.policyID(item.ID, where); err != nil {
				return err
			}
		}
	}
	w.source.Policies = append(w.source.Policies, src.Policies...)
	w.source.Templates = append(w.source.Templates, src.Templates...)
	return nil
}

func (w *wanted) policyID(id string, where func(int, int) spot) error {
	if other, twice := w.texts[id]; twice {
		was := other(0, 0)
		return where(0, 0).wrong("the id %q stands at %s:%d, too", id, was.file, was.line)
	}
	w.texts[id] = where
	return nil
}

// yaml takes the documents of a file.
func (w *wanted) yaml(file, text, secrets string) error {
	list, err := documents(file, text)
	if err != nil {
		return err
	}
	for i := range list {
		d := &list[i]
		kind, err := d.kind()
		if err != nil {
			return err
		}
		w.kinds[kind] = true
		switch kind {
		case kindRealm:
			err = w.realm(d)
		case kindClient:
			err = w.client(d, secrets)
		case kindPolicies:
			err = w.policies(d)
		case kindRole:
			err = w.role(d)
		case kindFIDO:
			err = w.keyRules(d)
		case kindRoots:
			err = w.ownRoots(d)
		case kindSink:
			err = w.sink(d, secrets)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// into decodes a document into a form.
func (d *document) into(form any, kind string) error {
	return d.decode(d.body, reflect.ValueOf(form).Elem(), "a document of kind "+kind)
}

// of is where a key's value is, or the document.
func (d *document) of(key string) spot {
	if n := d.value(d.body, key); n != nil {
		return d.at(n)
	}
	return d.at(d.body)
}

// says is an error of the product's own, without what it is about.
func says(err error) string { return strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": ") }

func (w *wanted) realm(d *document) error {
	f := defaultRealmForm()
	if err := d.into(&f, kindRealm); err != nil {
		return err
	}
	if f.Name == "" {
		return d.of("name").wrong("a Realm has a name")
	}
	name := f.Name
	if name != tokens.AnyRealm {
		var err error
		if name, err = tokens.ParseRealm(f.Name); err != nil {
			return d.of("name").wrong("%s", says(err))
		}
	}
	if slices.ContainsFunc(w.realms, func(r wantedRealm) bool { return r.name == name }) {
		return d.of("name").wrong("there is another Realm %s", name)
	}
	rules := tokens.Rules{
		MaxTokens: f.Rules.MaxTokens, Activation: tokens.Activation(f.Rules.Activation),
		PIN:       tokens.PINRules{Min: f.Rules.Pin.Min, Max: f.Rules.Pin.Max},
		Recovery:  tokens.RecoveryRules{Codes: f.Rules.Recovery.Codes},
		Temporary: tokens.TemporaryRules{Valid: time.Duration(f.Rules.Temporary.ValidHours) * time.Hour, Uses: f.Rules.Temporary.Uses},
	}
	if err := rules.Check(); err != nil {
		return d.of("rules").wrong("%s", says(err))
	}
	w.realms = append(w.realms, wantedRealm{name, f.Rules, d.of("name")})
	return nil
}

func (w *wanted) client(d *document, secrets string) error {
	c := wantedClient{clientForm: defaultClientForm(), at: d.of("name")}
	if err := d.into(&c.clientForm, kindClient); err != nil {
		return err
	}
	var err error
	if c.Name, err = tokens.FoldName(c.Name); err != nil {
		return d.of("name").wrong("%s", says(err))
	}
	if c.Realm, err = tokens.ParseRealm(c.Realm); err != nil {
		return d.of("realm").wrong("%s", says(err))
	}
	if c.Address, err = prefixOf(c.Address); err != nil {
		return d.of("address").wrong("%v", err)
	}
	if !slices.Contains([]string{"plain", "strip", "realm"}, c.NameRule) {
		return d.of("name_rule").wrong("name rule %q; it is plain, strip or realm", c.NameRule)
	}
	if len(c.Methods) == 0 {
		c.Methods = defaultClientForm().Methods
	}
	slices.Sort(c.Methods)
	for i, m := range c.Methods {
		if !slices.Contains([]string{"pap", "chap", "mschap", "mschapv2"}, m) || i > 0 && m == c.Methods[i-1] {
			return d.of("methods").wrong("methods are pap, chap, mschap, mschapv2, each once")
		}
	}
	if err := c.normal(d); err != nil {
		return err
	}
	for _, other := range w.clients {
		switch {
		case other.Name == c.Name:
			return d.of("name").wrong("there is another Client %s", c.Name)
		case other.Address == c.Address:
			return d.of("address").wrong("Client %s has the address %s, too", other.Name, c.Address)
		}
	}
	file := ""
	if c.SecretFile != "" {
		file = c.SecretFile
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(d.file), file)
		}
	} else if own := c.Name + ".secret"; secrets != "" && filepath.Base(own) == own {
		if path := filepath.Join(secrets, own); exists(path) {
			file = path
		}
	}
	if file != "" {
		line, err := readLine(file)
		if err == nil && len(line) > 256 {
			err = fmt.Errorf("%s is longer than 256 bytes", file)
		}
		if err != nil {
			return d.of("secret_file").wrong("%v", err)
		}
		c.secret = []byte(line)
	}
	w.clients = append(w.clients, c)
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// prefixOf is an address or prefix as the server answers it.
func prefixOf(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()).String(), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return "", fmt.Errorf("the address is neither an address nor a prefix such as 192.0.2.0/24")
	}
	if p != p.Masked() {
		return "", fmt.Errorf("the address has bits behind its length; is %s meant, or %s?", p.Addr(), p.Masked())
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.String(), nil
}

func (w *wanted) role(d *document) error {
	var f roleForm
	if err := d.into(&f, kindRole); err != nil {
		return err
	}
	if !policy.Role(f.Role).Valid() {
		return d.of("role").wrong("a role is named by 1 to 64 of a-z, 0-9 and -")
	}
	for i, p := range f.People {
		at := d.at(d.item(d.body, "people", i))
		r := wantedRole{role: f.Role, in: p.In, at: at}
		var err error
		if r.user, err = tokens.FoldName(p.User); err == nil {
			r.realm, err = tokens.ParseRealm(p.Realm)
		}
		switch {
		case err != nil:
		case p.In == "":
			r.in = r.realm
		case p.In != tokens.AnyRealm:
			r.in, err = tokens.ParseRealm(p.In)
		}
		if err != nil {
			return at.wrong("%s", says(err))
		}
		if i := slices.IndexFunc(w.roles, func(o wantedRole) bool { o.at = r.at; return o == r }); i >= 0 {
			return at.wrong("%s stands at %s:%d, too", r.name(), w.roles[i].at.file, w.roles[i].at.line)
		}
		w.roles = append(w.roles, r)
	}
	return nil
}

// name is how a grant is told.
func (r *wantedRole) name() string {
	in := "in " + r.in
	if r.in == tokens.AnyRealm {
		in = "in all realms"
	}
	return r.role + " of " + r.realm + "/" + r.user + " " + in
}

func (w *wanted) policies(d *document) error {
	var f policiesForm
	if err := d.into(&f, kindPolicies); err != nil {
		return err
	}
	for _, l := range []struct {
		key  string
		list []policyForm
		to   *[]policy.Item
	}{{"policies", f.Policies, &w.source.Policies}, {"templates", f.Templates, &w.source.Templates}} {
		for i, p := range l.list {
			item := d.item(d.body, l.key, i)
			where := func(line, column int) spot {
				if text := d.value(item, "text"); line > 0 && text != nil {
					return d.inText(text, line, column)
				}
				return d.at(item)
			}
			if p.ID == "" || p.Text == "" {
				return where(0, 0).wrong("an item of %s has an id and a text", l.key)
			}
			if err := w.policyID(p.ID, where); err != nil {
				return err
			}
			*l.to = append(*l.to, policy.Item{ID: p.ID, Text: p.Text, Note: p.Note})
		}
	}
	for i, l := range f.Links {
		where := func(int, int) spot { return d.at(d.item(d.body, "links", i)) }
		if l.ID == "" || l.Template == "" {
			return where(0, 0).wrong("an item of links has an id and a template")
		}
		if err := w.policyID(l.ID, where); err != nil {
			return err
		}
		w.source.Links = append(w.source.Links, policy.Link{ID: l.ID, Template: l.Template, Principal: l.Principal, Resource: l.Resource})
	}
	return nil
}

func (w *wanted) keyRules(d *document) error {
	if w.fido != nil {
		return d.of("kind").wrong("there are other FIDORules at %s:%d; they stand in one document", w.fidoAt.file, w.fidoAt.line)
	}
	var f fidoForm
	if err := d.into(&f, kindFIDO); err != nil {
		return err
	}
	rs := webauthn.RuleSet{Realms: f.Realms}
	if f.Default != nil {
		rs.Default = *f.Default
	}
	text, err := json.Marshal(rs)
	if err != nil {
		return err
	}
	if rs, err = webauthn.ParseRules(text); err != nil { // names and models are folded, too
		return d.of("kind").wrong("%s", says(err))
	}
	if f.Default != nil {
		f.Default = &rs.Default
	}
	f.Realms = rs.Realms
	w.fido, w.fidoAt = &f, d.of("kind")
	return nil
}
