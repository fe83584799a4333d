package api

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// A slot is a place in a request where a value goes.
type slot struct {
	in     string   // path, query, body
	name   string   // of the parameter
	at     []string // in the body: names of members
	schema *openapi3.Schema
}

// label names a slot in what a test says.
func (s *slot) label() string { return s.in + " " + strings.Join(append(s.at, s.name), ".") }

// slotsOf are the slots of an operation, in its parameters and in its body, however
// deep: the contract names them.
func slotsOf(item *openapi3.PathItem, op *openapi3.Operation) []slot {
	var list []slot
	for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
		list = append(list, slot{in: p.Value.In, name: p.Value.Name, schema: p.Value.Schema.Value})
	}
	if op.RequestBody != nil {
		if m := op.RequestBody.Value.Content["application/json"]; m != nil {
			list = appendSlots(list, nil, m.Schema.Value)
		}
	}
	return list
}

func appendSlots(list []slot, at []string, s *openapi3.Schema) []slot {
	for _, part := range s.AllOf {
		list = appendSlots(list, at, part.Value)
	}
	if len(at) > 4 {
		return list
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name].Value
		list = append(list, slot{in: "body", name: name, at: slices.Clone(at), schema: p})
		switch {
		case p.Items != nil:
			list = appendSlots(list, append(slices.Clone(at), name, "0"), p.Items.Value)
		default:
			list = appendSlots(list, append(slices.Clone(at), name), p)
		}
	}
	return list
}

// put answers a body with a value in a slot.
func (s *slot) put(body any, v any) any { return putAt(body, append(slices.Clone(s.at), s.name), v) }

func putAt(body any, at []string, v any) any {
	if len(at) == 0 {
		return v
	}
	if at[0] == "0" {
		list, _ := body.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list = slices.Clone(list)
		list[0] = putAt(list[0], at[1:], v)
		return list
	}
	members, _ := body.(map[string]any)
	out := maps.Clone(members)
	if out == nil {
		out = map[string]any{}
	}
	out[at[0]] = putAt(out[at[0]], at[1:], v)
	return out
}

// jsonOf is a value's text. A json.RawMessage is taken as it is, even if it is none.
func jsonOf(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	switch v := v.(type) {
	case json.RawMessage:
		return string(v)
	case map[string]any:
		b.WriteByte('{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(jsonOf(t, name) + ":" + jsonOf(t, v[name]))
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(jsonOf(t, e))
		}
		b.WriteByte(']')
	default:
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(out)
	}
	return b.String()
}

// wrongJSON are values for a slot in a body: those that are wrong everywhere, and
// those that are for most slots.
var wrongJSON = map[bool][]string{
	true: {
		`null`, `"a\u0000b"`, "\"\xff\xfe\"", `{"nobody knows":1}`, `[[[[]]]]`, `tru`, `"unfinished`, `1e999`,
	},
	false: {
		`""`, `" "`, `0`, `-1`, `1.5`, `9223372036854775808`, `-9223372036854775809`, `1e18`, `true`, `false`, `[]`, `{}`, `[null]`, `[1]`, `[""]`, `["a\u0007b"]`,
		`{"a":null}`, `{"a":1}`, `"\u0001"`, `"a\nb"`, `"\u202e\u200b"`, `"2026-02-30T00:00:00Z"`, `"9999-12-31T23:59:59Z"`, `"0000-01-01T00:00:00Z"`, `"../../etc"`, `"'; --"`, `"%00"`, `"\ud800"`,
	},
}

// wrongText are values for a slot in a path or a query, as they are written there.
var wrongText = map[bool][]string{
	true:  {"%00", "a%00b", "%0a", "%ff%fe", "a%7f", "%e2%80%a8%01"},
	false: {"", "%20", "-1", "0", "1.5", "9223372036854775808", "99999999999999999999999", "true", "null", "*", "%27%3B--", "..", "a%2fb", "%2e%2e", "%25", "2026-02-30", "%5b%5d", strings.Repeat("a", 300), strings.Repeat("%c3%a4", 3000)},
}

// wrong sends a request that may be wrong, or surely is, and says what is not right
// in how it is answered.
func (w *tries) wrong(m *may, where string, c call, surely bool) {
	w.t.Helper()
	r := c.request()
	r.Header.Set("Authorization", "Bearer "+w.admin)
	answer := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(answer, r)
	said := answer.Body.String()
	complain := func(what string) {
		w.t.Errorf("%s %s, %s: %.200q: %d %.400s: %s", m.method, m.path, where, c.path+" "+c.body, answer.Code, said, what)
	}
	switch {
	case answer.Code >= 500:
		complain("a fault of the server")
	case surely && answer.Code < 400:
		complain("it was taken")
	case answer.Code >= 400:
		var p Problem
		if err := json.Unmarshal(answer.Body.Bytes(), &p); err != nil || p.Status != answer.Code || p.Title == "" || answer.Header().Get("Content-Type") != "application/problem+json" {
			complain("no problem document")
		}
	}
	r = c.request()
	route, params, err := w.router.FindRoute(r)
	if err != nil || route.Method != m.method || strings.Contains(c.path+"/", "//") || strings.HasSuffix(r.URL.Path, "/") {
		return // what was put in the path led elsewhere
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if answer.Code < 300 {
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			complain("the contract would not take it: " + err.Error())
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: answer.Code, Header: answer.Header(), Body: io.NopCloser(strings.NewReader(said)), Options: in.Options,
	}
	if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
		complain("the contract has no such answer: " + err.Error())
	}
}

