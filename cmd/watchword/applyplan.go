package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

// difference is one thing that is other than the files say.
type difference struct {
	Does   string  `json:"does"` // add, change, delete
	Kind   string  `json:"kind"`
	Name   string  `json:"name"`
	Fields []field `json:"fields,omitempty"`
	State  string  `json:"state"` // planned, done, failed, not done
}

// field is one field of it that changes. Texts of several lines are told by lines.
type field struct {
	Name string `json:"field"`
	From string `json:"from"`
	To   string `json:"to"`
}

// step is one request, which makes some of the differences go.
type step struct {
	call  call
	diffs []*difference
}

// planner compares what the files say with what is live.
type planner struct {
	cmd   *cobra.Command
	c     *client // quiet
	w     *wanted
	prune bool
	steps []step
	kept  []string // that --prune leaves where it is, and why
}

func (p *planner) step(c call, list ...*difference) {
	for _, d := range list {
		d.State = "planned"
	}
	p.steps = append(p.steps, step{c, list})
}

// plan finds the differences, in the order in which they are made to go.
func (p *planner) plan() error {
	for _, k := range []struct {
		kind string
		plan func() error
	}{{kindRealm, p.realms}, {kindClient, p.clients}, {kindPolicies, p.policies}, {kindRole, p.roles}, {kindFIDO, p.keyRules}, {kindRoots, p.ownRoots}, {kindSink, p.sinks}} {
		if !p.w.kinds[k.kind] {
			continue
		}
		if err := k.plan(); err != nil {
			return err
		}
	}
	return nil
}

// flat are the fields of what is JSON, by their names with dots.
func flat(v any) map[string]string {
	text, _ := json.Marshal(v) // it is made of what can be
	var tree any
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	_ = dec.Decode(&tree)
	out := map[string]string{}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, item := range v {
				walk(strings.TrimPrefix(prefix+"."+key, "."), item)
			}
		case []any:
			items := make([]string, len(v))
			for i := range v {
				items[i] = fmt.Sprint(v[i])
			}
			out[prefix] = strings.Join(items, ", ")
		case nil: // an empty list, as a rule
			out[prefix] = ""
		default:
			out[prefix] = fmt.Sprint(v)
		}
	}
	walk("", tree)
	return out
}

