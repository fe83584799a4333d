package pskc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// The canonical forms of XML that a signature can be over. Their variants with
// comments are the same here: what is signed is never with its comments (XML
// Signature, section 4.4.3.3), and a SignedInfo has none.
var canonicalForms = map[string]struct{ exclusive bool }{
	"http://www.w3.org/TR/2001/REC-xml-c14n-20010315":              {false},
	"http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments": {false},
	"http://www.w3.org/2006/12/xml-c14n11":                         {false},
	"http://www.w3.org/2006/12/xml-c14n11#WithComments":            {false},
	nsExcC14N:                  {true},
	nsExcC14N + "WithComments": {true},
}

const nsExcC14N = "http://www.w3.org/2001/10/xml-exc-c14n#"

// binding is a namespace prefix, empty for the default one, and its URI.
type binding struct{ prefix, uri string }

// lookup finds what a prefix means; the last binding counts.
func lookup(list []binding, prefix string) (uri string, bound bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].prefix == prefix {
			return list[i].uri, true
		}
	}
	return "", false
}

// canon writes elements in canonical form (Canonical XML 1.0, or Exclusive XML
// Canonicalization 1.0), token by token as the decoder reads them raw. It keeps
// nothing of the text.
type canon struct {
	w         io.Writer
	exclusive bool
	prefixes  []string // exclusive: InclusiveNamespaces
	document  bool     // with the processing instructions around the root
	from      int64    // where the element begins that is written, the apex
	without   int64    // where an element begins that is left out with all in it

	scope    []binding // the declarations of the elements that are open
	rendered []binding // those of them that were written
	open     []mark
	apex     int  // its depth, from 1; 0: it has not begun
	writing  bool // the apex is open
	skipping int  // depth within the element that is left out
	err      error
}

// mark is an open element.
type mark struct {
	name            string
	scope, rendered int  // lengths before it
	xml             bool // it has an attribute of the prefix xml
}

var errXMLAttribute = errors.New("an element around it has an attribute of the prefix xml, with which this canonical form is not supported")

// token takes the next token, which begins at the given place.
func (c *canon) token(t xml.Token, at int64) error {
	switch t := t.(type) {
	case xml.StartElement:
		if c.skipping > 0 || at == c.without {
			c.skipping++
			return nil
		}
		c.start(t, at)
	case xml.EndElement:
		if c.skipping > 0 {
			c.skipping--
			return nil
		}
		c.end()
	case xml.CharData:
		if c.writing && c.skipping == 0 && len(c.open) > 0 {
			c.text(t)
		}
		clear(t) // the decoder's own buffer
	case xml.ProcInst:
		if c.skipping == 0 && t.Target != "xml" {
			c.instruction(t)
		}
	}
	return c.err
}

func (c *canon) start(t xml.StartElement, at int64) {
	m := mark{name: qualified(t.Name), scope: len(c.scope), rendered: len(c.rendered)}
	inherits := false
	for _, around := range c.open {
		inherits = inherits || around.xml
	}
	for _, a := range t.Attr {
		switch {
		case a.Name.Space == "" && a.Name.Local == "xmlns":
			c.scope = append(c.scope, binding{"", a.Value})
		case a.Name.Space == "xmlns":
			c.scope = append(c.scope, binding{a.Name.Local, a.Value})
		case a.Name.Space == "xml":
			m.xml = true
		}
	}
	c.open = append(c.open, m)
	if at == c.from && c.apex == 0 {
		if inherits && !c.exclusive {
			c.err = errXMLAttribute
			return
		}
		c.apex, c.writing = len(c.open), true
	}
	if !c.writing {
		return
	}
	c.put("<")
	c.put(m.name)
	for _, b := range c.namespaces(t) {
		if b.prefix == "" {
			c.put(` xmlns="`)
		} else {
			c.put(" xmlns:")
			c.put(b.prefix)
			c.put(`="`)
		}
		c.value(b.uri)
		c.put(`"`)
		c.rendered = append(c.rendered, b)
	}
	for _, a := range c.attributes(t) {
		c.put(" ")
		c.put(qualified(a.Name))
		c.put(`="`)
		c.value(a.Value)
		c.put(`"`)
	}
	c.put(">")
}

