package pskc

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// maxUser is the longest name of a user that is taken over, in bytes.
const maxUser = 255

// userOf answers whom a UserId names: RFC 6030, section 4.1, has a
// distinguished name there, of which the UID or else the CN is taken; some
// products have just the name. Empty if nobody is named.
func userOf(text string) string {
	name := text
	if parts, ok := parseDN(text); ok {
		name = parts["uid"]
		if name == "" {
			name = parts["cn"]
		}
	}
	if len(name) > maxUser || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ""
	}
	return name
}

// parseDN reads a distinguished name (RFC 4514; also with semicolons and white
// space, as RFC 2253 allowed). It answers the first value of each attribute, by
// its name in lower case. Ok is false if text is no distinguished name.
func parseDN(text string) (parts map[string]string, ok bool) {
	parts = make(map[string]string)
	for rest := strings.TrimSpace(text); ; {
		name, after, found := strings.Cut(rest, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !found || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			return nil, false
		}
		value, after, ok := attributeValue(strings.TrimLeft(after, " "))
		if !ok {
			return nil, false
		}
		if _, there := parts[strings.TrimPrefix(name, "oid.")]; !there {
			parts[strings.TrimPrefix(name, "oid.")] = value
		}
		if after == "" {
			return parts, true
		}
		rest = strings.TrimSpace(after[1:])
	}
}

// attributeValue reads a value up to the separator that ends it.
func attributeValue(s string) (value, rest string, ok bool) {
	var b strings.Builder
	keep := 0 // of b: what is not white space at the end
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			if i+1 < len(s) {
				if octet, err := hex.DecodeString(s[i : i+2]); err == nil {
					b.Write(octet)
					keep = b.Len()
					i++
					continue
				}
			}
			b.WriteByte(s[i])
			keep = b.Len()
		case c == '"':
			quoted = !quoted
			keep = b.Len()
		case !quoted && (c == ',' || c == ';' || c == '+'):
			return b.String()[:keep], s[i:], utf8.ValidString(b.String())
		default:
			b.WriteByte(c)
			if c != ' ' || quoted {
				keep = b.Len()
			}
		}
	}
	return b.String()[:keep], "", !quoted && utf8.ValidString(b.String())
}
