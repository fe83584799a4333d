package webauthn

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestObjectsAreReadStrictly: one text for one meaning, and none that two readers
// take for different things.
func TestObjectsAreReadStrictly(t *testing.T) {
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%d":0`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	for _, c := range []struct {
		raw string
		ok  bool
	}{
		{`{}`, true},
		{" {\t} \r\n", true},
		{`{"a":1,"b":[{"c":null}],"d":"\u00e4\"\\"}`, true},
		{`{"a":{"a":1,"a":2}}`, true}, // only members that are read have to differ
		{`{"a":1,"A":2}`, true},
		{`{"a":-0.5e+10}`, true},
		{deep(maxNesting - 1), true},
		{deep(maxNesting), false},
		{many(maxMembers), true},
		{many(maxMembers + 1), false},
		{``, false},
		{`[]`, false},
		{`null`, false},
		{`"a"`, false},
		{`{`, false},
		{`{"a":1`, false},
		{`{"a":1,}`, false},
		{`{,"a":1}`, false},
		{`{"a" 1}`, false},
		{`{"a":}`, false},
		{`{a:1}`, false},
		{`{'a':1}`, false},
		{`{"a":1}{}`, false},
		{`{"a":1} x`, false},
		{`{"a":01}`, false},
		{`{"a":1.}`, false},
		{`{"a":.5}`, false},
		{`{"a":+1}`, false},
		{`{"a":1e}`, false},
		{`{"a":-}`, false},
		{`{"a":tru}`, false},
		{`{"a":True}`, false},
		{`{"a":NaN}`, false},
		{`{"a":[1,]}`, false},
		{`{"a":[1}}`, false},
		{`{"a":{"b"}}`, false},
		{`{"a":"` + "\n" + `"}`, false},
		{`{"a":"\x"}`, false},
		{`{"a":"\u12g4"}`, false},
		{`{"a":"\`, false},
		{"{\"a\":\"\xff\"}", false},
		{"\ufeff{}", false},
		{`{"a":1,"a":1}`, false},
		{`{"a":1,"\u0061":1}`, false},
	} {
		found, err := members([]byte(c.raw), "it")
		if isRefusal(t, err); (err == nil) != c.ok {
			t.Errorf("%.60s is read as %v, %v", c.raw, found, err)
		}
	}
	found, err := members([]byte(`{"\u0061":"x\ny", "b" : [1, 2] , "c":null}`), "it")
	if err != nil || len(found) != 3 || string(found.get("b")) != "[1, 2]" || string(found.get("c")) != "null" || found.get("d") != nil {
		t.Fatalf("read as %s, %v", found, err)
	}
	if s, err := text(found, "a"); err != nil || s != "x\ny" {
		t.Errorf("a text is read as %q, %v", s, err)
	}
	for _, name := range []string{"b", "c", "d"} {
		if s, err := text(found, name); err == nil {
			t.Errorf("%s is text: %q", name, s)
		}
	}
}

// slowMembers reads an object with encoding/json alone.
func slowMembers(raw []byte) (map[string]string, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, io.ErrUnexpectedEOF
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return nil, fmt.Errorf("it begins with %v, %w", first, err)
	}
	found := make(map[string]string)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := found[name.(string)]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		found[name.(string)] = string(value)
	}
	return found, nil
}

// FuzzObject holds members against encoding/json.
func FuzzObject(f *testing.F) {
	for _, raw := range []string{`{}`, `{"a":1,"b":[{"c":null}, true ],"d":"\u00e4\"\\"}`, `{"a":-0.5e+10,"\u0061b":{"":false}}`, `{"a":1,"a":2}`, `{"a":"` + "\xc3" + `"}`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := members(raw, "it")
		isRefusal(t, err)
		want, slow := slowMembers(raw)
		if bytes.Count(raw, []byte("{"))+bytes.Count(raw, []byte("[")) >= maxNesting || len(want) > maxMembers {
			return // stricter than encoding/json
		}
		if (err == nil) != (slow == nil) || len(found) != len(want) {
			t.Fatalf("%q is read as %q, %v; by encoding/json as %q, %v", raw, found, err, want, slow)
		}
		for _, m := range found {
			if want[m.name] != string(m.value) {
				t.Fatalf("in %q %q is %q; by encoding/json %q", raw, m.name, m.value, want[m.name])
			}
			var s string
			isText := json.Unmarshal(m.value, &s) == nil && m.value[0] == '"'
			if got, err := text(found, m.name); (err == nil) != isText || got != s {
				t.Fatalf("in %q the text %q is %q, %v; by encoding/json %q", raw, m.name, got, err, s)
			}
		}
	})
}
