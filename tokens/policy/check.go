package policy

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	public "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// check finds what is wrong with a policy that could be parsed: all that Cedar's strict
// validation finds; names that are never those of anything here; conditions that
// never hold; and attributes that the policy's actions do not know.
func (d *draft) check(tree *ast.Policy) []Problem {
	list := d.scope(tree)
	list = append(list, d.literals(tree)...)
	if len(list) > 0 {
		return list
	}
	t := newTyper(tree)
	for i, c := range tree.Conditions {
		for n, says := range t.errors(c) {
			if n == maxMessages {
				break
			}
			node, nth := t.culprit(i, says)
			list = d.report(list, node, nth, says)
		}
	}
	if len(list) == 0 {
		for i := range tree.Conditions {
			for _, m := range t.mixed(i) {
				list = d.report(list, m.node, t.before(i, m), "times and numbers are not compared with each other")
			}
		}
	}
	list = append(list, d.unknown(tree)...)
	if len(list) == 0 && t.impossible() {
		line, column := 1, 1
		if i := slices.IndexFunc(d.words, func(w word) bool { return w.text == "when" || w.text == "unless" }); i >= 0 {
			line, column = d.words[i].line, d.words[i].column
		}
		list = append(list, Problem{ID: d.id, Line: line, Column: column, Says: "the conditions hold for no question that there can be: the policy would never apply"})
	}
	return list
}

var forAction = regexp.MustCompile(" for Watchword::Action::\"[^\"]*\"")

// What Cedar calls what it names for itself only.
var plainer = strings.NewReplacer("Set<__cedar::internal::AnyEntity>", "a set of entities", "__cedar::internal::AnyEntity", "an entity",
	"Set<__cedar::internal::Any>", "a set", "error during extension function argument validation: ", "")

// report adds a problem with the nth of those expressions that read like node. What
// is wrong with one expression is one problem.
func (d *draft) report(list []Problem, node ast.IsNode, nth int, says string) []Problem {
	says = plainer.Replace(forAction.ReplaceAllString(says, ""))
	if name := unknownType(says); name != "" && known(namespace+name) {
		says += " (write " + namespace + name + ")"
	}
	p := Problem{ID: d.id, Expression: expression(node), Says: says}
	p.Line, p.Column = d.find(node, nth)
	for i := range list {
		if q := &list[i]; q.Line == p.Line && q.Column == p.Column && q.Expression == p.Expression {
			if !strings.Contains(q.Says, says) {
				q.Says += "; " + says
			}
			return list
		}
	}
	return append(list, p)
}

func unknownType(says string) string {
	name, ok := strings.CutPrefix(says, "unrecognized entity type `")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(name, "`")
}

func known(t string) bool {
	_, ok := words().schema.Entities[cedar.EntityType(t)]
	return ok || t == string(typeAction)
}

// expression is a node as Cedar writes it.
func expression(n ast.IsNode) string {
	p := ast.Permit().When(ast.NewNode(n))
	text := string(cedar.NewPolicyFromAST((*public.Policy)(p)).MarshalCedar())
	_, text, _ = strings.Cut(text, "when {")
	return strings.TrimSpace(strings.TrimSuffix(text, "};"))
}

// find is the place of the nth expression that reads like node. The tree knows no
// places: the words of the expression are looked for among those of the text, but
// for parentheses, which the tree does not know either.
func (d *draft) find(node ast.IsNode, nth int) (line, column int) {
	plain := func(list []word) []word {
		return slices.DeleteFunc(slices.Clone(list), func(w word) bool { return w.text == "(" || w.text == ")" })
	}
	text := plain(d.words)
	for node != nil {
		list, _ := scan(expression(node))
		look := plain(list)
		var at []word
		for i := 0; len(look) > 0 && i+len(look) <= len(text); i++ {
			if slices.EqualFunc(text[i:i+len(look)], look, func(a, b word) bool { return a.text == b.text }) {
				at = append(at, text[i])
			}
		}
		if len(at) > 0 {
			w := at[min(nth, len(at)-1)]
			return w.line, w.column
		}
		// Cedar writes some expressions otherwise than people. What stands first in
		// it begins where it does.
		below := children(node)
		if len(below) == 0 {
			break
		}
		node, nth = below[0], 0
	}
	if len(d.words) > 0 {
		return d.words[0].line, d.words[0].column
	}
	return 1, 1
}

// scope finds what is wrong with the three constraints.
func (d *draft) scope(tree *ast.Policy) (list []Problem) {
	bare := *tree
	bare.Conditions = nil
	all := split(words().validator.Policy("", &bare))
	slices.Sort(all)
	for _, says := range all {
		p := Problem{ID: d.id, Line: 1, Column: 1, Says: says}
		if i := slices.IndexFunc(d.words, func(w word) bool { return w.text == "permit" || w.text == "forbid" }); i >= 0 {
			p.Line, p.Column = d.words[i].line, d.words[i].column
		}
		switch quoted := between(says, "`"); {
		case strings.HasPrefix(says, "unable to find an applicable action"):
			p.Says = "nobody of this kind does any of these actions to anything of this type: the policy would never apply"
		case quoted != "":
			p.Expression = quoted
			look, _ := scan(quoted)
			for i := range d.words {
				if i+len(look) <= len(d.words) && slices.EqualFunc(d.words[i:i+len(look)], look, func(a, b word) bool { return a.text == b.text }) {
					p.Line, p.Column = d.words[i].line, d.words[i].column
					break
				}
			}
			if known(namespace + strings.Split(quoted, "::")[0]) {
				p.Says += " (write " + namespace + quoted + ")"
			}
		}
		list = append(list, p)
	}
	if len(list) > 1 { // that nothing applies follows from a name that is not known
		list = slices.DeleteFunc(list, func(p Problem) bool { return strings.HasPrefix(p.Says, "nobody of this kind") })
	}
	return list
}

