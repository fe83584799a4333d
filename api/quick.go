package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"

	"watchword/webauthn"
)

// Most bodies, and those of all logins, are objects of plain texts and at most an
// object that is handed on as it is. To read one is little work, of which encoding/json
// makes much.

// maxQuick bounds how many fields a struct may have whose bodies are read this way.
const maxQuick = 64

// quickly reads such a body into a struct. It answers true only where unmarshal would
// have read the same and found nothing wrong; what it has filled in otherwise is to be
// thrown away. b is valid UTF-8.
func quickly(b []byte, into reflect.Value, required []string) bool {
	t := into.Type()
	known := fieldsOf(t, "json")
	if len(known) > maxQuick {
		return false
	}
	var seen uint64
	i := skipBlank(b, 0)
	if i == len(b) || b[i] != '{' {
		return false
	}
	for {
		i = skipBlank(b, i+1) // behind the brace, or a comma
		name, after := plainText(b, i)
		if after < 0 || len(name) == 0 {
			return false
		}
		at := slices.IndexFunc(known, func(k string) bool { return k == string(name) })
		if at < 0 || seen&(1<<at) != 0 {
			return false
		}
		seen |= 1 << at
		if i = skipBlank(b, after); i == len(b) || b[i] != ':' {
			return false
		}
		from := skipBlank(b, i+1)
		switch to := into.Field(at); {
		case to.Type() == rawMessage:
			if i = webauthn.SkipValue(b, from); i < 0 || b[from] == 'n' || string(b[from:i]) == `""` {
				return false
			}
			to.SetBytes(bytes.Clone(b[from:i]))
		case to.Type() == plainString:
			text, after := plainText(b, from)
			if i = after; i < 0 || len(text) == 0 && slices.Contains(required, known[at]) {
				return false
			}
			to.SetString(string(text))
		case to.Type() == optionalString:
			text, after := plainText(b, from)
			if i = after; i < 0 || len(text) == 0 && slices.Contains(required, known[at]) {
				return false
			}
			s := string(text)
			to.Set(reflect.ValueOf(&s))
		default:
			return false
		}
		if i = skipBlank(b, i); i == len(b) || b[i] != ',' && b[i] != '}' {
			return false
		}
		if b[i] == '}' {
			break
		}
	}
	for _, name := range required {
		if at := slices.Index(known, name); at < 0 || seen&(1<<at) == 0 {
			return false
		}
	}
	return skipBlank(b, i+1) == len(b)
}

var (
	rawMessage     = reflect.TypeFor[json.RawMessage]()
	plainString    = reflect.TypeFor[string]()
	optionalString = reflect.TypeFor[*string]()
)

// plainText is what a JSON string without escapes says that begins at i, and the index
// behind it; -1 if there is none.
func plainText(b []byte, i int) (text []byte, after int) {
	if i >= len(b) || b[i] != '"' {
		return nil, -1
	}
	from := i + 1
	for i = from; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[from:i], i + 1
		case c < ' ' || c == '\\':
			return nil, -1
		}
	}
	return nil, -1
}

// skipBlank is the index of the first byte from i on that is no white space.
func skipBlank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}
