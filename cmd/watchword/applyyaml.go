package main

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// spot is a place in a file. Lines and columns count from 1.
type spot struct {
	file         string
	line, column int
}

func (s spot) wrong(format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s", s.file, s.line, s.column, fmt.Sprintf(format, args...))
}

// document is one YAML document of a file.
type document struct {
	file string
	line int // lines of the file before it
	body ast.Node
	text []string // its lines
}

var separator = regexp.MustCompile(`^(---|\.\.\.)([ \t]|$)`)

// documents cuts a file into its documents, of which each is a mapping. Those that hold
// nothing are left out. The parser is given them one by one: it forgets all that
// follows an empty one.
func documents(file, text string) ([]document, error) {
	text = strings.TrimPrefix(strings.ReplaceAll(text, "\r\n", "\n"), "\uFEFF")
	var list []document
	d := document{file: file}
	end := func() error {
		parsed, err := parser.ParseBytes([]byte(strings.Join(d.text, "\n")+"\n"), 0)
		if err != nil {
			return d.broken(err)
		}
		for _, one := range parsed.Docs {
			if _, comment := one.Body.(*ast.CommentGroupNode); one.Body != nil && !comment {
				d.body = one.Body
				list = append(list, d)
			}
		}
		return nil
	}
	for i, line := range strings.Split(text, "\n") {
		if !separator.MatchString(line) {
			d.text = append(d.text, line)
			continue
		}
		if err := end(); err != nil {
			return nil, err
		}
		d = document{file: file, line: i, text: []string{"   " + line[3:]}}
	}
	return list, end()
}

func (d *document) broken(err error) error {
	var known yaml.Error
	if errors.As(err, &known) && known.GetToken() != nil && known.GetToken().Position != nil {
		p := known.GetToken().Position
		says := known.GetMessage()
		if before, _, ok := strings.Cut(says, " already defined at "); ok { // which counts lines from the document's first
			says = before + " stands here twice"
		}
		return spot{d.file, d.line + p.Line, p.Column}.wrong("%s", says)
	}
	return spot{d.file, d.line + 1, 1}.wrong("this is not valid YAML")
}

func (d *document) at(n ast.Node) spot {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && m.Start != nil && m.Start.Value != "{" {
		n = m.Values[0].Key
	}
	s := spot{d.file, d.line + 1, 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		s.line, s.column = d.line+t.Position.Line, t.Position.Column
	}
	return s
}

// inText is where a place of a text that a node holds is in the file; the node itself
// where that cannot be said.
func (d *document) inText(n ast.Node, line, column int) spot {
	s := d.at(n)
	literal, ok := n.(*ast.LiteralNode)
	if !ok || line == 0 || !strings.HasPrefix(literal.GetToken().Value, "|") {
		return s
	}
	first := s.line - d.line // the index of the line after it
	if first >= len(d.text) {
		return s
	}
	held := strings.SplitN(literal.Value.Value, "\n", 2)[0]
	indent := strings.Index(d.text[first], held)
	if indent < 0 || held == "" {
		return s
	}
	return spot{d.file, s.line + line, indent + column}
}

// pairs are a mapping's keys and values.
func (d *document) pairs(n ast.Node, what string) ([]*ast.MappingValueNode, error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	}
	return nil, d.at(n).wrong("%s is a mapping (key: value)", what)
}

func (d *document) key(n ast.Node) (string, error) {
	switch k := n.(type) {
	case *ast.StringNode:
		return k.Value, nil
	case *ast.IntegerNode, *ast.FloatNode:
		return k.GetToken().Value, nil
	}
	return "", d.at(n).wrong("a key is a plain text")
}

// value finds the value of a key in a mapping; nil if there is none.
func (d *document) value(n ast.Node, key string) ast.Node {
	list, _ := d.pairs(n, "")
	for _, p := range list {
		if k, err := d.key(p.Key); err == nil && k == key {
			return p.Value
		}
	}
	return nil
}

// item is the n-th item of the list under a key.
func (d *document) item(n ast.Node, key string, i int) ast.Node {
	if list, ok := d.value(n, key).(*ast.SequenceNode); ok && i < len(list.Values) {
		return list.Values[i]
	}
	return n
}

