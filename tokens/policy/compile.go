package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// How many there can be of each.
const (
	maxPolicies  = 5_000
	maxTemplates = 1_000
	maxLinks     = 100_000
)

var itemID = regexp.MustCompile(`^[a-z0-9._-]{1,128}$`)

// Compile makes a Set of the built-in policies and an installation's own. What is
// wrong with them is an *Errors.
func Compile(src Source) (*Set, error) {
	var errs Errors
	for _, n := range []struct {
		have, most int
		what       string
	}{{len(src.Policies), maxPolicies, "policies"}, {len(src.Templates), maxTemplates, "templates"}, {len(src.Links), maxLinks, "links"}} {
		if n.have > n.most {
			errs.add(Problem{Says: fmt.Sprintf("there are %d %s; at most %d are kept", n.have, n.what, n.most)})
		}
	}
	if err := errs.err(); err != nil {
		return nil, err
	}

	seen := map[string]bool{}
	fresh := func(id string) {
		switch {
		case !itemID.MatchString(id):
			errs.add(Problem{ID: id, Says: "an id is 1 to 128 of a to z, 0 to 9, dot, _ and -"})
		case strings.HasPrefix(id, "builtin."):
			errs.add(Problem{ID: id, Says: "ids that begin with builtin. are those of the built-in policies"})
		case seen[id]:
			errs.add(Problem{ID: id, Says: "there are two of this id; no two policies, templates or links have the same"})
		}
		seen[id] = true
	}
	all := slices.Clone(Builtin().entries)
	for _, item := range src.Policies {
		fresh(item.ID)
		p, problems := compilePolicy(item)
		errs.add(problems...)
		if p != nil {
			all = append(all, newEntry(item.ID, (*ast.Policy)(p.AST())))
		}
	}
	templates := map[string]*template{}
	for _, item := range src.Templates {
		fresh(item.ID)
		t, problems := compileTemplate(item)
		errs.add(problems...)
		templates[item.ID] = t
	}
	for _, l := range src.Links {
		fresh(l.ID)
		t, ok := templates[l.Template]
		if !ok {
			errs.add(Problem{ID: l.ID, Says: fmt.Sprintf("there is no template %q", l.Template)})
		}
		if t == nil { // what is wrong with it is said
			continue
		}
		e, p := t.link(l)
		if p != nil {
			errs.add(*p)
			continue
		}
		all = append(all, e)
	}
	if err := errs.err(); err != nil {
		return nil, err
	}
	s := newSet(all)
	s.builtin = Builtin()
	return s, nil
}

func compilePolicy(item Item) (*cedar.Policy, []Problem) {
	d, p := newDraft(item.ID, item.Text)
	if p != nil {
		return nil, []Problem{*p}
	}
	if len(d.slots) > 0 {
		w := d.slots[0]
		return nil, []Problem{{ID: d.id, Line: w.line, Column: w.column, Expression: w.text, Says: "slots are for templates"}}
	}
	parsed, p := d.parse()
	if p != nil {
		return nil, []Problem{*p}
	}
	if list := d.check((*ast.Policy)(parsed.AST())); len(list) > 0 {
		return nil, list
	}
	return parsed, nil
}

// A template is a policy with slots.
type template struct {
	id                  string
	tree                *ast.Policy                    // with an entity of slotType in each slot
	principal, resource bool                           // it has this slot
	entry               *entry                         // but for id and scope
	fits                map[[2]cedar.EntityType]string // what is wrong with a link of entities of these types
}

func compileTemplate(item Item) (*template, []Problem) {
	d, p := newDraft(item.ID, item.Text)
	if p != nil {
		return nil, []Problem{*p}
	}
	parsed, p := d.parse()
	if p != nil {
		return nil, []Problem{*p}
	}
	t := &template{id: item.ID, tree: (*ast.Policy)(parsed.AST()), fits: map[[2]cedar.EntityType]string{}}
	// The slots that are where they can be; all others are wrong.
	t.principal, t.resource = slotOf(t.tree.Principal) == slotPrincipal, slotOf(t.tree.Resource) == slotResource
	found := 0
	for _, is := range []bool{t.principal, t.resource} {
		if is {
			found++
		}
	}
	if len(d.slots) != found {
		w := d.misplaced(t.principal, t.resource)
		return nil, []Problem{{ID: d.id, Line: w.line, Column: w.column, Expression: w.text,
			Says: "a slot stands once, in the scope: principal == ?principal or principal in ?principal, and so for resource"}}
	}
	if found == 0 {
		return nil, []Problem{{ID: d.id, Says: "a template has ?principal or ?resource in its scope; this is a policy"}}
	}
	// Whatever is put into the slots, the conditions must be right.
	open := *t.tree
	if t.principal {
		open.Principal = opened(open.Principal).(ast.IsPrincipalScopeNode)
	}
	if t.resource {
		open.Resource = opened(open.Resource).(ast.IsResourceScopeNode)
	}
	if list := d.check(&open); len(list) > 0 {
		return nil, list
	}
	t.entry = newEntry(t.id, t.tree)
	t.entry.template = t.id
	return t, nil
}

