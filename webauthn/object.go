package webauthn

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// object is a JSON object's members, in order. Each name is there once.
type object []member

type member struct {
	name  string // unescaped
	value json.RawMessage
}

// get answers the member with the name, in its exact case; nil if there is none.
func (o object) get(name string) json.RawMessage {
	for i := range o {
		if o[i].name == name {
			return o[i].value
		}
	}
	return nil
}

// maxNesting bounds how deep objects and lists may lie in each other. What
// browsers write has four levels.
const maxNesting = 100

// maxMembers bounds how many members an object has whose members are read: each
// is compared with those before it. What browsers write has ten.
const maxMembers = 256

// members reads a JSON object whose names are all different, in one pass over it
// (RFC 8259). encoding/json alone would take the last of two, names in any case,
// and bytes that are no UTF-8. The values are parts of raw.
func members(raw []byte, what string) (object, error) {
	bad := func() error { return refuse(reasonMalformed, "%s is not a JSON object", what) }
	if !utf8.Valid(raw) {
		return nil, bad()
	}
	i := skipSpace(raw, 0)
	if i == len(raw) || raw[i] != '{' {
		return nil, bad()
	}
	found := make(object, 0, 8)
	for first := true; ; first = false {
		i = skipSpace(raw, i+1) // behind the brace, or a comma
		if first && i < len(raw) && raw[i] == '}' {
			break
		}
		from := i
		if i = skipString(raw, i); i < 0 {
			return nil, bad()
		}
		name, err := unescape(raw[from:i])
		if err != nil {
			return nil, bad()
		}
		if i = skipSpace(raw, i); i == len(raw) || raw[i] != ':' {
			return nil, bad()
		}
		from = skipSpace(raw, i+1)
		if i = skipValue(raw, from, 1); i < 0 {
			return nil, bad()
		}
		switch {
		case found.get(name) != nil:
			return nil, refuse(reasonMalformed, "%s has member %s twice", what, printable(name))
		case len(found) == maxMembers:
			return nil, refuse(reasonMalformed, "%s has more than %d members", what, maxMembers)
		}
		found = append(found, member{name, json.RawMessage(raw[from:i:i])})
		if i = skipSpace(raw, i); i == len(raw) || raw[i] != ',' && raw[i] != '}' {
			return nil, bad()
		}
		if raw[i] == '}' {
			break
		}
	}
	if skipSpace(raw, i+1) != len(raw) {
		return nil, bad()
	}
	return found, nil
}

// text is a member that must be there and be a string.
func text(of object, name string) (string, error) {
	raw := of.get(name)
	if len(raw) > 0 && raw[0] == '"' {
		if s, err := unescape(raw); err == nil {
			return s, nil
		}
	}
	return "", refuse(reasonMalformed, "the answer has no %s, or it is not text", name)
}

// binary is a member that must be there and be base64url.
func binary(of object, name string) ([]byte, error) {
	s, err := text(of, name)
	if err != nil {
		return nil, err
	}
	b, ok := decodeBase64(s)
	if !ok {
		return nil, refuse(reasonMalformed, "the answer's %s is not base64url without padding", name)
	}
	return b, nil
}

// unescape is what a JSON string, with its quotes, says.
func unescape(quoted []byte) (s string, err error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	err = json.Unmarshal(quoted, &s)
	return s, err
}

// skipSpace is the index of the first byte from i on that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// SkipValue is the index behind the JSON value that begins at i (RFC 8259); -1 if there
// is none, or one that nests too deep for an answer of a browser. That the text is valid
// UTF-8 is for the caller to know.
func SkipValue(b []byte, i int) int { return skipValue(b, i, 0) }

// skipValue is the index behind the JSON value that begins at i, which lies in
// depth others; -1 if there is none, or one that nests too deep.
func skipValue(b []byte, i, depth int) int {
	if i == len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		if depth == maxNesting {
			return -1
		}
		return skipMembers(b, i, depth+1)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

// skipMembers is skipValue for an object or a list, whose members lie in depth others.
func skipMembers(b []byte, i, depth int) int {
	end := b[i] + 2 // as '}' is to '{', so is ']' to '['
	for first := true; ; first = false {
		i = skipSpace(b, i+1)
		if first && i < len(b) && b[i] == end {
			return i + 1
		}
		if end == '}' {
			if i = skipString(b, i); i < 0 {
				return -1
			}
			if i = skipSpace(b, i); i == len(b) || b[i] != ':' {
				return -1
			}
			i = skipSpace(b, i+1)
		}
		if i = skipValue(b, i, depth); i < 0 {
			return -1
		}
		i = skipSpace(b, i)
		switch {
		case i == len(b) || b[i] != ',' && b[i] != end:
			return -1
		case b[i] == end:
			return i + 1
		}
	}
}

// skipString is skipValue for a string. Of its escapes only the form is looked at.
func skipString(b []byte, i int) int {
	if i == len(b) || b[i] != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i == len(b) {
				return -1
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i == len(b) || !isHex(b[i]) {
						return -1
					}
				}
			default:
				return -1
			}
		}
	}
	return -1
}

func isHex(c byte) bool {
	return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func skipWord(b []byte, i int, word string) int {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return -1
	}
	return i + len(word)
}

// skipNumber is skipValue for a number: a sign, digits without a zero before
// them, a fraction, an exponent.
func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

// skipDigits is the index behind at least one digit, or -1.
func skipDigits(b []byte, i int) int {
	from := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == from {
		return -1
	}
	return i
}