// decode reads a node into a value strictly: what v has no field for is refused, as is
// what stands twice.
func (d *document) decode(n ast.Node, v reflect.Value, what string) error {
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if err := d.decode(n, fresh.Elem(), what); err != nil {
			return err
		}
		v.Set(fresh)
		return nil
	case reflect.Struct:
		return d.decodeStruct(n, v, what)
	case reflect.Map:
		return d.decodeMap(n, v, what)
	case reflect.Slice:
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			return d.at(n).wrong("%s is a list", what)
		}
		v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
		for i, item := range list.Values {
			if err := d.decode(item, v.Index(i), "an item of "+what); err != nil {
				return err
			}
		}
		return nil
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			return d.at(n).wrong("%s is true or false", what)
		}
		v.SetBool(b.Value)
		return nil
	case reflect.Int, reflect.Int64:
		i, ok := n.(*ast.IntegerNode)
		if !ok {
			return d.at(n).wrong("%s is a whole number", what)
		}
		bits, digits := 32, "nine"
		if v.Kind() == reflect.Int64 {
			bits, digits = 64, "eighteen"
		}
		number, err := strconv.ParseInt(i.GetToken().Value, 10, bits)
		if err != nil {
			return d.at(n).wrong("%s is a whole number, of no more than %s digits", what, digits)
		}
		v.SetInt(number)
		return nil
	case reflect.String:
		switch n := n.(type) {
		case *ast.StringNode:
			v.SetString(n.Value)
		case *ast.LiteralNode:
			v.SetString(n.Value.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode: // a name such as 4711
			v.SetString(n.GetToken().Value)
		default:
			return d.at(n).wrong("%s is a text", what)
		}
		return nil
	}
	return d.at(n).wrong("%s cannot be read", what)
}

// fieldsOf are a struct's fields by their names in JSON, embedded ones among them.
func fieldsOf(v reflect.Value) (names []string, fields map[string]reflect.Value) {
	fields = map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			more, of := fieldsOf(v.Field(i))
			for _, m := range more {
				names, fields[m] = append(names, m), of[m]
			}
			continue
		}
		names, fields[name] = append(names, name), v.Field(i)
	}
	return names, fields
}

func (d *document) decodeStruct(n ast.Node, v reflect.Value, what string) error {
	list, err := d.pairs(n, what)
	if err != nil {
		return err
	}
	names, fields := fieldsOf(v)
	seen := map[string]bool{}
	for _, p := range list {
		key, err := d.key(p.Key)
		if err != nil {
			return err
		}
		f, ok := fields[key]
		switch {
		case !ok:
			return d.at(p.Key).wrong("unknown key %q in %s; there are %s", key, what, strings.Join(names, ", "))
		case seen[key]:
			return d.at(p.Key).wrong("%q stands here twice", key)
		}
		seen[key] = true
		if err := d.decode(p.Value, f, key); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) decodeMap(n ast.Node, v reflect.Value, what string) error {
	list, err := d.pairs(n, what)
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range list {
		key, err := d.key(p.Key)
		if err != nil {
			return err
		}
		if v.MapIndex(reflect.ValueOf(key)).IsValid() {
			return d.at(p.Key).wrong("%q stands here twice", key)
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := d.decode(p.Value, item, key); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key), item)
	}
	return nil
}

// kind is what a document is of.
func (d *document) kind() (string, error) {
	if _, err := d.pairs(d.body, "a document"); err != nil {
		return "", err
	}
	n := d.value(d.body, "kind")
	if n == nil {
		return "", d.at(d.body).wrong("the document has no kind; there are %s", strings.Join(everyKind, ", "))
	}
	var kind string
	if err := d.decode(n, reflect.ValueOf(&kind).Elem(), "kind"); err != nil {
		return "", err
	}
	if !slices.Contains(everyKind, kind) {
		return "", d.at(n).wrong("unknown kind %q; there are %s", kind, strings.Join(everyKind, ", "))
	}
	return kind, nil
}
