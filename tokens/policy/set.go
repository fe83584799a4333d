package policy

import (
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"
	public "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Source is what an installation wrote. Ids are unique over all three lists; one is
// 1 to 128 of a to z, 0 to 9, ".", "_" and "-", and none begins with "builtin.".
type Source struct {
	Policies  []Item `json:"policies,omitempty"`
	Templates []Item `json:"templates,omitempty"`
	Links     []Link `json:"links,omitempty"`
}

// Item is one Cedar policy or template, as text.
type Item struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	Note string `json:"note,omitempty"` // for people
}

// Link is a policy that a template makes when its slots are filled. Principal and
// Resource are entity uids as Cedar writes them, such as Watchword::Role::"helpdesk",
// and empty where the template has no such slot.
type Link struct {
	ID        string `json:"id"`
	Template  string `json:"template"`
	Principal string `json:"principal,omitempty"`
	Resource  string `json:"resource,omitempty"`
}

// A Set is policies, checked and ready to decide: those of an installation and the
// built-in ones. It never changes, and any number may use it at once.
type Set struct {
	entries  []*entry // by id
	index    index
	groups   bool
	verifies bool
	builtin  *Set // itself, of the built-in one
}

// An entry is one policy of a Set.
type entry struct {
	id       string
	only     []string // just the id, for a decision that it makes alone
	template string   // of a link
	builtin  bool
	forbid   bool
	who      who
	actions  actionSet
	where    where

	always bool  // it has no conditions: its scope is all
	test   *test // of its conditions, as far as it goes; may be nil

	tree       *ast.Policy
	conditions *cedar.Policy // of it, without the scope: that is asked first, and without Cedar
	need       needs
}

func newEntry(id string, tree *ast.Policy) *entry {
	bare := ast.Permit()
	bare.Conditions = tree.Conditions
	return &entry{
		id: id, only: []string{id}, forbid: tree.Effect == ast.EffectForbid,
		who: readWho(tree.Principal), actions: readActions(tree.Action), where: readWhere(tree.Resource),
		always: len(tree.Conditions) == 0, test: newTest(tree.Conditions), tree: tree, need: readNeeds(tree.Conditions),
		conditions: cedar.NewPolicyFromAST((*public.Policy)(bare)),
	}
}

// alike is an entry with the same conditions and another scope.
func (e *entry) alike(id string, tree *ast.Policy) *entry {
	link := *e
	link.id, link.only, link.tree = id, []string{id}, tree
	link.who, link.where = readWho(tree.Principal), readWhere(tree.Resource)
	return &link
}

//go:embed builtin.cedar
var builtinText string

// Builtin are the policies that every installation has, and no others.
func Builtin() *Set { return builtins() }

var builtins = sync.OnceValue(func() *Set {
	list, err := cedar.NewPolicyListFromBytes("builtin.cedar", []byte(builtinText))
	if err != nil {
		panic("policy: " + err.Error())
	}
	var all []*entry
	for _, p := range list {
		e := newEntry(string(p.Annotations()["id"]), (*ast.Policy)(p.AST()))
		e.builtin = true
		all = append(all, e)
	}
	s := newSet(all)
	s.builtin = s
	return s
})

func newSet(all []*entry) *Set {
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.id, b.id) })
	s := &Set{entries: all, index: newIndex(all)}
	verify := words().actions[Verify].index
	for _, e := range all {
		s.verifies = s.verifies || !e.builtin && e.actions.has(verify)
		s.groups = s.groups || e.groups()
	}
	return s
}

// Groups says whether any policy looks at groups: then Resource.Groups must be filled.
func (s *Set) Groups() bool { return s.groups }

// Verifies says whether a policy of the installation's own can concern verification.
func (s *Set) Verifies() bool { return s.verifies }

// groups says whether the policy names a group. There is no other way to look at one.
func (e *entry) groups() bool {
	if e.where.uid.Type == typeGroup {
		return true
	}
	found := false
	for _, c := range e.tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeValue:
				uid, ok := n.Value.(cedar.EntityUID)
				found = found || ok && uid.Type == typeGroup
			case ast.NodeTypeIs:
				found = found || n.EntityType == typeGroup
			case ast.NodeTypeIsIn:
				found = found || n.EntityType == typeGroup
			}
			return !found
		})
	}
	return found
}