// namespaces are the declarations to write with an element: in the inclusive
// form all that are in scope, in the exclusive one those that the element and
// its attributes use, either way unless the element around it has them.
func (c *canon) namespaces(t xml.StartElement) []binding {
	var want []string
	add := func(prefix string) {
		if prefix != "xml" && !slices.Contains(want, prefix) {
			want = append(want, prefix)
		}
	}
	if c.exclusive {
		add(t.Name.Space)
		for _, a := range t.Attr {
			if a.Name.Space != "" && a.Name.Space != "xmlns" {
				add(a.Name.Space)
			}
		}
		for _, p := range c.prefixes {
			if _, bound := lookup(c.scope, p); bound {
				add(p)
			}
		}
	} else {
		add("")
		for _, b := range c.scope {
			add(b.prefix)
		}
	}
	slices.Sort(want)
	var list []binding
	for _, prefix := range want {
		uri, bound := lookup(c.scope, prefix)
		before, rendered := lookup(c.rendered, prefix)
		switch {
		case prefix != "" && !bound:
			c.err = errors.New("a namespace prefix is used that is not declared")
		case rendered && before == uri, !rendered && uri == "":
			// An empty default namespace is written only to undo another.
		default:
			list = append(list, binding{prefix, uri})
		}
	}
	return list
}

// attributes are those of an element in order: by namespace, then name.
func (c *canon) attributes(t xml.StartElement) []xml.Attr {
	var list []xml.Attr
	for _, a := range t.Attr {
		if a.Name.Space != "xmlns" && (a.Name.Space != "" || a.Name.Local != "xmlns") {
			list = append(list, a)
		}
	}
	space := func(prefix string) string {
		switch prefix {
		case "":
			return ""
		case "xml":
			return "http://www.w3.org/XML/1998/namespace"
		}
		uri, _ := lookup(c.scope, prefix)
		return uri
	}
	slices.SortFunc(list, func(a, b xml.Attr) int {
		if n := strings.Compare(space(a.Name.Space), space(b.Name.Space)); n != 0 {
			return n
		}
		return strings.Compare(a.Name.Local, b.Name.Local)
	})
	return list
}

func (c *canon) end() {
	m := c.open[len(c.open)-1]
	c.open = c.open[:len(c.open)-1]
	c.scope, c.rendered = c.scope[:m.scope], c.rendered[:m.rendered]
	if c.writing {
		c.put("</")
		c.put(m.name)
		c.put(">")
		c.writing = len(c.open) >= c.apex
	}
}

// instruction writes a processing instruction. Outside of the root element it
// stands on a line of its own.
func (c *canon) instruction(t xml.ProcInst) {
	outside := len(c.open) == 0
	if outside && !c.document || !outside && !c.writing {
		return
	}
	if outside && c.apex > 0 {
		c.put("\n")
	}
	c.put("<?")
	c.put(t.Target)
	if len(t.Inst) > 0 {
		c.put(" ")
		c.write(t.Inst)
	}
	c.put("?>")
	if outside && c.apex == 0 {
		c.put("\n")
	}
}

func (c *canon) put(s string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.w, s)
	}
}

func (c *canon) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
}

// text writes character data, escaped.
func (c *canon) text(b []byte) {
	for len(b) > 0 {
		i := bytes.IndexAny(b, "&<>\r")
		if i < 0 {
			c.write(b)
			return
		}
		c.write(b[:i])
		c.put(textEscapes[b[i]])
		b = b[i+1:]
	}
}

// value writes an attribute's value, escaped.
func (c *canon) value(s string) {
	for s != "" {
		i := strings.IndexAny(s, "&<\"\t\n\r")
		if i < 0 {
			c.put(s)
			return
		}
		c.put(s[:i])
		c.put(valueEscapes[s[i]])
		s = s[i+1:]
	}
}

// What stands for a character in text, and in an attribute's value.
var (
	textEscapes  = map[byte]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\r': "&#xD;"}
	valueEscapes = map[byte]string{'&': "&amp;", '<': "&lt;", '"': "&quot;", '\t': "&#x9;", '\n': "&#xA;", '\r': "&#xD;"}
)

// qualified is a name as the file has it.
func qualified(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}