// Whatever is put into whatever the contract has a place for: what is wrong is told
// so, in a problem document, and what is taken is what the contract would take.
func TestWhatIsWrongIsToldSo(t *testing.T) {
	w := newTries(t)
	doc, router := loadContract(t)
	sent := 0
	for i := range mays {
		m := &mays[i]
		if strings.HasPrefix(m.path, "/v1/imports") && m.method == "POST" && !strings.HasSuffix(m.path, "undo") {
			continue // seed files have tests of their own; a query stands below
		}
		path, body := w.fill(m, "default")
		w.key = w.admin
		route, _, err := router.FindRoute(httptest.NewRequest(m.method, path, nil))
		if err != nil {
			t.Fatal(err)
		}
		item := doc.Paths.Value(route.Path)
		base := call{method: m.method, path: path, body: body, contentType: m.media()}
		if body == "" {
			base.contentType = ""
		}
		wrong := func(where string, surely bool, change func(c *call)) {
			c := base
			change(&c)
			sent++
			w.wrong(m, where, c, surely)
		}
		keyed := strings.HasPrefix(m.path, "/v1/")
		with := func(path, query string) string {
			if strings.Contains(path, "?") {
				return path + "&" + query
			}
			return path + "?" + query
		}
		if keyed {
			wrong("an unknown parameter", true, func(c *call) { c.path = with(path, "nobody_knows=1") })
			wrong("a malformed query", true, func(c *call) { c.path = with(path, "realm=%zz") })
		}
		for _, s := range slotsOf(item, route.Operation) {
			for _, surely := range []bool{true, false} {
				switch s.in {
				case "path":
					segment := strings.Split(route.Path, "/")
					at := slices.Index(segment, "{"+s.name+"}")
					for _, v := range wrongText[surely] {
						bare, query, _ := strings.Cut(path, "?")
						parts := strings.Split(bare, "/")
						parts[at] = v
						wrong(s.label(), surely, func(c *call) {
							if c.path = strings.Join(parts, "/"); query != "" {
								c.path += "?" + query
							}
						})
					}
				case "query":
					bare, _, _ := strings.Cut(path, "?")
					for _, v := range wrongText[surely] {
						wrong(s.label(), surely && keyed, func(c *call) { c.path = bare + "?" + s.name + "=" + v })
					}
					if surely && keyed {
						wrong(s.label()+" twice", true, func(c *call) { c.path = bare + "?" + s.name + "=1&" + s.name + "=1" })
					}
				case "body":
					if m.media() != "application/json" {
						continue
					}
					var plain any
					if body != "" {
						if err := json.Unmarshal([]byte(body), &plain); err != nil {
							t.Fatalf("%s: %v", body, err)
						}
					}
					values := wrongJSON[surely]
					if !surely {
						long, _ := json.Marshal(strings.Repeat("ä", 2000))
						values = append(slices.Clone(values), string(long), `"`+strings.Repeat("a", maxJSON)+`"`)
					}
					for _, v := range values {
						// What may be anything takes anything that is JSON.
						free := len(s.schema.Properties) == 0 && s.schema.Type == nil || s.schema.AdditionalProperties.Schema != nil || s.schema.Nullable ||
							s.schema.Type.Is("object") && len(s.schema.Properties) == 0
						text := jsonOf(t, s.put(plain, json.RawMessage(v)))
						wrong(s.label(), surely && !(free && json.Valid([]byte(text))), func(c *call) { c.body, c.contentType = text, "application/json" })
					}
				}
			}
		}
		if m.media() != "application/json" || route.Operation.RequestBody == nil {
			continue
		}
		for _, text := range []string{"null", "[]", `"x"`, "1", "{", `{"a":1`, "{}}", "{}{}", `{"nobody knows":1}`, strings.Repeat("[", 60_000), strings.Repeat(`{"a":`, 12_000), "\xff", "\x00", `{"":1}`, "<x/>"} {
			wrong("the body", true, func(c *call) { c.body, c.contentType = text, "application/json" })
		}
		if body == "" {
			body = "{}"
		}
		for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "application/jsonp", "application/json; charset=utf-16", "/", ";"} {
			wrong("a body as "+media, media != "application/json; charset=utf-16", func(c *call) { c.body, c.contentType = body, media })
		}
		if members := strings.TrimSuffix(body, "}"); len(members) > 1 {
			wrong("a field twice", true, func(c *call) { c.body, c.contentType = members+","+members[1:]+"}", "application/json" })
			wrong("an unknown field", true, func(c *call) { c.body, c.contentType = members+`,"nobody knows":1}`, "application/json" })
		}
	}
	for _, query := range []string{"dry_run=maybe", "dry_run=true&dry_run=true", "all=2", "partial=", "format=" + strings.Repeat("x", 999), "type=%00", "digits=1.5", "period=-1", "hash=", "realm=%ff", "name=%0a", "nobody_knows=1", "time_origin=" + url.QueryEscape("now")} {
		w.wrong(&may{method: "POST", path: "/v1/imports"}, "query", call{"POST", "/v1/imports?" + query, "A1,00", 0, "application/octet-stream"}, true)
	}
	if sent < 5000 {
		t.Errorf("only %d requests were made", sent)
	}
	t.Logf("%d requests", sent)
}
