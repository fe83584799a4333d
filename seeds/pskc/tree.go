package pskc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Namespace is that of the elements of RFC 6030.
const Namespace = "urn:ietf:params:xml:ns:keyprov:pskc"

// The namespaces that RFC 6030 uses (section 2.2).
const (
	nsPSKC   = Namespace
	nsDS     = "http://www.w3.org/2000/09/xmldsig#"
	nsXEnc   = "http://www.w3.org/2001/04/xmlenc#"
	nsXEnc11 = "http://www.w3.org/2009/xmlenc11#"
	nsDS11   = "http://www.w3.org/2009/xmldsig11#"
	nsPKCS5  = "http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#"
)

// drafts are the namespaces of what became RFC 6030, in files that are still
// shipped. Their elements are read as if they were in the RFC's.
var drafts = map[string]bool{
	nsPSKC + ":1.0": true, // draft-hoyer-keyprov-pskc-algorithm-profiles
	"urn:ietf:params:xml:ns:keyprov:container":            true, // draft-hoyer-keyprov-portable-symmetric-key-container-01
	"urn:ietf:params:xml:ns:keyprov:container:1.0":        true,
	"http://www.openauthentication.org/OATH/2006/08/PSKC": true, // draft-hoyer-keyprov-portable-symmetric-key-container-00
	"http://www.openauthentication.org/OATH/2006/10/PSKC": true,
}

// Root says whether an element is one that a container begins with, and
// whether it is that of a draft of RFC 6030.
func Root(name xml.Name) (is, draft bool) {
	draft = drafts[name.Space] || name.Local == "SecretContainer"
	is = name.Local == "KeyContainer" || name.Local == "SecretContainer" && drafts[name.Space]
	return is && (draft || name.Space == nsPSKC), draft
}

// The bounds of one key package and of the elements above it.
const (
	maxDepth = 24       // elements within each other
	maxNodes = 500      // elements of a package
	maxText  = 64 << 10 // bytes of text of a package
	maxAttrs = 32       // attributes of an element
)

// node is an element of a tree. Its text is that of an element without
// children; it lies in the tree's buffer and is gone when that is wiped.
type node struct {
	name  xml.Name
	attrs []xml.Attr
	kids  []*node
	line  int
	at    int64 // where it begins, in bytes from the beginning of the file
	text  []byte
}

// attr answers the first of the named attributes, in no namespace, that is
// there; or empty. The drafts of RFC 6030 had names of their own.
func (n *node) attr(locals ...string) string {
	if n == nil {
		return ""
	}
	for _, local := range locals {
		for _, a := range n.attrs {
			if a.Name.Local == local && a.Name.Space == "" {
				return a.Value
			}
		}
	}
	return ""
}

// is says whether n is the named element in one of the namespaces.
func (n *node) is(local string, spaces ...string) bool {
	if n.name.Local != local {
		return false
	}
	for _, s := range spaces {
		if n.name.Space == s {
			return true
		}
	}
	return false
}

// one answers the child with a name, nil if there is none; two are an error,
// as other readers may take the other one.
func (n *node) one(local string, spaces ...string) (*node, error) {
	if n == nil {
		return nil, nil
	}
	var found *node
	for _, k := range n.kids {
		if k.is(local, spaces...) {
			if found != nil {
				return nil, fmt.Errorf("there are two %s elements", local)
			}
			found = k
		}
	}
	return found, nil
}

// value answers the text of a child without white space around it; empty if
// there is no such child. It is not for secrets: a string cannot be wiped.
func (n *node) value(local string) (string, error) {
	k, err := n.one(local, nsPSKC)
	if k == nil || err != nil {
		return "", err
	}
	return k.content()
}

// content is the text of n without white space around it.
func (n *node) content() (string, error) {
	if len(n.kids) > 0 {
		return "", fmt.Errorf("the %s element holds elements, not text", n.name.Local)
	}
	return string(bytes.TrimSpace(n.text)), nil
}

// clone copies n out of the parser, with its children.
func (n *node) clone() *node {
	c := &node{name: n.name, attrs: n.attrs, line: n.line, text: bytes.Clone(n.text)}
	for _, k := range n.kids {
		c.kids = append(c.kids, k.clone())
	}
	return c
}

// wipe clears the text of n and its children.
func (n *node) wipe() {
	clear(n.text)
	for _, k := range n.kids {
		k.wipe()
	}
}

// parser reads XML as tokens and as bounded trees.
type parser struct {
	in    *input
	dec   *xml.Decoder
	text  []byte // of the tree
	nodes []node // of the tree; reused
	used  int
	depth int
	at    int64 // where the last token began
	draft bool  // an element was in the namespace of a draft
}

func newParser(r io.Reader) *parser {
	in := newInput(r)
	dec := xml.NewDecoder(in)
	dec.CharsetReader = charset
	return &parser{in: in, dec: dec, text: make([]byte, 0, maxText), nodes: make([]node, 0, maxNodes)}
}

// charset admits the encodings that are the same as UTF-8 in what a container
// needs.
func charset(name string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "iso-8859-1", "windows-1252":
		return &asciiOnly{r}, nil
	}
	return nil, &Error{Reason: "the XML declares an encoding other than UTF-8; convert the file to UTF-8 first"}
}

