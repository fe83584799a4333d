package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// What the conditions of a policy look at. To make all of a question's entities and
// context for Cedar costs more than to evaluate most policies, so only what is needed
// is made.
type needs struct {
	context   uint16 // bits of contextNames
	principal bool   // attributes of the principal
	resource  bool   // and of the resource
	parents   bool   // what is in what
}

// contextNames are the attributes of the context, in the order of their bits.
var contextNames = []cedar.String{"now", "hour", "minute", "weekday", "source", "path", "mfa", "nas", "caller"}

const (
	needNow = 1 << iota
	needHour
	needMinute
	needWeekday
	needSource
	needPath
	needMFA
	needNAS
	needCaller
)

const everyContext = 1<<9 - 1

func readNeeds(conditions []ast.ConditionType) (n needs) {
	for _, c := range conditions {
		n.read(c.Body)
	}
	return n
}

func (n *needs) read(node ast.IsNode) {
	var of ast.StrOpNode
	switch node := node.(type) {
	case ast.NodeTypeAccess:
		of = node.StrOpNode
	case ast.NodeTypeHas:
		of = node.StrOpNode
	case ast.NodeTypeIn, ast.NodeTypeIsIn:
		n.parents = true
	case ast.NodeTypeVariable: // not looked into, or by way of another expression
		switch node.Name {
		case "context":
			n.context = everyContext
		case "principal":
			n.principal = true
		case "resource":
			n.resource = true
		}
	}
	if v, ok := of.Arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
		if i := slices.Index(contextNames, of.Value); i >= 0 {
			n.context |= 1 << i
			return
		}
	}
	for _, c := range children(node) {
		n.read(c)
	}
}

func (n *needs) add(more needs) {
	n.context |= more.context
	n.principal = n.principal || more.principal
	n.resource = n.resource || more.resource
	n.parents = n.parents || more.parents
}