// misplaced is the first slot that is not where it can be.
func (d *draft) misplaced(principal, resource bool) word {
	for _, w := range d.slots {
		switch {
		case w.text == "?principal" && principal:
			principal = false
		case w.text == "?resource" && resource:
			resource = false
		default:
			return w
		}
	}
	return word{}
}

// slotOf is the slot that a constraint names, or empty.
func slotOf(s ast.IsScopeNode) string {
	var uid cedar.EntityUID
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		uid = s.Entity
	case ast.ScopeTypeIn:
		uid = s.Entity
	case ast.ScopeTypeIsIn:
		uid = s.Entity
	}
	if uid.Type != slotType {
		return ""
	}
	return string(uid.ID)
}

// opened is a constraint on a slot without the slot.
func opened(s ast.IsScopeNode) ast.IsScopeNode {
	if s, ok := s.(ast.ScopeTypeIsIn); ok {
		return ast.ScopeTypeIs{Type: s.Type}
	}
	return ast.ScopeTypeAll{}
}

// with is a constraint with the slot filled.
func with(s ast.IsScopeNode, uid cedar.EntityUID) ast.IsScopeNode {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return ast.ScopeTypeEq{Entity: uid}
	case ast.ScopeTypeIsIn:
		return ast.ScopeTypeIsIn{Type: s.Type, Entity: uid}
	}
	return ast.ScopeTypeIn{Entity: uid}
}

// link is the policy of a link: the template's, with the entities in its tree.
func (t *template) link(l Link) (*entry, *Problem) {
	tree := *t.tree
	var filled [2]cedar.EntityUID
	for i, slot := range []struct {
		name, text string
		is         bool
	}{{slotPrincipal, l.Principal, t.principal}, {slotResource, l.Resource, t.resource}} {
		switch {
		case slot.is && slot.text == "":
			return nil, &Problem{ID: l.ID, Says: fmt.Sprintf("template %q has the slot ?%s: the link says what it is", t.id, slot.name)}
		case !slot.is && slot.text != "":
			return nil, &Problem{ID: l.ID, Expression: slot.text, Says: fmt.Sprintf("template %q has no slot ?%s", t.id, slot.name)}
		case !slot.is:
			continue
		}
		uid, says := parseUID(slot.text)
		if says == "" {
			says = misnamed(uid)
		}
		if says != "" {
			return nil, &Problem{ID: l.ID, Expression: slot.text, Says: says}
		}
		filled[i] = uid
		if i == 0 {
			tree.Principal = with(tree.Principal, uid).(ast.IsPrincipalScopeNode)
		} else {
			tree.Resource = with(tree.Resource, uid).(ast.IsResourceScopeNode)
		}
	}
	types := [2]cedar.EntityType{filled[0].Type, filled[1].Type}
	says, ok := t.fits[types]
	if !ok {
		bare := tree
		bare.Conditions = nil
		if list := split(words().validator.Policy("", &bare)); len(list) > 0 {
			says = strings.Join(list, "; ")
			if strings.Contains(says, "unable to find an applicable action") {
				says = "nobody of this kind does any of these actions to anything of this type: the link would never apply"
			}
		} else if newTyper(&tree).impossible() {
			says = "the conditions hold for no question about these: the link would never apply"
		}
		t.fits[types] = says
	}
	if says != "" {
		return nil, &Problem{ID: l.ID, Expression: strings.TrimSpace(l.Principal + " " + l.Resource), Says: says}
	}
	return t.entry.alike(l.ID, &tree), nil
}

// parseUID reads an entity uid as Cedar writes it, such as Watchword::Role::"helpdesk".
func parseUID(text string) (cedar.EntityUID, string) {
	const says = `an entity is written like Watchword::Role::"helpdesk"`
	list, p := scan(text)
	if p != nil || len(text) > maxText || len(list) < 3 || len(list)%2 == 0 || list[len(list)-1].sort != sortString || list[0].offset != 0 {
		return cedar.EntityUID{}, says
	}
	end := 0
	for i, w := range list {
		if strings.TrimSpace(text[end:w.offset]) != "" { // a comment
			return cedar.EntityUID{}, says
		}
		end = w.offset + len(w.text)
		if i%2 == 1 && w.text != "::" || i%2 == 0 && i < len(list)-1 && w.sort != sortName {
			return cedar.EntityUID{}, says
		}
	}
	if strings.TrimSpace(text[end:]) != "" {
		return cedar.EntityUID{}, says
	}
	var parsed cedar.Policy
	if err := parsed.UnmarshalCedar([]byte("permit (principal == " + text + ", action, resource);")); err != nil {
		return cedar.EntityUID{}, says
	}
	eq, ok := (*ast.Policy)(parsed.AST()).Principal.(ast.ScopeTypeEq)
	if !ok || !strings.HasPrefix(string(eq.Entity.Type), namespace) || !known(string(eq.Entity.Type)) {
		return cedar.EntityUID{}, says
	}
	return eq.Entity, ""
}