// asciiOnly refuses what would mean something else in UTF-8.
type asciiOnly struct{ r io.Reader }

func (a *asciiOnly) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1] // one by one: nothing is buffered here
	}
	n, err := a.r.Read(p)
	if n == 1 && p[0] >= 0x80 {
		return 0, &Error{Reason: "the XML declares an encoding other than UTF-8 and uses it; convert the file to UTF-8 first"}
	}
	return n, err
}

func (a *asciiOnly) ReadByte() (byte, error) {
	var p [1]byte
	if _, err := a.Read(p[:]); err != nil {
		return 0, err
	}
	return p[0], nil
}

// token answers the next token. It refuses what no container needs and what
// attacks are made of: document types, entities, deep nesting.
func (p *parser) token() (xml.Token, error) {
	p.in.given = 0
	p.at = p.dec.InputOffset() - int64(len(prelude))
	t, err := p.dec.Token()
	if err != nil {
		return nil, p.wrong(err)
	}
	switch t := t.(type) {
	case xml.Directive:
		return nil, p.errorf("the file has a document type declaration (DTD); no key container needs one, and it is refused")
	case xml.StartElement:
		if p.depth++; p.depth > maxDepth {
			return nil, p.errorf("elements are nested more than %d deep", maxDepth)
		}
		if len(t.Attr) > maxAttrs {
			return nil, p.errorf("an element has more than %d attributes", maxAttrs)
		}
		for i, a := range t.Attr {
			for _, b := range t.Attr[:i] {
				if a.Name == b.Name {
					return nil, p.errorf("an element has the same attribute twice")
				}
			}
		}
		if drafts[t.Name.Space] {
			t.Name.Space, p.draft = nsPSKC, true
		}
		return t, nil
	case xml.EndElement:
		p.depth--
	}
	return t, nil
}

// wrong makes an error of the decoder or of the file one with its place.
func (p *parser) wrong(err error) error {
	var bad *Error
	var syntax *xml.SyntaxError
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.As(err, &bad):
		return &Error{Line: p.line(), Reason: bad.Reason}
	case errors.As(err, &syntax):
		if strings.Contains(syntax.Msg, "unexpected EOF") {
			return &Error{Line: syntax.Line, Reason: "the file ends in the middle of an element; it was cut off"}
		}
		// The decoder's words may quote the file, and so a seed.
		return &Error{Line: syntax.Line, Reason: "this is not well-formed XML"}
	case p.in.err == nil || p.in.err == io.EOF:
		// Not the source's: the decoder does not like the XML declaration.
		return p.errorf("the XML declaration is of a kind that is not understood")
	}
	return err
}

func (p *parser) line() int {
	line, _ := p.dec.InputPos()
	return line
}

func (p *parser) errorf(format string, args ...any) error {
	return &Error{Line: p.line(), Reason: fmt.Sprintf(format, args...)}
}

// tree reads the element that start begins, to its end. It is valid until the
// next tree.
func (p *parser) tree(start xml.StartElement) (*node, error) {
	p.wipe()
	root, err := p.node(start)
	if err != nil {
		return nil, err
	}
	stack := make([]*node, 1, maxDepth)
	stack[0] = root
	from := 0 // of the text of the innermost element
	for {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		top := stack[len(stack)-1]
		switch t := t.(type) {
		case xml.CharData:
			if len(top.kids) > 0 {
				if len(bytes.TrimSpace(t)) > 0 {
					clear(t)
					return nil, p.errorf("there is text between the elements of %s", top.name.Local)
				}
				break
			}
			full := len(p.text)+len(t) > maxText
			if !full {
				p.text = append(p.text, t...)
				top.text = p.text[from:]
			}
			clear(t) // the decoder's own buffer
			if full {
				return nil, p.errorf("a key package holds more than 64 KB")
			}
		case xml.StartElement:
			if len(top.kids) == 0 && len(bytes.TrimSpace(top.text)) > 0 {
				return nil, p.errorf("there is text between the elements of %s", top.name.Local)
			}
			top.text = nil
			from = len(p.text)
			n, err := p.node(t)
			if err != nil {
				return nil, err
			}
			top.kids = append(top.kids, n)
			stack = append(stack, n)
		case xml.EndElement:
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return root, nil
			}
			from = len(p.text)
		}
	}
}

func (p *parser) node(start xml.StartElement) (*node, error) {
	if p.used == maxNodes {
		return nil, p.errorf("a key package has more than %d elements", maxNodes)
	}
	if p.used == len(p.nodes) {
		p.nodes = p.nodes[:p.used+1] // within its capacity, so that pointers stay
	}
	n := &p.nodes[p.used]
	p.used++
	*n = node{name: start.Name, attrs: start.Attr, kids: n.kids[:0], line: p.line(), at: p.at}
	return n, nil
}

// skip reads to the end of the element that was just begun, keeping nothing.
func (p *parser) skip() error {
	for depth := p.depth - 1; p.depth > depth; {
		t, err := p.token()
		if err != nil {
			return err
		}
		if text, ok := t.(xml.CharData); ok {
			clear(text)
		}
	}
	return nil
}

// wipe forgets the tree.
func (p *parser) wipe() {
	clear(p.text)
	p.text, p.used = p.text[:0], 0
}
