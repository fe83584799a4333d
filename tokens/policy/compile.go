package policy

import (
	"errors"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Compile makes a Set of the built-in policies and an installation's own. What is
// wrong with them is an *Errors.
func Compile(src Source) (*Set, error) {
	all := slices.Clone(Builtin().entries)
	for _, item := range src.Policies {
		list, err := cedar.NewPolicyListFromBytes(item.ID, []byte(item.Text))
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			return nil, errors.New("one policy")
		}
		if err := words().validator.Policy(item.ID, (*ast.Policy)(list[0].AST())); err != nil {
			return nil, err
		}
		all = append(all, newEntry(item.ID, list[0]))
	}
	s := newSet(all)
	s.builtin = Builtin()
	return s, nil
}
