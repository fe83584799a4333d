package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	ctypes "github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Most conditions compare an attribute with a value, and to make entities and a record
// of a question for Cedar costs many times what it costs to look at the attribute. Such
// conditions are read once into a form that is evaluated without. Where it does not
// know, because an attribute is not there or something is said that is not read here,
// Cedar is asked, and says what is wrong. A property test holds its answers to Cedar's.

// truth is what a condition comes to.
type truth uint8

const (
	unsure truth = iota // only Cedar can tell
	fails
	holds
)

func truthOf(b bool) truth {
	if b {
		return holds
	}
	return fails
}

// negated is what a condition's contrary comes to.
func (t truth) negated() truth {
	switch t {
	case holds:
		return fails
	case fails:
		return holds
	}
	return unsure
}

// An operator is what a test does with its parts.
type operator uint8

const (
	opTrue operator = iota
	opAnd
	opOr
	opNot
	opIf
	opSame // of two tests

	opEqualText
	opLike
	opOneOfTexts

	opEqual
	opLess // the first one than the second
	opLessEqual
	opOneOfNumbers

	opEqualAddress
	opInRange
	opIPv4
	opIPv6

	opPrincipal
	opResource
	opAction

	opPresent // there is a proof of a token
	opAttested
	opHasNAS
	opHasSource
	opHasCaller
	opHasAAGUID
)

// A test is a condition, or a part of one that is true or false. It is a struct and no
// function, so that a question that is asked about it can stay on its stack.
type test struct {
	op      operator
	a, b, c *test   // what it is made of
	x, y    operand // what it compares
	pattern ctypes.Pattern
	texts   []cedar.String
	numbers []cedar.Long
	who     who
	where   where
	actions actionSet
}

// newTest makes the test of a policy's conditions, of which all must hold; nil if they
// are Cedar's.
func newTest(conditions []ast.ConditionType) *test {
	var all *test
	for _, c := range conditions {
		t := readTest(c.Body)
		if t == nil {
			return nil
		}
		if c.Condition == ast.ConditionUnless {
			t = &test{op: opNot, a: t}
		}
		if all != nil {
			t = &test{op: opAnd, a: all, b: t}
		}
		all = t
	}
	return all
}

// holds says whether the test holds for a question. Like Cedar it looks at no more than
// is needed.
func (t *test) holds(q *question) truth {
	switch t.op {
	case opTrue:
		return holds
	case opAnd:
		if is := t.a.holds(q); is != holds {
			return is
		}
		return t.b.holds(q)
	case opOr:
		if is := t.a.holds(q); is != fails {
			return is
		}
		return t.b.holds(q)
	case opNot:
		return t.a.holds(q).negated()
	case opIf:
		switch t.a.holds(q) {
		case holds:
			return t.b.holds(q)
		case fails:
			return t.c.holds(q)
		}
		return unsure
	case opSame:
		a, b := t.a.holds(q), t.b.holds(q)
		if a == unsure || b == unsure {
			return unsure
		}
		return truthOf(a == b)
	case opEqualText, opLike, opOneOfTexts:
		return t.texting(q)
	case opEqual, opLess, opLessEqual, opOneOfNumbers:
		return t.counting(q)
	case opEqualAddress, opInRange, opIPv4, opIPv6:
		return t.addressing(q)
	case opPrincipal:
		return truthOf(t.who.holds(&q.query.Principal, q.kind))
	case opResource:
		return truthOf(t.where.holds(&q.resource, q.typ))
	case opAction:
		return truthOf(t.actions.has(q.action))
	case opPresent:
		return truthOf(q.query.Context.MFA)
	case opAttested:
		if !q.resource.known() {
			return unsure
		}
		return truthOf(q.resource.Attested)
	case opHasNAS:
		return truthOf(q.query.Context.NAS != "")
	case opHasSource:
		return truthOf(q.query.Context.Source.IsValid())
	case opHasCaller:
		return truthOf(q.query.Context.Caller.IsValid())
	case opHasAAGUID:
		return truthOf(q.resource.known() && q.resource.AAGUID != "")
	}
	return unsure
}

func (t *test) texting(q *question) truth {
	x, ok := t.x.string(q)
	if !ok {
		return unsure
	}
	switch t.op {
	case opLike:
		return truthOf(t.pattern.Match(cedar.String(x)))
	case opOneOfTexts:
		return truthOf(slices.Contains(t.texts, cedar.String(x)))
	}
	y, ok := t.y.string(q)
	if !ok {
		return unsure
	}
	return truthOf(x == y)
}

func (t *test) counting(q *question) truth {
	x, ok := t.x.int64(q)
	if !ok {
		return unsure
	}
	if t.op == opOneOfNumbers {
		return truthOf(slices.Contains(t.numbers, cedar.Long(x)))
	}
	y, ok := t.y.int64(q)
	if !ok {
		return unsure
	}
	switch t.op {
	case opLess:
		return truthOf(x < y)
	case opLessEqual:
		return truthOf(x <= y)
	}
	return truthOf(x == y)
}

func (t *test) addressing(q *question) truth {
	x, ok := t.x.address(q)
	if !ok {
		return unsure
	}
	switch t.op {
	case opIPv4:
		return truthOf(x.IsIPv4())
	case opIPv6:
		return truthOf(x.IsIPv6())
	}
	y, ok := t.y.address(q)
	if !ok {
		return unsure
	}
	if t.op == opInRange {
		return truthOf(y.Contains(x))
	}
	return truthOf(x == y)
}
