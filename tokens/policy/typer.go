package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// A typer has Cedar check the types of a policy's conditions, and finds the expression
// that an error is about. The checker names none: it is asked about smaller and
// smaller parts, each under the conditions that it stands under.
type typer struct {
	tree *ast.Policy
	bare ast.Policy // without conditions, and with fewer actions if that makes no difference
	each int        // questions that there are for it: the checker looks at each
	left int        // how much it may look for culprits yet
}

// Of a policy that is wrong from end to end, not every place is looked for.
const (
	maxLooks    = 3_000_000 // nodes that the checker looks at, each question counted
	maxMessages = 20
)

func newTyper(tree *ast.Policy) *typer {
	t := &typer{tree: tree, bare: *tree, left: maxLooks, each: len(kinds) * len(types) * len(words().ordered)}
	t.bare.Conditions = nil
	for _, c := range tree.Conditions {
		if mentions(c.Body, "action") {
			return t
		}
	}
	// The types of a condition depend on the action only by what it can be done to.
	set := readActions(tree.Action)
	var seen []uint8
	var some []cedar.EntityUID
	for _, rule := range words().ordered {
		if set.has(rule.index) && !slices.Contains(seen, rule.types) {
			seen = append(seen, rule.types)
			some = append(some, actionUID(rule.action))
		}
	}
	t.bare.Action = ast.ScopeTypeInSet{Entities: some}
	t.each = len(kinds) * len(types) * len(some)
	return t
}

func mentions(n ast.IsNode, variable cedar.String) (found bool) {
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		v, ok := n.(ast.NodeTypeVariable)
		found = found || ok && v.Name == variable
		return !found
	})
	return found
}

// errors are the messages about one condition.
func (t *typer) errors(c ast.ConditionType) []string {
	p := t.bare
	p.Conditions = []ast.ConditionType{c}
	list := split(words().validator.Policy("", &p))
	slices.Sort(list) // the checker goes through maps
	return list
}

// wrong says whether an expression, where p is looked at, makes the checker say that.
func (t *typer) wrong(p part, n ast.Node, says string) bool {
	if p.under != nil {
		n = ast.NewNode(p.under).And(n)
	}
	ast.Inspect(n, func(ast.IsNode) bool {
		t.left -= t.each
		return t.left > 0
	})
	return t.left > 0 && slices.Contains(t.errors(ast.ConditionType{Condition: ast.ConditionWhen, Body: n.AsIsNode()}), says)
}

// A part is a part of an expression, with what must hold where it is looked at.
type part struct {
	node  ast.IsNode
	under ast.IsNode // nil: nothing
}

// culprit is the smallest part of condition i that the message is about, or where
// that takes too long a greater one, and how many before it in the policy read the
// same.
func (t *typer) culprit(i int, says string) (ast.IsNode, int) {
	at := part{node: t.tree.Conditions[i].Body}
down:
	for {
		below := parts(at)
		if chain := chained(at); len(chain) > 2 {
			// The first operand that the message comes with. All before it are right.
			n, found := slices.BinarySearchFunc(chain, 0, func(p part, _ int) int {
				if t.wrong(p, ast.NewNode(p.node), says) {
					return 0
				}
				return -1
			})
			if !found {
				return at.node, t.before(i, at)
			}
			if at = chain[n]; n == 0 {
				continue
			}
			below = parts(at)[1:]
		}
		for _, p := range below {
			asked := ast.NewNode(p.node)
			asked = asked.Equal(asked) // true or false, whatever its type
			if t.wrong(p, asked, says) {
				at = p
				continue down
			}
		}
		return at.node, t.before(i, at)
	}
}

// chained are the beginnings of a chain of && or ||, the shortest first: its first
// operand, the first two, and so on to all of it.
func chained(p part) []part {
	list := []part{p}
	for {
		var left ast.IsNode
		switch n := p.node.(type) {
		case ast.NodeTypeAnd:
			if _, ok := list[0].node.(ast.NodeTypeAnd); ok {
				left = n.Left
			}
		case ast.NodeTypeOr:
			if _, ok := list[0].node.(ast.NodeTypeOr); ok {
				left = n.Left
			}
		}
		if left == nil {
			break
		}
		p = part{left, p.under}
		list = append(list, p)
	}
	slices.Reverse(list)
	return list
}

