package policy

import (
	"github.com/cedar-policy/cedar-go"
	ctypes "github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// readTest makes a test of an expression that is true or false; nil if it is Cedar's.
func readTest(n ast.IsNode) *test {
	switch n := n.(type) {
	case ast.NodeValue:
		if v, ok := n.Value.(cedar.Boolean); ok {
			if v {
				return &test{op: opTrue}
			}
			return &test{op: opNot, a: &test{op: opTrue}}
		}
	case ast.NodeTypeAnd:
		return both(opAnd, n.BinaryNode)
	case ast.NodeTypeOr:
		return both(opOr, n.BinaryNode)
	case ast.NodeTypeNot:
		return not(readTest(n.Arg))
	case ast.NodeTypeIfThenElse:
		if a, b, c := readTest(n.If), readTest(n.Then), readTest(n.Else); a != nil && b != nil && c != nil {
			return &test{op: opIf, a: a, b: b, c: c}
		}
	case ast.NodeTypeEquals:
		return readEqual(n.BinaryNode)
	case ast.NodeTypeNotEquals:
		return not(readEqual(n.BinaryNode))
	case ast.NodeTypeLessThan:
		return readOrder(opLess, n.Left, n.Right)
	case ast.NodeTypeLessThanOrEqual:
		return readOrder(opLessEqual, n.Left, n.Right)
	case ast.NodeTypeGreaterThan:
		return readOrder(opLess, n.Right, n.Left)
	case ast.NodeTypeGreaterThanOrEqual:
		return readOrder(opLessEqual, n.Right, n.Left)
	case ast.NodeTypeLike:
		if x, ok := readText(n.Arg); ok {
			return &test{op: opLike, x: x, pattern: n.Value}
		}
	case ast.NodeTypeContains:
		return readContains(n.Left, n.Right)
	case ast.NodeTypeHas:
		return readHas(n)
	case ast.NodeTypeAccess:
		return readFlag(n)
	case ast.NodeTypeExtensionCall:
		return readCall(n)
	case ast.NodeTypeIs:
		return readRelation(n.Left, ast.ScopeTypeIs{Type: n.EntityType})
	case ast.NodeTypeIsIn:
		if uid, ok := entityOf(n.Entity); ok {
			return readRelation(n.Left, ast.ScopeTypeIsIn{Type: n.EntityType, Entity: uid})
		}
	case ast.NodeTypeIn:
		return readIn(n.Left, n.Right)
	}
	return nil
}

func both(op operator, n ast.BinaryNode) *test {
	if a, b := readTest(n.Left), readTest(n.Right); a != nil && b != nil {
		return &test{op: op, a: a, b: b}
	}
	return nil
}

func not(t *test) *test {
	if t == nil {
		return nil
	}
	return &test{op: opNot, a: t}
}

func readEqual(n ast.BinaryNode) *test {
	l, r := n.Left, n.Right
	if variableOf(r) != "" {
		l, r = r, l
	}
	if uid, ok := entityOf(r); ok {
		return readRelation(l, ast.ScopeTypeEq{Entity: uid})
	}
	if x, y, ok := pair(readText, l, r); ok {
		return &test{op: opEqualText, x: x, y: y}
	}
	if t := readOrder(opEqual, l, r); t != nil {
		return t
	}
	if x, y, ok := pair(readAddress, l, r); ok {
		return &test{op: opEqualAddress, x: x, y: y}
	}
	return both(opSame, n)
}

// pair reads two operands of one type.
func pair(read func(ast.IsNode) (operand, bool), l, r ast.IsNode) (x, y operand, ok bool) {
	x, ok = read(l)
	y, also := read(r)
	return x, y, ok && also
}

// readOrder compares two numbers, or two datetimes.
func readOrder(op operator, l, r ast.IsNode) *test {
	x, y, ok := pair(readNumber, l, r)
	if !ok {
		x, y, ok = pair(readMoment, l, r)
	}
	if !ok {
		return nil
	}
	return &test{op: op, x: x, y: y}
}

// readContains looks for a text or a number in a list of such.
func readContains(l, r ast.IsNode) *test {
	list, ok := valuesOf(l)
	if !ok {
		return nil
	}
	if x, ok := readText(r); ok {
		if in, ok := allOf[cedar.String](list); ok {
			return &test{op: opOneOfTexts, x: x, texts: in}
		}
	}
	if x, ok := readNumber(r); ok {
		if in, ok := allOf[cedar.Long](list); ok {
			return &test{op: opOneOfNumbers, x: x, numbers: in}
		}
	}
	return nil
}

// readIn is about one entity, or a list of them.
func readIn(l, r ast.IsNode) *test {
	if uid, ok := entityOf(r); ok {
		return readRelation(l, ast.ScopeTypeIn{Entity: uid})
	}
	list, _ := valuesOf(r)
	uids, ok := allOf[cedar.EntityUID](list)
	if !ok || len(uids) == 0 {
		return nil
	}
	var one *test
	for _, uid := range uids {
		t := readRelation(l, ast.ScopeTypeIn{Entity: uid})
		if t == nil {
			return nil
		}
		if one != nil {
			t = &test{op: opOr, a: one, b: t}
		}
		one = t
	}
	return one
}

// readRelation makes the test of what the scope of a policy says too, of whichever
// variable.
func readRelation(n ast.IsNode, scope interface {
	ast.IsPrincipalScopeNode
	ast.IsResourceScopeNode
}) *test {
	switch variableOf(n) {
	case "principal":
		w := readWho(scope)
		if w.rel != relAny && w.kind == 0 && w.uid.Type != typeRole {
			return nil
		}
		return &test{op: opPrincipal, who: w}
	case "resource":
		return &test{op: opResource, where: readWhere(scope)}
	case "action":
		if scope, ok := scope.(ast.IsActionScopeNode); ok {
			return &test{op: opAction, actions: readActions(scope)}
		}
	}
	return nil
}

// readText makes a text: one that is written, or an attribute.
func readText(n ast.IsNode) (operand, bool) {
	if v, ok := valueOf[cedar.String](n); ok {
		return operand{text: string(v)}, true
	}
	return readAttribute(n, attrWeekday, attrAAGUID)
}

// readNumber makes a number: one that is written, or an attribute.
func readNumber(n ast.IsNode) (operand, bool) {
	if v, ok := valueOf[cedar.Long](n); ok {
		return operand{number: int64(v)}, true
	}
	return readAttribute(n, attrHour, attrUnused)
}

// readMoment makes a datetime: one that is written, or now.
func readMoment(n ast.IsNode) (operand, bool) {
	if text, ok := literal(n, "datetime"); ok {
		d, err := ctypes.ParseDatetime(text)
		return operand{number: d.Milliseconds()}, err == nil
	}
	return readAttribute(n, attrNow, attrNow)
}

// readAddress makes an address or a range of them: one that is written, or an attribute.
func readAddress(n ast.IsNode) (operand, bool) {
	if text, ok := literal(n, "ip"); ok {
		ip, err := ctypes.ParseIPAddr(text)
		return operand{ip: ip}, err == nil
	}
	return readAttribute(n, attrSource, attrCaller)
}

// readAttribute makes an attribute, if it is one of those from first to last.
func readAttribute(n ast.IsNode, first, last attribute) (operand, bool) {
	a := attributes[attributeOf(n)]
	return operand{attribute: a}, first <= a && a <= last
}

// attributeOf is what is looked at where an expression is an attribute of a variable or
// of mfa; both names are empty where it is not.
func attributeOf(n ast.IsNode) [2]cedar.String {
	a, ok := n.(ast.NodeTypeAccess)
	if !ok {
		return [2]cedar.String{}
	}
	if v := variableOf(a.Arg); v != "" {
		return [2]cedar.String{v, a.Value}
	}
	if attributeOf(a.Arg) == [2]cedar.String{"context", "mfa"} {
		return [2]cedar.String{"mfa", a.Value}
	}
	return [2]cedar.String{}
}

// readFlag is an attribute that is true or false.
func readFlag(n ast.NodeTypeAccess) *test {
	switch attributeOf(n) {
	case [2]cedar.String{"mfa", "present"}:
		return &test{op: opPresent}
	case [2]cedar.String{"resource", "attested"}:
		return &test{op: opAttested}
	}
	return nil
}

// readHas is whether an attribute that need not be there is there.
func readHas(n ast.NodeTypeHas) *test {
	switch [2]cedar.String{variableOf(n.Arg), n.Value} {
	case [2]cedar.String{"context", "nas"}:
		return &test{op: opHasNAS}
	case [2]cedar.String{"context", "source"}:
		return &test{op: opHasSource}
	case [2]cedar.String{"context", "caller"}:
		return &test{op: opHasCaller}
	case [2]cedar.String{"resource", "aaguid"}:
		return &test{op: opHasAAGUID}
	}
	return nil
}

// readCall is whether an address is in a range, or of which version it is.
func readCall(n ast.NodeTypeExtensionCall) *test {
	ops := map[ctypes.Path]operator{"isInRange": opInRange, "isIpv4": opIPv4, "isIpv6": opIPv6}
	op, ok := ops[n.Name]
	if !ok || len(n.Args) == 0 {
		return nil
	}
	x, ok := readAddress(n.Args[0])
	if !ok {
		return nil
	}
	t := &test{op: op, x: x}
	switch {
	case op != opInRange:
		ok = len(n.Args) == 1
	case len(n.Args) == 2:
		t.y, ok = readAddress(n.Args[1])
	default:
		ok = false
	}
	if !ok {
		return nil
	}
	return t
}

// variableOf is the name of a variable; empty if the expression is none.
func variableOf(n ast.IsNode) cedar.String {
	if v, ok := n.(ast.NodeTypeVariable); ok {
		return v.Name
	}
	return ""
}

func valueOf[V cedar.Value](n ast.IsNode) (v V, ok bool) {
	if x, is := n.(ast.NodeValue); is {
		v, ok = x.Value.(V)
	}
	return v, ok
}

// entityOf is the entity that an expression names.
func entityOf(n ast.IsNode) (cedar.EntityUID, bool) { return valueOf[cedar.EntityUID](n) }

// literal is the text of which a function makes a value, if it is written.
func literal(n ast.IsNode, function ctypes.Path) (string, bool) {
	call, ok := n.(ast.NodeTypeExtensionCall)
	if !ok || call.Name != function || len(call.Args) != 1 {
		return "", false
	}
	v, ok := valueOf[cedar.String](call.Args[0])
	return string(v), ok
}

// valuesOf are the values of a list that consists of nothing else.
func valuesOf(n ast.IsNode) ([]cedar.Value, bool) {
	set, ok := n.(ast.NodeTypeSet)
	if !ok {
		return nil, false
	}
	var list []cedar.Value
	for _, e := range set.Elements {
		v, ok := e.(ast.NodeValue)
		if !ok {
			return nil, false
		}
		list = append(list, v.Value)
	}
	return list, true
}

// allOf are values of one type.
func allOf[V cedar.Value](list []cedar.Value) ([]V, bool) {
	in := make([]V, len(list))
	for i, x := range list {
		v, ok := x.(V)
		if !ok {
			return nil, false
		}
		in[i] = v
	}
	return in, true
}