// fieldsThatDiffer compares two things of one form; a nil from is nothing.
func fieldsThatDiffer(from, to any) []field {
	was, is := map[string]string{}, flat(to)
	if from != nil {
		was = flat(from)
	}
	names := slices.Collect(maps.Keys(is))
	for name := range was {
		if _, ok := is[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var list []field
	for _, name := range names {
		if was[name] != is[name] {
			list = append(list, field{name, was[name], is[name]})
		}
	}
	return list
}

// liveRealms are the rules of the realms that have any, and of those named.
func (c *client) liveRealms(cmd *cobra.Command, named ...string) (map[string]api.RealmRules, error) {
	page, _, err := get[api.RealmPage](cmd, c, call{what: "list the realms", path: pathTo("realms")})
	if err != nil {
		return nil, err
	}
	// Who may act in one realm only is not told the rules of all.
	all, err := c.realmRules(cmd, tokens.AnyRealm)
	list := map[string]api.RealmRules{}
	switch r := (*refusal)(nil); {
	case err == nil && all.Own:
		list[tokens.AnyRealm] = all
	case err != nil && (!errors.As(err, &r) || r.problem.Status != http.StatusForbidden || slices.Contains(named, tokens.AnyRealm)):
		return nil, err
	}
	for _, r := range page.Items {
		named = append(named, r.Name)
	}
	for _, name := range named {
		if name == tokens.AnyRealm {
			continue
		}
		rules, err := c.realmRules(cmd, name)
		if err != nil {
			return nil, err
		}
		if rules.Own {
			list[name] = rules
		}
	}
	return list, nil
}

func (c *client) realmRules(cmd *cobra.Command, name string) (api.RealmRules, error) {
	r, _, err := get[api.RealmRules](cmd, c, call{what: "show the rules of realm " + name, path: pathTo("realms", name, "rules")})
	return r, err
}

func (p *planner) realms() error {
	var named []string
	for _, r := range p.w.realms {
		named = append(named, r.name)
	}
	live, err := p.c.liveRealms(p.cmd, named...)
	if err != nil {
		return err
	}
	for _, r := range p.w.realms {
		was, ok := live[r.name]
		c := call{what: "set the rules of realm " + r.name, method: http.MethodPut, path: pathTo("realms", r.name, "rules"), body: api.NewRealmRules{Rules: r.rules, Version: &was.Version}}
		switch {
		case !ok:
			c.body = api.NewRealmRules{Rules: r.rules, Version: new(int64)}
			p.step(c, &difference{Does: "add", Kind: kindRealm, Name: r.name, Fields: fieldsThatDiffer(defaultRealmForm().Rules, r.rules)})
		case was.Rules != r.rules:
			p.step(c, &difference{Does: "change", Kind: kindRealm, Name: r.name, Fields: fieldsThatDiffer(was.Rules, r.rules)})
		}
		delete(live, r.name)
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if p.prune {
			p.step(call{what: "drop the rules of realm " + name, method: http.MethodDelete, path: pathTo("realms", name, "rules")},
				&difference{Does: "delete", Kind: kindRealm, Name: name})
		}
	}
	return nil
}

func (c *client) liveClients(cmd *cobra.Command) ([]api.Client, error) {
	page, _, err := get[api.ClientPage](cmd, c, call{what: "list the RADIUS clients", path: pathTo("clients")})
	return page.Items, err
}

func (p *planner) clients() error {
	list, err := p.c.liveClients(p.cmd)
	if err != nil {
		return err
	}
	live := map[string]clientForm{}
	for i := range list {
		live[list[i].Name] = formOf(&list[i])
	}
	var deletions, others []step
	for i := range p.w.clients {
		k := &p.w.clients[i]
		form := k.clientForm
		form.Kind, form.SecretFile = "", ""
		settings := form.settings()
		if k.secret != nil {
			secret := string(k.secret)
			settings.Secret = &secret
		}
		c := call{what: "put RADIUS client " + k.Name, method: http.MethodPut, path: pathTo("clients", k.Name), body: settings}
		was, ok := live[k.Name]
		delete(live, k.Name)
		switch {
		case !ok && k.secret == nil:
			return k.at.wrong("Client %s is not there yet, so it needs its secret: name the file with secret_file, or its directory with --secret-dir", k.Name)
		case !ok:
			if len(k.Replies) > 0 { // is each attribute one that the server knows?
				if _, err := p.compareClient(k, c); err != nil {
					return err
				}
			}
			d := &difference{Does: "add", Kind: kindClient, Name: k.Name, Fields: fieldsThatDiffer(nil, form.shown())}
			d.Fields = slices.DeleteFunc(d.Fields, func(f field) bool { return f.To == "" || f.Name == "name" || f.Name == "rate" && f.To == "0" })
			others = append(others, step{c, []*difference{d}})
		default:
			fields := fieldsThatDiffer(was.shown(), form.shown())
			if k.secret != nil || len(fields) > 0 && len(k.Replies) > 0 {
				changes, err := p.compareClient(k, c)
				if err != nil {
					return err
				}
				if slices.Contains(changes, "secret") {
					fields = append(fields, field{"secret", "another", "as in the file"})
				}
			}
			if len(fields) > 0 {
				others = append(others, step{c, []*difference{{Does: "change", Kind: kindClient, Name: k.Name, Fields: fields}}})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if p.prune { // first, since another may be to have its address
			deletions = append(deletions, step{call{what: "delete RADIUS client " + name, method: http.MethodDelete, path: pathTo("clients", name)},
				[]*difference{{Does: "delete", Kind: kindClient, Name: name}}})
		}
	}
	for _, s := range append(deletions, others...) {
		p.step(s.call, s.diffs...)
	}
	return nil
}

// compareClient asks the server what putting a client would change.
func (p *planner) compareClient(k *wantedClient, put call) ([]api.ClientChanges, error) {
	put.what, put.query = "compare RADIUS client "+k.Name, p.c.pairs("dry_run", "true")
	would, _, err := get[api.Client](p.cmd, p.c, put)
	return valueOf(would.Changes), err
}

// pairs are query parameters without the realm.
func (c *client) pairs(list ...string) map[string][]string {
	q := map[string][]string{}
	for i := 0; i < len(list); i += 2 {
		q[list[i]] = []string{list[i+1]}
	}
	return q
}

func (c *client) livePolicies(cmd *cobra.Command) (policy.Source, int64, error) {
	set, _, err := get[api.PolicySet](cmd, c, call{what: "list the policies", path: pathTo("policies")})
	var src policy.Source
	for _, t := range set.Policies {
		src.Policies = append(src.Policies, policy.Item{ID: t.Id, Text: t.Text, Note: valueOf(t.Note)})
	}
	for _, t := range set.Templates {
		src.Templates = append(src.Templates, policy.Item{ID: t.Id, Text: t.Text, Note: valueOf(t.Note)})
	}
	for _, l := range set.Links {
		src.Links = append(src.Links, policy.Link{ID: l.Id, Template: l.Template, Principal: valueOf(l.Principal), Resource: valueOf(l.Resource)})
	}
	return src, set.Version, err
}

// edits compares one list with what is live: what to put, what to delete, and how all
// will be.
func edits[T comparable](p *planner, kind string, live, want []T, id func(T) string) (put []T, gone []string, all []T, diffs []*difference) {
	was := map[string]T{}
	for _, x := range live {
		was[id(x)] = x
	}
	named := map[string]bool{}
	for _, x := range want {
		named[id(x)] = true
		old, ok := was[id(x)]
		if all = append(all, x); ok && old == x {
			continue
		}
		d := &difference{Does: "change", Kind: kind, Name: id(x)}
		if ok {
			d.Fields = lower(fieldsThatDiffer(old, x))
		} else {
			d.Does, d.Fields = "add", slices.DeleteFunc(lower(fieldsThatDiffer(nil, x)), func(f field) bool { return f.Name == "id" })
		}
		put, diffs = append(put, x), append(diffs, d)
	}
	for _, x := range live {
		switch {
		case named[id(x)]:
		case p.prune:
			gone, diffs = append(gone, id(x)), append(diffs, &difference{Does: "delete", Kind: kind, Name: id(x)})
		default:
			all = append(all, x)
		}
	}
	return put, gone, all, diffs
}

// lower writes the names of fields as files do.
func lower(list []field) []field {
	for i := range list {
		list[i].Name = strings.ToLower(list[i].Name)
	}
	return list
}

func (p *planner) policies() error {
	live, version, err := p.c.livePolicies(p.cmd)
	if err != nil {
		return err
	}
	var next policy.Source
	var put, templates []policy.Item
	var links []policy.Link
	var gone, goneTemplates, goneLinks []string
	var diffs, more []*difference
	itemID := func(i policy.Item) string { return i.ID }
	put, gone, next.Policies, diffs = edits(p, "Policy", live.Policies, p.w.source.Policies, itemID)
	templates, goneTemplates, next.Templates, more = edits(p, "Template", live.Templates, p.w.source.Templates, itemID)
	diffs = append(diffs, more...)
	links, goneLinks, next.Links, more = edits(p, "Link", live.Links, p.w.source.Links, func(l policy.Link) string { return l.ID })
	diffs = append(diffs, more...)
	if _, err := policy.Compile(next); err != nil {
		return p.misplaced(err)
	}
	if len(diffs) == 0 {
		return nil
	}
	body := api.PolicyEdit{Version: &version, Delete: &gone, DeleteTemplates: &goneTemplates, DeleteLinks: &goneLinks}
	putTexts, templateTexts, linkTexts := policyTexts(put), policyTexts(templates), []api.PolicyLink{}
	for _, l := range links {
		linkTexts = append(linkTexts, api.PolicyLink{Id: l.ID, Template: l.Template, Principal: ptr(l.Principal), Resource: ptr(l.Resource)})
	}
	body.Put, body.PutTemplates, body.PutLinks = &putTexts, &templateTexts, &linkTexts
	for _, list := range []*[]string{&gone, &goneTemplates, &goneLinks} {
		if *list == nil {
			*list = []string{}
		}
	}
	p.step(call{what: "store the policies", method: http.MethodPut, path: pathTo("policies"), body: body}, diffs...)
	return nil
}

func policyTexts(list []policy.Item) []api.PolicyText {
	out := make([]api.PolicyText, len(list))
	for i, item := range list {
		out[i] = api.PolicyText{Id: item.ID, Text: item.Text, Note: ptr(item.Note)}
	}
	return out
}

// misplaced says what is wrong with policies by its place in the files.
func (p *planner) misplaced(err error) error {
	var list *policy.Errors
	if !errors.As(err, &list) || len(list.Problems) == 0 {
		return err
	}
	one := list.Problems[0]
	says := one.Says
	if one.Expression != "" {
		says += ": " + one.Expression
	}
	if where, ok := p.w.texts[one.ID]; ok {
		return where(one.Line, one.Column).wrong("%s: %s", one.ID, says)
	}
	return fmt.Errorf("%s, which no file has: %s", strconv.Quote(one.ID), says)
}

func (c *client) liveRoles(cmd *cobra.Command) ([]wantedRole, error) {
	page, _, err := get[api.RolePage](cmd, c, call{what: "list the roles", path: pathTo("roles")})
	var list []wantedRole
	for _, g := range page.Items {
		r := wantedRole{role: g.Role, user: g.User, realm: g.Realm, in: tokens.AnyRealm}
		if g.In != nil {
			r.in = *g.In
		}
		if r.user, err = tokens.FoldName(g.User); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b wantedRole) int {
		return slices.Compare([]string{a.role, a.realm, a.user, a.in}, []string{b.role, b.realm, b.user, b.in})
	})
	return list, err
}

func (p *planner) roles() error {
	live, err := p.c.liveRoles(p.cmd)
	if err != nil {
		return err
	}
	named := map[wantedRole]bool{}
	for _, r := range p.w.roles {
		at := r.at
		r.at = spot{}
		if named[r] = true; slices.Contains(live, r) {
			continue
		}
		show := call{what: "look for user " + r.user, path: pathTo("users", r.user), query: p.c.pairs("realm", r.realm)}
		if _, err := p.c.do(p.cmd.Context(), withMethod(show)); err != nil {
			if refused := (*refusal)(nil); errors.As(err, &refused) && refused.problem.Status == http.StatusNotFound {
				return at.wrong("there is no user %s in realm %s", r.user, r.realm)
			}
			return err
		}
		p.step(call{what: "give " + r.user + " the role " + r.role, method: http.MethodPut, path: pathTo("roles", r.role, "users", r.user), query: p.c.pairs("realm", r.realm, "in", r.in)},
			&difference{Does: "add", Kind: kindRole, Name: r.name()})
	}
	if !p.prune {
		return nil
	}
	var me api.Session
	if p.c.held() != nil {
		if me, _, err = get[api.Session](p.cmd, p.c, call{what: "see who is signed in", path: pathTo("session")}); err != nil {
			return err
		}
		if me.User, err = tokens.FoldName(me.User); err != nil {
			return err
		}
	}
	for _, r := range live {
		switch {
		case named[r]:
		case r.role == string(policy.Superuser) && me.User != "" && r.user == me.User && r.realm == me.Realm:
			p.kept = append(p.kept, r.name()+": it is your own")
		default:
			p.step(call{what: "take the role " + r.role + " from " + r.user, method: http.MethodDelete, path: pathTo("roles", r.role, "users", r.user), query: p.c.pairs("realm", r.realm, "in", r.in)},
				&difference{Does: "delete", Kind: kindRole, Name: r.name()})
		}
	}
	return nil
}

func (c *client) liveKeyRules(cmd *cobra.Command) (webauthn.RuleSet, int64, error) {
	now, _, err := get[api.KeyRules](cmd, c, call{what: "show the rules for FIDO keys", path: pathTo("fido", "rules")})
	if err != nil {
		return webauthn.RuleSet{}, 0, err
	}
	rules, err := webauthn.ParseRules(now.Rules)
	return rules, now.Version, err
}

func (p *planner) keyRules() error {
	live, version, err := p.c.liveKeyRules(p.cmd)
	if err != nil {
		return err
	}
	next := webauthn.RuleSet{Realms: map[string]webauthn.RealmRules{}}
	if !p.prune {
		next.Default = live.Default
		maps.Copy(next.Realms, live.Realms)
	}
	if p.w.fido.Default != nil {
		next.Default = *p.w.fido.Default
	}
	for name, r := range p.w.fido.Realms {
		if was := live.Realms[name]; !p.prune {
			groups := map[string]webauthn.Rules{}
			maps.Copy(groups, was.Groups)
			maps.Copy(groups, r.Groups)
			r.Groups = groups
		}
		next.Realms[name] = r
	}
	was, is := levels(&live), levels(&next)
	var diffs []*difference
	for _, level := range slices.Sorted(maps.Keys(is)) {
		old, ok := was[level]
		switch {
		case !ok:
			diffs = append(diffs, &difference{Does: "add", Kind: kindFIDO, Name: level, Fields: fieldsThatDiffer(nil, is[level])})
		case !reflect.DeepEqual(flat(old), flat(is[level])):
			diffs = append(diffs, &difference{Does: "change", Kind: kindFIDO, Name: level, Fields: fieldsThatDiffer(old, is[level])})
		}
	}
	for _, level := range slices.Sorted(maps.Keys(was)) {
		if _, ok := is[level]; !ok {
			diffs = append(diffs, &difference{Does: "delete", Kind: kindFIDO, Name: level})
		}
	}
	if len(diffs) == 0 {
		return nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	p.step(call{what: "set the rules for FIDO keys", method: http.MethodPut, path: pathTo("fido", "rules"), body: api.KeyRules{Rules: text, Version: version}}, diffs...)
	return nil
}

// levels are the rules for FIDO keys one by one, by whom they are for.
func levels(rs *webauthn.RuleSet) map[string]webauthn.Rules {
	list := map[string]webauthn.Rules{"default": rs.Default}
	for name, r := range rs.Realms {
		list["realm "+name] = r.Rules
		for group, own := range r.Groups {
			list["group "+group+" of realm "+name] = own
		}
	}
	return list
}