// before counts the expressions in the policy, up to the one that is found, that read
// like it. Where that would take long, it says that there are none.
func (t *typer) before(i int, found part) (n int) {
	text := expression(found.node)
	steps := 0
	var walk func(p part) bool
	walk = func(p part) bool {
		if steps++; steps > 200 {
			return true
		}
		if expression(p.node) == text {
			if same(p.under, found.under) {
				return true
			}
			n++
		}
		return slices.ContainsFunc(parts(p), walk)
	}
	for k := 0; k <= i; k++ {
		if walk(part{node: t.tree.Conditions[k].Body}) && k == i {
			break
		}
	}
	return n
}

func same(a, b ast.IsNode) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return expression(a) == expression(b)
}

// parts are the operands of an expression, in the order of the text.
func parts(p part) []part {
	and := func(more ast.IsNode) ast.IsNode {
		if p.under == nil {
			return more
		}
		return ast.NewNode(p.under).And(ast.NewNode(more)).AsIsNode()
	}
	not := func(n ast.IsNode) ast.IsNode { return ast.Not(ast.NewNode(n)).AsIsNode() }
	switch n := p.node.(type) {
	case ast.NodeTypeAnd:
		return []part{{n.Left, p.under}, {n.Right, and(n.Left)}}
	case ast.NodeTypeOr:
		return []part{{n.Left, p.under}, {n.Right, and(not(n.Left))}}
	case ast.NodeTypeIfThenElse:
		return []part{{n.If, p.under}, {n.Then, and(n.If)}, {n.Else, and(not(n.If))}}
	}
	var list []part
	for _, c := range children(p.node) {
		list = append(list, part{c, p.under})
	}
	return list
}

// children are the operands of a node.
func children(n ast.IsNode) (list []ast.IsNode) {
	top := true
	ast.Inspect(ast.NewNode(n), func(c ast.IsNode) bool {
		if top {
			top = false
			return true
		}
		list = append(list, c)
		return false
	})
	return list
}

// impossible says whether the conditions, which are of the right types, never hold
// together. The checker looks at the first branch of an if only where it can be taken.
func (t *typer) impossible() bool {
	if len(t.tree.Conditions) == 0 {
		return false
	}
	var all ast.Node
	for i, c := range t.tree.Conditions {
		n := ast.NewNode(c.Body)
		if c.Condition == ast.ConditionUnless {
			n = ast.Not(n)
		}
		if i > 0 {
			n = all.And(n)
		}
		all = n
	}
	probe := ast.IfThenElse(all, ast.Context().Access("__nothing"), ast.True())
	return len(t.errors(ast.ConditionType{Condition: ast.ConditionWhen, Body: probe.AsIsNode()})) == 0
}

// mixed are the comparisons of condition i between a time, a duration and a number,
// of two different ones. Cedar's check lets them pass; they could not be evaluated.
// That two are equal it lets pass only where they are of one type.
func (t *typer) mixed(i int) (list []part) {
	timed := false
	ast.Inspect(ast.NewNode(t.tree.Conditions[i].Body), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeExtensionCall:
			timed = true
		case ast.NodeTypeAccess:
			timed = timed || n.Value == "now"
		}
		return !timed
	})
	if !timed { // all that is compared is a number
		return nil
	}
	var walk func(p part)
	walk = func(p part) {
		var two ast.BinaryNode
		switch n := p.node.(type) {
		case ast.NodeTypeLessThan:
			two = n.BinaryNode
		case ast.NodeTypeLessThanOrEqual:
			two = n.BinaryNode
		case ast.NodeTypeGreaterThan:
			two = n.BinaryNode
		case ast.NodeTypeGreaterThanOrEqual:
			two = n.BinaryNode
		}
		if two.Left != nil {
			asked := ast.NewNode(two.Left).Equal(ast.NewNode(two.Right))
			if p.under != nil {
				asked = ast.NewNode(p.under).And(asked)
			}
			if len(t.errors(ast.ConditionType{Condition: ast.ConditionWhen, Body: asked.AsIsNode()})) > 0 {
				list = append(list, p)
			}
		}
		for _, c := range parts(p) {
			walk(c)
		}
	}
	walk(part{node: t.tree.Conditions[i].Body})
	return list
}