func between(s, mark string) string {
	_, s, _ = strings.Cut(s, mark)
	s, _, _ = strings.Cut(s, mark)
	return s
}

// split are the messages of the validator, each once.
func split(err error) (list []string) {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			for _, says := range split(e) {
				if !slices.Contains(list, says) {
					list = append(list, says)
				}
			}
		}
		return list
	}
	return []string{err.Error()}
}

// literals finds entities that there can never be.
func (d *draft) literals(tree *ast.Policy) (list []Problem) {
	look := func(uid cedar.EntityUID) {
		if says := misnamed(uid); says != "" {
			list = d.report(list, ast.NodeValue{Value: uid}, 0, says)
		}
	}
	for _, s := range []ast.IsScopeNode{tree.Principal, tree.Resource} {
		switch s := s.(type) {
		case ast.ScopeTypeEq:
			look(s.Entity)
		case ast.ScopeTypeIn:
			look(s.Entity)
		case ast.ScopeTypeIsIn:
			look(s.Entity)
		}
	}
	is := func(n ast.IsNode, t cedar.EntityType) {
		if !known(string(t)) { // Cedar's check takes it for a type that nothing is of
			list = d.report(list, n, 0, "unrecognized entity type `"+string(t)+"`")
		}
	}
	same := func(n ast.IsNode, b ast.BinaryNode) { // Cedar's check takes this for false, and leaves it at that
		left, ok := b.Left.(ast.NodeValue)
		right, also := b.Right.(ast.NodeValue)
		if ok && also && reflect.TypeOf(left.Value) != reflect.TypeOf(right.Value) {
			list = d.report(list, n, 0, "the two are of different types, and never equal")
		}
	}
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeValue:
				if uid, ok := n.Value.(cedar.EntityUID); ok {
					look(uid)
				}
			case ast.NodeTypeIs:
				is(n, n.EntityType)
			case ast.NodeTypeIsIn:
				is(n, n.EntityType)
			case ast.NodeTypeEquals:
				same(n, n.BinaryNode)
			case ast.NodeTypeNotEquals:
				same(n, n.BinaryNode)
			}
			return true
		})
	}
	return list
}

// misnamed says why no entity has this id, or nothing.
func misnamed(uid cedar.EntityUID) string {
	id := string(uid.ID)
	lower := func(s, what string) string {
		switch {
		case s == "":
			return what + " has a name"
		case strings.ContainsFunc(s, func(r rune) bool { return r >= 'A' && r <= 'Z' }):
			return what + " is named in lower case here"
		}
		return ""
	}
	switch t := strings.TrimPrefix(string(uid.Type), namespace); t {
	case "Installation":
		if id != thisInstallation {
			return `there is one installation: Watchword::Installation::"this"`
		}
	case "Realm":
		return lower(id, "a realm")
	case "Role":
		if !Role(id).Valid() {
			return "a role is 1 to 64 of a to z, 0 to 9 and -"
		}
	case "Client":
		return lower(id, "a client")
	case "Key", "Invitation":
		if id == "" {
			return "it has an id"
		}
	case "Group", "User", "Admin", "Token":
		realm, name, ok := parseID(id)
		switch {
		case !ok:
			return "the id is written " + map[string]string{"Group": "REALM/GROUP", "User": "REALM/USER", "Admin": "REALM/USER", "Token": "REALM/SERIAL"}[t]
		case name == "":
			return "behind the realm it has a name"
		case t == "Token":
			return lower(realm, "a realm")
		}
		if says := lower(realm, "a realm"); says != "" {
			return says
		}
		return lower(name, "it")
	}
	return ""
}

// unknown finds attributes of a token that only verifying knows, in a policy that is
// about other actions too: there it could not be evaluated, and so would deny.
func (d *draft) unknown(tree *ast.Policy) (list []Problem) {
	var just actionSet
	just.add(words().actions[Verify].index)
	if readActions(tree.Action) == just {
		return nil
	}
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			var of ast.StrOpNode
			switch n := n.(type) {
			case ast.NodeTypeAccess:
				of = n.StrOpNode
			case ast.NodeTypeHas:
				of = n.StrOpNode
			default:
				return true
			}
			v, ok := of.Arg.(ast.NodeTypeVariable)
			if ok && v.Name == "resource" && slices.Contains([]cedar.String{"type", "model", "aaguid", "attested", "unused_days"}, of.Value) {
				list = d.report(list, n, 0, `this is known of a token only where it is verified: limit the policy to action == Watchword::Action::"verify"`)
			}
			return true
		})
	}
	return list
}
